"""Docker Hub's pull quota, as its answers tell it: `ratelimit-remaining: 76;w=21600`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_HEADER = re.compile(r"\s*(\d{1,12})\s*(?:;\s*w=(\d{1,12}))?")


@dataclass(frozen=True, slots=True)
class Quota:
    """Pulls that are left, and the length of the window in seconds."""

    count: int
    window: float


def remaining_pulls(headers: Mapping[str, str]) -> Quota | None:
    """None where the registry says nothing of a quota."""
    found = _HEADER.match(headers.get("ratelimit-remaining", ""))
    return Quota(int(found.group(1)), float(found.group(2) or 0)) if found else None
