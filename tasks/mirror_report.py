"""What the run of a mirror did, and what a check found: as values for programs and as pages for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pydantic import BaseModel, computed_field

from oci.errors import Incomplete, StoreError
from oci.meter import Receipt
from oci.mirror.comparison import Comparison, TagState
from oci.mirror.run import MirrorReport
from oci.units import counted, show_size
from tasks.cost import Cost

_SHOWN = 200
"""Rows of a page; the values have all."""


class FailedTag(BaseModel):
    """One image that didn't arrive at one destination. `names` can be given as `only` to try again."""

    names: list[str]
    destination: str
    error: str
    retryable: bool
    not_tried: bool = False


class MirrorOutcome(BaseModel):
    """One mirror of a run. Numbers are of tags at all destinations together; sizes in bytes, times in seconds."""

    mirror: str
    source: str
    destinations: list[str]
    in_place: int = 0
    copied: int = 0
    images: int = 0
    tags: list[str] = []
    mutated: list[str] = []
    """Tags that are declared immutable and moved at the source; the destinations keep what they have."""
    unsigned: list[str] = []
    held: int = 0
    """Tags that are too young to be taken."""
    waiting: int = 0
    """Changed images that are left to the next run."""
    extra: int = 0
    """Tags at the destinations that the mirror doesn't take."""
    nothing_taken: str = ""
    """Why the mirror is about nothing at all, when it is."""
    failed: list[FailedTag] = []
    causes: list[str] = []
    """Why registries were given up, each once."""
    bytes_mounted: int = 0
    cost: Cost = Cost()

    @classmethod
    def of(cls, report: MirrorReport) -> MirrorOutcome:
        body = report.to_dict()
        known = {name: body[name] for name in cls.model_fields if name in body}
        return cls(
            **known,
            bytes_mounted=report.receipt.bytes_mounted,
            cost=Cost.of(report.receipt),
        )

    @computed_field  # type: ignore[prop-decorator]
    @property
    def succeeded(self) -> bool:
        return not (self.failed or self.mutated or self.unsigned)

    @property
    def only(self) -> list[str]:
        """What to give as `only` to run what failed again."""
        return list(dict.fromkeys(name for failed in self.failed for name in failed.names))

    def __str__(self) -> str:
        """One line."""
        waiting = f", {self.held} too young" if self.held else ""
        waiting += f", {self.waiting} left to the next run" if self.waiting else ""
        spent = f"{counted(self.cost.requests, 'request')}, {self.cost.seconds:.1f} s"
        return (
            f"{self.mirror}: {self.copied} copied, {self.in_place} in place, {len(self.failed)} failed{waiting}; "
            f"{show_size(self.cost.bytes_written)} sent, {spent}"
        )

    def to_markdown(self) -> str:
        return "\n".join((*_head(self), *_alarms(self), *_failures(self), *_numbers(self))) + "\n"


class MirrorRunReport(BaseModel):
    """All mirrors of one flow run."""

    mirrors: list[MirrorOutcome] = []

    @property
    def succeeded(self) -> bool:
        return all(mirror.succeeded for mirror in self.mirrors)

    @property
    def only(self) -> list[str]:
        """What to give as `only` to run what failed again."""
        return [name for mirror in self.mirrors for name in mirror.only]

    def __str__(self) -> str:
        return "\n".join(map(str, self.mirrors))


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


class DriftedTag(BaseModel):
    destination: str
    tag: str
    state: str
    """missing, stale, mutated, unsigned, extra, or failed: it couldn't be asked."""
    reason: str = ""


class DriftReport(BaseModel):
    """Where the destinations of one mirror differ from what it says."""

    mirror: str
    source: str
    in_place: int = 0
    drift: list[DriftedTag] = []
    held: int = 0
    lag_seconds: float | None = None
    """Since the oldest image was made that a destination should have and hasn't."""
    error: str = ""
    """Why it couldn't be compared."""
    cost: Cost = Cost()

    @classmethod
    def of(cls, comparison: Comparison, receipt: Receipt, lag: float | None) -> DriftReport:
        drift = [
            DriftedTag(destination=destination, tag=tag.tag, state=tag.state.value, reason=tag.reason)
            for destination, tag in comparison.tags()
            if tag.state is not TagState.IN_PLACE
        ]
        for one in comparison.destinations:
            drift.extend(DriftedTag(destination=one.destination, tag=tag, state="extra") for tag in one.extra)
        broken = [str(one.error) for one in comparison.destinations if one.error is not None]
        return cls(
            mirror=comparison.mirror,
            source=comparison.source,
            in_place=comparison.count(TagState.IN_PLACE),
            drift=drift,
            held=len(comparison.held),
            lag_seconds=lag,
            error="; ".join(broken),
            cost=Cost.of(receipt),
        )

    @computed_field  # type: ignore[prop-decorator]
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


class CheckReport(BaseModel):
    """All mirrors of one check."""

    mirrors: list[DriftReport] = []

    @property
    def drifted(self) -> bool:
        return any(mirror.drifted for mirror in self.mirrors)

    def __str__(self) -> str:
        return "\n".join(map(str, self.mirrors))


def _head(outcome: MirrorOutcome) -> Iterator[str]:
    yield f"## {outcome.mirror}: {outcome.source} → {', '.join(outcome.destinations)}"
    yield ""
    if outcome.failed:
        yield f"**{len(outcome.failed)} failed.** What arrived is in place and isn't sent again."
    elif outcome.nothing_taken:
        yield f"**Nothing is mirrored**: {outcome.nothing_taken}."
    elif outcome.copied:
        yield f"{counted(outcome.copied, 'tag')} copied."
    else:
        yield "Nothing to copy: everything was in place."
    yield ""


def _alarms(outcome: MirrorOutcome) -> Iterator[str]:
    for words, tags in (
        ("declared immutable, and moved at the source; not overwritten", outcome.mutated),
        ("without a signature at the source; not taken", outcome.unsigned),
    ):
        if tags:
            yield f"**{len(tags)} {words}:** {_tags(tags)}"
            yield ""
    for cause in outcome.causes:
        yield f"**Given up:** {_cell(cause)}"
        yield ""


def _failures(outcome: MirrorOutcome) -> Iterator[str]:
    tried = [failed for failed in outcome.failed if not failed.not_tried]
    if not outcome.failed:
        return
    yield "| Failed | Destination | Cause |"
    yield "|---|---|---|"
    for failed in tried[:_SHOWN]:
        names = ", ".join(name.rpartition("/")[2] for name in failed.names) or outcome.mirror
        yield f"| {_cell(names)} | {_cell(failed.destination)} | {_cell(failed.error)} |"
    if len(tried) > _SHOWN:
        yield f"| and {len(tried) - _SHOWN} more | | |"
    if len(tried) < len(outcome.failed):
        yield f"| {len(outcome.failed) - len(tried)} not tried | | |"
    yield ""


def _numbers(outcome: MirrorOutcome) -> Iterator[str]:
    rows = {
        "Tags": f"{outcome.copied} copied, {outcome.in_place} in place, {outcome.extra} extra at the destinations",
        "Waiting": ", ".join(
            text
            for count, text in (
                (outcome.held, f"{outcome.held} too young"),
                (outcome.waiting, f"{counted(outcome.waiting, 'image')} left to the next run"),
            )
            if count
        ),
        "Copied": _tags(outcome.tags),
        "Mounted": show_size(outcome.bytes_mounted) if outcome.bytes_mounted else "",
        **dict(outcome.cost.rows()),
    }
    yield f"| Mirror | {_cell(outcome.mirror)} |"
    yield "|---|---|"
    for name, value in rows.items():
        if value:
            yield f"| {name} | {_cell(value)} |"
    yield ""


def _tags(tags: Sequence[str]) -> str:
    names = list(dict.fromkeys(tags))
    shown = ", ".join(f"`{tag}`" for tag in names[:20])
    return f"{shown} and {len(names) - 20} more" if len(names) > 20 else shown


def _cell(text: str) -> str:
    """Text from outside must not end a table cell."""
    return text.replace("|", "\\|").replace("\n", " ")
