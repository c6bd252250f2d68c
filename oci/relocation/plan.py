"""The plan of a relocation: a frozen value, to be printed, stored as JSON, sent to another machine and replayed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from functools import cached_property
from typing import Any

from msgspec import Struct, field
from msgspec.structs import replace

from oci.descriptor import INDEX_TYPES, MANIFEST_TYPES, Descriptor, parse_json
from oci.digest import Digest, digest_of, parse_digest
from oci.errors import InvalidDocument, InvalidReference, NotTrusted, TransshipError
from oci.output import to_dict
from oci.reference import Reference, StoreName, parse_any, parse_store, parse_tag

PLAN_VERSION = 1

_PROBED = 16
"""Blobs that are asked for in a repository without tags before it is taken for empty (`oci.registry.repository`)."""

_LOCATIONS_REQUESTS = 7
"""Requests for a locations image: a HEAD, two blobs of two requests each, two tags."""


class Role(StrEnum):
    """Why a manifest is part of a relocation."""

    ROOT = "root"
    NESTED = "nested bundle"
    LISTED = "listed image"
    CHILD = "index child"
    SIGNATURE = "signature"
    REFERRER = "referrer"


class PlannedManifest(Struct, frozen=True, kw_only=True):
    """One manifest of the graph; `store` is where it was found, `origin` the reference as it stands in the lock that
    lists it."""

    digest: Digest
    media_type: str
    size: int
    store: StoreName
    role: Role
    origin: Reference | None = None
    children: tuple[Digest, ...] = ()
    """Manifests that must be there first: index children, and for a bundle the images it lists."""
    blobs: tuple[Digest, ...] = ()
    """Config and layers, each once."""
    is_bundle: bool = False
    present: bool = False
    """Found at the destination by digest when the plan was made: nothing below it is sent."""
    tags: tuple[str, ...] = ()
    """Names to give it at the destination, last of all. Keep-alive tags are not among them."""
    keep_alive: str = ""
    """The tag that holds it against garbage collection; empty for an index child."""
    platform: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict)
    raw: str = ""
    """The whole text of a manifest that exists nowhere yet: an index rewritten to have fewer platforms."""
    rewritten_from: Digest | None = None

    def __hash__(self) -> int:
        return hash(self.digest)

    @property
    def subject(self) -> str:
        """Returns the name of the image in reports."""
        return str(self.origin or f"{self.store}@{self.digest}")

    @property
    def kind(self) -> str:
        """Returns what it is: "bundle", "index", "image", or, of what travels along, "signature" or "referrer"."""
        if self.role in (Role.SIGNATURE, Role.REFERRER):
            return self.role.value
        return "bundle" if self.is_bundle else "index" if self.media_type in INDEX_TYPES else "image"

    @property
    def held_by_tag(self) -> bool:
        """Pushed once, under its tag, last of all: nothing else is to hold it."""
        return self.role is Role.ROOT and bool(self.tags) and not self.keep_alive


class PlannedBlob(Struct, frozen=True, kw_only=True):
    """One distinct blob that may have to move; `stores` are the places it can be read from, best first."""

    digest: Digest
    size: int
    media_type: str
    stores: tuple[StoreName, ...]
    urls: tuple[str, ...] = ()

    @property
    def descriptor(self) -> Descriptor:
        return Descriptor(self.media_type, self.digest, self.size, urls=self.urls)


class PlannedBundle(Struct, frozen=True, kw_only=True):
    """What the locations image of one bundle has to say: (reference as in its lock, is it a bundle), sorted."""

    digest: Digest
    entries: tuple[tuple[Reference, bool], ...]


class PlanFailure(Struct, frozen=True, kw_only=True):
    """A part of the source that couldn't be read while planning: it is reported and blocks the names above it."""

    subject: str
    message: str
    retryable: bool
    refused: bool = False
    """By the policy of signatures."""

    @classmethod
    def of(cls, subject: object, error: TransshipError) -> PlanFailure:
        refused = isinstance(error, NotTrusted)
        return cls(subject=str(subject), message=str(error), retryable=error.retryable, refused=refused)


class Plan(Struct, frozen=True, kw_only=True, dict=True):
    """Everything a relocation will do. Manifests come parents after children; blobs biggest first."""

    source: str
    """The source as it was asked for."""
    destination: StoreName
    root: Digest | None
    """The bundle, image or index that was asked for; None for a list of images."""
    manifests: tuple[PlannedManifest, ...]
    blobs: tuple[PlannedBlob, ...]
    bundles: tuple[PlannedBundle, ...] = ()
    """Innermost first: in this order the locations images are written."""
    failures: tuple[PlanFailure, ...] = ()
    skipped_layers: tuple[tuple[Digest, Digest], ...] = ()
    """(manifest, layer) of each non-distributable layer that is left out."""
    unchanged: bool = False
    """The destination has all of it under its names already."""
    fresh: bool = False
    """The destination repository had no tag at all when the plan was made."""
    repair: bool = False
    """Nothing at the destination was taken for granted: an image may turn out to be complete there."""
    tags: tuple[str, ...] = ()
    """The names of the root at the destination when all is done, those that it has already among them."""
    attached_left: int = 0
    """Attached artifacts that were seen at the source and aren't asked for."""
    backup: str = ""
    """The template of the tag that an image gets before a tag moves away from it."""
    version: int = PLAN_VERSION

    @cached_property
    def by_digest(self) -> Mapping[Digest, PlannedManifest]:
        return {manifest.digest: manifest for manifest in self.manifests}

    @cached_property
    def blob_by_digest(self) -> Mapping[Digest, PlannedBlob]:
        return {blob.digest: blob for blob in self.blobs}

    @property
    def images(self) -> Iterator[PlannedManifest]:
        """Yields the units of transfer: everything but index children, which travel with their index."""
        return (manifest for manifest in self.manifests if manifest.role is not Role.CHILD)

    def unread_child(self, image: PlannedManifest) -> Digest | None:
        """Returns a child of an index below the image that couldn't be read: the image can't be transferred then."""
        indexes = (manifest for manifest in self.below(image) if not (manifest.present or manifest.is_bundle))
        return next((child for index in indexes for child in index.children if child not in self.by_digest), None)

    def below(self, image: PlannedManifest) -> Iterator[PlannedManifest]:
        """Yields the index children below the image, each once and after its own children, then the image. What a
        bundle lists isn't below it but beside it, and a child that couldn't be read isn't in the plan."""
        visited: set[Digest] = set()

        def walk(manifest: PlannedManifest) -> Iterator[PlannedManifest]:
            visited.add(manifest.digest)
            for digest in () if manifest.is_bundle else manifest.children:
                child = self.by_digest.get(digest)
                if child is not None and digest not in visited:
                    yield from walk(child)
            yield manifest

        return walk(image)

    def bytes_below(self, image: PlannedManifest) -> int:
        """Returns the bytes of the blobs of an image that the destination may lack."""
        missing = (manifest for manifest in self.below(image) if not manifest.present)
        return sum(self.blob_by_digest[blob].size for manifest in missing for blob in manifest.blobs)

    @property
    def bytes_to_move(self) -> int:
        """Returns the bytes of every blob that the destination may lack; some may turn out to be mounted or in
        place."""
        return sum(blob.size for blob in self.blobs)

    @property
    def bytes_to_mount(self) -> int:
        """Bytes that can be mounted: another repository of the destination's registry has them."""
        return sum(blob.size for blob in self.blobs if self.mountable(blob))

    def mountable(self, blob: PlannedBlob) -> bool:
        registry = self.destination.registry
        return bool(registry) and any(store.registry == registry for store in blob.stores)

    @cached_property
    def estimated_requests(self) -> Mapping[str, int]:
        """Requests by registry that carrying the plan out will take when nothing has to be repeated; layout folders
        take none. Blobs that turn out to be there already take fewer."""
        registry = self.destination.registry
        new = [blob for blob in self.blobs if not self.mountable(blob)]
        requests = Counter(blob.stores[0].registry for blob in new)
        requests[registry] += len(self.blobs) + len(new) + (min(len(new), _PROBED) if self.fresh else 0)
        requests[registry] += sum(
            len(manifest.tags) + (not manifest.present and not manifest.held_by_tag) for manifest in self.manifests
        )
        requests[registry] += _LOCATIONS_REQUESTS * len(self.bundles)
        return {name: count for name, count in sorted(requests.items()) if count and name}

    @cached_property
    def to_transfer(self) -> tuple[PlannedManifest, ...]:
        """Returns the images that the destination lacks, biggest first."""
        missing = (image for image in self.images if not image.present)
        return tuple(sorted(missing, key=lambda image: -self.bytes_below(image)))

    def to_dict(self) -> dict[str, Any]:
        return to_dict(self)

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> Plan:
        """Returns the inverse of `to_dict`. A plan may come from another machine: every digest, tag, reference, store
        and media type in it passes the grammar that it passes when it is parsed anywhere else.

        Raises InvalidDocument for another version or shape, and for what isn't one by grammar."""
        try:
            if body.get("version") != PLAN_VERSION:
                raise InvalidDocument(f"plan version {body.get('version')!r}, expected {PLAN_VERSION}")
            plain = {name: body[name] for name in Plan.__struct_fields__ if name in body}
            plain["destination"] = parse_store(_text(body["destination"]))
            plain["tags"] = _tags(body["tags"])
            plain["root"] = parse_digest(body["root"]) if body["root"] else None
            plain["manifests"] = tuple(map(_manifest, body["manifests"]))
            plain["blobs"] = tuple(map(planned_blob, body["blobs"]))
            plain["bundles"] = tuple(
                PlannedBundle(
                    digest=parse_digest(entry["digest"]),
                    entries=tuple((parse_any(_text(ref)), bool(flag)) for ref, flag in entry["entries"]),
                )
                for entry in body["bundles"]
            )
            plain["attached_left"] = _size(body.get("attached_left", 0))
            plain["failures"] = tuple(PlanFailure(**entry) for entry in body["failures"])
            plain["skipped_layers"] = tuple(
                (parse_digest(manifest), parse_digest(layer)) for manifest, layer in body["skipped_layers"]
            )
            return Plan(**plain)
        except (ValueError, TypeError, KeyError, AttributeError, InvalidReference) as error:
            raise InvalidDocument(f"not a relocation plan: {error}") from error

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=1)

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Returns the inverse of `to_json`. Raises InvalidDocument for another version or shape."""
        try:
            return cls.from_dict(parse_json(text))
        except (ValueError, RecursionError) as error:
            raise InvalidDocument(f"not a relocation plan: {error}") from error


def planned_blob(entry: Mapping[str, Any]) -> PlannedBlob:
    """Reads one blob of a stored plan. Raises InvalidInput, TypeError, KeyError or ValueError for another shape."""
    checked = {
        "digest": parse_digest(entry["digest"]),
        "size": _size(entry["size"]),
        "media_type": _text(entry["media_type"]),
        "stores": tuple(parse_store(_text(store)) for store in entry["stores"]),
        "urls": tuple(map(_text, entry["urls"])),
    }
    return PlannedBlob(**{**entry, **checked})


def _manifest(entry: Mapping[str, Any]) -> PlannedManifest:
    if entry["media_type"] not in (*MANIFEST_TYPES, *INDEX_TYPES):
        raise ValueError(f"{str(entry['media_type'])[:100]!r} is not the media type of a manifest")
    raw, digest = _text(entry["raw"]), parse_digest(entry["digest"])
    if raw and digest_of(raw.encode()) != digest:
        raise ValueError(f"the text of {digest} has another digest")
    checked = {
        "digest": digest,
        "size": _size(entry["size"]),
        "store": parse_store(_text(entry["store"])),
        "role": Role(entry["role"]),
        "origin": parse_any(_text(entry["origin"])) if entry["origin"] else None,
        "children": tuple(map(parse_digest, entry["children"])),
        "blobs": tuple(map(parse_digest, entry["blobs"])),
        "tags": _tags(entry["tags"]),
        "keep_alive": parse_tag(entry["keep_alive"]) if entry["keep_alive"] else "",
        "rewritten_from": parse_digest(entry["rewritten_from"]) if entry["rewritten_from"] else None,
    }
    return PlannedManifest(**{**entry, **checked})


def _tags(listed: Iterable[object]) -> tuple[str, ...]:
    return tuple(map(parse_tag, listed))


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected text, got {str(value)[:40]!r}")
    return value


def _size(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"expected a number, got {str(value)[:40]!r}")
    return value


_RANK = (Role.ROOT, Role.NESTED, Role.LISTED, Role.SIGNATURE, Role.REFERRER, Role.CHILD)
"""When a digest belongs to a relocation for several reasons, the first of these counts."""


class Entry(Struct, kw_only=True):
    """A manifest that the walk is to visit: its digest, and the places where it may be, best first."""

    digest: Digest
    places: tuple[StoreName, ...]
    role: Role
    origin: Reference | None = None
    """The reference as its lock has it."""
    hint: bool | None = None
    """Whether it is a bundle: as a root was asked for, or as the locations image of the bundle that lists it says. None
    where that isn't known."""
    tags: tuple[str, ...] = ()
    platform: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict)
    depth: int = 0


class Node(Entry, kw_only=True):
    """A manifest of the source, or one that the destination has, below which the walk does not look."""

    media_type: str
    size: int
    store: StoreName
    children: tuple[Digest, ...] = ()
    blobs: tuple[Descriptor, ...] = ()
    skipped_layers: tuple[Digest, ...] = ()
    is_bundle: bool = False
    listed: tuple[Reference, ...] | None = None
    """The references in a bundle's lock, for its locations image; None where that image is in place already."""
    present: bool = False

    def merge(self, entry: Entry) -> None:
        """Takes in another reason for the same digest."""
        self.role = min(self.role, entry.role, key=_RANK.index)
        self.origin = self.origin or entry.origin
        self.tags = tuple(dict.fromkeys((*self.tags, *entry.tags)))


class Roots(Struct, frozen=True):
    """The source of a request, resolved: the entries to walk from, and the tags that the first of them is to get."""

    source: str
    entries: tuple[Entry, ...]
    tags: tuple[str, ...] = ()
    is_bundle: bool = False
    is_list: bool = False
    requested_tag: str = ""
    """The tag by which the source was asked for, which rules of a policy may name."""


def merged(first: Entry, second: Entry) -> Entry:
    """Joins two entries for the same digest, which the walk has not visited yet."""
    best, other = sorted((first, second), key=lambda entry: _RANK.index(entry.role))
    return replace(
        best,
        places=tuple(dict.fromkeys((*best.places, *other.places))),
        origin=best.origin or other.origin,
        hint=best.hint if best.hint is not None else other.hint,
        tags=tuple(dict.fromkeys((*best.tags, *other.tags))),
    )
