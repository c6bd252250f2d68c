"""Bytes on their way: a live display on a terminal, plain lines in a pipe when they are asked for.

Nothing calls back from the core: a thread looks at the meter.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from oci.meter import Meter
from oci.relocation.plan import Plan
from oci.relocation.transfer import ImageOutcome
from tasks.sizes import human

_TERMINAL_SECONDS = 0.2
_PLAIN_SECONDS = 5.0


@dataclass(slots=True)
class Progress:
    """What is known so far; told by the driver, drawn by a thread."""

    meter: Meter
    plan: Plan | None = None
    done: dict[str, ImageOutcome] = field(default_factory=dict)

    def planned(self, plan: Plan) -> None:
        self.plan = plan

    def finished(self, outcome: ImageOutcome) -> None:
        self.done[outcome.digest] = outcome

    @property
    def images(self) -> tuple[int, int]:
        return len(self.done), len(list(self.plan.images)) if self.plan else 0

    @property
    def moved(self) -> tuple[int, int]:
        """Bytes that needn't be moved any more, and all of them."""
        receipt = self.meter.receipt()
        total = self.plan.bytes_to_move if self.plan else 0
        moved = receipt.bytes_written + receipt.bytes_mounted + receipt.bytes_skipped
        return min(moved, total), total


@contextmanager
def shown(progress: Progress, kind: str) -> Iterator[None]:
    """`kind` is `terminal`, `plain` or `none`."""
    if kind == "none":
        yield
        return
    stop = threading.Event()
    draw = _draw_terminal if kind == "terminal" else _draw_plain
    thread = threading.Thread(target=draw, args=(progress, stop), name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _draw_plain(progress: Progress, stop: threading.Event) -> None:
    before = 0
    while not stop.wait(_PLAIN_SECONDS):
        moved, total = progress.moved
        done, images = progress.images
        rate = (moved - before) / _PLAIN_SECONDS
        before = moved
        left = f", {_clock((total - moved) / rate)} left" if rate > 0 else ""
        print(
            f"{done} of {images} images, {human(moved)} of {human(total)}, {human(int(rate))}/s{left}",
            file=sys.stderr,
            flush=True,
        )


def _draw_terminal(progress: Progress, stop: threading.Event) -> None:
    from rich import progress as bars  # noqa: PLC0415 - only a terminal needs it
    from rich.console import Console  # noqa: PLC0415

    columns = (
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.DownloadColumn(binary_units=True),
        bars.TransferSpeedColumn(),
        bars.TimeRemainingColumn(),
    )
    # Lines of the product go above the display only where both share a terminal.
    both = sys.stdout.isatty()
    with bars.Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=both) as live:
        task = live.add_task("planning", total=None)
        while not stop.wait(_TERMINAL_SECONDS):
            if progress.plan is None:
                continue
            moved, total = progress.moved
            done, images = progress.images
            live.update(task, description=f"{done}/{images} images", completed=moved, total=total or 1)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m{rest:02}s" if minutes else f"{rest}s"
