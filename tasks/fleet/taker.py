"""The units of one shard after the other, given to a few calls at a time; and the helper that takes shards from a queue
until there are none."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Generic, TypeVar

from prefect.logging import get_logger

from tasks.fleet.queue import ShardQueue

Unit = TypeVar("Unit")

_AT_ONCE = 2
"""Shards that a run works on at a time: the second fills the places that the end of the first leaves empty, and more
would be missing elsewhere."""
_CALLS = 4
"""Calls of `do` in which each place of a run does its part of a shard. A task run costs the Prefect server three
events, and on SQLite each write waits for all others: after a minute the request fails."""
BEGUN = -1
"""Stands for the number of a shard, of what a run begins with."""

Do = Callable[[list[Unit]], Awaitable[None]]
"""Does some units. What goes wrong is kept where it belongs, and not raised."""


class Feed(ABC, Generic[Unit]):
    """Gives the units of one shard after the other to a few calls of `do`."""

    def __init__(self) -> None:
        self._pending: deque[tuple[int, Unit]] = deque()
        self._open: dict[int, int] = {}
        """Units of each shard that haven't ended."""
        self._together: dict[int, int] = {}  # units of each shard for a call of `do`
        self._width, self._least_together = 1, 1
        self._turn = asyncio.Lock()
        self._freed = asyncio.Event()

    @abstractmethod
    async def _next_shard(self) -> tuple[int, list[Unit]] | None:
        """Returns the number and the units of a shard that is this run's from now on; None when nothing is left."""

    @abstractmethod
    async def _ended(self, number: int) -> None:
        """Says that all units of a shard have ended."""

    def _begin(self, number: int, units: Sequence[Unit]) -> None:
        if units:
            self._open[number] = self._open.get(number, 0) + len(units)
            shares = _CALLS * self._width if number != BEGUN else len(units)
            self._together[number] = max(self._least_together, -(-len(units) // shares))
            self._pending.extend((number, unit) for unit in units)

    async def _work(self, do: Do[Unit]) -> None:
        while True:
            async with self._turn:
                while not self._pending:
                    while len(self._open) >= _AT_ONCE:
                        self._freed.clear()
                        await self._freed.wait()
                    shard = await self._next_shard()
                    if shard is None:
                        return
                    self._begin(*shard)
                number = self._pending[0][0]
                units: list[Unit] = []
                while self._pending and self._pending[0][0] == number and len(units) < self._together[number]:
                    units.append(self._pending.popleft()[1])
            await do(units)
            self._open[number] -= len(units)
            if not self._open[number]:
                del self._open[number]
                self._freed.set()
                await self._ended(number)


@contextmanager
def fewer_logs() -> Iterator[None]:
    """Keeps the Prefect server from a record of each task run that ended well: where work is shared, outcomes stand in
    the queue and in the report."""
    logger = get_logger("prefect.task_runs")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


class Taker(Feed[Unit]):
    """The work of a helper: takes shards until there are none."""

    def __init__(
        self,
        queue: ShardQueue,
        unpack: Callable[[str], Awaitable[list[Unit]]],
        result_of: Callable[[Sequence[Unit]], str],
    ) -> None:
        """`result_of` gives what has become of the units of a shard, for `Work.note`."""
        super().__init__()
        self._queue = queue
        self._unpack = unpack
        self._result_of = result_of
        self._units: dict[int, list[Unit]] = {}
        self._over = False

    async def carry_out(self, do: Do[Unit], *, width: Callable[[], int], images_together: int = 1) -> int:
        """Does all shards that it gets, as Spread.carry_out does; returns how many. `width` is asked when the first
        shard is there, and says what its registries allow."""
        first = await self._next_shard()
        if first is None:
            return 0
        self._width, self._least_together = width(), images_together
        self._begin(*first)
        with fewer_logs():
            async with asyncio.TaskGroup() as group:
                for _ in range(self._width):
                    group.create_task(self._work(do))
        return len(self._units)

    async def _next_shard(self) -> tuple[int, list[Unit]] | None:
        while not self._over and (shard := await self._queue.take()) is not None:
            number, text = shard
            self._units[number] = await self._unpack(text)
            if self._units[number]:
                return number, self._units[number]
            await self._ended(number)
        self._over = True  # what is put back from now on is for the run that is helped
        return None

    async def _ended(self, number: int) -> None:
        await self._queue.finish(number, self._result_of(self._units[number]))
