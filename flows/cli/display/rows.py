"""Rows of progress as text: a name, a bar, sizes, the rate, the time that is left."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field

from oci.units import show_size

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
