from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prefect import flow
from prefect.client.orchestration import PrefectClient
from prefect.runtime import flow_run
from prefect.settings import PREFECT_API_URL, temporary_settings

from tasks.fleet import queue as queue_module
from tasks.fleet.dispatch import Fleet
from tasks.fleet.queue import ShardQueue, Taker
from tasks.fleet.spread import HelperDecision, Spread, decide
from tests.faults.proxy import Fault, FaultProxy
from tests.support.api_link import ApiLink
from tests.support.flow_runs import with_client
from tests.support.prefect_server import PrefectServer
from tests.support.waiting import eventually


def decided(
    *,
    elapsed: float = 10,
    progress: float = 100,
    remaining: float = 0,
    start: float = 8,
    most: int = 8,
    busy: float = 0,
) -> HelperDecision:
    return decide(elapsed=elapsed, progress=progress, remaining=remaining, start=start, most=most, busy=busy)


@pytest.mark.parametrize(
    ("remaining", "start", "helpers"),
    [
        (80, 8, 0),  # 8 s alone: over before the first helper begins
        (100, 8, 0),  # 10 s alone: a helper would save one second
        (300, 8, 2),  # 30 s alone
        (2400, 8, 8),  # four minutes alone: all that are allowed
        (2400, 300, 0),  # a pool that takes five minutes to start a helper
    ],
)
def test_as_many_helpers_as_each_save_some_seconds(remaining: float, start: float, helpers: int) -> None:
    assert decided(remaining=remaining, start=start).helpers == helpers


@pytest.mark.parametrize(
    ("busy", "helpers"),
    [
        (0, 4),  # 60 s alone, 18.4 with four
        (25, 2),  # 25.3 s with two: a third would find the run waiting for what is begun
        (59, 0),  # one slow image takes as long as all the others
    ],
)
def test_no_helper_is_started_that_waits_for_what_is_begun(busy: float, helpers: int) -> None:
    assert decided(remaining=600, busy=busy).helpers == helpers


def test_nothing_is_decided_before_the_pace_is_known() -> None:
    assert decided(elapsed=1, remaining=10_000).helpers == 0
    assert decided(progress=0, remaining=10_000).helpers == 0
    assert decided(progress=5e-324, remaining=10_000).helpers == 0
    assert decided(most=0, remaining=10_000).helpers == 0


@given(
    elapsed=st.floats(0, 1000),
    progress=st.floats(0, 1e12),
    remaining=st.floats(0, 1e15),
    start=st.floats(0, 1000),
    most=st.integers(0, 50),
)
def test_no_decision_makes_a_run_slower_than_alone(
    elapsed: float, progress: float, remaining: float, start: float, most: int
) -> None:
    """By its own reckoning: a run that goes on at its pace, and helpers of the same pace that come after `start`."""
    made = decide(elapsed=elapsed, progress=progress, remaining=remaining, start=start, most=most)

    assert 0 <= made.helpers <= most
    assert made.reason
    if made.helpers:
        alone = remaining / made.pace
        assert start + (alone - start) / (made.helpers + 1) < alone


class Memory:
    """A queue of texts, of which all are there from the beginning."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.left = list(enumerate(texts))
        self.open: set[int] = set()
        self.most_open = 0
        self.finished: dict[int, str] = {}

    async def take(self) -> tuple[int, str] | None:
        if not self.left:
            return None
        number, text = self.left.pop(0)
        self.open.add(number)
        self.most_open = max(self.most_open, len(self.open))
        return number, text

    async def finish(self, number: int, text: str) -> None:
        self.open.remove(number)
        self.finished[number] = text


def carried_out(texts: Sequence[str], *, width: int, together: int = 1) -> tuple[Memory, list[str]]:
    memory, did = Memory(texts), []

    async def unpack(text: str) -> list[str]:
        return list(text)

    async def do(units: list[str]) -> None:
        await asyncio.sleep(0)
        did.extend(units)

    queue: Any = memory
    taker = Taker(queue, unpack, "".join)
    asyncio.run(taker.carry_out(do, width=lambda: width, images_together=together))
    return memory, did


@given(st.lists(st.text("abc", max_size=6), max_size=12), st.integers(1, 20), st.integers(1, 4))
def test_a_helper_does_every_unit_once_and_holds_two_shards_at_the_most(
    texts: list[str], width: int, together: int
) -> None:
    memory, did = carried_out(texts, width=width, together=together)

    assert sorted(did) == sorted("".join(texts))
    assert memory.finished == dict(enumerate(texts))
    assert memory.most_open <= 3  # an empty shard is finished as soon as it is open


def test_every_shard_is_taken_by_one_run_and_its_end_is_seen_by_all(prefect: PrefectServer) -> None:
    @flow
    async def run() -> tuple[list[int], dict[int, str]]:
        owner, name = UUID(str(flow_run.id)), f"shards-{uuid.uuid4().hex[:8]}"
        async with ShardQueue(owner, name, user="owner") as queue:
            for number in range(6):
                await queue.put(f"text {number}")

            async def helper(user: str) -> list[int]:
                taken = []
                async with ShardQueue(owner, name, user=user) as own:
                    while (shard := await own.take()) is not None:
                        assert shard[1] == f"text {shard[0]}"
                        taken.append(shard[0])
                        await own.finish(shard[0], f"done by {user}")
                return taken

            both = await asyncio.gather(helper("one"), helper("two"))
            assert await queue.take_back() is None
            await queue.look()
            return sorted(both[0] + both[1]), dict(queue.results)

    taken, done = asyncio.run(run())

    assert taken == list(range(6))
    assert set(done.values()) <= {"done by one", "done by two"}
    assert len(done) == 6


def test_a_helper_that_is_started_again_takes_what_it_had_and_others_what_is_put_in_meanwhile(
    prefect: PrefectServer,
) -> None:
    @flow
    async def run() -> list[int | None]:
        owner, name = UUID(str(flow_run.id)), f"shards-{uuid.uuid4().hex[:8]}"

        async def first(user: str) -> int | None:
            async with ShardQueue(owner, name, user=user) as own:
                taken = await own.take()
                return taken[0] if taken else None

        async with ShardQueue(owner, name, user="owner") as queue:
            await queue.put("a")
            begun = await first("one")
            empty = await first("two")
            await queue.put("b")
            return [begun, empty, await first("one"), await first("two")]

    assert asyncio.run(run()) == [0, None, 0, 1]


def kinds_of(requests: Counter[str]) -> Counter[str]:
    """Requests for inputs of flow runs, by what each is for: METHOD and the last word of the path."""
    kinds: Counter[str] = Counter()
    for name, count in requests.items():
        method, _, path = name.partition(" ")
        _, inputs, rest = path.partition("/input")
        if inputs:
            kinds[f"{method} {rest.strip('/') if rest == '/filter' else 'one' if rest else 'new'}"] += count
    return kinds


def requests_for(shards: int, prefect: PrefectServer) -> Counter[str]:
    """Returns what a run and its helper ask of the server for so many shards, all of which the helper does."""

    @flow
    async def run() -> int:
        owner, name = UUID(str(flow_run.id)), f"shards-{uuid.uuid4().hex[:8]}"

        async def unpack(text: str) -> list[str]:
            return [text]

        async def do(units: list[str]) -> None:
            del units

        async with ShardQueue(owner, name, user=str(owner)) as queue, ShardQueue(owner, name, user="helper") as own:
            for number in range(shards):
                await queue.put(f"text {number}")
            done = await Taker(own, unpack, "".join).carry_out(do, width=lambda: 4)
            await queue.look()
            assert await queue.take_back() is None
            assert len(queue.results) == shards
        return done

    with ApiLink(prefect.api) as link, temporary_settings({PREFECT_API_URL: link.api}):
        assert asyncio.run(run()) == shards
        return kinds_of(link.requests)


def test_a_shard_costs_five_requests_of_the_prefect_server(prefect: PrefectServer) -> None:
    """It is put in, claimed and answered for (new), found free (filter) and read (one)."""
    few, many = requests_for(2, prefect), requests_for(12, prefect)

    assert many - few == {"POST new": 30, "POST filter": 10, "GET one": 10}
    # Once at the end by the helper, whatever its width is, and once by the run that it helps.
    assert few == {"POST new": 6, "POST filter": 4, "GET one": 3}


def test_a_run_asks_for_no_shard_that_it_has_seen_to_be_taken(prefect: PrefectServer) -> None:
    """It knows what it has put in: each that it takes back is found free (filter) and claimed (new), and not read."""

    @flow
    async def run() -> list[int | None]:
        owner, name = UUID(str(flow_run.id)), f"shards-{uuid.uuid4().hex[:8]}"
        async with ShardQueue(owner, name, user=str(owner)) as queue:
            for number in range(3):
                await queue.put(f"text {number}")
            return [await queue.take_back() for _ in range(6)]

    with ApiLink(prefect.api) as link, temporary_settings({PREFECT_API_URL: link.api}):
        assert asyncio.run(run()) == [0, 1, 2, None, None, None]
        assert kinds_of(link.requests) == {"POST new": 6, "POST filter": 3}


@dataclass
class Numbers:
    """Units of a weight of 1, in shards of five."""

    did: list[int] = field(default_factory=list)

    def progress(self) -> float:
        return float(len(self.did))

    def weight(self, units: Sequence[int]) -> float:
        return float(len(units))

    def busy(self) -> float:
        return 0.0

    def cut(self, units: Sequence[int], *, workers: int, least: float) -> list[list[int]]:
        return [list(units[begin : begin + 5]) for begin in range(0, len(units), 5)]

    def pack(self, units: Sequence[int], *, again: bool) -> str:
        return str(units)

    def parameters(self, queue: ShardQueue) -> Mapping[str, Any]:
        return {}

    def note(self, helper: str, text: str) -> None: ...

    async def remaining(self, units: Sequence[int]) -> list[int]:
        return list(units)

    def fail(self, units: Sequence[int], reason: str) -> None: ...


@pytest.fixture(scope="module")
def unstaffed(prefect_server: PrefectServer) -> str:
    """A deployment that no worker serves."""

    async def make(client: PrefectClient) -> None:
        await client.create_deployment(await client.create_flow_from_name("numbers"), "unstaffed")

    with temporary_settings({PREFECT_API_URL: prefect_server.api}):
        with_client(make)
    return "numbers/unstaffed"


REFUSED = "the Prefect server refused"


@pytest.mark.parametrize(
    ("refused", "reason"),
    [
        (Fault(path="/create_flow_run$", status=403), REFUSED),
        (Fault(method="POST", path="/input$", status=403), REFUSED),
        (Fault(method="POST", path="/input$", first=4, last=4, status=403), "no worker took a shard"),
        (Fault(path="/flow_runs/filter$", status=403), REFUSED),
        (Fault(path="/flow_runs/filter$", first=2, status=403), "no worker took a shard"),
    ],
    ids=["runs", "shards", "a shard", "recent starts", "nothing until runs are watched"],
)
def test_a_run_that_gets_no_helper_does_all_by_itself_and_says_why(
    prefect: PrefectServer, unstaffed: str, refused: Fault, reason: str
) -> None:
    numbers = Numbers()
    port = int(prefect.api.rpartition(":")[2].partition("/")[0])

    @flow
    async def run() -> HelperDecision:
        spread = Spread("numbers", numbers, Fleet(deployment=unstaffed, helpers=2, always=True))

        async def tried() -> bool:
            alone = reason not in REFUSED or "alone" in spread.decision.reason
            return alone and refused.matched >= refused.first

        async def do(units: list[int]) -> None:
            await eventually("help was sought", tried)
            numbers.did.extend(units)

        async with spread.opened():
            await spread.carry_out(range(40), do, width=2)
        return spread.decision

    with FaultProxy(port, refused) as proxy, temporary_settings({PREFECT_API_URL: f"http://{proxy.host}/api"}):
        decision = asyncio.run(run())

    assert sorted(numbers.did) == list(range(40))
    assert "done by this run alone" in decision.reason
    assert reason in decision.reason


def test_a_helper_begins_before_all_units_are_there(prefect: PrefectServer, unstaffed: str) -> None:
    """It waits for more while the run still looks for units, and ends with it."""
    helping: list[asyncio.Task[int]] = []
    helped: list[int] = []

    async def help_out(queue: ShardQueue) -> int:
        async def unpack(text: str) -> list[int]:
            return [int(number) for number in text.split()]

        async def do(units: list[int]) -> None:
            helped.extend(units)

        async with ShardQueue(queue.run, queue.name, user="helper", grows=queue.grows) as own:
            return await Taker(own, unpack, str).carry_out(do, width=lambda: 2)

    class Helped(Numbers):
        def pack(self, units: Sequence[int], *, again: bool) -> str:
            return " ".join(map(str, units))

        def parameters(self, queue: ShardQueue) -> Mapping[str, Any]:
            helping.append(asyncio.create_task(help_out(queue)))
            return {}

    numbers = Helped()

    @flow
    async def run() -> HelperDecision:
        spread = Spread("numbers", numbers, Fleet(deployment=unstaffed, helpers=1, always=True))

        def has_done(wanted: Sequence[int]) -> Any:
            async def is_done() -> bool:
                return set(helped) == set(wanted)

            return is_done

        async def do(units: list[int]) -> None:
            numbers.did.extend(units)

        async with spread.opened():
            spread.offer(range(10), 0.25)
            await eventually("the first are done", has_done(range(10)))
            spread.offer(range(10, 20), 0.5)
            await eventually("the next are done", has_done(range(20)))
            await spread.carry_out(range(40), do, width=2)
        async with asyncio.timeout(30):
            assert await helping[0] >= 4
        return spread.decision

    with temporary_settings({PREFECT_API_URL: prefect.api}):
        decision = asyncio.run(run())

    assert sorted([*numbers.did, *helped]) == list(range(40))
    assert decision.helpers == 1


def test_a_helper_gives_up_where_nothing_comes(prefect: PrefectServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run that plans may be gone, and its queue has no end then."""
    monkeypatch.setattr(queue_module, "_WAIT", 0.5)
    monkeypatch.setattr(queue_module, "_PAUSE", 0.1)

    @flow
    async def run() -> list[Any]:
        owner = UUID(str(flow_run.id))
        async with (
            ShardQueue(owner, "shards-a", user=str(owner), grows=True) as queue,
            ShardQueue(owner, "shards-a", user="helper", grows=True) as own,
        ):
            await queue.put("text")
            first = await own.take()
            without_end = await own.take()
            await queue.end()
            await queue.end()
            await queue.put("put back")
            return [first, without_end, await own.take(), await own.take(), queue.size]

    with temporary_settings({PREFECT_API_URL: prefect.api}):
        assert asyncio.run(run()) == [(0, "text"), None, (2, "put back"), None, 3]
