"""How registries are reached and named in forms.

No parameter is a secret. Prefect stores and returns parameters in clear, so credentials are named here (blocks) or
come from the worker (environment, docker config), and an address that contains a password is refused.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from oci.errors import InvalidInput
from oci.options import option
from oci.reference import S3_PREFIX, ArchiveName
from oci.registry.options import DEFAULT_CONCURRENCY, RegistryOptions
from tasks.access import Side

BlockName = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=200)]
Text = Annotated[str, msgspec.Meta(min_length=1, max_length=4096)]

Credentials = Annotated[
    tuple[BlockName, ...],
    option(
        "Credentials",
        "Names of Registry Credentials blocks. Other registries use the worker's environment and docker config.",
        examples=[["registry-example-reader"]],
        max_length=16,
    ),
]
Concurrency = Annotated[int, option("Concurrency", "Requests in flight at a time.", ge=1, le=64, group="advanced")]
Registry = Annotated[RegistryOptions, option("Registry", "How the registries are reached.", group="advanced")]
S3StoreName = Annotated[
    str,
    option(
        "S3 Store",
        "Name of an S3 Store block. Empty: the worker's environment (AWS_*) says how the store is reached.",
        examples=["corp-archives"],
        pattern=r"^([a-z0-9][a-z0-9-]*)?$",
        max_length=200,
        group="advanced",
    ),
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
