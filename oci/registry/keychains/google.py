"""Google's registries, through google-auth and its application default credentials."""

from __future__ import annotations

from oci.errors import InvalidInput, Unauthorized
from oci.registry.credentials import Credential

SCOPE = "https://www.googleapis.com/auth/cloud-platform"


def covers(registry: str) -> bool:
    return registry == "gcr.io" or registry.endswith((".gcr.io", ".pkg.dev", ".google.com"))


class GoogleKeychain:
    """`gcr.io`, `*.gcr.io`, `*.pkg.dev` and `*.google.com`."""

    def find(self, registry: str, repository: str) -> Credential | None:
        del repository
        if not covers(registry):
            return None
        try:
            import google.auth  # noqa: PLC0415 - an extra, and only these hosts need it
            from google.auth.exceptions import GoogleAuthError  # noqa: PLC0415
            from google.auth.transport.requests import Request  # noqa: PLC0415
        except ImportError as error:
            raise InvalidInput(
                f"the keychain gke needs google-auth for {registry}", hint="pip install 'transship[google]'"
            ) from error
        try:
            credentials, _ = google.auth.default(scopes=[SCOPE])
            credentials.refresh(Request())
        except GoogleAuthError as error:
            raise Unauthorized(
                f"Google gave no token for this registry: {error}",
                store=registry,
                operation="logging in",
                hint="check the application default credentials of this process",
            ) from error
        expires = credentials.expiry.timestamp() - 300 if credentials.expiry else 0.0
        return Credential("_token", str(credentials.token), origin="Google", expires_at=expires)
