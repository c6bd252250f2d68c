"""What one flow run holds in its process: the session with both sides, the plan, and how it went so far.

Tasks take small plain values as inputs and find everything else here. Nothing of it outlives the process: a run that
is retried elsewhere opens a new one and plans again, because only the destination knows what is there.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import ParamSpec, TypeVar

from oci.digest import Digest
from oci.errors import InvalidInput, TransshipError
from oci.meter import Meter
from oci.relocation.plan import Plan
from oci.relocation.publish import Published, check_complete
from oci.relocation.request import RelocationRequest
from oci.relocation.session import DEFAULT_CONCURRENCY, Access, Session
from oci.relocation.transfer import ImageOutcome
from oci.relocation.verify import Verification
from tasks.resolution import Resolution
from tasks.side import Side
from tasks.work import Work

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A relocation as asked for, in values that can be sent anywhere: no secret, no connection."""

    request: RelocationRequest
    source: Side = field(default_factory=Side)
    destination: Side = field(default_factory=Side)
    concurrency: int = DEFAULT_CONCURRENCY


class Relocation(Work):
    """One order being carried out. Used from one event loop; the work itself runs in threads."""

    def __init__(self, order: Order) -> None:
        super().__init__(order.concurrency + 1)
        self.order = order
        self.request = order.request
        """With the source pinned to a digest once it is resolved."""
        self.meter = Meter()
        self.source: Resolution | None = None
        self.plan: Plan | None = None
        self.limits: Mapping[str, int] = {}
        """Named concurrency limits that the Prefect server has for the registries of the plan, and their slots."""
        self.outcomes: dict[Digest, ImageOutcome] = {}
        self.published: Published | None = None
        self.verification: Verification | None = None
        self.error: TransshipError | None = None
        """What ended it early."""
        self._session: Session | None = None
        self._opening = asyncio.Lock()

    async def session(self) -> Session:
        """The session, opened on first use inside the task that needs it: only there are blocks loaded."""
        async with self._opening:
            if self._session is None:
                source, destination = _GIVEN_ACCESS.get() or (
                    await self.order.source.access("source"),
                    await self.order.destination.access("destination"),
                )
                self._session = Session(
                    source=source,
                    destination=destination,
                    concurrency=self.order.concurrency,
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

    def pin(self, source: Resolution) -> None:
        """Makes the relocation work on the resolved content and nothing else."""
        self.source = source
        if source.digest:
            asked = self.order.request
            tags = asked.tags or ((source.tag,) if source.tag else ())
            if asked.bundle:
                self.request = replace(asked, bundle=source.pinned, tags=tags)
            else:
                self.request = replace(asked, image=source.pinned, tags=tags)

    @property
    def width(self) -> int:
        """Images to have on their way at a time. Not more than a named limit has slots: waiting for one that this run
        holds itself costs up to a second for each image."""
        return max(1, min([self.order.concurrency, *self.limits.values()]))

    def check_complete(self) -> None:
        """Raises Incomplete, with what failed, unless every image of the plan is in place."""
        check_complete(self.planned, self.outcomes.values())

    @contextmanager
    def noting_failure(self) -> Iterator[None]:
        """Keeps an error of the block for the report that follows it."""
        try:
            yield
        except TransshipError as error:
            self.error = error

    async def close(self) -> None:
        if self._session is not None:
            await self.in_thread(self._session.close)
        self.end()


@asynccontextmanager
async def opened(order: Order) -> AsyncIterator[Relocation]:
    """The relocation that the tasks called inside work on."""
    relocation = Relocation(order)
    token = _CURRENT.set(relocation)
    try:
        yield relocation
    except BaseException:
        relocation.cancel.cancel()
        raise
    finally:
        _CURRENT.reset(token)
        await relocation.close()


def current() -> Relocation:
    """The relocation of this flow run. Raises InvalidInput outside `opened`."""
    relocation = _CURRENT.get()
    if relocation is None:
        raise InvalidInput(
            "no relocation is open here", hint="call the task inside `async with tasks.relocation.opened(order)`"
        )
    return relocation


@contextmanager
def reached_by(*, source: Access, destination: Access) -> Iterator[None]:
    """Relocations opened inside use these accesses instead of loading blocks: for a program that holds credentials
    already and must not hand them to the Prefect server."""
    token = _GIVEN_ACCESS.set((source, destination))
    try:
        yield
    finally:
        _GIVEN_ACCESS.reset(token)


_CURRENT: ContextVar[Relocation | None] = ContextVar("relocation", default=None)
_GIVEN_ACCESS: ContextVar[tuple[Access, Access] | None] = ContextVar("given_access", default=None)
