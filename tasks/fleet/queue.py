"""A queue of shards that several flow runs take from.

It stands in the inputs of the flow run that made it: `NAME-shard-7` is the text of shard 7, `NAME-news-user-7` the flow
run that works on it, `NAME-news-result-7` what has become of it. The Prefect server gives an input to the first who
makes it and answers 409 to all others, so that no shard is taken twice. Numbers have no gaps: the first that isn't
there is the end, but for a queue that grows while its run still plans: that has a shard without work at its end.

A shard costs five requests: it is put in, found free, read, claimed and answered for. What the run that has the queue
wants to know of all shards is one request.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from functools import partial
from typing import Generic, Protocol, Self, TypeVar
from uuid import UUID

import msgspec
from prefect.client.orchestration import PrefectClient, get_client
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound, PrefectHTTPStatusError
from prefect.logging import get_run_logger

from oci.meter import Receipt
from oci.registry.http.pace import Bucket
from oci.relocation.transfer import FAILED

T = TypeVar("T")

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
        self._open = AsyncExitStack()
        self._client: PrefectClient | None = None
        self.size = 0
        """Shards that this run has put in."""
        self._inputs: dict[str, dict[int, str]] = {_USER: {}, _RESULT: {}}
        self.part = part
        """What a helper has of each rate that a person allows a registry; the run that is helped has the rest."""
        self._mine: set[int] = set()
        self._end: int | None = None
        """The number of the shard without work."""

    async def __aenter__(self) -> Self:
        self._client = await self._open.enter_async_context(get_client())
        Bucket.lend(self, 1 - self.part)
        return self

    async def __aexit__(self, *exception: object) -> None:
        self._client = None
        Bucket.lend(self, 0)
        await self._open.aclose()

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
        await self._look(_USER)
        if self.user in self.users.values() and not self._mine:
            await self._look(_RESULT)
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
            await self._look(_USER)
        for number in shards:
            if number not in self.users and await self._claim(number):
                return number
        return None

    async def look(self) -> None:
        """Brings `users` and `results` up to date."""
        await self._look(_NEWS)

    @property
    def users(self) -> Mapping[int, str]:
        """The run that works, or has worked, on each shard, as last seen."""
        return self._inputs[_USER]

    @property
    def results(self) -> Mapping[int, str]:
        """What was said of each shard that has ended, as last seen."""
        return self._inputs[_RESULT]

    @property
    def helpers(self) -> frozenset[str]:
        """The other runs that were seen to take shards."""
        return frozenset(self.users.values()) - {self.user}

    async def finish(self, number: int, text: str) -> None:
        """Says what has become of a shard."""
        await self._make(_RESULT, number, text)
        self._inputs[_RESULT][number] = text

    async def _claim(self, number: int) -> bool:
        """Makes a shard this run's own. An answer that was lost on its way is found by what the server has."""
        if await self._make(_USER, number, self.user):
            self._inputs[_USER][number] = self.user
        else:
            await self._look(_USER)
        return self.users.get(number) == self.user

    async def _look(self, kind: str) -> None:
        while True:
            at_hand = {self._key(of, n) for of, entries in self._inputs.items() if of.startswith(kind) for n in entries}
            look = partial(self._the_client.filter_flow_run_input, self.run, self._key(kind), _PAGE, at_hand)
            page = await patiently(look)
            for entry in page:
                of, _, number = entry.key.removeprefix(f"{self.name}-").rpartition("-")
                self._inputs[of][int(number)] = entry.value
            if len(page) < _PAGE:
                return

    async def _make(self, kind: str, number: int, text: str) -> bool:
        """Returns False when there is such an input."""
        key = self._key(kind, number)
        make = partial(self._the_client.create_flow_run_input, self.run, key, text, self.user)
        try:
            await patiently(make)
        except ObjectAlreadyExists:
            return False
        except PrefectHTTPStatusError as error:
            if error.response.status_code == _CONFLICT:
                return False
            raise
        return True

    async def _read(self, number: int) -> str | None:
        """Returns the text of a shard, None where there is none."""
        read = partial(self._the_client.read_flow_run_input, self.run, self._key(_SHARD, number))
        try:
            return await patiently(read)
        except ObjectNotFound:
            return None
        except PrefectHTTPStatusError as error:
            if error.response.status_code == _MISSING:
                return None
            raise

    def _key(self, kind: str, number: int | str = "") -> str:
        return f"{self.name}-{kind}-{number}"

    @property
    def _the_client(self) -> PrefectClient:
        if self._client is None:
            raise RuntimeError("a ShardQueue is used as a context manager")
        return self._client


class Outcome(Protocol):
    """What became of a unit."""

    @property
    def status(self) -> str: ...


OutcomeT = TypeVar("OutcomeT", bound=Outcome)
Key = TypeVar("Key")


class ShardResult(msgspec.Struct, Generic[OutcomeT], frozen=True):
    """What a helper says of a shard that it has ended, and what its run has cost so far."""

    outcomes: list[OutcomeT]
    receipt: Receipt

    def to_json(self) -> str:
        return msgspec.json.encode(self).decode()

    def note(
        self, outcomes: dict[Key, OutcomeT], key: Callable[[OutcomeT], Key], elsewhere: dict[str, Receipt], helper: str
    ) -> None:
        """Adds it to what a run knows: `outcomes`, of which only failed ones change, and the costs of helpers."""
        latest = elsewhere.get(helper, Receipt())
        elsewhere[helper] = max(self.receipt, latest, key=lambda receipt: receipt.seconds)
        for outcome in self.outcomes:
            before = outcomes.get(key(outcome))
            if before is None or before.status == FAILED:
                outcomes[key(outcome)] = outcome


async def patiently(ask: Callable[[], Awaitable[T]]) -> T:
    """Asks again while the Prefect server is away or busy, for some minutes: work goes on meanwhile."""
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            return await ask()
        except (ObjectAlreadyExists, ObjectNotFound):
            raise
        except PrefectHTTPStatusError as error:
            if error.response.status_code < _SERVER_TROUBLE or time.monotonic() > until:
                raise
        except (OSError, RuntimeError, ValueError, TypeError, LookupError):
            raise
        except Exception as error:
            if time.monotonic() > until:
                raise
            get_run_logger().warning("the Prefect server can't be asked for shards: %s", error)
        await asyncio.sleep(_PAUSE)
