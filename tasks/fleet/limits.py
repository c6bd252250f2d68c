"""Named concurrency limits of the Prefect server, `registry:HOST`, which all workers share.

A limit counts images on their way. A run takes slots by a few leases and gives them to its images one after the other:
a lease for each image would cost three API requests an image, and a SQLite server is locked while it counts slots."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from uuid import UUID

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.responses import ConcurrencyLimitWithLeaseResponse
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.logging import get_run_logger

from oci.reference import StoreName
from oci.registry.http.origin import canonical_host

LEASE = 60.0
"""Seconds after which the server frees the slots of a run that was killed: the least that Prefect allows."""
RENEW_AFTER = 0.75 * LEASE
"""Prefect renews its own leases at this fraction."""
TURN = 60.0
"""Seconds after which a run gives its smallest lease back, so that another run that waits gets a slot."""
PAUSE = 2.0
"""Seconds between two requests for slots that others hold."""
IDLE = 2.0
"""Seconds after which a lease without work is given back."""

_PAGE = 200
_LONGEST_GOODBYE = 10.0


def limit_name(registry: str) -> str:
    return f"registry:{canonical_host(registry)}"


def limits_of(*stores: StoreName) -> frozenset[str]:
    """Returns the names of the limits that hold for these stores; a layout folder has none."""
    return frozenset(limit_name(store.registry) for store in stores if store.registry)


async def existing(names: Iterable[str]) -> dict[str, int]:
    """Returns the active limits among these that the server has, with their numbers of slots."""
    limits = frozenset(names)
    slots = await every_limit() if limits else {}
    return {name: count for name, count in slots.items() if name in limits}


async def every_limit() -> dict[str, int]:
    """Returns the active limits that the server has, with their numbers of slots: a request for each 200."""
    slots: dict[str, int] = {}
    offset = 0
    async with get_client() as client:
        while True:
            page = await client.read_global_concurrency_limits(limit=_PAGE, offset=offset)
            slots.update({limit.name: limit.limit for limit in page if limit.active})
            offset += len(page)
            if len(page) < _PAGE:
                return slots


class Leases:
    """The three requests of a lease, to the Prefect server."""

    def __init__(self, client: PrefectClient) -> None:
        self._client = client

    async def take(self, names: list[str], slots: int) -> UUID | None:
        """Returns None when so many slots aren't free in each of the limits: the server gives all of them or none."""
        try:
            answer = await self._client.increment_concurrency_slots_with_lease(names, slots, "concurrency", LEASE)
        except PrefectHTTPStatusError as error:
            if error.response.status_code in (422, 423):  # more than the limit has; all of them taken
                return None
            raise
        return ConcurrencyLimitWithLeaseResponse.model_validate(answer.json()).lease_id

    async def renew(self, lease: UUID) -> bool:
        """Returns False when the server doesn't know the lease any more."""
        try:
            await self._client.renew_concurrency_lease(lease, LEASE)
        except ObjectNotFound:
            return False
        except PrefectHTTPStatusError as error:
            if error.response.status_code in (404, 410):
                return False
            raise
        return True

    async def give_back(self, lease: UUID) -> None:
        await self._client.release_concurrency_slots_with_lease(lease)


@asynccontextmanager
async def _prefect_leases() -> AsyncIterator[Leases]:
    async with get_client() as client:
        yield Leases(client)


@dataclass(slots=True, eq=False)
class _Lease:
    """Some slots of every limit. `busy` of them are used; a `closing` lease gets no more work; the server doesn't
    know a `lost` lease any more. Times in seconds."""

    id: UUID
    size: int
    since: float
    renewed: float
    idle_since: float
    busy: int = 0
    closing: bool = False
    lost: bool = False


class Slots:
    """The slots of one run: at most `most` at a time, of all the limits in `names` together. Use `slot` around each
    image, and `close` at the end. Without names everything passes at once.

    Leases are taken as work asks for slots, in halves of what is still missing (4, 2, 1, 1 for 8), so that slots can be
    given back in parts: when a run has less to do, and once a TURN when others may wait.
    """

    def __init__(
        self,
        names: Iterable[str] = (),
        most: int = 1,
        *,
        connect: Callable[[], AbstractAsyncContextManager[Leases]] = _prefect_leases,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._names = sorted(names)
        self._most = most
        self._connect = connect
        self._now = now
        self._leases: list[_Lease] = []
        self._waiting = 0
        self._changed = asyncio.Condition()
        self._wake = asyncio.Event()
        self._ask_again = 0.0
        self._warned = False
        self._keeper: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Waits for a slot of each limit, and holds it while the block runs."""
        if not self._names:
            yield
            return
        if self._keeper is None:
            self._keeper = asyncio.create_task(self._keep())
        self._waiting += 1
        self._wake.set()
        try:
            async with self._changed:
                while (lease := self._free()) is None:
                    await self._changed.wait()
                lease.busy += 1
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            lease.busy -= 1
            lease.idle_since = self._now()
            self._wake.set()
            async with self._changed:
                self._changed.notify()

    async def close(self) -> None:
        """Gives all leases back. A server that doesn't answer frees them after LEASE."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper], timeout=_LONGEST_GOODBYE)
            self._keeper = None

    def _free(self) -> _Lease | None:
        """The biggest lease that has a free slot."""
        free = [lease for lease in self._leases if lease.busy < lease.size and not lease.closing]
        return max(free, key=lambda lease: lease.size, default=None)

    async def _keep(self) -> None:
        """Takes, renews and gives back leases, one request at a time, until it is cancelled."""
        while True:
            try:
                async with self._connect() as server:
                    await self._serve(server)
            except Exception as error:  # noqa: BLE001 - whatever the server's trouble is, it is asked again
                if not self._warned:
                    self._warned = True
                    names = ", ".join(self._names)
                    get_run_logger().warning("the Prefect server can't be asked for slots of %s: %s", names, error)
                await asyncio.sleep(PAUSE)

    async def _serve(self, server: Leases) -> None:
        try:
            while True:
                self._wake.clear()
                await self._take_more(server)
                for lease in list(self._leases):
                    await self._look_after(server, lease)
                with suppress(TimeoutError):
                    async with asyncio.timeout(PAUSE if self._leases or self._waiting else None):
                        await self._wake.wait()
        except asyncio.CancelledError:
            while self._leases:
                lease = self._leases.pop()
                if not lease.lost:
                    await server.give_back(lease.id)
            raise

    async def _look_after(self, server: Leases, lease: _Lease) -> None:
        now = self._now()
        smallest = min(self._leases, key=lambda lease: (lease.size, lease.since))
        if lease is smallest and now - lease.since > TURN:
            lease.closing = True
        idle = now - lease.idle_since > IDLE and not self._waiting
        if not lease.busy and (lease.closing or idle):
            self._leases.remove(lease)
            if not lease.lost:
                self._ask_again = now + PAUSE if lease.closing else self._ask_again
                await server.give_back(lease.id)
        elif now - lease.renewed > RENEW_AFTER and not lease.lost:
            # A server that was restarted may have forgotten the lease: another is taken when its work has ended.
            lease.lost = lease.closing = not await server.renew(lease.id)
            lease.renewed = now

    async def _take_more(self, server: Leases) -> None:
        while self._now() >= self._ask_again:
            leased = sum(lease.size for lease in self._leases)
            used = sum(lease.busy for lease in self._leases)
            missing = min(self._most, used + self._waiting) - leased
            if missing < 1:
                return
            size = -(-missing // 2)
            while (lease := await self._take(server, size)) is None and size > 1:
                size //= 2
            if lease is None:
                self._ask_again = self._now() + PAUSE
                return
            now = self._now()
            self._leases.append(_Lease(lease, size, since=now, renewed=now, idle_since=now))
            async with self._changed:
                self._changed.notify_all()

    async def _take(self, server: Leases, size: int) -> UUID | None:
        """Takes a lease. One that the server grants while the run ends is given back: otherwise other runs would miss
        its slots until LEASE is over."""
        taking = asyncio.create_task(server.take(self._names, size))
        try:
            return await asyncio.shield(taking)
        except asyncio.CancelledError:
            with suppress(Exception):  # whatever the server's trouble is, the run is at its end
                if (lease := await taking) is not None:
                    await server.give_back(lease)
            raise
