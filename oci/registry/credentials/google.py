"""Google's registries, through google-auth and its application default credentials, or through gcloud."""

from __future__ import annotations

import json
from datetime import datetime

from oci.errors import InvalidInput, Unauthorized
from oci.registry.credentials.credential import Credential

TIMEOUT = 30.0
SCOPE = "https://www.googleapis.com/auth/cloud-platform"


def covers(registry: str) -> bool:
    return registry == "gcr.io" or registry.endswith((".gcr.io", ".pkg.dev", ".google.com"))


class GoogleKeychain:
    """`gcr.io`, `*.gcr.io`, `*.pkg.dev` and `*.google.com`: application default credentials, else those of gcloud."""

    def find(self, registry: str, repository: str) -> Credential | None:
        del repository
        if not covers(registry):
            return None
        try:
            return _application_default(registry)
        except (InvalidInput, Unauthorized):
            credential = _of_gcloud()
            if credential is None:
                raise
            return credential


def _application_default(registry: str) -> Credential:
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
            hint="check the application default credentials of this process, or log in with gcloud",
        ) from error
    expires = credentials.expiry.timestamp() - 300 if credentials.expiry else 0.0
    return Credential("_token", str(credentials.token), origin="Google", expires_at=expires)


def _of_gcloud() -> Credential | None:
    """None where gcloud isn't installed, or nobody is logged in with it."""
    import shutil  # noqa: PLC0415 - only these hosts need them
    import subprocess  # noqa: PLC0415

    program = shutil.which("gcloud")
    if program is None:
        return None
    command = [program, "config", "config-helper", "--force-auth-refresh", "--format=json(credential)"]
    try:
        result = subprocess.run(command, capture_output=True, timeout=TIMEOUT, check=True)  # noqa: S603 - on the user's PATH
        credential = json.loads(result.stdout)["credential"]
        expires = datetime.fromisoformat(credential["token_expiry"]).timestamp() - 300
        return Credential("_token", str(credential["access_token"]), origin="gcloud", expires_at=expires)
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError):
        return None
