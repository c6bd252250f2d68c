"""The parameters of listing tags, or resolving a tag."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from flows.parameters.registry import Concurrency, Credentials, OneSide, Registry, without_scheme
from oci.options import Options, option
from oci.reference import Reference, parse_any
from oci.registry.options import RegistryOptions
from oci.relocation.session import DEFAULT_CONCURRENCY


class TagAction(StrEnum):
    """What is asked."""

    LIST = "list"
    RESOLVE = "resolve"


class TagsParameters(OneSide, Options, frozen=True, kw_only=True):
    """List the tags of a repository, or ask which digest a tag stands for."""

    image: Annotated[
        str,
        option(
            "Repository or reference",
            "Such as registry.example/shop/web to list, registry.example/shop/web:1.4.0 to resolve; or oci:PATH[:TAG] "
            "for a layout folder.",
            examples=["registry.example/shop/web"],
            min_length=1,
            max_length=2000,
        ),
    ]
    action: Annotated[TagAction, option("Action", "list: all tags. resolve: the digest of a tag.")] = TagAction.LIST
    digests: Annotated[bool, option("Digests", "List each tag with its digest, which takes a request each.")] = False
    internal: Annotated[bool, option("Internal tags", "List the tags that tools make for themselves, too.")] = False
    concurrency: Concurrency = DEFAULT_CONCURRENCY
    credentials: Credentials = ()
    registry: Registry = RegistryOptions()

    def __post_init__(self) -> None:
        self.reference()

    def reference(self) -> Reference:
        return parse_any(without_scheme(self.image))
