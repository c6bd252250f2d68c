"""Credentials kept by the Prefect server and named by a flow's parameters; the secret itself is never a parameter.

Register the block type once per server: `prefect block register --module tasks.blocks`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from prefect.blocks.core import Block
from pydantic import Field, SecretStr, field_validator

from oci.archive.s3_options import S3Options
from oci.errors import InvalidInput
from oci.reference import HUB
from oci.registry.credentials.credential import Credential


class RegistryCredentials(Block):
    """The login of one registry: user name and password, or one of the two kinds of token."""

    _block_type_name: ClassVar[str | None] = "Registry Credentials"
    _block_type_slug: ClassVar[str | None] = "registry-credentials"
    _description: ClassVar[str | None] = "The login of one container registry, used by transship for that host only."

    registry: str = Field(
        title="Registry host",
        description="Host with its port, without https:// and without a repository. Used for this host only.",
        examples=["registry.corp.example", "ghcr.io", "localhost:5000"],
        min_length=1,
        pattern=r"^[^/@\s]+$",
    )
    username: str = Field(default="", title="User name", description="Empty when a token is given instead.")
    password: SecretStr = Field(
        default=SecretStr(""), title="Password", description="Password or access token that belongs to the user name."
    )
    identity_token: SecretStr = Field(
        default=SecretStr(""),
        title="Identity token",
        description="OAuth refresh token, as docker login stores it for some registries.",
    )
    registry_token: SecretStr = Field(
        default=SecretStr(""), title="Registry token", description="Bearer token sent to the registry as it is."
    )

    @field_validator("registry")
    @classmethod
    def _canonical_host(cls, host: str) -> str:
        return HUB if host == "docker.io" else host

    def credential(self) -> Credential:
        return Credential(
            username=self.username,
            password=self.password.get_secret_value(),
            identity_token=self.identity_token.get_secret_value(),
            registry_token=self.registry_token.get_secret_value(),
            origin=f"block {self._block_document_name or self.registry}",
        )


class S3Store(Block):
    """An object store that archives are in: how it is reached, who we are there, and what objects get."""

    _block_type_name: ClassVar[str | None] = "S3 Store"
    _block_type_slug: ClassVar[str | None] = "s3-store"
    _description: ClassVar[str | None] = "An object store for archives: Amazon S3, or one that speaks its language."

    endpoint: str = Field(
        default="",
        title="Endpoint",
        description="Of what isn't Amazon S3. Empty: the worker's AWS_ENDPOINT_URL_S3, else Amazon.",
        examples=["https://s3.corp.example"],
        pattern=r"^(https?://[^@\s]+)?$",
    )
    region: str = Field(default="", title="Region", description="Empty: the worker's, else us-east-1.")
    access_key: str = Field(
        default="", title="Access key", description="Empty: what boto3 finds on the worker (AWS_*, ~/.aws, a role)."
    )
    secret_key: SecretStr = Field(default=SecretStr(""), title="Secret key")
    session_token: SecretStr = Field(default=SecretStr(""), title="Session token")
    profile: str = Field(default="", title="Profile", description="Of the AWS config files on the worker.")
    role: str = Field(
        default="",
        title="Role",
        description="ARN of a role to assume; its keys are renewed as long as a run takes.",
        examples=["arn:aws:iam::123456789012:role/archives"],
    )
    path_style: bool = Field(
        default=False,
        title="Path style",
        description="https://ENDPOINT/BUCKET/KEY instead of https://BUCKET.ENDPOINT/KEY.",
    )
    ca_file: str = Field(
        default="", title="CA file", description="PEM file on the worker to trust instead of the system's."
    )
    verify_tls: bool = Field(
        default=True, title="Verify TLS certificates", description="Switch off for a test store only."
    )
    encryption: str = Field(
        default="",
        title="Encryption",
        description="AES256, aws:kms, or aws:kms:KEY-ID. Empty: as the bucket says.",
        pattern=r"^(AES256|aws:kms(:.+)?)?$",
    )
    storage_class: str = Field(
        default="", title="Storage class", description="Empty: the bucket's.", examples=["STANDARD_IA"]
    )
    tags: dict[str, str] = Field(
        default={}, title="Tags", description="Of every archive that is written.", max_length=10
    )
    checksums: Literal["when_supported", "when_required"] = Field(
        default="when_supported",
        title="Checksums",
        description="when_required: for stores that know no checksum but MD5.",
    )
    abandoned_after_days: float = Field(
        default=7.0,
        title="Abandoned after days",
        description="Parts of an upload that nothing was added to for so long are removed by the next run.",
        ge=1,
        le=365,
    )

    def settings(self) -> S3Options:
        return S3Options(
            endpoint=self.endpoint,
            region=self.region,
            access_key=self.access_key,
            secret_key=self.secret_key.get_secret_value(),
            session_token=self.session_token.get_secret_value(),
            profile=self.profile,
            role=self.role,
            path_style=self.path_style,
            ca_file=self.ca_file,
            verify_tls=self.verify_tls,
            encryption=self.encryption,
            storage_class=self.storage_class,
            tags=self.tags,
            checksums=self.checksums,
            abandoned_after=self.abandoned_after_days * 86_400,
        )


async def load_s3(name: str) -> S3Options:
    """By name; without one, all is left to the environment. Raises InvalidInput when there is no such block."""
    if not name:
        return S3Options()
    try:
        block: S3Store = await S3Store.aload(name)
    except ValueError as error:
        raise InvalidInput(
            f"there is no S3 Store block named {name!r}",
            hint="create it in the Prefect UI under Blocks, or correct the name",
        ) from error
    return block.settings()


class BlockCredentials:
    """A CredentialSource of loaded blocks: each answers for its own registry and for no other."""

    def __init__(self, blocks: Sequence[RegistryCredentials]) -> None:
        self._by_registry = {block.registry: block.credential() for block in reversed(blocks)}

    def find(self, registry: str, repository: str) -> Credential | None:  # noqa: ARG002 - a block covers a whole host
        return self._by_registry.get(registry)


async def load_credentials(names: Sequence[str]) -> BlockCredentials:
    """Loads blocks by name. Raises InvalidInput when there is none of a name."""
    blocks = []
    for name in names:
        try:
            blocks.append(await RegistryCredentials.aload(name))
        except ValueError as error:
            raise InvalidInput(
                f"there is no Registry Credentials block named {name!r}",
                hint="create it in the Prefect UI under Blocks, or correct the name",
            ) from error
    return BlockCredentials(blocks)
