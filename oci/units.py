"""Sizes, durations and counts, as people write and read them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import timedelta

_SIZE = re.compile(r"(\d{1,20}(?:\.\d{1,9})?)\s*([kKmMgGtT]?)(i?)[bB]?")
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_SIZE_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_DURATION = re.compile(r"(\d{1,12}(?:\.\d{0,9})?|\.\d{1,9})(ns|us|µs|ms|[smhdw])")
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


def parse_size(text: str) -> int:
    """Returns bytes for `4GiB` (powers of 1024), `500MB` or `1.5M` (powers of 1000), or a bare number of bytes. Raises
    ValueError."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f'invalid size "{text}": write it like 4GiB, 500MB or 1000000')
    number, unit, binary = match.groups()
    factor: int = (1024 if binary else 1000) ** _POWERS[unit.lower()]
    return int(number) * factor if number.isdecimal() else int(float(number) * factor)


def show_size(count: float) -> str:
    """Formats bytes in the largest unit that gives at least 1: `1.5 MiB`."""
    for unit in _SIZE_UNITS[:-1]:
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} {_SIZE_UNITS[-1]}"


def exact_size(count: int) -> str:
    """Formats bytes without loss, so that `parse_size` gives the same number: `16MiB`, `1000001`."""
    for power, unit in ((4, "TiB"), (3, "GiB"), (2, "MiB"), (1, "KiB")):
        if count and count % 1024**power == 0:
            return f"{count // 1024**power}{unit}"
    return str(count)


_LONGEST = 100
"""Characters of a length of time."""


def parse_duration(text: str) -> timedelta:
    """Reads Go's durations (`500ms`, `30s`, `1m30s`), with days and weeks (`7d`, `2w`, `1d12h`). Empty text and `0` are
    no time. Raises ValueError."""
    parts = _DURATION.findall(text[:_LONGEST])  # of digits alone it takes the square
    if "".join(number + unit for number, unit in parts) != text and text != "0":
        raise ValueError(f"{text[:_LONGEST]!r} is no length of time: write 500ms, 90s, 1m30s, 12h, 7d, 2w or 1d12h")
    try:
        return timedelta(seconds=sum(float(number) * _SECONDS[unit] for number, unit in parts))
    except OverflowError:
        raise ValueError(f"{text!r} is too long a time") from None


def show_duration(duration: timedelta) -> str:
    """Formats a duration so that `parse_duration` gives the same value, in the largest units: `1d12h`. Empty for no
    time."""
    whole, micros = divmod(round(duration / timedelta(microseconds=1)), 1_000_000)
    parts = []
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)):
        count, whole = divmod(whole, size)
        if count:
            parts.append(f"{count}{unit}")
    if micros:
        parts.append(f"{micros // 1000}ms" if micros % 1000 == 0 else f"{micros}us")
    return "".join(parts)


def counted(number: int, noun: str) -> str:
    """Formats a number with what it counts: `1 image`, `2 images`, `0 entries`. `noun` is in the singular; an adjective
    may come before it."""
    if number == 1:
        return f"1 {noun}"
    if noun.endswith("y"):
        return f"{number} {noun[:-1]}ies"
    return f"{number} {noun}es" if noun.endswith("x") else f"{number} {noun}s"


def show_cost(requests: int, seconds: float) -> str:
    """Formats what a run took: `12 requests, 3.4 s`."""
    return f"{counted(requests, 'request')}, {seconds:.1f} s"


def percent(part: int, whole: int) -> float:
    """Returns 0 to 100; 100 of nothing."""
    return 100.0 if whole <= 0 else min(100.0, 100.0 * part / whole)


def some_of(names: Sequence[object], most: int) -> str:
    """Lists names: `a, b and 3 more`."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(str, names[:most])) + more
