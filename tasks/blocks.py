"""Credentials that the Prefect server stores: a flow's parameters name them, and never contain the secret.

Register the block types once per server: `prefect block register --module tasks.blocks`, or `transship mirror deploy`.
The package names this module as a collection of Prefect, so that programs load its blocks without importing it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, TypeVar
from uuid import UUID

from prefect.blocks.core import Block
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import BlockDocument
from prefect.exceptions import ObjectNotFound
from pydantic import Field, SecretStr, ValidationError, field_validator

from oci.archive.options import S3Options
from oci.errors import InvalidInput
from oci.mirror.config import MirrorsConfig
from oci.mirror.reader import parse_config, read_config
from oci.options import fields_of
from oci.reference import HUB
from oci.registry.credentials.credential import Credential
from oci.registry.http.origin import canonical_host
from oci.registry.options import RegistryOptions
from oci.signatures import keys

T = TypeVar("T")


class RegistryCredentials(Block):
    """The login of one registry, user name and password or one of the two kinds of token, and how it is reached."""

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

    settings: dict[str, Any] = Field(
        default={},
        title="Settings",
        description="Options of this registry, as under registries in mirrors.yaml. They override those of the form.",
        examples=[{"insecure": True}, {"ca_files": ["/etc/ssl/corp-ca.pem"], "requests_per_second": 10}],
    )

    @field_validator("settings")
    @classmethod
    def _known_settings(cls, settings: dict[str, Any]) -> dict[str, Any]:
        try:
            RegistryOptions.read(settings)
        except InvalidInput as error:
            raise ValueError(str(error)) from error
        return settings

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


class SigningKey(Block):
    """A private key that signs archives and receipts, with its password where it has one."""

    _block_type_name: ClassVar[str | None] = "Signing Key"
    _block_type_slug: ClassVar[str | None] = "signing-key"
    _description: ClassVar[str | None] = "A private key with which transship signs archives and receipts."

    key: SecretStr = Field(
        title="Private key",
        description="PEM: PKCS #8, plain or encrypted, or cosign's encrypted form (cosign.key).",
    )
    password: SecretStr = Field(default=SecretStr(""), title="Password", description="Empty for a key that has none.")


async def load_signing_key(name: str) -> keys.PrivateKey | None:
    """By name; None without one. Raises InvalidInput when there is no such block, and for a key that can't be read."""
    if not name:
        return None
    return await _loaded(name, SigningKey, _KEYS)


async def load_s3(name: str) -> S3Options:
    """Loads an S3 Store block, or the AWS Credentials or S3 Bucket of prefect-aws, which needn't be installed. Without
    a name, all is left to the environment. Raises InvalidInput when there is no such block."""
    return await _loaded(name, S3Store, _STORES) if name else S3Options()


def _own_store(document: BlockDocument) -> S3Options:
    return S3Store(**document.data).settings().with_(origin=f"block {document.name}")


VARIABLE = "variable:"
"""What a file of mirrors begins with that is a variable of Prefect: its text, or its value in JSON."""


def read_mirrors(path: str) -> MirrorsConfig:
    """Reads a file of mirrors, or `variable:NAME`, which all workers share. What stands in a variable gets neither the
    worker's files without its consent nor its environment: whoever reaches the Prefect server may change it. Not to be
    called in an event loop. Raises what `read_config` raises, and InvalidInput where there is no such variable."""
    if not path.startswith(VARIABLE):
        return read_config(path)
    name = path.removeprefix(VARIABLE)
    with get_client(sync_client=True) as client:
        variable = client.read_variable_by_name(name)
    if variable is None:
        hint = "make it in the Prefect UI under Variables, or correct the name"
        raise InvalidInput(f"there is no variable named {name!r}", hint=hint)
    data = variable.value if isinstance(variable.value, str) else json.dumps(variable.value)
    return parse_config(data.encode(), path, {})


class BlockCredentials:
    """A CredentialSource of loaded blocks: each answers for its own registry and for no other."""

    def __init__(self, blocks: Sequence[RegistryCredentials]) -> None:
        self._by_registry = {canonical_host(block.registry): block for block in reversed(blocks)}

    def settings(self, over: RegistryOptions) -> dict[str, RegistryOptions]:
        """Returns how the registries of the blocks that say so are reached, with the rest from `over`."""
        return {
            host: RegistryOptions.read(over.to_dict() | block.settings)
            for host, block in self._by_registry.items()
            if block.settings
        }

    def find(self, registry: str, repository: str) -> Credential | None:  # noqa: ARG002 - a block covers a whole host
        block = self._by_registry.get(canonical_host(registry))
        if block is None or (block.settings and block.credential().is_anonymous):
            return None
        return block.credential()


async def load_credentials(names: Sequence[str]) -> BlockCredentials:
    """Loads Registry Credentials blocks, or the Docker Registry Credentials of prefect-docker, which needn't be
    installed. Raises InvalidInput when there is none of a name."""
    return BlockCredentials([await _loaded(name, RegistryCredentials, _LOGINS) for name in names])


def slug_and_name(reference: str, default: type[Block]) -> tuple[str, str]:
    """Returns the type and the name of `NAME`, a block of this project, or of `TYPE/NAME`, such as
    `docker-registry-credentials/corp`."""
    slug, _, name = reference.rpartition("/")
    return slug or default.get_block_type_slug(), name


async def _loaded(reference: str, default: type[Block], readers: Mapping[str, Callable[[BlockDocument], T]]) -> T:
    """Reads a block by `NAME`, one of the type `default`, by `TYPE/NAME`, or by the id that a form's drop-down gives.
    `readers` make one kind of value of blocks of several types."""
    slug, name = slug_and_name(reference, default)
    async with get_client() as client:
        try:
            document = (
                await client.read_block_document(UUID(name))
                if _ID.fullmatch(reference)
                else await client.read_block_document_by_name(name, slug)
            )
        except ObjectNotFound as error:
            kind = default.get_block_type_name() if slug == default.get_block_type_slug() else slug
            hint = f"make it in the Prefect UI (Blocks, +, {kind}), or correct the name"
            raise InvalidInput(f"there is no {kind} block named {name!r}", hint=hint) from error
    kind = document.block_type.slug if document.block_type else slug
    if kind not in readers:
        slugs = ", ".join(sorted(readers))
        raise InvalidInput(f"the block {document.name!r} is of the type {kind}", hint=f"choose one of {slugs}")
    try:
        return readers[kind](document)
    except ValidationError as error:
        wrong = ", ".join(".".join(map(str, problem["loc"])) for problem in error.errors(include_input=False))
        raise InvalidInput(f"the block {kind}/{document.name} can't be used", hint=f"look at its {wrong}") from None


_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def _own_login(document: BlockDocument) -> RegistryCredentials:
    block = RegistryCredentials(**document.data)
    block._block_document_name = document.name  # noqa: SLF001 - as Prefect does; the report names it
    return block


def _docker_login(document: BlockDocument) -> RegistryCredentials:
    """Of prefect-docker: `registry_url` may be a host or an address."""
    data = document.data
    host = data.get("registry_url", HUB).partition("://")[2] or data.get("registry_url", HUB)
    login = {"registry": host.partition("/")[0], "username": data["username"], "password": data["password"]}
    return _own_login(document.model_copy(update={"data": login}))


def _aws(document: BlockDocument) -> S3Options:
    """Of prefect-aws's AwsCredentials or MinIOCredentials, or of an S3Bucket with one of these."""
    data = document.data.get("credentials") or document.data
    client = data.get("aws_client_parameters") or {}
    values: dict[str, Any] = {
        "access_key": data.get("aws_access_key_id") or data.get("minio_root_user"),
        "secret_key": data.get("aws_secret_access_key") or data.get("minio_root_password"),
        "session_token": data.get("aws_session_token"),
        "profile": data.get("profile_name"),
        "region": data.get("region_name"),
        "endpoint": client.get("endpoint_url"),
        "ca_file": client.get("verify_cert_path"),
        "origin": f"block {document.name}",
    }
    return S3Options(**{name: value for name, value in values.items() if value}, verify_tls=client.get("verify", True))


def _signing_key(document: BlockDocument) -> keys.PrivateKey:
    block = SigningKey(**document.data)
    data, password = block.key.get_secret_value().encode(), block.password.get_secret_value() or None
    return keys.read_signing_key(data, f"block {document.name}", password)


_KEYS = {"signing-key": _signing_key}
_LOGINS = {"registry-credentials": _own_login, "docker-registry-credentials": _docker_login}
_STORES = {"s3-store": _own_store, "aws-credentials": _aws, "minio-credentials": _aws, "s3-bucket": _aws}
