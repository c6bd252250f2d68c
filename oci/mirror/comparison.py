"""What a comparison of a mirror's source with its destinations found, and the work that follows: an item for each
image, for tags that show the same image travel together, and for each archive, which is written as a whole."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from oci.digest import Digest
from oci.errors import Refused, TransshipError
from oci.mirror.config import Mirror
from oci.mirror.digest_cache import DigestCache
from oci.mirror.selection import Selection
from oci.mirror.work import ARCHIVE, BUNDLE, TAGS, Breaker, Target, WorkItem
from oci.reference import ARCHIVE_PREFIX
from oci.units import counted


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What the mirrors of one run share. `audit` asks for immutable tags as well, to see whether a tag moved;
    `thorough`, which a check is, also for signatures and ages of tags in place. `only` are names, HOST/REPOSITORY:TAG:
    nothing else is compared."""

    facts: DigestCache = field(default_factory=DigestCache)
    breaker: Breaker = field(default_factory=Breaker)
    audit: bool = False
    thorough: bool = False
    only: frozenset[str] = frozenset()
    now: datetime | None = None


def concerns(mirror: Mirror, only: Collection[str]) -> bool:
    """Whether one of the names is the mirror's source, or a tag of it."""
    source = mirror.source
    prefix = f"{source.store}:"
    names = {str(source), str(source.reference)}
    if source.namespace:
        prefix = f"{source.within}".rstrip("/") + "/"
    return any(name in names or (not (source.bundle or source.lock) and name.startswith(prefix)) for name in only)


class TooFewTags(Refused):
    """The rules take fewer tags than `min_tags`. `listed` and `selection` say why, as those of a Comparison do."""

    listed: frozenset[str] | None = None
    selection: Selection | None = None


def check_enough(
    mirror: Mirror, tags: Collection[str], listed: frozenset[str] | None, selection: Selection | None
) -> None:
    """Raises TooFewTags."""
    if len(tags) >= mirror.min_tags:
        return
    error = TooFewTags(
        f"the rules take {counted(len(tags), 'tag')}, and min_tags asks for {mirror.min_tags}",
        side="source",
        store=str(mirror.source),
        subject=mirror.name,
        operation="selecting tags",
        hint="check the source and the rules; nothing was copied",
    )
    error.listed, error.selection = listed, selection
    raise error


class TagState(StrEnum):
    """How a destination stands with one tag of the source."""

    IN_PLACE = "in place"
    MISSING = "missing"
    STALE = "stale"
    MUTATED = "mutated"
    """It is declared immutable, and shows something else at the source by now: it isn't overwritten."""
    UNSIGNED = "unsigned"
    UNSIGNED_HERE = "unsigned here"
    """The tag shows the image, and the source has attached something to it that the destination lacks."""
    MORE_THERE = "more there"
    """It is in place, and the destination has attached artifacts that the source has not, or no longer."""
    FAILED = "failed"
    """One of the two sides couldn't be asked."""


DRIFTED = frozenset({TagState.MISSING, TagState.STALE, TagState.MUTATED, TagState.UNSIGNED, TagState.UNSIGNED_HERE})
"""States in which a destination isn't what the mirror says."""

MOVED = frozenset({TagState.MISSING, TagState.STALE, TagState.UNSIGNED_HERE})
"""States in which a run has something to bring."""

ATTACHED = "attached"
LISTED = "listed"
"""Signatures and the like that came after their image; images that a bundle lists."""

_UNAVAILABLE = frozenset({TagState.MUTATED, TagState.FAILED, TagState.UNSIGNED})


@dataclass(frozen=True, slots=True, kw_only=True)
class TagComparison:
    """`source` and `destination` are the digests that were seen, empty where there is none or none was asked for; for
    a mirror with chosen platforms, `source` is what the destination should show."""

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
        """The same for a tag that couldn't be looked into."""
        return replace(self, state=TagState.FAILED, reason=str(error), error=error)

    def to_dict(self) -> dict[str, Any]:
        body = {name: str(getattr(self, name)) for name in ("tag", "state", "source", "destination", "reason")}
        return body | ({"created": self.created.isoformat()} if self.created else {})


@dataclass(frozen=True, slots=True, kw_only=True)
class DestinationComparison:
    """One destination: each selected tag, and the tags it has beyond them."""

    destination: str
    tags: tuple[TagComparison, ...] = ()
    extra: tuple[str, ...] = ()
    error: TransshipError | None = None
    """Why nothing could be compared here."""

    def count(self, *states: TagState) -> int:
        return sum(tag.state in states for tag in self.tags)

    @property
    def has_to_be_written(self) -> bool:
        """Says whether an archive is to be written anew: not while one of its tags is unavailable, as the old archive
        is better then."""
        states = {tag.state for tag in self.tags}
        return not states & _UNAVAILABLE and bool(states.intersection(MOVED) or self.extra)

    @property
    def drifted(self) -> bool:
        return bool(self.extra) or any(tag.state in DRIFTED for tag in self.tags)

    def to_dict(self) -> dict[str, Any]:
        return {
            "destination": self.destination,
            "in_place": self.count(TagState.IN_PLACE),
            "drift": [tag.to_dict() for tag in self.tags if tag.state is not TagState.IN_PLACE],
            "extra": list(self.extra),
            "error": str(self.error or ""),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One mirror. `too_young` are tags that only their age keeps out, with the reason."""

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
    """What the rules made of them, where there are rules."""
    narrowed: bool = False
    """Whether only some tags were asked for."""

    @property
    def drifted(self) -> bool:
        return any(destination.drifted for destination in self.destinations)

    @property
    def nothing_taken(self) -> str:
        """Why the mirror is about nothing at all, which is more likely a mistake than a wish; empty when it isn't."""
        compared = [result for result in self.destinations if result.error is None]
        if (
            self.listed is None
            or self.narrowed
            or self.too_young
            or not compared
            or any(result.tags for result in compared)
        ):
            return ""
        return f"its rules take none of the {len(self.listed)} tags that are there" if self.listed else "it has no tags"

    @property
    def uncompared(self) -> bool:
        """Whether nothing of it could be compared."""
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

    def tags(self) -> Iterator[tuple[str, TagComparison]]:
        """(destination, tag) of all of them."""
        for destination in self.destinations:
            for tag in destination.tags:
                yield destination.destination, tag

    def named(self, state: TagState) -> tuple[str, ...]:
        """The tags that are in a state at one destination at least."""
        return tuple(dict.fromkeys(tag.tag for _, tag in self.tags() if tag.state is state))

    @property
    def refusals(self) -> dict[str, str]:
        """Why the policy of signatures refuses tags."""
        return {tag.tag: tag.reason for _, tag in self.tags() if tag.state is TagState.UNSIGNED}

    def lag(self, now: datetime) -> float | None:
        """Seconds since the oldest image was made that a destination should have and hasn't; 0 when it has them all,
        None when no image says when it was made."""
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
    fresh: Collection[str],
    *,
    archives: bool,
) -> list[WorkItem]:
    """`digests` is what each tag shows at the source; `fresh` are destinations without any tag. Without `archives`,
    when only some tags were looked at, no archive is written."""
    moving: dict[Digest, dict[str, list[TagComparison]]] = {}
    whole = []
    for result in results:
        if result.destination.startswith(ARCHIVE_PREFIX):
            whole.extend([_archive(mirror, result, digests)] if archives and result.has_to_be_written else [])
            continue
        for tag in result.tags:
            if tag.state in MOVED and tag.tag in digests:
                moving.setdefault(digests[tag.tag], {}).setdefault(result.destination, []).append(tag)
    return [*(_image(mirror, digest, tags_of, fresh) for digest, tags_of in moving.items()), *whole]


def name_of(mirror: Mirror, tag: str) -> str:
    """What a tag of the source is called in lists of what failed; a bundle is called as it stands in the file."""
    reference = mirror.source.reference
    return str(reference) if reference is not None else f"{mirror.source.store}:{tag}"


def _image(
    mirror: Mirror, digest: Digest, tags_of: Mapping[str, Sequence[TagComparison]], fresh: Collection[str]
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
    names = dict.fromkeys(name_of(mirror, tag.tag) for tags in tags_of.values() for tag in tags)
    kind, source = BUNDLE if mirror.source.bundle else TAGS, f"{mirror.source.store}@{digest}"
    return WorkItem.of(mirror, kind=kind, source=source, names=tuple(names), targets=tuple(targets))


def _archive(mirror: Mirror, result: DestinationComparison, digests: Mapping[str, Digest]) -> WorkItem:
    """All that is selected, whatever of it changed."""
    contents: dict[str, list[str]] = {}
    for tag in result.tags:
        contents.setdefault(f"{mirror.source.store}@{digests[tag.tag]}", []).append(tag.tag)
    target = Target(destination=result.destination, tags=_to_give(mirror, result.tags))
    shared = {"names": (str(mirror.source),), "targets": (target,)}
    if mirror.source.bundle:
        return WorkItem.of(mirror, kind=BUNDLE, source=next(iter(contents)), **shared)
    parts = tuple((image, tuple(tags)) for image, tags in contents.items())
    return WorkItem.of(mirror, kind=ARCHIVE, source=result.destination, contents=parts, **shared)


def _to_give(mirror: Mirror, tags: Sequence[TagComparison]) -> tuple[str, ...]:
    """A bundle that is named by its digest has no tag to give on."""
    reference = mirror.source.reference
    return () if reference is not None and reference.digest else tuple(tag.tag for tag in tags)
