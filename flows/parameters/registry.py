"""How registries are reached and named in forms.

No parameter is a secret. Prefect stores and returns parameters in clear, so credentials are named here (blocks) or
found on the worker (environment, docker config), and an address that carries a password is refused.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from oci.errors import InvalidReference
from oci.reference import S3_PREFIX, ArchiveName
from oci.registry.form import RegistryForm as RegistryOptions
from oci.relocation.session import DEFAULT_CONCURRENCY
from tasks.access import Side

BlockName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=200)]
Credentials = Annotated[
    list[BlockName],
    Field(
        title="Credentials",
        description="Names of Registry Credentials blocks. Other registries use the worker's environment and docker "
        "config.",
        examples=[["registry-example-reader"]],
        max_length=16,
    ),
]


def _without_scheme(name: str) -> str:
    if "://" in name.replace(S3_PREFIX, ""):
        raise ValueError("leave out http:// or https://")
    return name.strip()


StoreText = Annotated[str, Field(min_length=1, max_length=2000), AfterValidator(_without_scheme)]
"""A reference or a repository as people write it: an address in front of it would be the place for a password."""


S3StoreName = Annotated[
    str,
    Field(
        title="S3 Store",
        description="Name of an S3 Store block. Empty: the worker's environment (AWS_*) says how the store is reached.",
        examples=["corp-archives"],
        pattern=r"^([a-z0-9][a-z0-9-]*)?$",
        max_length=200,
    ),
]


def archive_place(text: str) -> str:
    """Where an archive is, in canonical form. Raises ValueError for an address that carries a login."""
    bucket = text.removeprefix(S3_PREFIX).partition("/")[0] if text.startswith(S3_PREFIX) else ""
    if "@" in bucket or ("://" in text and not text.startswith(S3_PREFIX)):
        raise ValueError("write s3://BUCKET/KEY, without a login, or the path of a file on the worker")
    try:
        return ArchiveName.of(text.strip()).locations[0]
    except InvalidReference as error:
        raise ValueError(str(error)) from error


ArchivePlace = Annotated[str, Field(min_length=1, max_length=2000), AfterValidator(archive_place)]
"""An object or a file."""


Concurrency = Annotated[int, Field(title="Concurrency", description="Requests on their way at a time.", ge=1, le=64)]


def side(
    options: RegistryOptions, credentials: list[str], concurrency: int = DEFAULT_CONCURRENCY, s3_store: str = ""
) -> Side:
    """The same for the tasks, which know nothing of forms."""
    return Side(
        settings=options.settings(concurrency),
        credentials=tuple(credentials),
        anonymous=options.anonymous,
        s3_store=s3_store,
    )
