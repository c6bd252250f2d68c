"""What became of one thing on the Prefect server."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    CREATED = "created"
    UPDATED = "updated"
    UNCHANGED = "unchanged"
    REMOVED = "removed"
    KEPT = "kept"
    """Nothing in the configuration asks for it, and nobody asked for its removal."""
    MISSING = "missing"
    """Something that only a person can make, such as a block with a login in it."""


@dataclass(frozen=True, slots=True)
class Change:
    """`kind` is "deployment", "trigger", "automation", "concurrency limit", "block", "block type" or "work pool"."""

    kind: str
    name: str
    outcome: Outcome
    detail: str = ""


def different(kind: str, name: str, differences: Iterable[str]) -> Change:
    """UPDATED with the names of what differs, or UNCHANGED without any."""
    named = ", ".join(differences)
    return Change(kind, name, Outcome.UPDATED if named else Outcome.UNCHANGED, named)
