"""What one flow run that moves images holds in its process: the session with both sides, the plan, and how it went so
far.

Tasks take small plain values as inputs and find everything else here. Nothing of it outlives the process: a run that
is retried elsewhere opens a new one, because only the destination knows what is there.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import TypeVar

from oci.digest import Digest
from oci.errors import InvalidInput
from oci.meter import Meter, Receipt
from oci.relocation.plan import Plan
from oci.relocation.session import Access, Session
from oci.relocation.transfer import ImageOutcome
from tasks.side import Side
from tasks.work import Work


class Transfer(Work):
    """A plan being carried out. Used from one event loop; the work itself runs in threads."""

    def __init__(self, *, source: Side, destination: Side, concurrency: int) -> None:
        super().__init__(concurrency + 1)
        self.concurrency = concurrency
        self.meter = Meter()
        self.plan: Plan | None = None
        self.outcomes: dict[Digest, ImageOutcome] = {}
        self.elsewhere: dict[str, Receipt] = {}
        """What other machines have spent on parts of the plan, by the names of these parts."""
        self._sides = (source, destination)
        self._session: Session | None = None
        self._opening = asyncio.Lock()

    async def session(self) -> Session:
        """The session, opened on first use inside the task that needs it: only there are blocks loaded."""
        async with self._opening:
            if self._session is None:
                source, destination = _GIVEN_ACCESS.get() or (
                    await self._sides[0].access("source"),
                    await self._sides[1].access("destination"),
                )
                self._session = Session(
                    source=source,
                    destination=destination,
                    concurrency=self.concurrency,
                    meter=self.meter,
                    cancel=self.cancel,
                )
            return self._session

    @property
    def planned(self) -> Plan:
        """Raises InvalidInput before the plan is made."""
        if self.plan is None:
            raise InvalidInput("nothing is planned yet", hint="run fetch_referenced_images first")
        return self.plan

    def receipt(self) -> Receipt:
        """What was spent so far, here and elsewhere; the seconds are those of this run."""
        total = self.meter.receipt()
        for other in list(self.elsewhere.values()):
            total = total.plus(other)
        return total

    async def close(self) -> None:
        if self._session is not None:
            await self.in_thread(self._session.close)
        await self.end()


T = TypeVar("T", bound=Transfer)


@asynccontextmanager
async def opened_transfer(transfer: T) -> AsyncIterator[T]:
    """Makes it the transfer that the tasks called inside work on, and closes it."""
    token = _CURRENT.set(transfer)
    try:
        yield transfer
    except BaseException:
        transfer.cancel.cancel()
        raise
    finally:
        _CURRENT.reset(token)
        await transfer.close()


def current_transfer() -> Transfer:
    """The transfer of this flow run. Raises InvalidInput outside `opened_transfer`."""
    transfer = _CURRENT.get()
    if transfer is None:
        raise InvalidInput(
            "no relocation is open here", hint="call the task inside `async with tasks.relocation.opened(order)`"
        )
    return transfer


@contextmanager
def reached_by(*, source: Access, destination: Access) -> Iterator[None]:
    """Transfers opened inside use these accesses instead of loading blocks: for a program that holds credentials
    already and must not hand them to the Prefect server."""
    token = _GIVEN_ACCESS.set((source, destination))
    try:
        yield
    finally:
        _GIVEN_ACCESS.reset(token)


def access_was_given() -> bool:
    """Whether this run reaches registries with what no other machine can have."""
    return _GIVEN_ACCESS.get() is not None


_CURRENT: ContextVar[Transfer | None] = ContextVar("transfer", default=None)
_GIVEN_ACCESS: ContextVar[tuple[Access, Access] | None] = ContextVar("given_access", default=None)
