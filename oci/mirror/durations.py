"""Lengths of time as people write them in a configuration: `90s`, `30m`, `12h`, `7d`, `2w`, `1d12h`."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

_UNITS = {"w": "weeks", "d": "days", "h": "hours", "m": "minutes", "s": "seconds"}
PATTERN = r"^(\d{1,6}w)?(\d{1,6}d)?(\d{1,6}h)?(\d{1,6}m)?(\d{1,6}s)?$"


def parse_duration(text: str) -> timedelta:
    """Raises ValueError. Empty is no time at all."""
    if not re.fullmatch(PATTERN.strip("^$"), text):
        raise ValueError(f"{text!r} is no length of time: write 90s, 30m, 12h, 7d, 2w, or 1d12h")
    return timedelta(**{_UNITS[unit]: int(number) for number, unit in re.findall(r"(\d+)([wdhms])", text)})


def show_duration(duration: timedelta) -> str:
    """The inverse, in the largest units; empty for no time."""
    seconds = int(duration.total_seconds())
    parts = []
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)):
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts)


def _accepted(value: Any) -> Any:
    if isinstance(value, str):
        return parse_duration(value)
    if isinstance(value, timedelta):
        return value
    raise ValueError("expected a length of time as text: 90s, 30m, 12h, 7d, 2w")


Duration = Annotated[
    timedelta,
    BeforeValidator(_accepted),
    PlainSerializer(show_duration, return_type=str),
    WithJsonSchema({"type": "string", "pattern": PATTERN, "examples": ["12h", "7d"]}),
]
"""A field of a model: text in a file or form, a timedelta in a program."""
