"""A queue of shards that several flow runs take from, and how a run does the units of a shard.

The queue stands in the inputs of the flow run that made it: `NAME-shard-7` is the text of shard 7, `NAME-news-user-7`
the flow run that works on it, `NAME-news-result-7` what has become of it. The Prefect server gives an input to the
first who makes it and answers 409 to all others, so that no shard is taken twice. Numbers have no gaps: the first that
isn't there is the end, but for a queue that grows while its run still plans: that has a shard without work at its end.

A shard costs five requests: it is put in, found free, read, claimed and answered for. What the run that has the queue
wants to know of all shards is one request.
"""

from __future__ import annotations

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Generic, Self, TypeVar
from uuid import UUID

import msgspec
from prefect.client.orchestration import PrefectClient, get_client
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound, PrefectHTTPStatusError
from prefect.logging import get_logger, get_run_logger

from oci.meter import Receipt
from oci.output import to_dict
from oci.registry.http.pace import TokenBucket
from oci.relocation.transfer import FAILED

T = TypeVar("T")
Unit = TypeVar("Unit")

_SHARD, _USER, _RESULT = "shard", "news-user", "news-result"
_NEWS = "news"
"""What the keys of both begin with: they are read together."""
_PAGE = 200
_PATIENCE = 300.0
_PAUSE = 1.0
_WAIT = 120.0
"""Seconds that a helper waits for a shard: after that, the run that plans may be gone."""
NO_WORK = "-"
"""The text of the shard at the end of a queue that grew."""
_MISSING, _CONFLICT, _SERVER_TROUBLE = 404, 409, 500


class ShardQueue:
    """Used as a context manager by one flow run, `user`. `run` is the flow run that has the inputs."""

    def __init__(self, run: UUID, name: str, *, user: str, grows: bool = False, part: float = 1.0) -> None:
        """`name` has letters, digits and dashes: a run that is retried makes a queue of another name. A queue that
        `grows` has come to its end where `end` was called."""
        self.run = run
        self.grows = grows
        self.name = name
        self.user = user
        self.size = 0
        """Shards that this run has put in."""
        self.users: dict[int, str] = {}
        """The run that works, or has worked, on each shard, as last seen."""
        self.results: dict[int, str] = {}
        """What was said of each shard that has ended, as last seen."""
        self._inputs = {_USER: self.users, _RESULT: self.results}
        self._client: PrefectClient
        self.part = part
        """What a helper has of each rate that a person allows a registry; the run that is helped has the rest."""
        self._mine: set[int] = set()
        self._end: int | None = None
        """The number of the shard without work."""

    async def __aenter__(self) -> Self:
        self._client = await get_client().__aenter__()
        TokenBucket.lend(self, 1 - self.part)
        return self

    async def __aexit__(self, *exception: object) -> None:
        TokenBucket.lend(self, 0)
        await self._client.__aexit__(*exception)

    async def put(self, text: str) -> None:
        """Adds a shard at the end, with the number `size`, for the run that has the queue: one after the other."""
        await self._make(_SHARD, self.size, text)
        self.size += 1

    async def end(self) -> None:
        """Says that a queue that grew does so no more, but for what is put back."""
        if self.grows and self._end is None:
            self._end = self.size
            await self.put(NO_WORK)

    async def take(self) -> tuple[int, str] | None:
        """Returns the number and the text of the first shard that no run works on, which is this run's then; None when
        there is none, in a queue that grows after _WAIT seconds. What this run took before it was started again is
        taken once more."""
        await self.look(_USER)
        if self.user in self.users.values() and not self._mine:
            await self.look(_RESULT)
        number, until = 0, time.monotonic() + _WAIT
        while True:
            user = self.users.get(number)
            is_taken = user is not None and (user != self.user or number in self._mine or number in self.results)
            if is_taken or number == self._end:
                number += 1
                continue
            text = await self._read(number)
            if text is None:
                if not self.grows or self._end is not None or time.monotonic() > until:
                    return None
                await asyncio.sleep(_PAUSE)
            elif text == NO_WORK:
                self._end = number
            elif user is not None or await self._claim(number):
                self._mine.add(number)
                return number, text
            else:
                number += 1

    async def take_back(self) -> int | None:
        """Returns the number of the first shard that no run works on, for the run that has put it in: it knows how many
        there are, and what is in each. No request is made when all of them were seen to be taken."""
        shards = [number for number in range(self.size) if number != self._end]
        if len(self.users) < len(shards):
            await self.look(_USER)
        for number in shards:
            if number not in self.users and await self._claim(number):
                return number
        return None

    @property
    def helpers(self) -> frozenset[str]:
        """The other runs that were seen to take shards."""
        return frozenset(self.users.values()) - {self.user}

    async def finish(self, number: int, text: str) -> None:
        """Says what has become of a shard."""
        await self._make(_RESULT, number, text)
        self.results[number] = text

    async def _claim(self, number: int) -> bool:
        """Makes a shard this run's own. An answer that was lost on its way is found by what the server has."""
        if await self._make(_USER, number, self.user):
            self.users[number] = self.user
        else:
            await self.look(_USER)
        return self.users.get(number) == self.user

    async def look(self, kind: str = _NEWS) -> None:
        """Brings `users` and `results` up to date, or one of them."""
        while True:
            at_hand = {self._key(of, n) for of, entries in self._inputs.items() if of.startswith(kind) for n in entries}
            look = partial(self._client.filter_flow_run_input, self.run, self._key(kind), _PAGE, at_hand)
            page = await _patiently(look) or []
            for entry in page:
                of, _, number = entry.key.removeprefix(f"{self.name}-").rpartition("-")
                self._inputs[of][int(number)] = entry.value
            if len(page) < _PAGE:
                return

    async def _make(self, kind: str, number: int, text: str) -> bool:
        """Returns False when there is such an input."""

        async def make() -> bool:
            await self._client.create_flow_run_input(self.run, self._key(kind, number), text, self.user)
            return True

        return await _patiently(make, refused=_CONFLICT) or False

    async def _read(self, number: int) -> str | None:
        """Returns the text of a shard, None where there is none."""
        read = partial(self._client.read_flow_run_input, self.run, self._key(_SHARD, number))
        return await _patiently(read, refused=_MISSING)

    def _key(self, kind: str, number: int | str = "") -> str:
        return f"{self.name}-{kind}-{number}"


class ShardResult(msgspec.Struct, Generic[T], frozen=True):
    """What a helper says of a shard that it has ended, and what its run has cost so far."""

    outcomes: list[T]
    receipt: Receipt

    def to_json(self) -> str:
        return msgspec.json.encode(to_dict(self)).decode()

    def note(self, outcomes: dict[Any, T], key: Callable[[T], Any], elsewhere: dict[str, Receipt], helper: str) -> None:
        """Adds it to what a run knows: `outcomes`, of which only failed ones change, and the costs of helpers."""
        latest = elsewhere.get(helper, Receipt())
        elsewhere[helper] = max(self.receipt, latest, key=lambda receipt: receipt.seconds)
        for outcome in self.outcomes:
            before: Any = outcomes.get(key(outcome))
            if before is None or before.status == FAILED:
                outcomes[key(outcome)] = outcome


async def _patiently(ask: Callable[[], Awaitable[T]], *, refused: int = 0) -> T | None:
    """Asks again while the Prefect server is away or busy, for some minutes: work goes on meanwhile. Returns None when
    it answers with the status `refused`."""
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            return await ask()
        except (ObjectAlreadyExists, ObjectNotFound) as error:
            if refused != (_CONFLICT if isinstance(error, ObjectAlreadyExists) else _MISSING):
                raise
            return None
        except PrefectHTTPStatusError as error:
            if error.response.status_code == refused:
                return None
            if error.response.status_code < _SERVER_TROUBLE or time.monotonic() > until:
                raise
        except (OSError, RuntimeError, ValueError, TypeError, LookupError):
            raise
        except Exception as error:
            if time.monotonic() > until:
                raise
            get_run_logger().warning("the Prefect server can't be asked for shards: %s", error)
        await asyncio.sleep(_PAUSE)


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

    async def _ended(self, number: int) -> None:
        """Says that all units of a shard have ended, where that is asked for."""

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
