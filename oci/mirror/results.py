"""What a run of several mirrors did, and what a check has found: values for pages, events and programs."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import Struct

from oci.errors import Incomplete, InvalidInput, StoreError
from oci.meter import Receipt, RunMetrics
from oci.mirror.comparison import Comparison, TagState
from oci.mirror.run import MirrorReport


class MirrorRunReport(Struct, frozen=True, kw_only=True):
    """All mirrors of one run."""

    mirrors: list[MirrorReport] = []

    @property
    def succeeded(self) -> bool:
        return all(mirror.succeeded for mirror in self.mirrors)

    @property
    def only(self) -> list[str]:
        """What to give as `only` to run what failed again."""
        return [name for mirror in self.mirrors for name in mirror.failed_names]

    def __str__(self) -> str:
        return "\n".join(map(str, self.mirrors))


def mirror_metrics(report: MirrorReport) -> RunMetrics:
    """Of one mirror whose run has just ended; what is counted are tags."""
    return RunMetrics(
        names={"mirror": report.mirror},
        succeeded=report.succeeded,
        ended=time.time(),
        receipt=report.receipt,
        images={"copied": report.copied, "present": report.in_place, "failed": len(report.failed)},
    )


class MirrorIncomplete(Incomplete):
    """Some of it failed; `report` says what did arrive, and `report.only` is what to run again."""

    def __init__(self, report: MirrorRunReport) -> None:
        wrong = [mirror.mirror for mirror in report.mirrors if not mirror.succeeded]
        super().__init__(
            f"{len(wrong)} of {len(report.mirrors)} mirrors aren't complete: {', '.join(wrong)}",
            [
                StoreError(failed.error, subject=", ".join(failed.names), retryable=failed.retryable)
                for mirror in report.mirrors
                for failed in mirror.failed
            ],
            some_done=any(mirror.copied or mirror.in_place for mirror in report.mirrors),
            hint="run it again, or with `only` just what failed: what is there is not sent again",
        )
        self.report = report

    def __reduce__(self) -> tuple[type[MirrorIncomplete], tuple[MirrorRunReport]]:
        return type(self), (self.report,)


class DriftedTag(Struct, frozen=True, kw_only=True):
    """`state` is missing, stale, mutated, unsigned, extra, or failed: it couldn't be asked."""

    destination: str
    tag: str
    state: str
    reason: str = ""


class DriftReport(Struct, frozen=True, kw_only=True):
    """Where the destinations of one mirror differ from what it says. `lag_seconds` is the age of the oldest image that
    a destination should have and hasn't; `error` says why the mirror couldn't be compared."""

    mirror: str
    source: str
    in_place: int = 0
    drift: list[DriftedTag] = []
    held: int = 0
    lag_seconds: float | None = None
    error: str = ""
    receipt: Receipt = Receipt()

    @classmethod
    def of(cls, comparison: Comparison, receipt: Receipt, lag: float | None) -> DriftReport:
        drift = [
            DriftedTag(destination=destination, tag=tag.tag, state=tag.state.value, reason=tag.reason)
            for destination, tag in comparison.tags()
            if tag.state is not TagState.IN_PLACE
        ]
        for place in comparison.destinations:
            drift.extend(DriftedTag(destination=place.destination, tag=tag, state="extra") for tag in place.extra)
        return cls(
            mirror=comparison.mirror,
            source=comparison.source,
            in_place=comparison.count(TagState.IN_PLACE),
            drift=drift,
            held=len(comparison.held),
            lag_seconds=lag,
            error="; ".join(str(place.error) for place in comparison.destinations if place.error is not None),
            receipt=receipt,
        )

    @property
    def drifted(self) -> bool:
        return any(tag.state != TagState.FAILED.value for tag in self.drift)

    @property
    def complete(self) -> bool:
        """Whether everything could be asked."""
        return not self.error and all(tag.state != TagState.FAILED.value for tag in self.drift)

    def __str__(self) -> str:
        if self.error:
            return f"{self.mirror}: can't be compared: {self.error}"
        states = [tag.state for tag in self.drift]
        counts = [f"{states.count(state)} {state}" for state in dict.fromkeys(states)]
        return f"{self.mirror}: {', '.join([f'{self.in_place} in place', *counts])}"

    def to_dict(self) -> dict[str, Any]:
        body: dict[str, Any] = msgspec.to_builtins(self)
        return body | {"drifted": self.drifted, "receipt": self.receipt.to_dict()}


class CheckReport(Struct, frozen=True, kw_only=True):
    """All mirrors of one check."""

    mirrors: list[DriftReport] = []

    @property
    def drifted(self) -> bool:
        return any(mirror.drifted for mirror in self.mirrors)

    def __str__(self) -> str:
        return "\n".join(map(str, self.mirrors))


ONLY_LIMIT = 100_000


def read_only(text: str, where: str) -> tuple[str, ...]:
    """The names in a file that says what to run again: a report, a list in JSON, or a name a line.

    Raises InvalidInput for anything else.
    """
    if text.lstrip()[:1] in ("{", "["):
        try:
            names = list(_names(json.loads(text)))
        except (ValueError, RecursionError) as error:
            raise InvalidInput(f"{where} is neither a report nor a list of names: {error}") from error
    else:
        names = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if len(names) > ONLY_LIMIT or not all(isinstance(name, str) for name in names):
        raise InvalidInput(f"{where} is neither a report nor a list of names")
    return tuple(dict.fromkeys(names))


def _names(body: Any) -> Iterable[Any]:
    """Reports of several mirrors are a list of them, or stand under `mirrors`."""
    if isinstance(body, list):
        for one in body:
            yield from _names(one) if isinstance(one, dict) else (one,)
    elif "only" in body:
        yield from body["only"]
    elif "mirrors" in body:
        yield from _names(body["mirrors"])
    else:
        raise ValueError("there is no `only` in it")
