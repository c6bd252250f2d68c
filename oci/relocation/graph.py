"""What the walk over a source finds: entries to look at, nodes that were found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from oci.descriptor import Descriptor
from oci.digest import Digest
from oci.reference import Reference, StoreName
from oci.relocation.plan import Role

_RANK = (Role.ROOT, Role.NESTED, Role.LISTED, Role.SIGNATURE, Role.REFERRER, Role.CHILD)
"""When one digest is there for several reasons, the first of these is the one that counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Something that is to be looked at: a digest and the places where it may be, best first."""

    digest: Digest
    places: tuple[StoreName, ...]
    role: Role
    origin: Reference | None = None
    """The reference as its lock has it."""
    hint: bool | None = None
    """What the locations of its bundle say: is it a bundle? None where they say nothing."""
    tags: tuple[str, ...] = ()
    platform: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)
    depth: int = 0


@dataclass(slots=True, kw_only=True)
class Node:
    """A manifest that was found, or one that the destination has so that nobody looked any further."""

    digest: Digest
    media_type: str
    size: int
    store: StoreName
    places: tuple[StoreName, ...]
    role: Role
    origin: Reference | None = None
    children: tuple[Digest, ...] = ()
    blobs: tuple[Descriptor, ...] = ()
    skipped_layers: tuple[Digest, ...] = ()
    is_bundle: bool = False
    listed: tuple[Reference, ...] | None = None
    """A bundle's own entries, for its locations image; None where that is in place already."""
    present: bool = False
    tags: tuple[str, ...] = ()
    platform: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict)

    def merge(self, entry: Entry) -> None:
        """Takes in another reason for the same digest."""
        if _RANK.index(entry.role) < _RANK.index(self.role):
            self.role = entry.role
        self.origin = self.origin or entry.origin
        self.tags = tuple(dict.fromkeys((*self.tags, *entry.tags)))


@dataclass(frozen=True, slots=True)
class Roots:
    """What a request comes down to: the entries to walk from, and the tags that the first of them is to get."""

    source: str
    entries: tuple[Entry, ...]
    tags: tuple[str, ...] = ()
    is_bundle: bool = False
    is_list: bool = False


def merged(first: Entry, second: Entry) -> Entry:
    """Two entries for one digest as one, before anybody has looked."""
    best, other = sorted((first, second), key=lambda entry: _RANK.index(entry.role))
    return replace(
        best,
        places=tuple(dict.fromkeys((*best.places, *other.places))),
        origin=best.origin or other.origin,
        hint=best.hint if best.hint is not None else other.hint,
        tags=tuple(dict.fromkeys((*best.tags, *other.tags))),
    )
