"""Waiting for a condition instead of for a length of time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

PATIENCE = 240.0
"""Seconds after which a test gives up. A busy machine is slow, and a condition that holds ends the wait."""


def until(what: str, condition: Callable[[], T], seconds: float = PATIENCE, every: float | None = None) -> T:
    """Calls `condition` until it gives something true, and gives that. Fails with `what` after `seconds`. Without
    `every`, it asks ever more seldom: each look takes CPU, a server's too, from what is waited for."""
    began = time.monotonic()
    while not (result := condition()):
        waited = time.monotonic() - began
        assert waited < seconds, f"not within {seconds:.0f} s: {what}"
        time.sleep(_pause(waited) if every is None else every)
    return result


async def eventually(what: str, condition: Callable[[], Awaitable[T]], every: float | None = None) -> T:
    """The same in an event loop, for a condition that is awaited."""
    began = time.monotonic()
    while not (result := await condition()):
        waited = time.monotonic() - began
        assert waited < PATIENCE, f"not within {PATIENCE:.0f} s: {what}"
        await asyncio.sleep(_pause(waited) if every is None else every)
    return result


def _pause(waited: float) -> float:
    """Seconds until a condition is looked at again: a tenth of what was waited, and no more than a second."""
    return min(max(0.1, waited / 10), 1.0)
