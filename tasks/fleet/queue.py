"""A queue of shards that several flow runs take from.

It stands in the inputs of the flow run that made it: `NAME-shard-7` is the text of shard 7, `NAME-user-7` the flow run
that works on it, `NAME-result-7` what has become of it. The Prefect server gives an input to the first who makes it and
answers 409 to all others, so that no shard is taken twice. Numbers have no gaps: the first that isn't there is the end.
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
from oci.relocation.transfer import FAILED

T = TypeVar("T")

_PAGE = 200
_PATIENCE = 300.0
_PAUSE = 2.0
_MISSING, _CONFLICT, _SERVER_TROUBLE = 404, 409, 500


class ShardQueue:
    """Used as a context manager by one flow run, `user`. `run` is the flow run that has the inputs."""

    def __init__(self, run: UUID, name: str, *, user: str) -> None:
        """`name` has letters, digits and dashes: a run that is retried makes a queue of another name."""
        self.run = run
        self.name = name
        self.user = user
        self._open = AsyncExitStack()
        self._client: PrefectClient | None = None
        self.size = 0
        """Shards that this run has put in."""
        self._users: dict[int, str] = {}
        self._results: dict[int, str] = {}
        self._mine: set[int] = set()

    async def __aenter__(self) -> Self:
        self._client = await self._open.enter_async_context(get_client())
        return self

    async def __aexit__(self, *exception: object) -> None:
        self._client = None
        await self._open.aclose()

    async def put(self, text: str) -> None:
        """Adds a shard at the end, with the number `size`, for the run that has the queue: one after the other."""
        await self._make("shard", self.size, text)
        self.size += 1

    async def take(self) -> tuple[int, str] | None:
        """Returns the number and the text of the first shard that nobody works on, which is this run's then; None when
        there is none. What this run took before it was started again is taken once more."""
        users = await self.users()
        if self.user in users.values() and not self._mine:
            await self.results()
        number = 0
        while True:
            owner = users.get(number)
            if owner is not None and (owner != self.user or number in self._mine or number in self._results):
                number += 1
                continue
            text = await self._read("shard", number)
            if text is None:
                return None
            if owner is not None or await self._claim(number):
                self._mine.add(number)
                return number, text
            number += 1

    async def users(self) -> Mapping[int, str]:
        """Returns the run that works, or has worked, on each shard."""
        return await self._news("user", self._users)

    @property
    def helpers(self) -> frozenset[str]:
        """The other runs that were seen to take shards."""
        return frozenset(self._users.values()) - {self.user}

    async def results(self) -> Mapping[int, str]:
        """Returns what was said of each shard that has ended."""
        return await self._news("result", self._results)

    async def finish(self, number: int, text: str) -> None:
        """Says what has become of a shard."""
        await self._make("result", number, text)
        self._results[number] = text

    async def _claim(self, number: int) -> bool:
        """Makes a shard this run's own. An answer that was lost on its way is found by what the server has."""
        mine = await self._make("user", number, self.user) or await self._read("user", number) == self.user
        if mine:
            self._users[number] = self.user
        return mine

    async def _news(self, kind: str, entries: dict[int, str]) -> Mapping[int, str]:
        while True:
            keys = {self._key(kind, number) for number in entries}
            page = await patiently(
                partial(self._the_client.filter_flow_run_input, self.run, self._key(kind), _PAGE, keys)
            )
            entries.update({int(entry.key.rpartition("-")[2]): entry.value for entry in page})
            if len(page) < _PAGE:
                return entries

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

    async def _read(self, kind: str, number: int) -> str | None:
        read = partial(self._the_client.read_flow_run_input, self.run, self._key(kind, number))
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
