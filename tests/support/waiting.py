"""Waiting for a condition instead of for a length of time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

PATIENCE = 240.0
"""Seconds after which a test gives up. A busy machine is slow, and a condition that holds ends the wait."""


def until(what: str, condition: Callable[[], T], seconds: float = PATIENCE, every: float = 0.1) -> T:
    """Calls `condition` until it gives something true, and gives that. Fails with `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(every)
    return result


async def eventually(what: str, condition: Callable[[], Awaitable[T]], every: float = 0.1) -> T:
    """The same in an event loop, for a condition that is awaited."""
    deadline = time.monotonic() + PATIENCE
    while not (result := await condition()):
        assert time.monotonic() < deadline, f"not within {PATIENCE:.0f} s: {what}"
        await asyncio.sleep(every)
    return result
