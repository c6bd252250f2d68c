"""Credentials that the Prefect server stores: a flow's parameters name them, and never contain the secret.

Register the block type once per server: `prefect block register --module tasks.blocks`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from prefect.blocks.core import Block
from pydantic import Field, SecretStr, field_validator

from oci.archive.s3_options import S3Options
from oci.errors import InvalidInput
from oci.options import fields_of
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
    username: str = Field(default="", title="User name", description="Empty where a token takes its place.")
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


_S3_OPTIONS = {option.name: option for option in fields_of(S3Options)}


def _declared(name: str, more: str = "") -> Any:
    """Makes the field of a block from the declaration of the option; `more` says what holds on a worker."""
    option = _S3_OPTIONS[name]
    return Field(
        default=SecretStr("") if name in ("secret_key", "session_token") else option.default,
        title=option.title,
        description=" ".join(filter(None, (option.help, more))),
        examples=list(option.examples) or None,
        pattern=option.pattern,
        max_length=option.max_length if option.is_mapping else None,
        ge=option.ge,
        le=option.le,
    )


class S3Store(Block):
    """An object store for archives: how it is reached, which keys are used, and what written objects get."""

    _block_type_name: ClassVar[str | None] = "S3 Store"
    _block_type_slug: ClassVar[str | None] = "s3-store"
    _description: ClassVar[str | None] = "An object store for archives: Amazon S3, or a store with the same interface."

    endpoint: str = _declared("endpoint", "Empty: the worker's AWS_ENDPOINT_URL_S3, else Amazon.")
    region: str = _declared("region", "Empty: the worker's, else us-east-1.")
    access_key: str = _declared("access_key", "Empty: what boto3 finds on the worker (AWS_*, ~/.aws, a role).")
    secret_key: SecretStr = _declared("secret_key")
    session_token: SecretStr = _declared("session_token")
    profile: str = _declared("profile", "The files are on the worker.")
    role: str = _declared("role")
    path_style: bool = _declared("path_style")
    ca_file: str = _declared("ca_file", "The file is on the worker.")
    verify_tls: bool = _declared("verify_tls")
    encryption: str = _declared("encryption")
    storage_class: str = _declared("storage_class")
    tags: dict[str, str] = _declared("tags")
    checksums: Literal["when_supported", "when_required"] = _declared("checksums")
    connections: int = _declared("connections")
    timeout: float = _declared("timeout", "In seconds.")
    tries: int = _declared("tries")
    abandoned_after_days: float = Field(
        default=7.0,
        title="Abandoned after days",
        description="Remove an unfinished upload of the same object that got no new part for this many days.",
        ge=1,
        le=365,
    )

    def settings(self) -> S3Options:
        values = {name: getattr(self, name) for name in S3Options.__struct_fields__ if hasattr(self, name)}
        plain: dict[str, Any] = {
            name: value.get_secret_value() if isinstance(value, SecretStr) else value for name, value in values.items()
        }
        return S3Options(**plain, abandoned_after=self.abandoned_after_days * 86_400)


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
