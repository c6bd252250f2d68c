"""The plan of a prune: a frozen value to be printed, reviewed, stored as JSON and carried out later."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

from oci.digest import Digest, parse_digest
from oci.errors import InvalidDocument, InvalidInput
from oci.prune.keep import Keep
from oci.reference import parse_store, parse_tag

PLAN_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class UnwantedManifest:
    """A manifest that nothing kept needs, with every tag that shows it. Sizes in bytes."""

    digest: Digest
    kind: str
    """"image", "index", "bundle", "artifact", or "attachment" for what a tag attaches to another digest."""
    size: int
    blobs: tuple[tuple[Digest, int], ...] = ()
    """Those that no kept manifest lists, as far as kept ones were read."""
    tags: tuple[str, ...] = ()
    after: tuple[Digest, ...] = ()
    """Unwanted manifests that list it or that it is attached to: they go first."""
    since: datetime
    """First seen unwanted, as it is now: with these tags."""
    due: bool = True
    """Its grace period is over, and that of all in `after`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnwantedTag:
    """A tag that isn't wanted, on a manifest that is needed."""

    tag: str
    digest: Digest
    because: str
    """What needs the manifest."""
    others: tuple[str, ...] = ()
    """Tags on the same manifest that stay."""
    since: datetime
    due: bool = True


@dataclass(frozen=True, kw_only=True)
class PrunePlan:
    """What a destination has beyond a policy. Manifests stand in the order in which they go: before all they list."""

    destination: str
    keep: Keep
    grace: timedelta
    made: datetime
    manifests: tuple[UnwantedManifest, ...] = ()
    tags: tuple[UnwantedTag, ...] = ()
    tags_seen: int = 0
    manifests_kept: int = 0
    warnings: tuple[str, ...] = ()
    version: int = PLAN_VERSION

    @cached_property
    def by_digest(self) -> Mapping[Digest, UnwantedManifest]:
        return {manifest.digest: manifest for manifest in self.manifests}

    @property
    def due_manifests(self) -> tuple[UnwantedManifest, ...]:
        return tuple(manifest for manifest in self.manifests if manifest.due)

    @property
    def due_tags(self) -> tuple[UnwantedTag, ...]:
        return tuple(tag for tag in self.tags if tag.due)

    @property
    def bytes_to_free(self) -> int:
        """At most: what is due, with the blobs that nothing else lists. A registry frees them when it collects garbage,
        and other repositories may use them."""
        return bytes_freed(self.manifests, {one.digest for one in self.due_manifests})

    @property
    def waiting(self) -> int:
        """Manifests and tags whose grace period isn't over."""
        return len(self.manifests) + len(self.tags) - len(self.due_manifests) - len(self.due_tags)

    @property
    def is_empty(self) -> bool:
        """Nothing is to be deleted now."""
        return not (self.due_manifests or self.due_tags)

    def to_dict(self) -> dict[str, Any]:
        body = asdict(self)
        body["keep"] = self.keep.to_dict()
        body["grace"] = self.grace.total_seconds()
        body["made"] = self.made.isoformat()
        for entry in (*body["manifests"], *body["tags"]):
            entry["since"] = entry["since"].isoformat()
        return body

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=1)

    @classmethod
    def from_json(cls, text: str) -> PrunePlan:
        """The inverse of `to_json`. Raises InvalidDocument for another version or shape."""
        try:
            body = json.loads(text)
            if body.get("version") != PLAN_VERSION:
                raise InvalidDocument(f"prune plan version {body.get('version')!r}, expected {PLAN_VERSION}")
            parse_store(body["destination"])
            return cls(
                **{
                    **body,
                    "keep": Keep.from_dict(body["keep"]),
                    "grace": timedelta(seconds=body["grace"]),
                    "made": _time(body["made"]),
                    "manifests": tuple(_manifest(entry) for entry in body["manifests"]),
                    "tags": tuple(_tag(entry) for entry in body["tags"]),
                    "warnings": tuple(body["warnings"]),
                }
            )
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError, InvalidInput) as error:
            if isinstance(error, InvalidDocument):
                raise
            raise InvalidDocument(f"not a prune plan: {error}") from error


def bytes_freed(manifests: Collection[UnwantedManifest], gone: Collection[Digest]) -> int:
    """When those of `manifests` that are `gone` go, and the others stay."""
    used = {digest for one in manifests if one.digest not in gone for digest, _ in one.blobs}
    blobs = {digest: size for one in manifests if one.digest in gone for digest, size in one.blobs}
    return sum(one.size for one in manifests if one.digest in gone) + sum(
        size for digest, size in blobs.items() if digest not in used
    )


def _manifest(entry: Mapping[str, Any]) -> UnwantedManifest:
    read = {
        "digest": parse_digest(entry["digest"]),
        "blobs": tuple((parse_digest(digest), int(size)) for digest, size in entry["blobs"]),
        "tags": tuple(parse_tag(tag) for tag in entry["tags"]),
        "after": tuple(parse_digest(digest) for digest in entry["after"]),
        "since": _time(entry["since"]),
    }
    return UnwantedManifest(**{**entry, **read})


def _tag(entry: Mapping[str, Any]) -> UnwantedTag:
    read = {
        "tag": parse_tag(entry["tag"]),
        "digest": parse_digest(entry["digest"]),
        "others": tuple(parse_tag(tag) for tag in entry["others"]),
        "since": _time(entry["since"]),
    }
    return UnwantedTag(**{**entry, **read})


def _time(text: str) -> datetime:
    """Raises ValueError for a time without a zone, which could be any."""
    found = datetime.fromisoformat(text)
    if found.tzinfo is None:
        raise ValueError(f"{text} has no time zone")
    return found.astimezone(UTC)
