"""The tags of a repository, as people want to see them."""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass

from oci.bundle.tagnames import is_internal
from oci.digest import Digest
from oci.reference import Reference
from oci.store import Source, found_manifest


@dataclass(frozen=True, slots=True)
class Tag:
    """`digest` is None where nobody asked, or where the tag went away since it was listed."""

    name: str
    digest: Digest | None = None


def list_tags(source: Source, *, internal: bool = False, digests: Executor | None = None) -> tuple[Tag, ...]:
    """Sorted by name. `internal` shows those that tools make for themselves, too. With threads in `digests` each tag's
    digest is asked for, a HEAD each."""
    names = sorted(name for name in source.tags() if internal or not is_internal(name))
    if digests is None:
        return tuple(Tag(name) for name in names)

    def asked(name: str) -> Tag:
        found = source.head_manifest(name)
        return Tag(name, found.digest if found else None)

    return tuple(digests.map(asked, names))


def resolve_tag(source: Source, reference: Reference) -> Reference:
    """The digest reference that a tag stands for. Raises NotFound."""
    return reference.at(found_manifest(source, reference.identifier).digest)
