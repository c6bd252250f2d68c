from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate

from oci.reference import parse_store
from tasks.fleet import limits
from tasks.fleet.limits import LEASE, Leases, Slots, existing, limits_of
from tests.support.waiting import PATIENCE


def test_limits_are_named_after_registries_and_a_layout_folder_has_none() -> None:
    names = limits_of(*map(parse_store, ("corp.example:5000/shop", "registry.example/shop/web", "oci:/srv/layout")))

    assert names == {"registry:corp.example:5000", "registry:registry.example"}


class Server(Leases):
    """Counts slots as the Prefect server does, and requests."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.leases: dict[UUID, int] = {}
        self.requests: Counter[str] = Counter()
        self.trouble: Exception | None = None

    async def take(self, names: list[str], slots: int) -> UUID | None:
        self._count("take")
        if sum(self.leases.values()) + slots > self.slots:
            self.requests["refused"] += 1
            return None
        lease = uuid.uuid4()
        self.leases[lease] = slots
        return lease

    async def renew(self, lease: UUID) -> bool:
        self._count("renew")
        return lease in self.leases

    async def give_back(self, lease: UUID) -> None:
        self._count("give back")
        self.leases.pop(lease, None)

    def _count(self, request: str) -> None:
        self.requests[request] += 1
        if self.trouble is not None:
            raise self.trouble

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Leases]:
        yield self


class Clock:
    """Time that tests move; the keeper wakes up with it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(limits, "PAUSE", 0.01)

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


class Gauge:
    """How many are inside at a time."""

    def __init__(self) -> None:
        self.inside = 0
        self.most = 0

    async def work(self, slots: Slots, seconds: float = 0.001) -> None:
        async with slots.slot():
            self.inside += 1
            self.most = max(self.most, self.inside)
            await asyncio.sleep(seconds)
            self.inside -= 1


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - what it waits for is no event
            await asyncio.sleep(0.001)


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(main, PATIENCE))


def test_three_hundred_images_cost_some_leases_and_not_three_requests_each() -> None:
    server, gauge = Server(8), Gauge()

    async def main() -> None:
        slots = Slots(["registry:a"], 8, connect=server.connect)
        places = asyncio.Semaphore(8)

        async def image() -> None:
            async with places:
                await gauge.work(slots)

        await asyncio.gather(*(image() for _ in range(300)))
        assert gauge.most == 8
        await slots.close()

    run(main())

    assert server.leases == {}
    assert sum(server.requests.values()) <= 12


class SlowServer(Server):
    """Grants a lease at once and answers when `answer` is set."""

    def __init__(self, slots: int) -> None:
        super().__init__(slots)
        self.answer = asyncio.Event()

    async def take(self, names: list[str], slots: int) -> UUID | None:
        lease = await super().take(names, slots)
        await self.answer.wait()
        return lease


def test_a_lease_that_is_granted_while_the_run_ends_is_given_back() -> None:
    async def main() -> None:
        server = SlowServer(4)
        slots = Slots(["registry:a"], 4, connect=server.connect)
        waiting = asyncio.create_task(Gauge().work(slots))
        await until(lambda: server.leases != {})
        waiting.cancel()
        closing = asyncio.create_task(slots.close())
        await asyncio.sleep(0)
        server.answer.set()
        await closing
        assert server.leases == {}

    run(main())


def test_two_runs_never_have_more_than_the_limit_together_and_both_come_to_an_end() -> None:
    server, gauge = Server(4), Gauge()

    async def one_run(images: int) -> None:
        slots = Slots(["registry:a"], 4, connect=server.connect)
        await asyncio.gather(*(gauge.work(slots, 0.005) for _ in range(images)))
        await slots.close()

    async def main() -> None:
        await asyncio.gather(one_run(60), one_run(60))

    run(main())

    assert gauge.most <= 4
    assert server.leases == {}


def test_a_run_takes_what_is_free_when_another_has_the_rest(clock: Clock) -> None:
    server, gauge = Server(4), Gauge()
    server.leases[uuid.uuid4()] = 3

    async def main() -> None:
        slots = Slots(["registry:a"], 4, connect=server.connect, now=clock)
        await asyncio.gather(*(gauge.work(slots) for _ in range(10)))
        await slots.close()

    run(main())

    assert gauge.most == 1


def test_a_run_with_less_to_do_gives_slots_back_before_its_end(clock: Clock) -> None:
    server, gauge = Server(4), Gauge()

    async def main() -> None:
        slots = Slots(["registry:a"], 4, connect=server.connect, now=clock)
        await asyncio.gather(*(gauge.work(slots) for _ in range(4)))
        last = asyncio.create_task(gauge.work(slots, 30))
        await until(lambda: gauge.inside == 1)
        clock.now = 10.0
        await until(lambda: sum(server.leases.values()) < 4)
        last.cancel()
        await slots.close()

    run(main())


def test_the_smallest_lease_is_given_back_after_its_turn_so_that_nobody_waits_for_ever(clock: Clock) -> None:
    server, first, second = Server(4), Gauge(), Gauge()

    async def main() -> None:
        long = Slots(["registry:a"], 4, connect=server.connect, now=clock)
        work = [asyncio.create_task(first.work(long, 0.02)) for _ in range(400)]
        await until(lambda: sum(server.leases.values()) == 4)
        short = Slots(["registry:a"], 4, connect=server.connect)
        waiting = asyncio.create_task(second.work(short))
        refused = server.requests["refused"]
        await until(lambda: server.requests["refused"] > refused + 1)
        assert second.most == 0
        clock.now = limits.TURN + 1
        await waiting
        assert not all(task.done() for task in work)
        for task in work:
            task.cancel()
        await asyncio.wait(work)
        await asyncio.gather(long.close(), short.close())

    run(main())

    assert second.most == 1
    assert server.leases == {}


def test_leases_are_renewed_in_time_and_one_that_the_server_forgot_is_replaced(clock: Clock) -> None:
    server, gauge = Server(1), Gauge()

    async def main() -> None:
        slots = Slots(["registry:a"], 1, connect=server.connect, now=clock)
        first = asyncio.create_task(gauge.work(slots, 30))
        await until(lambda: gauge.inside == 1)
        clock.now = 0.8 * LEASE
        await until(lambda: server.requests["renew"] == 1)
        server.leases.clear()  # the server was restarted, and had them in memory
        clock.now = 1.6 * LEASE
        await until(lambda: server.requests["renew"] == 2)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        await gauge.work(slots)
        await slots.close()

    run(main())

    assert server.requests["take"] == 2


def test_trouble_of_the_server_stops_nothing_for_good(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    server, gauge = Server(2), Gauge()
    server.trouble = OSError("database is locked")
    warnings: list[str] = []
    log = SimpleNamespace(warning=lambda text, *values: warnings.append(text % values))
    monkeypatch.setattr(limits, "get_run_logger", lambda: log)

    async def main() -> None:
        slots = Slots(["registry:a"], 2, connect=server.connect, now=clock)
        work = asyncio.create_task(gauge.work(slots))
        await until(lambda: server.requests["take"] > 1)
        server.trouble = None
        await work
        await slots.close()

    run(main())

    assert len(warnings) == 1
    assert "database is locked" in warnings[0]


@pytest.mark.usefixtures("prefect")
def test_a_limit_that_exists_is_kept_and_one_that_does_not_costs_nothing() -> None:
    host = f"{uuid.uuid4().hex[:8]}.example"
    gauge = Gauge()

    async def main() -> None:
        limit = f"registry:{host}"
        assert await existing([limit]) == {}
        async with get_client() as client:
            await client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=limit, limit=1, active=True))
        found = await existing([limit, "registry:other.example"])
        assert found == {limit: 1}
        runs = [Slots(found, 4), Slots(found, 4)]
        await asyncio.gather(*(gauge.work(slots) for slots in runs for _ in range(3)))
        await asyncio.gather(*(slots.close() for slots in runs))
        async with get_client() as client:
            left = await client.read_global_concurrency_limit_by_name(limit)
            assert left.active_slots == 0

    asyncio.run(main())

    assert gauge.most == 1
