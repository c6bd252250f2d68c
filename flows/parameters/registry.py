"""How registries are reached and named in forms.

No parameter is a secret. Prefect stores and returns parameters in clear, so credentials are named here (blocks) or
come from the worker (environment, docker config), and an address that contains a password is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from prefect.blocks.core import Block

from oci.errors import InvalidInput
from oci.mirror.config import BLOCK
from oci.options import option
from oci.reference import S3_PREFIX, ArchiveName
from oci.registry.options import DEFAULT_CONCURRENCY, RegistryOptions
from tasks.run import Side

SLUG = "block_type_slug"
"""The key in a JSON schema by which the forms of Prefect show a drop-down of the blocks of a type."""

BlockName = Annotated[
    str, msgspec.Meta(pattern=BLOCK, min_length=1, max_length=400, extra_json_schema={SLUG: "registry-credentials"})
]
Text = Annotated[str, msgspec.Meta(min_length=1, max_length=4096)]


def block_of(value: Any) -> Any:
    """Returns the name of a block that Prefect has loaded for what a drop-down gives, or the id in that; a name stays
    as it is."""
    if isinstance(value, Block):
        return value._block_document_name  # noqa: SLF001 - Prefect has no other way to it
    reference = value.get("$ref") if isinstance(value, Mapping) else value
    return str(reference["block_document_id"]) if isinstance(reference, Mapping) else reference


def _blocks_of(value: Any) -> Any:
    return [block_of(item) for item in value] if isinstance(value, list | tuple) else [block_of(value)]


def credentials_option(title: str, example: str) -> msgspec.Meta:
    return option(
        title,
        "Registry Credentials blocks, by name; docker-registry-credentials/NAME for those of prefect-docker. Other "
        "registries use the worker's environment and docker config.",
        examples=[[example]],
        max_length=16,
        spelled=_blocks_of,
    )


Credentials = Annotated[tuple[BlockName, ...], credentials_option("Credentials", "registry-example-reader")]
Concurrency = Annotated[int, option("Concurrency", "Requests in flight at a time.", ge=1, le=64, group="advanced")]
Registry = Annotated[RegistryOptions, option("Registry", "How the registries are reached.", group="advanced")]
S3StoreName = Annotated[
    str,
    option(
        "S3 Store",
        "S3 Store block, by name; aws-credentials/NAME or s3-bucket/NAME for those of prefect-aws. Empty: the worker's "
        "environment (AWS_*) says how the store is reached.",
        examples=["corp-archives"],
        pattern=BLOCK,
        max_length=400,
        group="advanced",
        spelled=block_of,
    ),
    msgspec.Meta(extra_json_schema={SLUG: "s3-store"}),
]


ArchiveLocations = Annotated[
    tuple[Text, ...],
    option(
        "Archive",
        "Look into this archive (a file on the worker, or s3://BUCKET/KEY; all volumes of a split one) instead of the "
        "registry. The reference says which of its images.",
        examples=[["s3://archives/config.tar"]],
        max_length=1000,
        flag="--tar",
        commas=False,
    ),
]


class OneSide:
    """Base of the parameters of a flow that uses registries on one side only. They have these fields; `s3_store` is for
    those that read or write archives."""

    __slots__ = ()
    concurrency: int
    credentials: tuple[str, ...]
    registry: RegistryOptions
    s3_store = ""

    def side(self) -> Side:
        return side(self.registry, self.credentials, self.concurrency, self.s3_store)


def without_scheme(text: str) -> str:
    """Returns a reference or a repository without blanks around it. Raises InvalidInput for an address: it would be the
    place for a password."""
    if "://" in text.replace(S3_PREFIX, ""):
        raise InvalidInput("leave out http:// or https://")
    return text.strip()


def archive_location(text: str) -> str:
    """Returns where an archive is, in canonical form. Raises InvalidInput for an address that contains a login."""
    bucket = text.removeprefix(S3_PREFIX).partition("/")[0] if text.startswith(S3_PREFIX) else ""
    if "@" in bucket or ("://" in text and not text.startswith(S3_PREFIX)):
        raise InvalidInput("write s3://BUCKET/KEY, without a login, or the path of a file on the worker")
    return ArchiveName.of(text.strip()).location


def archive_name(locations: tuple[str, ...]) -> ArchiveName | None:
    """Returns the archive of a form, or None where it names none. Raises InvalidInput."""
    return ArchiveName.of(*map(archive_location, locations)) if locations else None


def side(
    options: RegistryOptions,
    credentials: tuple[str, ...],
    concurrency: int = DEFAULT_CONCURRENCY,
    s3_store: str = "",
) -> Side:
    return Side(
        settings=options.with_(concurrency=concurrency),
        credentials=credentials,
        anonymous=options.anonymous,
        s3_store=s3_store,
    )
