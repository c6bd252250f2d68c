"""Numbers as people read them."""

from __future__ import annotations

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def human(count: float) -> str:
    """Bytes in the largest unit that leaves at least one: `1.5 MiB`."""
    for unit in _UNITS[:-1]:
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} {_UNITS[-1]}"


def percent(part: int, whole: int) -> float:
    """0 to 100; 100 of nothing."""
    return 100.0 if whole <= 0 else min(100.0, 100.0 * part / whole)
