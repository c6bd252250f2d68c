"""Credentials kept by the Prefect server and named by a flow's parameters; the secret itself is never a parameter.

Register the block type once per server: `prefect block register --module tasks.blocks`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from prefect.blocks.core import Block
from pydantic import Field, SecretStr, field_validator

from oci.errors import InvalidInput
from oci.reference import HUB
from oci.registry.credentials import Credential


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
