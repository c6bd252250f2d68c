"""What a run of mirrors did, each and all of them, and what a check has found: values for pages, events, programs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from oci.bundle import tagnames
from oci.descriptor import parse_json
from oci.errors import Incomplete, InvalidInput, StoreError, TransshipError, cause_and_step
from oci.meter import Receipt, RunMetrics
from oci.mirror.comparison import UNAVAILABLE, Comparison, DestinationComparison, TagState
from oci.mirror.config import Mirror
from oci.mirror.execute import SKIPPED, ItemOutcome, unaccounted
from oci.mirror.run_state import Breaker, place
from oci.reference import ArchiveName
from oci.relocation.transfer import DONE
from oci.units import show_cost, show_size, some_of

INTERRUPTED = "the run was interrupted before it was done"


class FailedImage(Struct, frozen=True, kw_only=True):
    """`names` are what to give as `only` to try it again: REGISTRY/REPOSITORY:TAG, or the mirror's source as it stands
    in the configuration, for all of it."""

    names: tuple[str, ...]
    destination: str
    error: str
    retryable: bool
    not_tried: bool = False
    """It wasn't even begun: `error` is a cause that it shares with others."""

    def as_error(self, mirror: str = "") -> StoreError:
        """`mirror` is what it is of, for a failure without names."""
        return StoreError(self.error, subject=", ".join(self.names) or mirror, retryable=self.retryable)


class MirrorReport(Struct, frozen=True, kw_only=True):
    """Numbers are of tags, or of bundles and locks, at all destinations together; `images` are those copied."""

    mirror: str
    source: str
    destinations: tuple[str, ...]
    in_place: int = 0
    copied: int = 0
    images: int = 0
    tags: tuple[str, ...] = ()
    """Names that were moved, in the order they were."""
    mutated: tuple[str, ...] = ()
    """Tags that are declared immutable and moved at the source; the destinations keep what they have."""
    unsigned: tuple[str, ...] = ()
    """Tags that the policy of signatures refuses; `refusals` has the reasons."""
    refusals: dict[str, str] = {}
    held: int = 0
    waiting: int = 0
    extra: int = 0
    nothing_taken: str = ""
    """Why the mirror is about nothing at all, when it is."""
    failed: tuple[FailedImage, ...] = ()
    causes: tuple[str, ...] = ()
    """Why registries were given up, each once."""
    fleet: str = ""  # as in RelocationReport
    receipt: Receipt = Receipt()

    @property
    def succeeded(self) -> bool:
        return not (self.failed or self.mutated or self.unsigned)

    @property
    def nothing_done(self) -> bool:
        """Whether it failed altogether: nothing was copied, and nothing was found in place."""
        return bool(self.failed) and not self.copied and not self.in_place

    @property
    def failed_names(self) -> tuple[str, ...]:
        """To be given as `only`."""
        return tuple(dict.fromkeys(name for failed in self.failed for name in failed.names))

    def line(self, *, mounted: bool = False) -> str:
        """`web: 3 copied, 297 in place, 0 failed; 1.2 MiB sent, 12 requests in 3.4 s`; with what was `mounted`, too."""
        receipt = self.receipt
        tags = f"{self.copied} copied, {self.in_place} in place, {len(self.failed)} failed"
        tags += f", {self.held} too young" if self.held else ""
        tags += f", {self.waiting} left to the next run" if self.waiting else ""
        moved = f"{show_size(receipt.bytes_written)} sent"
        moved += f", {show_size(receipt.bytes_mounted)} mounted" if mounted else ""
        return f"{self.mirror}: {tags}; {moved}, {show_cost(receipt.total_requests, receipt.seconds)}"

    def __str__(self) -> str:
        return self.line()

    def to_dict(self) -> dict[str, Any]:
        values = msgspec.to_builtins(self) | {"succeeded": self.succeeded, "only": list(self.failed_names)}
        names, numbers = ("mirror", "source", "nothing_taken", "fleet"), ("in_place", "copied", "images", "held")
        lists = ("destinations", "tags", "mutated", "unsigned", "refusals", "failed", "only", "causes")
        order = (*names, *numbers, "waiting", "extra", "succeeded", *lists)
        return {name: values[name] for name in order} | {"receipt": self.receipt.to_dict()}


def made_of(
    mirror: Mirror,
    comparison: Comparison,
    outcomes: Sequence[ItemOutcome],
    breaker: Breaker,
    receipt: Receipt,
    *,
    error: str = "",
) -> MirrorReport:
    """The report of a run that got as far as comparing.

    Every target of the comparison's work needs an outcome: a target without an outcome is reported as failed. `error`
    ended the run before its work was done.
    """
    carried = [outcome for outcome in outcomes if outcome.status == DONE]
    rewritten = {outcome.destination for outcome in carried if isinstance(outcome.destination, ArchiveName)}
    compared = [result for result in comparison.destinations if result.destination not in rewritten]
    return _report(
        mirror,
        in_place=sum(result.count(TagState.IN_PLACE) for result in compared),
        copied=sum(max(1, sum(not tagnames.is_cosign(tag) for tag in outcome.tags)) for outcome in carried),
        images=sum(outcome.images for outcome in carried),
        tags=tuple(tag for outcome in carried for tag in outcome.tags),
        mutated=comparison.named(TagState.MUTATED),
        unsigned=comparison.named(TagState.UNSIGNED),
        refusals=comparison.refusals,
        held=len(comparison.too_young),
        waiting=comparison.waiting,
        extra=comparison.extra,
        nothing_taken=comparison.nothing_taken,
        failed=tuple(_failures(mirror, comparison, outcomes, error)),
        causes=_causes(mirror, breaker),
        receipt=receipt,
    )


def of_failure(mirror: Mirror, error: TransshipError, breaker: Breaker, receipt: Receipt) -> MirrorReport:
    """The report of a mirror that couldn't even be compared."""
    failed = _whole(mirror, str(error), retryable=error.retryable)
    return _report(mirror, failed=(failed,), causes=_causes(mirror, breaker), receipt=receipt)


def not_begun(mirror: Mirror) -> MirrorReport:
    """The report of a mirror that nothing was done for, because the run was interrupted."""
    return _report(mirror, failed=(_whole(mirror, INTERRUPTED, not_tried=True),))


def _report(mirror: Mirror, **results: Any) -> MirrorReport:
    destinations = tuple(str(destination) for destination in mirror.destinations)
    return MirrorReport(mirror=mirror.name, source=str(mirror.source), destinations=destinations, **results)


def _whole(
    mirror: Mirror, error: str, destination: str = "", *, retryable: bool = True, not_tried: bool = False
) -> FailedImage:
    """Returns the failure of all that a mirror takes."""
    names = (str(mirror.source),)
    return FailedImage(names=names, destination=destination, error=error, retryable=retryable, not_tried=not_tried)


def _causes(mirror: Mirror, breaker: Breaker) -> tuple[str, ...]:
    """Of the places that the mirror names; what a lock names isn't known here."""
    stores = [mirror.source.store, *(destination.store for destination in mirror.destinations)]
    named = {place(side, store) for store in stores if store for side in ("source", "destination")}
    return tuple(str(cause) for where, cause in breaker.causes.items() if where in named or mirror.source.lock)


def _failures(
    mirror: Mirror, comparison: Comparison, outcomes: Sequence[ItemOutcome], error: str
) -> Iterator[FailedImage]:
    """What couldn't be compared, what failed, and what has no outcome, because `error` ended the run; where all have
    theirs, the error stands alone."""
    for result in comparison.destinations:
        where = str(result.destination)
        if result.error is not None:
            yield _whole(mirror, str(result.error), where, retryable=result.error.retryable)
        for tag in result.tags:
            if tag.state is TagState.FAILED:
                name = f"{mirror.source.repository}:{tag.tag}" if mirror.source.repository else str(mirror.source)
                retryable = tag.error is not None and tag.error.retryable
                yield FailedImage(names=(name,), destination=where, error=tag.reason, retryable=retryable)
        if not comparison.narrowed and (reason := _held_back(result)):
            yield _whole(mirror, reason, where, retryable=False)
    for outcome in outcomes:
        if outcome.status != DONE:
            yield FailedImage(
                names=outcome.names,
                destination=str(outcome.destination),
                error=outcome.error,
                retryable=outcome.retryable,
                not_tried=outcome.status == SKIPPED,
            )
    unfinished = unaccounted(comparison.work, outcomes)
    cause = error or "the run ended without an outcome for this destination (hint: run the mirror again)"
    for item, target in unfinished:
        yield FailedImage(names=item.names, destination=str(target.destination), error=cause, retryable=True)
    if error and not unfinished:
        yield _whole(mirror, error)


def _held_back(result: DestinationComparison) -> str:
    """Why an archive that has to change isn't written, or nothing."""
    lacking = [tag.tag for tag in result.tags if tag.state in UNAVAILABLE]
    if not (lacking and result.differs and isinstance(result.destination, ArchiveName)):
        return ""
    return f"{result.destination} isn't written, for it would lack {some_of(lacking, 3)}"


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
        receipt=report.receipt,
        images={"copied": report.copied, "present": report.in_place, "failed": len(report.failed)},
    )


_NAMED = 20
"""Mirrors that an error names: a state of Prefect has room for a thousand characters, and the cause is to be among
them."""


class MirrorIncomplete(Incomplete):
    """Some of it failed; `report` says what did arrive, and `report.only` is what to run again."""

    def __init__(self, report: MirrorRunReport) -> None:
        wrong = [mirror.mirror for mirror in report.mirrors if not mirror.succeeded]
        first = next((failed for mirror in report.mirrors for failed in mirror.failed if not failed.not_tried), None)
        cause, step = cause_and_step(first.error) if first else ("", "")
        super().__init__(
            f"{len(wrong)} of {len(report.mirrors)} mirrors aren't complete: {some_of(wrong, _NAMED)}"
            + (f"; the first failure: {cause}" if cause else ""),
            [failed.as_error() for mirror in report.mirrors for failed in mirror.failed],
            some_done=any(mirror.copied or mirror.in_place for mirror in report.mirrors),
            hint=step or "run it again, or with `only` just what failed: what is there is not sent again",
        )
        self.report = report

    def __reduce__(self) -> tuple[type[MirrorIncomplete], tuple[MirrorRunReport]]:
        return type(self), (self.report,)


EXTRA = "extra"


class DriftedTag(Struct, frozen=True, kw_only=True):
    """`state` is one of TagState's, or EXTRA. Failed: it couldn't be asked. More there is reported, and no drift."""

    destination: str
    tag: str
    state: str
    reason: str = ""


def drift_of(comparison: Comparison) -> list[DriftedTag]:
    drift = [
        DriftedTag(destination=str(destination), tag=tag.tag, state=tag.state.value, reason=tag.reason)
        for destination, tag in comparison.tags()
        if tag.state is not TagState.IN_PLACE
    ]
    for result in comparison.destinations:
        drift.extend(DriftedTag(destination=str(result.destination), tag=tag, state=EXTRA) for tag in result.extra)
    return drift


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
        return cls(
            mirror=comparison.mirror,
            source=comparison.source,
            in_place=comparison.count(TagState.IN_PLACE),
            drift=drift_of(comparison),
            held=len(comparison.too_young),
            lag_seconds=lag,
            error="; ".join(str(place.error) for place in comparison.destinations if place.error is not None),
            receipt=receipt,
        )

    @property
    def differing(self) -> int:
        return sum(tag.state not in (TagState.FAILED.value, TagState.MORE_THERE.value) for tag in self.drift)

    @property
    def drifted(self) -> bool:
        return self.differing > 0

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
        return {**msgspec.to_builtins(self), "drifted": self.drifted, "receipt": self.receipt.to_dict()}


class CheckReport(Struct, frozen=True, kw_only=True):
    """All mirrors of one check."""

    mirrors: list[DriftReport] = []

    @property
    def drifted(self) -> bool:
        return any(mirror.drifted for mirror in self.mirrors)

    def __str__(self) -> str:
        return "\n".join(map(str, self.mirrors))


class Drifted(TransshipError):
    """A destination isn't what its mirror says; `report` says where."""

    def __init__(self, report: CheckReport) -> None:
        super().__init__(str(report), hint="run the mirrors: what is missing or stale is copied")
        self.report = report

    def __reduce__(self) -> tuple[type[Drifted], tuple[CheckReport]]:
        return type(self), (self.report,)


ONLY_LIMIT = 100_000


def read_only(text: str, where: str) -> tuple[str, ...]:
    """The names in a file that says what to run again: a report, a list in JSON, or a name a line.

    Raises InvalidInput for anything else.
    """
    if text.lstrip()[:1] in ("{", "["):
        try:
            names = list(_names(parse_json(text)))
        except (ValueError, TypeError, RecursionError) as error:
            raise InvalidInput(f"{where} is neither a report nor a list of names: {error}") from error
    else:
        names = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if len(names) > ONLY_LIMIT or not all(isinstance(name, str) for name in names):
        raise InvalidInput(f"{where} is neither a report nor a list of names")
    return tuple(dict.fromkeys(names))


def _names(body: Any) -> Iterable[Any]:
    """Reports of several mirrors are a list of them, or stand under `mirrors`."""
    if isinstance(body, list):
        for entry in body:
            yield from _names(entry) if isinstance(entry, dict) else (entry,)
    elif "only" in body:
        yield from body["only"]
    elif "mirrors" in body:
        yield from _names(body["mirrors"])
    else:
        raise ValueError("there is no `only` in it")
