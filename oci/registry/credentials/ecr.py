"""Amazon's registries, through boto3 and whatever credentials it finds."""

from __future__ import annotations

import base64
import re
from typing import Any

from oci.errors import Unauthorized
from oci.registry.credentials.credential import Credential

PUBLIC = "public.ecr.aws"
_PRIVATE = re.compile(r"(?P<account>\d{12})\.dkr\.ecr(?:-fips)?\.(?P<region>[a-z0-9-]+)\.amazonaws\.com(?:\.cn)?")


def covers(registry: str) -> bool:
    return registry == PUBLIC or _PRIVATE.fullmatch(registry) is not None


class EcrKeychain:
    """`<account>.dkr.ecr[-fips].<region>.amazonaws.com[.cn]` and `public.ecr.aws`. Tokens live 12 hours."""

    def find(self, registry: str, repository: str) -> Credential | None:
        del repository
        if not covers(registry):
            return None
        private = _PRIVATE.fullmatch(registry)
        import boto3  # noqa: PLC0415 - takes a quarter of a second, and only these hosts need it
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

        try:
            if private is None:
                found: Any = boto3.client("ecr-public", region_name="us-east-1").get_authorization_token()
                data = found["authorizationData"]
            else:
                found = boto3.client("ecr", region_name=private["region"]).get_authorization_token()
                data = found["authorizationData"][0]
            username, _, password = base64.b64decode(data["authorizationToken"]).decode().partition(":")
        except (BotoCoreError, ClientError, KeyError, ValueError) as error:
            raise Unauthorized(
                f"AWS gave no token for this registry: {error}",
                store=registry,
                operation="logging in",
                hint="check the AWS credentials of this process, and that they allow ecr:GetAuthorizationToken",
            ) from error
        return Credential(username, password, origin="AWS", expires_at=data["expiresAt"].timestamp() - 300)
