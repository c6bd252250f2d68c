"""Amazon's registries, through boto3 and whatever credentials it finds."""

from __future__ import annotations

import base64
import re
from typing import Any

from oci.errors import Unauthorized
from oci.registry.credentials.credential import Credential

PUBLIC = "public.ecr.aws"
_PRIVATE = re.compile(
    r"(?P<account>\d{12})\.dkr[.-]ecr(?:-fips)?\.(?P<region>[a-z0-9-]+)\."
    r"(?:amazonaws\.com(?:\.cn)?|amazonaws\.eu|on\.aws|on\.amazonwebservices\.com\.cn"
    r"|c2s\.ic\.gov|sc2s\.sgov\.gov|cloud\.adc-e\.uk|csp\.hci\.ic\.gov)"
)
"""`dkr.ecr` on IPv4, `dkr-ecr` on both stacks; the last line has the isolated partitions (AWS SDK, endpoints.json)."""


def covers(registry: str) -> bool:
    return registry == PUBLIC or _PRIVATE.fullmatch(registry) is not None


class EcrKeychain:
    """Private registries and `public.ecr.aws`. Tokens live 12 hours and are for all repositories of an account.
    `profile` and `role` (an ARN to assume) replace what boto3 finds by itself."""

    def __init__(self, profile: str = "", role: str = "") -> None:
        self._profile = profile
        self._role = role

    def find(self, registry: str, repository: str) -> Credential | None:
        """Raises Unauthorized when AWS gives no token."""
        del repository
        if not covers(registry):
            return None
        private = _PRIVATE.fullmatch(registry)
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - slow, and only these hosts need it

        try:
            region = private["region"] if private else "us-east-1"
            client = self._session(region).client("ecr" if private else "ecr-public", region_name=region)
            answer: Any = client.get_authorization_token()
            data = answer["authorizationData"][0] if private else answer["authorizationData"]
            username, _, password = base64.b64decode(data["authorizationToken"]).decode().partition(":")
            expires_at = data["expiresAt"].timestamp() - 300
        except (BotoCoreError, ClientError, LookupError, ValueError, AttributeError, TypeError) as error:
            raise Unauthorized(
                f"AWS gave no token for this registry: {error}",
                store=registry,
                operation="logging in",
                hint="check the AWS credentials of this process, and that they allow ecr:GetAuthorizationToken",
            ) from error
        return Credential(username, password, origin="AWS", expires_at=expires_at)

    def _session(self, region: str) -> Any:
        import boto3  # noqa: PLC0415 - takes a quarter of a second, and only these hosts need it

        session = boto3.Session(profile_name=self._profile or None, region_name=region)
        if not self._role:
            return session
        keys = session.client("sts").assume_role(RoleArn=self._role, RoleSessionName="transship")["Credentials"]
        return boto3.Session(
            aws_access_key_id=keys["AccessKeyId"],
            aws_secret_access_key=keys["SecretAccessKey"],
            aws_session_token=keys["SessionToken"],
            region_name=region,
        )
