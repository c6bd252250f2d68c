"""Azure's registries, through azure-identity and ACR's token exchange."""

from __future__ import annotations

import base64
import json
import time

from oci.errors import InvalidInput, Unauthorized
from oci.registry.credentials.credential import Credential

_CLOUDS = {
    ".azurecr.io": ("login.microsoftonline.com", "https://management.azure.com/.default"),
    ".azurecr.cn": ("login.chinacloudapi.cn", "https://management.chinacloudapi.cn/.default"),
    ".azurecr.us": ("login.microsoftonline.us", "https://management.usgovcloudapi.net/.default"),
    ".azurecr.de": ("login.microsoftonline.de", "https://management.microsoftazure.de/.default"),
}
"""End of the registry's name: host of the login, and audience of the token (azure-identity, AzureAuthorityHosts)."""

LIFETIME = 3 * 3600.0
"""Seconds that a refresh token of a registry lives (ACR), where it doesn't say so itself."""


def covers(registry: str) -> bool:
    return registry.endswith(tuple(_CLOUDS))


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
            authority, audience = next(cloud for end, cloud in _CLOUDS.items() if registry.endswith(end))
            token = DefaultAzureCredential(authority=authority).get_token(audience).token
        except AzureError as error:
            raise self._failed(registry, str(error)) from error
        refresh_token = self.exchange(registry, token)
        return Credential(
            "<token>", identity_token=refresh_token, origin="Azure", expires_at=_expiry(refresh_token) - 300
        )

    def exchange(self, registry: str, access_token: str) -> str:
        """The registry's refresh token for an Azure AD access token."""
        import httpx  # noqa: PLC0415 - only these hosts need it here

        form = {"grant_type": "access_token", "service": registry, "access_token": access_token}
        try:
            answer = httpx.post(f"https://{registry}/oauth2/exchange", data=form, timeout=30)
            refresh_token = answer.json().get("refresh_token") if answer.status_code == 200 else None
        except (httpx.HTTPError, ValueError, AttributeError) as error:
            raise self._failed(registry, type(error).__name__) from error
        if not isinstance(refresh_token, str):
            raise self._failed(registry, f"the exchange answered {answer.status_code}")
        return refresh_token

    def _failed(self, registry: str, why: str) -> Unauthorized:
        return Unauthorized(
            f"Azure gave no token for this registry: {why}",
            store=registry,
            operation="logging in",
            hint="check the AZURE_* variables or the managed identity of this process",
        )


def _expiry(token: str) -> float:
    """Seconds since the epoch: the `exp` of a JSON Web Token (RFC 7519, 4.1.4), else three hours from now."""
    try:
        claims = token.split(".")[1]
        return float(json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["exp"])
    except (ValueError, LookupError, TypeError, OverflowError, RecursionError):
        return time.time() + LIFETIME
