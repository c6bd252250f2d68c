"""Azure's registries, through azure-identity and ACR's token exchange."""

from __future__ import annotations

from oci.errors import InvalidInput, Unauthorized
from oci.registry.credentials.credential import Credential

SCOPE = "https://management.azure.com/.default"
_HOSTS = (".azurecr.io", ".azurecr.cn", ".azurecr.de", ".azurecr.us")


def covers(registry: str) -> bool:
    return registry.endswith(_HOSTS)


class AzureKeychain:
    """`*.azurecr.io/.cn/.de/.us`: an Azure AD token is exchanged for a refresh token of the registry.
    `mcr.microsoft.com` is public and needs none."""

    def find(self, registry: str, repository: str) -> Credential | None:
        del repository
        if not covers(registry):
            return None
        try:
            from azure.core.exceptions import AzureError  # noqa: PLC0415 - an extra, and only these hosts need it
            from azure.identity import DefaultAzureCredential  # noqa: PLC0415
        except ImportError as error:
            raise InvalidInput(
                f"the keychain aks needs azure-identity for {registry}", hint="pip install 'transship[azure]'"
            ) from error
        try:
            token = DefaultAzureCredential().get_token(SCOPE).token
        except AzureError as error:
            raise self._failed(registry, str(error)) from error
        return Credential("<token>", identity_token=self.exchange(registry, token), origin="Azure")

    def exchange(self, registry: str, access_token: str) -> str:
        """The registry's refresh token for an Azure AD access token."""
        import httpx  # noqa: PLC0415 - only these hosts need it here

        form = {"grant_type": "access_token", "service": registry, "access_token": access_token}
        try:
            answer = httpx.post(f"https://{registry}/oauth2/exchange", data=form, timeout=30)
            found = answer.json().get("refresh_token") if answer.status_code == 200 else None
        except (httpx.HTTPError, ValueError, AttributeError) as error:
            raise self._failed(registry, type(error).__name__) from error
        if not isinstance(found, str):
            raise self._failed(registry, f"the exchange answered {answer.status_code}")
        return found

    def _failed(self, registry: str, why: str) -> Unauthorized:
        return Unauthorized(
            f"Azure gave no token for this registry: {why}",
            store=registry,
            operation="logging in",
            hint="check the AZURE_* variables or the managed identity of this process",
        )
