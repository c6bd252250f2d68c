"""Bytes on their way: a live display on a terminal, a plain line now and then elsewhere.

Nothing calls back from the core: a thread looks at the meter and at what the session has in flight.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Protocol, TextIO

import click

from flows.cli.click_ext import Invocation
from flows.cli.output import IMGPKG, program_name, visible
from oci.digest import Digest
from oci.meter import Meter, Receipt
from oci.relocation.session import Session
from oci.units import show_size

if TYPE_CHECKING:
    from oci.export.plan import ArchivePlan
    from oci.export.tar_plan import Part
    from oci.relocation.driver import Relocation


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


class Rates:
    """Bytes a second of each name, over the last seconds."""

    def __init__(self) -> None:
        self._samples: dict[str, deque[tuple[float, int]]] = {}

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


class Lines(Protocol):
    """What is drawn; asked again and again from a thread of its own."""

    def lines(self, width: int) -> list[str]: ...

    def line(self) -> str:
        """One line, for a pipe."""


@dataclass
class Bars(ABC):
    """Rows with bars as text: the whole, then what is on its way."""

    _rates: Rates = field(default_factory=Rates, init=False)

    @abstractmethod
    def overall(self) -> Row:
        """Returns how far the whole is."""

    def parts(self) -> list[Row]:
        """Returns what is on its way right now."""
        return []

    def line(self) -> str:
        row = self.overall()
        return ", ".join(bar_parts(row, self._rates.of("", row.moved)))

    def lines(self, width: int) -> list[str]:
        whole, parts = self.overall(), self.parts()
        room = max(12, width - _BAR_ROOM)
        name_width = min(room, max(len(row.name) + 2 for row in (whole, *parts)))
        rows = [bar_line(whole, self._rates.of("", whole.moved), indent=0, name_width=name_width)]
        rows += [bar_line(row, self._rates.of(row.name, row.moved), indent=2, name_width=name_width) for row in parts]
        return rows


@dataclass
class RelocationProgress(Bars):
    """A relocation: its images, and of those on their way each one's bytes."""

    relocation: Relocation

    @cached_property
    def _blobs(self) -> dict[Digest, dict[Digest, int]]:
        """The blobs of each image to transfer, with their sizes. What a bundle lists is beside it, not below."""
        plan = self.relocation.plan
        return {
            image.digest: {
                blob: plan.blob_by_digest[blob].size
                for manifest in plan.below(image)
                if manifest is image or not manifest.present
                for blob in manifest.blobs
            }
            for image in plan.to_transfer
        }

    def overall(self) -> Row:
        plan = self.relocation.made_plan
        if plan is None:
            return Row("planning")
        moved, total = self.relocation.session.meter.receipt().bytes_moved, plan.bytes_to_move
        return Row(f"{len(self.relocation.outcomes)} of {len(list(plan.images))} images", min(moved, total), total)

    def parts(self) -> list[Row]:
        """A blob that several images share shows with the first of them that isn't done."""
        plan, session, outcomes = self.relocation.made_plan, self.relocation.session, self.relocation.outcomes
        if plan is None:
            return []
        moving = dict(session.moving)
        unshown, rows = set(moving), []
        for image, sizes in self._blobs.items() if moving else ():
            if image in outcomes or unshown.isdisjoint(sizes):
                continue
            unshown -= sizes.keys()
            copied = sum(size if blob in session.moved else moving.get(blob, 0) for blob, size in sizes.items())
            name = plan.by_digest[image].subject.partition("@")[0].rpartition("/")[2]
            rows.append(Row(f"{name[:_LONGEST_NAME]}@{image[:14]}", copied, sum(sizes.values())))
            if not unshown:
                break
        return rows


@dataclass
class ArchiveProgress(Bars):
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


@dataclass
class LayerProgress(Bars):
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


def progress_flag(command: Any) -> Any:
    return click.option(
        "--progress",
        "progress_kind",
        type=click.Choice(["auto", "plain", "none"]),
        default="auto",
        help="auto: bars on a terminal, and a line a minute elsewhere; plain: a line every five seconds.",
    )(command)


@contextmanager
def shown(progress: Lines, invocation: Invocation, kind: str) -> Iterator[None]:
    """Draws while the block runs; `kind` is `auto`, `plain` or `none`."""
    draw = _drawing(progress, invocation, kind)
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
    return partial(draw_until, lines.lines)


def _print(lines: Lines, seconds: float, stop: threading.Event) -> None:
    while not stop.wait(seconds):
        print(visible(lines.line()), file=sys.stderr, flush=True)


_SECONDS = 0.2
_UP_AND_CLEAR = "\x1b[{rows}F\x1b[J"
_SYNCHRONIZED = ("\x1b[?2026h", "\x1b[?2026l")
"""Escape sequences around one drawing, which the terminal then shows as a whole (mode 2026); others ignore them."""


class Screen:
    """Draws lines, each cut to the width, and takes them away again. Safe from any thread.

    A terminal that gets narrower breaks lines that are on it: how many rows they take is counted with the width of now,
    not with that of the time when they were drawn, so that nothing of them is left behind.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.lock = threading.RLock()
        self._drawn: list[int] = []
        """The lengths of the lines that are on the screen."""

    @property
    def size(self) -> tuple[int, int]:
        """Columns and rows."""
        with suppress(OSError, ValueError):
            columns, rows = os.get_terminal_size(self._stream.fileno())
            if columns and rows:
                return columns, rows
        return 80, 24

    def draw(self, lines: Sequence[str]) -> None:
        columns, rows = self.size
        fitting = [line[: columns - 1] for line in lines[: max(1, rows - 2)]]
        with self.lock:
            text = "".join(f"{line}\n" for line in fitting)
            self._write(_SYNCHRONIZED[0] + self._erasing() + text + _SYNCHRONIZED[1])
            self._drawn = [len(line) for line in fitting]

    def erase(self) -> None:
        with self.lock:
            self._write(self._erasing())
            self._drawn = []

    def _erasing(self) -> str:
        columns, _ = self.size
        rows = sum(max(1, -(-length // columns)) for length in self._drawn)
        return _UP_AND_CLEAR.format(rows=rows) if rows else ""

    def _write(self, text: str) -> None:
        if text:
            self._stream.write(text)
            self._stream.flush()


class Above:
    """Standard output, whose lines go above what is drawn. A line that isn't ended yet waits for its end."""

    def __init__(self, stream: TextIO, screen: Screen) -> None:
        self._stream = stream
        self._screen = screen
        self._line = ""

    def write(self, text: str) -> int:
        whole, newline, self._line = (self._line + text).rpartition("\n")
        if newline:
            with self._screen.lock:
                self._screen.erase()
                self._stream.write(whole + newline)
                self._stream.flush()
        return len(text)

    def flush(self) -> None:
        """Does nothing: whole lines are written at once."""

    def end(self) -> None:
        self._stream.write(self._line)
        self._line = ""

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


def draw_until(lines: Callable[[int], Sequence[str]], stop: threading.Event) -> None:
    """Draws what `lines` gives for a width, on standard error, until the event is set; then nothing of it is left."""
    screen = Screen(sys.stderr)
    before = sys.stdout
    above = Above(before, screen) if before.isatty() else None
    if above is not None:
        sys.stdout = above  # what a print needs of it
    try:
        while not stop.wait(_SECONDS):
            screen.draw([visible(line) for line in lines(screen.size[0])])
    finally:
        screen.erase()
        if above is not None:
            sys.stdout = before
            above.end()
