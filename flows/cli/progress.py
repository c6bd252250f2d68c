"""Bytes on their way: a live display on a terminal, a plain line now and then elsewhere.

Nothing calls back from the core: a thread looks at the meter and at what the session has in flight.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

import click

from flows.cli.click_ext import Invocation, OutputFile
from flows.cli.output import IMGPKG, program_name, visible
from oci.digest import Digest
from oci.meter import METRICS_FILE, PUSHGATEWAY, Meter, Receipt, RunMetrics, export_metrics
from oci.relocation.session import Session
from oci.relocation.transfer import DONE, FAILED, PRESENT
from oci.units import show_size

if TYPE_CHECKING:
    from oci.export.parts import Part
    from oci.export.plan import ArchivePlan
    from oci.relocation.plan import Plan, PlannedManifest
    from oci.relocation.session import Session
    from oci.relocation.transfer import ImageOutcome

_PLAIN_SECONDS = 5.0
_QUIET_SECONDS = 60.0
"""Seconds between two lines of progress in a pipe, where no kind of progress was asked for."""

_BAR_ROOM = 70
"""Columns of a bar with its sizes, its rate and the time that is left."""

_LONGEST_NAME = 40
_BAR = 20
_WINDOW = 10.0
"""Seconds over which a rate is taken."""


@dataclass(frozen=True, slots=True)
class Row:
    """One bar; sizes in bytes, `total` None while it isn't known."""

    name: str
    moved: int = 0
    total: int | None = None


@dataclass(slots=True)
class Rates:
    """Bytes a second of each name, over the last seconds."""

    _samples: dict[str, deque[tuple[float, int]]] = field(default_factory=dict)

    def of(self, name: str, moved: int) -> float:
        now = time.monotonic()
        samples = self._samples.setdefault(name, deque())
        samples.append((now, moved))
        while now - samples[0][0] > _WINDOW:
            samples.popleft()
        passed = now - samples[0][0]
        return max(0.0, (moved - samples[0][1]) / passed) if passed > 0 else 0.0


def bar_parts(row: Row, rate: float) -> list[str]:
    """`web@sha256:…`, `1.5 MiB of 3.0 MiB`, `1.2 MiB/s`, `3s left`, as far as it is known."""
    if row.total is None:
        return [row.name]
    parts = [row.name, f"{show_size(row.moved)} of {show_size(row.total)}"]
    if rate > 0:
        parts.append(f"{show_size(rate)}/s")
        if row.total > row.moved:
            parts.append(f"{clock((row.total - row.moved) / rate)} left")
    return parts


def bar_line(row: Row, rate: float, *, indent: int, name_width: int) -> str:
    """The same with a bar, in columns: `  web@sha256:…  ━━━━────  1.5 MiB of 3.0 MiB  1.2 MiB/s  3s left`."""
    name = f"{'':{indent}}{row.name}"[:name_width].ljust(name_width)
    if row.total is None:
        return name
    filled = min(_BAR, _BAR * row.moved // row.total) if row.total else _BAR
    return "  ".join([name, "━" * filled + "─" * (_BAR - filled), *bar_parts(row, rate)[1:]])


def clock(seconds: float) -> str:
    minutes, remaining = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes:02}m"
    return f"{minutes}m{remaining:02}s" if minutes else f"{remaining}s"


class Progress(Protocol):
    """What is drawn; asked again and again from a thread of its own."""

    def overall(self) -> Row: ...

    def parts(self) -> list[Row]:
        """What is on its way right now."""


@runtime_checkable
class Lines(Protocol):
    """What is drawn as lines of text, by work that bars don't describe well."""

    def lines(self, width: int) -> list[str]: ...

    def line(self) -> str:
        """One line, for a pipe."""


@dataclass(slots=True)
class RelocationProgress:
    """A relocation: its images, and of those on their way each one's bytes."""

    session: Session
    plan: Plan | None = None
    outcomes: dict[Digest, ImageOutcome] = field(default_factory=dict)
    _blobs: dict[Digest, tuple[Digest, ...]] = field(default_factory=dict)
    _images: dict[Digest, list[Digest]] = field(default_factory=dict)

    def planned(self, plan: Plan) -> None:
        for image in plan.to_transfer:
            blobs = self._blobs[image.digest] = tuple(dict.fromkeys(_blobs_below(plan, image)))
            for blob in blobs:
                self._images.setdefault(blob, []).append(image.digest)
        self.plan = plan

    def finished(self, outcome: ImageOutcome) -> None:
        self.outcomes[outcome.digest] = outcome

    def overall(self) -> Row:
        if self.plan is None:
            return Row("planning")
        receipt = self.session.meter.receipt()
        moved = receipt.bytes_moved
        total = self.plan.bytes_to_move
        return Row(f"{len(self.outcomes)} of {len(list(self.plan.images))} images", min(moved, total), total)

    def parts(self) -> list[Row]:
        """A blob that several images share shows with the first of them that isn't done."""
        plan, moving = self.plan, dict(self.session.moving)
        if plan is None:
            return []
        owners = (
            next((image for image in self._images.get(blob, ()) if image not in self.outcomes), None) for blob in moving
        )
        return [self._part(plan, image, moving) for image in dict.fromkeys(owners) if image is not None]

    def _part(self, plan: Plan, image: Digest, moving: dict[Digest, int]) -> Row:
        sizes = {blob: plan.blob_by_digest[blob].size for blob in self._blobs[image]}
        copied = sum(size if blob in self.session.moved else moving.get(blob, 0) for blob, size in sizes.items())
        planned = plan.by_digest[image]
        name = planned.subject.partition("@")[0].rpartition("/")[2]
        return Row(f"{name[:_LONGEST_NAME]}@{image[:14]}", copied, sum(sizes.values()))


def _blobs_below(plan: Plan, image: PlannedManifest) -> Iterator[Digest]:
    """What a bundle lists is beside it, not below."""
    missing = (manifest for manifest in plan.below(image) if manifest is image or not manifest.present)
    return (blob for manifest in missing for blob in manifest.blobs)


@dataclass(slots=True)
class ArchiveProgress:
    """An archive being written: its parts, and the blobs on their way."""

    session: Session
    plan: ArchivePlan | None = None
    finished: int = 0
    bytes_done: int = 0
    _written: int = 0
    _read: int = 0

    def planned(self, plan: ArchivePlan) -> None:
        receipt = self.session.meter.receipt()
        self._read, self._written = receipt.bytes_read, receipt.bytes_written
        self.plan = plan

    def part(self, part: Part) -> None:
        self.finished += 1
        self.bytes_done += part.size

    def overall(self) -> Row:
        if self.plan is None:
            return Row("planning")
        receipt = self.session.meter.receipt()
        on_way = max(0, receipt.bytes_read - self._read - (receipt.bytes_written - self._written))
        parts = self.plan.part_count
        name = f"{min(self.finished, parts)} of {parts} parts"
        return Row(name, min(self.bytes_done + on_way, self.plan.size), self.plan.size)

    def parts(self) -> list[Row]:
        plan, moving = self.plan, dict(self.session.moving)
        if plan is None:
            return []
        sizes = plan.blob_by_digest
        return [Row(blob[:19], min(read, sizes[blob].size), sizes[blob].size) for blob, read in moving.items()]


@dataclass(slots=True)
class LayerProgress:
    """The layers of a push or a pull: `count` says which bytes of a receipt they are."""

    meter: Meter
    name: str
    count: Callable[[Receipt], int]
    total: int | None = None

    def expect(self, size: int) -> None:
        self.total = (self.total or 0) + size

    def overall(self) -> Row:
        if self.total is None:
            return Row(self.name)
        return Row(self.name, min(self.count(self.meter.receipt()), self.total), self.total)

    def parts(self) -> list[Row]:
        return []


def progress_flag(command: Any) -> Any:
    return click.option(
        "--progress",
        "progress_kind",
        type=click.Choice(["auto", "plain", "none"]),
        default="auto",
        help="auto: bars on a terminal, and a line a minute elsewhere; plain: a line every five seconds.",
    )(command)


@contextmanager
def shown(progress: Progress | Lines, invocation: Invocation, kind: str) -> Iterator[None]:
    """Draws while the block runs; `kind` is `auto`, `plain` or `none`."""
    lines = progress if isinstance(progress, Lines) else Bars(progress)
    draw = _drawing(lines, invocation, kind)
    if draw is None:
        yield
        return
    stop = threading.Event()
    thread = threading.Thread(target=draw, args=(stop,), name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _drawing(lines: Lines, invocation: Invocation, kind: str) -> Callable[[threading.Event], None] | None:
    """On a terminal lines that are drawn anew, unless this is a build (CI); else a line now and then on standard error,
    for who looks at the log of a long run."""
    output = invocation.output
    if kind == "plain":
        return partial(_print, lines, _PLAIN_SECONDS)
    if kind == "none" or output.json or output.quiet or program_name() == IMGPKG:
        return None
    if not (output.tty and sys.stderr.isatty()) or os.environ.get("CI") or os.environ.get("TERM") == "dumb":
        return partial(_print, lines, _QUIET_SECONDS)
    from flows.cli.display.terminal import draw_until  # noqa: PLC0415 - only a terminal needs it

    return partial(draw_until, lines.lines)


def _print(lines: Lines, seconds: float, stop: threading.Event) -> None:
    while not stop.wait(seconds):
        print(visible(lines.line()), file=sys.stderr, flush=True)


class Bars:
    """The rows of a progress as text: the whole, then what is on its way."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._rates = Rates()

    def line(self) -> str:
        row = self._progress.overall()
        return ", ".join(bar_parts(row, self._rates.of("", row.moved)))

    def lines(self, width: int) -> list[str]:
        whole, parts = self._progress.overall(), self._progress.parts()
        room = max(12, width - _BAR_ROOM)
        name_width = min(room, max(len(row.name) + 2 for row in (whole, *parts)))
        rows = [bar_line(whole, self._rates.of("", whole.moved), indent=0, name_width=name_width)]
        rows += [bar_line(row, self._rates.of(row.name, row.moved), indent=2, name_width=name_width) for row in parts]
        return rows


F = TypeVar("F", bound=Callable[..., Any])

metrics_flag: Callable[[F], F] = click.option(
    "--metrics-file",
    type=OutputFile(folder=True),
    default="",
    envvar=METRICS_FILE,
    help=f"Write the run's numbers for Prometheus to this file or folder ({METRICS_FILE}); {PUSHGATEWAY} pushes them.",
)


@contextmanager
def metrics_exported(
    session: Session, images: Callable[[], Mapping[str, int]], invocation: Invocation, *, destination: str, path: str
) -> Iterator[None]:
    """Exports the metrics of the block when it ends, with or without an error; `images` counts images by outcome."""
    succeeded = False
    try:
        yield
        succeeded = True
    finally:
        run = RunMetrics(
            names={"destination": destination},
            succeeded=succeeded,
            ended=time.time(),
            receipt=session.meter.receipt(),
            images=images(),
        )
        export_metrics(run, warn=invocation.output.warn, path=path)


def sums(progress: RelocationProgress) -> Mapping[str, int]:
    """Images of a relocation so far."""
    counts = Counter(outcome.status for outcome in progress.outcomes.values())
    unread = len(progress.plan.failures) if progress.plan else 0
    return {"copied": counts[DONE], "present": counts[PRESENT], "failed": counts[FAILED] + unread}
