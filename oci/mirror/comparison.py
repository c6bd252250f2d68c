"""What a comparison of a mirror's source with its destinations found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from oci.errors import TransshipError
from oci.mirror.work import WorkItem


class TagState(StrEnum):
    """How a destination stands with one tag of the source."""

    IN_PLACE = "in place"
    MISSING = "missing"
    STALE = "stale"
    MUTATED = "mutated"
    """It is declared immutable, and shows something else at the source by now: it isn't overwritten."""
    UNSIGNED = "unsigned"
    FAILED = "failed"
    """One of the two sides couldn't be asked."""


DRIFTED = frozenset({TagState.MISSING, TagState.STALE, TagState.MUTATED, TagState.UNSIGNED})
"""States in which a destination isn't what the mirror says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TagComparison:
    """`source` and `destination` are the digests that were seen, empty where nobody asked or nothing is there; for a
    mirror with chosen platforms, `source` is what the destination should show."""

    tag: str
    state: TagState
    source: str = ""
    destination: str = ""
    reason: str = ""
    created: datetime | None = None
    error: TransshipError | None = field(default=None, compare=False)

    def to_dict(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "tag": self.tag,
            "state": self.state.value,
            "source": self.source,
            "destination": self.destination,
            "reason": self.reason,
        }
        return found | ({"created": self.created.isoformat()} if self.created else {})


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
    """One mirror. `held` are tags that are too young to be taken, with the reason."""

    mirror: str
    source: str
    destinations: tuple[DestinationComparison, ...]
    work: tuple[WorkItem, ...] = ()
    held: Mapping[str, str] = field(default_factory=dict)
    waiting: int = 0
    """Changed images that `images_per_run` leaves to the next run."""
    listed: frozenset[str] | None = None
    """The tags of the source repository, where they were listed."""
    narrowed: bool = False
    """Whether only some tags were asked for."""

    @property
    def drifted(self) -> bool:
        return any(destination.drifted for destination in self.destinations)

    @property
    def nothing_taken(self) -> str:
        """Why the mirror is about nothing at all, which is more likely a mistake than a wish; empty when it isn't."""
        compared = [one for one in self.destinations if one.error is None]
        if self.listed is None or self.narrowed or self.held or not compared or any(one.tags for one in compared):
            return ""
        return f"its rules take none of the {len(self.listed)} tags that are there" if self.listed else "it has no tags"

    @property
    def failed(self) -> bool:
        """Whether something couldn't be compared."""
        return any(one.error is not None or one.count(TagState.FAILED) for one in self.destinations)

    def count(self, *states: TagState) -> int:
        return sum(destination.count(*states) for destination in self.destinations)

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
            "held": dict(self.held),
            "waiting": self.waiting,
            "nothing_taken": self.nothing_taken,
        }
