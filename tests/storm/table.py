"""What became of a storm, as a page of the book."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence

from tests.storm.trial import Kind, Outcome

_KINDS = (Kind.COMPLETED, Kind.CLEAN, Kind.UNSEEN, Kind.OTHER)


def page(outcomes: Sequence[Outcome], every: int) -> str:
    lines = [
        "# Under storm",
        "",
        "What the program does when registries and object stores do something wrong. `make storm` plays each fault",
        "with each operation, at the first, the middle and the last request that it fits, and writes this page. A",
        "run is *completed* when a walk of the destination by plain HTTP proves it. It is a *clean error* when the",
        "error names side, registry and reference, nothing half-made stands under a final name, and a second run",
        "without the fault completes without sending again what had arrived. An *unseen lie* is an answer that",
        "only a read-back would disprove; `copy --verify` and `verify` are for these. Anything else is a defect.",
        "",
        f"Of {every} trials, {len(outcomes)} were played for this page.",
        "",
        "## By operation",
        "",
        *_rows(outcomes, "operation", lambda one: one.trial.operation),
        "",
        "## By fault",
        "",
        *_rows(outcomes, "fault", lambda one: one.trial.row.name),
        "",
        "## Lies that nothing but a read-back shows",
        "",
        *_lies(outcomes),
        "",
    ]
    return "\n".join(lines)


def _rows(outcomes: Iterable[Outcome], title: str, key: Callable[[Outcome], str]) -> list[str]:
    counts: dict[str, Counter[Kind]] = defaultdict(Counter)
    for one in outcomes:
        counts[key(one)][one.kind] += 1
        counts["all"][one.kind] += 1
    names = [*sorted(name for name in counts if name != "all"), "all"]
    head = [f"| {title} | tried | {' | '.join(kind.value for kind in _KINDS)} |", f"|---|{'---:|' * (len(_KINDS) + 1)}"]
    return head + [
        f"| {name} | {sum(counts[name].values())} | {' | '.join(str(counts[name][kind]) for kind in _KINDS)} |"
        for name in names
    ]


def _lies(outcomes: Iterable[Outcome]) -> list[str]:
    found: dict[str, set[str]] = defaultdict(set)
    for one in outcomes:
        if one.kind is Kind.UNSEEN:
            found[one.trial.row.unseen[one.trial.operation]].add(one.trial.operation)
    lines = [f"- {lie}: {', '.join(sorted(operations))}" for lie, operations in sorted(found.items())]
    return lines or ["None was met."]
