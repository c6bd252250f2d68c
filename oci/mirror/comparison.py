"""The result of comparing a mirror's source with its destinations, and the items of work that follow from it.

All are plain values, to be printed, cut into shards, sent to a worker and tried again. An item is one image with all
tags that show it, or one archive, which is written as a whole.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, TypeAlias

import msgspec

from oci.digest import Digest
from oci.errors import InvalidDocument, InvalidInput, TransshipError
from oci.mirror.config import Mirror
from oci.mirror.policy import KeepAlive, Policy
from oci.mirror.run_state import place
from oci.mirror.selection import Selection
from oci.options import fields_of
from oci.reference import ArchiveName, StoreName, parse_any, parse_tag, read_store
from oci.relocation.planner import Snapshot
from oci.relocation.request import CopyOptions, RelocationRequest

TAGS = "tags"
BUNDLE = "bundle"
LOCK = "lock"
ARCHIVE = "archive"

WorkKey: TypeAlias = tuple[str, tuple[str, ...]]
"""The source and the destinations of an item."""

_SHARED = frozenset(CopyOptions.__struct_fields__) - {"tags"}
"""Options that a mirror and a copy both have. `tags` isn't among them: those of a mirror are rules that choose tags."""

_DECIDED = frozenset({"policy", "require_signatures"})
"""Options that only the request for a lock gets. The comparison has judged images and bundles by them already, with
their names; the images that a lock pins are judged when their copy is planned."""


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """One destination, the tags that it lacks or shows otherwise, and whether it had no tag at all."""

    destination: StoreName
    tags: tuple[str, ...] = ()
    fresh: bool = False
    shown: bool = False
    """The tags show the image already: what is attached to it, or what it lists, is missing."""
    repair: bool = False
    """Ask for everything below the image, though the image itself is there."""


class WorkItem(msgspec.Struct, frozen=True, kw_only=True):
    """One changed image of a mirror, with every tag that it has and every destination that lacks it."""

    mirror: str
    kind: str
    """TAGS: an image, index or bundle that tags of a repository show. BUNDLE. LOCK. ARCHIVE: all of a mirror, for one
    archive."""
    source: str
    """The image by digest; the path of a lock; the name of an archive."""
    names: tuple[str, ...]
    """Its names at the source: HOST/REPOSITORY:TAG for each tag of an image; the reference or path of any other item.
    Lists of failures show these."""
    targets: tuple[Target, ...]
    options: dict[str, Any] = {}
    """Options of the copy, from the mirror, in plain values."""
    keep_alive: str = KeepAlive.NEEDED.value
    contents: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """For ARCHIVE: each image by digest, with the tags that it gets in the archive."""

    @classmethod
    def of(cls, mirror: Mirror, **fields: Any) -> WorkItem:
        """Returns an item with the options of the mirror."""
        shared = [option for option in fields_of(Policy) if option.name in _SHARED]
        options = {option.name: option.show(getattr(mirror, option.name)) for option in shared}
        return cls(mirror=mirror.name, options=options, keep_alive=mirror.keep_alive.value, **fields)

    def request(self, target: Target) -> RelocationRequest:
        return self.requests(target)[0]

    def requests(self, target: Target) -> list[RelocationRequest]:
        """Returns the requests that carry the item out for a target: for an archive one for each image in it, else one
        in all."""
        how = CopyOptions.make(self.options)
        parts = [(TAGS, source, tags) for source, tags in self.contents] or [(self.kind, self.source, target.tags)]
        return [
            RelocationRequest(
                image=source if kind == TAGS else "",
                bundle=source if kind == BUNDLE else "",
                lock=source if kind == LOCK else "",
                to=str(target.destination),
                tags=tags,
                **{name: getattr(how, name) for name in self.options if kind == LOCK or name not in _DECIDED},
                repo_based_tags=self.keep_alive == KeepAlive.READABLE.value,
                tag_keeps_alive=self.keep_alive == KeepAlive.NEEDED.value,
                image_may_be_bundle=kind == TAGS,
                repair=target.repair,
            )
            for kind, source, tags in parts
        ]

    def snapshot(self, target: Target, listed: frozenset[str] | None = None) -> Snapshot:
        """Returns what the comparison knows already: the target's tags are absent or show another image. `listed` are
        the tags of the source repository, if they were listed."""
        tag_lists = {parse_any(self.source).repository: listed} if listed is not None and self.kind == TAGS else {}
        moving = frozenset() if target.shown else frozenset(target.tags)
        return Snapshot(moving=moving, fresh=target.fresh, tag_lists=tag_lists)

    @property
    def key(self) -> WorkKey:
        """Identifies the item in the work of its mirror. A bundle for a repository and for an archive is two items."""
        return self.source, tuple(str(target.destination) for target in self.targets)

    def alone(self, target: Target) -> WorkItem:
        """Returns the item for one of its targets only."""
        return msgspec.structs.replace(self, targets=(target,))

    def without(self, destinations: Collection[StoreName]) -> WorkItem:
        """Returns the item for its other targets only."""
        targets = tuple(target for target in self.targets if target.destination not in destinations)
        return msgspec.structs.replace(self, targets=targets)

    @property
    def writes_archive(self) -> bool:
        """Says whether a destination is an archive."""
        return any(isinstance(target.destination, ArchiveName) for target in self.targets)

    @property
    def title(self) -> str:
        """`web:1.4.0`, `web:1.4.0 and 2 more`: short, for people."""
        first = self.names[0] if self.names else self.source
        short = self.mirror if self.kind == ARCHIVE else first.rpartition("/")[2]
        return short if len(self.names) < 2 else f"{short} and {len(self.names) - 1} more"

    @property
    def stores(self) -> tuple[tuple[str, StoreName], ...]:
        """Returns the stores that it reads and writes, each with its side. Those of a lock's images are not among them:
        only the lock names them."""
        targets = tuple(("destination", target.destination) for target in self.targets)
        if self.kind == LOCK:
            return targets
        sources = [source for source, _ in self.contents] or [self.source]
        return (*dict.fromkeys(("source", parse_any(source).repository) for source in sources), *targets)

    @property
    def places(self) -> tuple[str, ...]:
        """The registries and folders behind `stores`, by side."""
        return tuple(sorted({place(side, store) for side, store in self.stores}, reverse=True))

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> WorkItem:
        """Returns an item from the parsed JSON of `oci.output.to_dict`. Raises InvalidDocument."""
        try:
            item = msgspec.convert(body, cls, dec_hook=read_store)
            for tag in (tag for target in item.targets for tag in target.tags):
                parse_tag(tag)
        except (TypeError, KeyError, ValueError, InvalidInput) as error:
            raise InvalidDocument(f"not an item of work: {error}") from error
        return item


class TagState(StrEnum):
    """The state of one tag of the source at a destination."""

    IN_PLACE = "in place"
    MISSING = "missing"
    STALE = "stale"
    MUTATED = "mutated"
    """The mirror declares it immutable, and the source shows another image under it now: it isn't overwritten."""
    UNSIGNED = "unsigned"
    """The policy of signatures refuses the image."""
    UNSIGNED_HERE = "unsigned here"
    """The tag shows the image, and the source has attached something to it that the destination lacks."""
    MORE_THERE = "more there"
    """It is in place, and the destination has attached artifacts that the source has not, or no longer."""
    FAILED = "failed"
    """One of the two sides couldn't be asked."""


DRIFTED = frozenset({TagState.MISSING, TagState.STALE, TagState.MUTATED, TagState.UNSIGNED, TagState.UNSIGNED_HERE})
"""States in which a destination isn't as the mirror describes it."""

MOVED = frozenset({TagState.MISSING, TagState.STALE, TagState.UNSIGNED_HERE})
"""States in which a run copies something."""

ATTACHED = "attached"
LISTED = "listed"
"""Signatures and the like that came after their image; images that a bundle lists."""

UNAVAILABLE = frozenset({TagState.MUTATED, TagState.FAILED, TagState.UNSIGNED})


@dataclass(frozen=True, slots=True, kw_only=True)
class TagComparison:
    """One tag. `source` and `destination` are the digests that it shows on each side, empty where it shows none or
    wasn't asked for. For a mirror that chooses platforms, `source` is the digest of the index cut down to them."""

    tag: str
    state: TagState
    source: str = ""
    destination: str = ""
    reason: str = ""
    below: str = ""
    """What is missing though the tag shows the image: ATTACHED or LISTED."""
    created: datetime | None = None
    error: TransshipError | None = field(default=None, compare=False)

    def failed(self, error: TransshipError) -> TagComparison:
        """Returns the comparison of a tag that couldn't be compared."""
        return replace(self, state=TagState.FAILED, reason=str(error), error=error)

    def to_dict(self) -> dict[str, Any]:
        body = {name: str(getattr(self, name)) for name in ("tag", "state", "source", "destination", "reason")}
        return body | ({"created": self.created.isoformat()} if self.created else {})


@dataclass(frozen=True, slots=True, kw_only=True)
class DestinationComparison:
    """One destination: each selected tag, and in `extra` the other tags that it has."""

    destination: StoreName
    tags: tuple[TagComparison, ...] = ()
    extra: tuple[str, ...] = ()
    error: TransshipError | None = None
    """Why nothing could be compared here."""

    def count(self, *states: TagState) -> int:
        return sum(tag.state in states for tag in self.tags)

    @property
    def has_to_be_written(self) -> bool:
        """Says whether an archive is written anew: not while a tag can't be copied, which the old archive may have."""
        return self.differs and not self.count(*UNAVAILABLE)

    @property
    def differs(self) -> bool:
        return bool(self.extra or self.count(*MOVED))

    @property
    def drifted(self) -> bool:
        return bool(self.extra) or any(tag.state in DRIFTED for tag in self.tags)

    def to_dict(self) -> dict[str, Any]:
        return {
            "destination": str(self.destination),
            "in_place": self.count(TagState.IN_PLACE),
            "drift": [tag.to_dict() for tag in self.tags if tag.state is not TagState.IN_PLACE],
            "extra": list(self.extra),
            "error": str(self.error or ""),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One mirror. `too_young` has, for each tag that only its age keeps out, the reason in words."""

    mirror: str
    source: str
    destinations: tuple[DestinationComparison, ...]
    work: tuple[WorkItem, ...] = ()
    too_young: Mapping[str, str] = field(default_factory=dict)
    waiting: int = 0
    """Changed images that `images_per_run` leaves to the next run."""
    listed: frozenset[str] | None = None
    """The tags of the source repository, where they were listed."""
    selection: Selection | None = None
    """Which of them the rules select, and why; None where there are no rules."""
    narrowed: bool = False
    """Whether only some tags were asked for."""

    @property
    def drifted(self) -> bool:
        return any(destination.drifted for destination in self.destinations)

    @property
    def nothing_taken(self) -> str:
        """Says why a mirror selects no tag at all, which is probably a mistake in its rules; empty when it does."""
        has_tags = any(result.tags for result in self.destinations)
        if self.listed is None or self.narrowed or self.too_young or has_tags or self.uncompared:
            return ""
        return f"its rules take none of the {len(self.listed)} tags that are there" if self.listed else "it has no tags"

    @property
    def uncompared(self) -> bool:
        """Says whether no destination could be compared."""
        return bool(self.destinations) and all(result.error is not None for result in self.destinations)

    def count(self, *states: TagState) -> int:
        return sum(destination.count(*states) for destination in self.destinations)

    @property
    def in_words(self) -> str:
        """`297 in place, 3 missing, 3 changed images`"""
        counts = {state.value: self.count(state) for state in TagState}
        counts |= {"extra": self.extra, "changed images": len(self.work)}
        return ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "nothing there"

    @property
    def extra(self) -> int:
        return sum(len(destination.extra) for destination in self.destinations)

    def tags(self) -> Iterator[tuple[StoreName, TagComparison]]:
        """Yields each tag of each destination, with the destination."""
        for destination in self.destinations:
            for tag in destination.tags:
                yield destination.destination, tag

    def named(self, state: TagState) -> tuple[str, ...]:
        """Returns the tags that are in a state at one destination at least."""
        return tuple(dict.fromkeys(tag.tag for _, tag in self.tags() if tag.state is state))

    @property
    def refusals(self) -> dict[str, str]:
        """Returns, for each tag that the policy of signatures refuses, the reason."""
        return {tag.tag: tag.reason for _, tag in self.tags() if tag.state is TagState.UNSIGNED}

    def lag(self, now: datetime) -> float | None:
        """Returns the age in seconds of the oldest image that a destination lacks; 0 when none lacks any, None when no
        lacking image says when it was made."""
        behind = [tag for _, tag in self.tags() if tag.state in (TagState.MISSING, TagState.STALE)]
        times = [tag.created for tag in behind if tag.created is not None]
        if not behind:
            return 0.0
        return (now - min(times)).total_seconds() if times else None

    def to_dict(self) -> dict[str, Any]:
        return {
            "mirror": self.mirror,
            "source": self.source,
            "drifted": self.drifted,
            "destinations": [destination.to_dict() for destination in self.destinations],
            "held": dict(self.too_young),
            "waiting": self.waiting,
            "nothing_taken": self.nothing_taken,
        }


def changes(
    mirror: Mirror,
    results: Iterable[DestinationComparison],
    digests: Mapping[str, Digest],
    fresh: Collection[StoreName],
    *,
    archives: bool,
) -> list[WorkItem]:
    """Returns the items that bring the destinations to what the mirror describes. `digests` has the image that each tag
    shows at the source; `fresh` are destinations without any tag. Without `archives`, when only some tags were
    compared, no archive is written."""
    moving: dict[Digest, dict[StoreName, list[TagComparison]]] = {}
    whole = []
    for result in results:
        if isinstance(result.destination, ArchiveName):
            whole.extend([_archive(mirror, result, digests)] if archives and result.has_to_be_written else [])
            continue
        for tag in result.tags:
            if tag.state in MOVED and tag.tag in digests:
                moving.setdefault(digests[tag.tag], {}).setdefault(result.destination, []).append(tag)
    return [*(_image(mirror, digest, tags_of, fresh) for digest, tags_of in moving.items()), *whole]


def _image(
    mirror: Mirror, digest: Digest, tags_of: Mapping[StoreName, Sequence[TagComparison]], fresh: Collection[StoreName]
) -> WorkItem:
    targets = []
    for name, tags in tags_of.items():
        lacking = [tag for tag in tags if not tag.below]
        target = Target(
            destination=name,
            tags=_to_give(mirror, lacking or tags),
            fresh=name in fresh,
            shown=not lacking,
            repair=any(tag.below == LISTED for tag in tags),
        )
        targets.append(target)
    names = dict.fromkeys(mirror.name_of(tag.tag) for tags in tags_of.values() for tag in tags)
    kind, source = BUNDLE if mirror.source.bundle else TAGS, f"{mirror.source.store}@{digest}"
    return WorkItem.of(mirror, kind=kind, source=source, names=tuple(names), targets=tuple(targets))


def _archive(mirror: Mirror, result: DestinationComparison, digests: Mapping[str, Digest]) -> WorkItem:
    """Returns the item that writes an archive anew, with all selected images, changed or not."""
    contents: dict[str, list[str]] = {}
    for tag in result.tags:
        contents.setdefault(f"{mirror.source.store}@{digests[tag.tag]}", []).append(tag.tag)
    target = Target(destination=result.destination, tags=_to_give(mirror, result.tags))
    shared = {"names": (str(mirror.source),), "targets": (target,)}
    if mirror.source.bundle:
        return WorkItem.of(mirror, kind=BUNDLE, source=next(iter(contents)), **shared)
    parts = tuple((image, tuple(tags)) for image, tags in contents.items())
    return WorkItem.of(mirror, kind=ARCHIVE, source=str(result.destination), contents=parts, **shared)


def _to_give(mirror: Mirror, tags: Sequence[TagComparison]) -> tuple[str, ...]:
    """Returns the tags that the copy gets: those of the source. A bundle that the mirror names by digest has none."""
    reference = mirror.source.reference
    return () if reference is not None and reference.digest else tuple(tag.tag for tag in tags)
