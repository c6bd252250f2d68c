"""What became of a storm, as a page of the book."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.storm.trial import Kind, Outcome

_KINDS = (Kind.COMPLETED, Kind.CLEAN, Kind.UNSEEN, Kind.OTHER)
_COUNTS = "<!-- counts: "

_HEAD = """\
# Under storm

What the program does when registries and object stores do something wrong. `make storm` plays each fault
with each operation of the library, on each side at the first, the middle or the last request that it fits, and
with some of the commands and flows, and writes this page; `--every` plays it at all three and with all of them.
A run is *completed* when a walk of the destination by plain HTTP proves it. It is a *clean error* when the error
names side, registry and reference, nothing half-made stands under a final name, and a second run without the fault
completes without sending again what had arrived, which is counted before the registry. An *unseen lie* is an answer
that only a read-back would disprove; `copy --verify` and `verify` are for these. Anything else is a defect.
"""


_AGAIN = (
    "{count} of them ended otherwise at first. What they found, in the program or in the storm, is mended, and they\n"
    "were played again."
)


class Table:
    """The counts of each part, of which some may be those of an earlier storm: they stand in the page, too."""

    def __init__(self, parts: dict[str, dict[str, Any]]) -> None:
        self._parts = parts

    @classmethod
    def read(cls, path: str) -> Table:
        text = Path(path).read_text() if path and Path(path).exists() else ""
        _, found, rest = text.partition(_COUNTS)
        return cls(json.loads(rest.partition(" -->")[0]) if found else {})

    def put(self, part: str, every: int, outcomes: Sequence[Outcome], *, add: bool = False) -> None:
        """`every` is the number of trials that there are; `add` keeps those of the part that were played before."""
        before = self._parts.get(part, {}) if add else {}
        lies = {lie: set(operations) for lie, operations in before.get("lies", {}).items()}
        for one in outcomes:
            if one.kind is Kind.UNSEEN:
                lie = one.trial.row.unseen[one.trial.operation.partition(", ")[0]]
                lies.setdefault(lie, set()).add(one.trial.operation)
        self._parts[part] = {
            "every": every,
            "operation": _counted(outcomes, lambda one: one.trial.operation, before.get("operation", {})),
            "fault": _counted(outcomes, lambda one: one.trial.row.name, before.get("fault", {})),
            "lies": {lie: sorted(lies[lie]) for lie in sorted(lies)},
            "again": before.get("again", 0),
        }

    def page(self) -> str:
        every = sum(part["every"] for part in self._parts.values())
        by_operation, by_fault = self._sum("operation"), self._sum("fault")
        played = sum(sum(counts.values()) for counts in by_operation.values())
        again = sum(part.get("again", 0) for part in self._parts.values())
        lies: dict[str, set[str]] = defaultdict(set)
        for part in self._parts.values():
            for lie, operations in part["lies"].items():
                lies[lie].update(operations)
        return "\n".join(
            [
                _HEAD,
                f"Of {every} trials, {played} were played for this page; the parts may be of different days.",
                "",
                "| part | trials | played |",
                "|---|---:|---:|",
                *(
                    f"| {name} | {part['every']} | {sum(sum(one.values()) for one in part['operation'].values())} |"
                    for name, part in self._parts.items()
                ),
                *(["", _AGAIN.format(count=again)] if again else []),
                "",
                "## By operation",
                "",
                *_rows("operation", by_operation),
                "",
                "## By fault",
                "",
                *_rows("fault", by_fault),
                "",
                "## Lies that nothing but a read-back shows",
                "",
                *([f"- {lie}: {', '.join(sorted(lies[lie]))}" for lie in sorted(lies)] or ["None was met."]),
                "",
                f"{_COUNTS}{json.dumps(self._parts, separators=(',', ':'))} -->",
                "",
            ]
        )

    def _sum(self, title: str) -> dict[str, Counter[str]]:
        found: dict[str, Counter[str]] = defaultdict(Counter)
        for part in self._parts.values():
            for name, counts in part[title].items():
                found[name].update(counts)
        return found


def _counted(
    outcomes: Sequence[Outcome], key: Callable[[Outcome], str], before: Mapping[str, Mapping[str, int]]
) -> dict[str, dict[str, int]]:
    counts: dict[str, Counter[str]] = defaultdict(Counter, {name: Counter(one) for name, one in before.items()})
    for one in outcomes:
        counts[key(one)][one.kind.value] += 1
    return {name: dict(counts[name]) for name in sorted(counts)}


def _rows(title: str, counts: Mapping[str, Counter[str]]) -> list[str]:
    lines = [
        f"| {title} | tried | {' | '.join(kind.value for kind in _KINDS)} |",
        f"|---|{'---:|' * (len(_KINDS) + 1)}",
    ]
    whole: Counter[str] = Counter()
    for one in counts.values():
        whole.update(one)
    for name, one in (*sorted(counts.items()), ("all", whole)):
        lines.append(f"| {name} | {one.total()} | {' | '.join(str(one[kind.value]) for kind in _KINDS)} |")
    return lines
