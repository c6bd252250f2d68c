from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import httpx
import pytest
from prefect.events import Event
from prefect.exceptions import PrefectHTTPStatusError

from flows.receiver.notification import Push
from flows.receiver.outbox import BATCH, Full, Outbox
from oci.digest import Digest
from oci.reference import Repository

WEB = Repository("registry.example", "shop/web")


def push(number: int, *, tag: str = "") -> Push:
    return Push(WEB, tag or f"1.{number}", Digest(f"sha256:{number:064x}"))


class Server:
    """Takes events, or for a number of attempts doesn't."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.batches: list[list[Event]] = []
        self.attempted: list[list[Event]] = []

    async def take(self, events: Sequence[Event]) -> None:
        self.attempted.append(list(events))
        if self.failures:
            self.failures -= 1
            raise ConnectionError("nobody listens")
        self.batches.append(list(events))

    @property
    def tags(self) -> list[str]:
        return [event.payload["tag"] for batch in self.batches for event in batch]


def outbox_for(server: Server, *, capacity: int = 1000, quiet: float = 60.0) -> Outbox:
    return Outbox(capacity=capacity, quiet=quiet, pauses=(0.01, 0.02), send=server.take)


async def delivered(outbox: Outbox) -> None:
    delivery = asyncio.create_task(outbox.deliver())
    assert await outbox.emptied(10)
    delivery.cancel()


def test_pushes_leave_in_their_order_and_in_batches() -> None:
    server = Server()

    async def run() -> None:
        outbox = outbox_for(server)
        outbox.put(push(number) for number in range(BATCH + 20))
        await delivered(outbox)

    asyncio.run(run())

    assert [len(batch) for batch in server.batches] == [BATCH, 20]
    assert server.tags == [f"1.{number}" for number in range(BATCH + 20)]


def test_an_event_says_what_a_trigger_needs() -> None:
    server = Server()

    async def run() -> None:
        outbox = outbox_for(server)
        outbox.put([push(7)])
        await delivered(outbox)

    asyncio.run(run())

    [[event]] = server.batches
    assert event.event == "transship.registry.pushed"
    assert event.resource.id == "transship.registry.registry.example/shop/web"
    assert event.payload == {
        "registry": "registry.example",
        "repository": "registry.example/shop/web",
        "tag": "1.7",
        "digest": f"sha256:{7:064x}",
    }


def test_what_the_server_did_not_take_is_sent_again_as_the_same_events() -> None:
    server = Server(failures=3)

    async def run() -> None:
        outbox = outbox_for(server)
        outbox.put([push(1), push(2)])
        await delivered(outbox)
        assert outbox.counts.delivered == 2
        assert outbox.trouble == ""

    asyncio.run(run())

    assert server.tags == ["1.1", "1.2"]
    assert {tuple(event.id for event in batch) for batch in server.attempted} == {
        tuple(event.id for event in server.batches[0])
    }


def test_an_event_that_is_refused_for_good_costs_no_other_also_when_the_server_goes_away_in_between() -> None:
    attempts: list[list[str]] = []
    away = iter((False, False, True))

    async def take(events: Sequence[Event]) -> None:
        attempts.append([event.payload["tag"] for event in events])
        if next(away, False):
            raise ConnectionError("nobody listens")
        if "1.2" in attempts[-1]:
            request = httpx.Request("POST", "http://127.0.0.1/api/events")
            raise PrefectHTTPStatusError("no", request=request, response=httpx.Response(422, request=request))

    async def run() -> None:
        outbox = Outbox(pauses=(0.01, 0.02), send=take)
        outbox.put(push(number) for number in (1, 2, 3))
        await delivered(outbox)
        assert (outbox.counts.delivered, outbox.counts.refused, outbox.trouble) == (2, 1, "")

    asyncio.run(run())

    assert attempts == [["1.1", "1.2", "1.3"], ["1.1"], ["1.2"], ["1.2"], ["1.3"]]


def test_a_full_outbox_takes_nothing_of_a_message_and_takes_it_when_there_is_room() -> None:
    server = Server()

    async def run() -> None:
        outbox = outbox_for(server, capacity=3)
        assert outbox.put([push(1), push(2)]) == 2
        with pytest.raises(Full):
            outbox.put([push(3), push(4)])
        assert len(outbox) == 2
        await delivered(outbox)
        assert outbox.put([push(3), push(4)]) == 2
        await delivered(outbox)

    asyncio.run(run())

    assert server.tags == ["1.1", "1.2", "1.3", "1.4"]


def test_a_tag_that_is_told_twice_counts_once() -> None:
    server = Server()

    async def run() -> None:
        outbox = outbox_for(server)
        assert outbox.put([push(1), push(1)]) == 1
        await delivered(outbox)
        assert outbox.put([push(1)]) == 0
        assert outbox.counts.repeated == 2

    asyncio.run(run())

    assert server.tags == ["1.1"]


def test_a_tag_that_moves_away_and_back_is_told_each_time() -> None:
    server = Server()

    async def run() -> None:
        outbox = outbox_for(server)
        assert outbox.put([push(1, tag="latest"), push(2, tag="latest")]) == 2
        assert outbox.put([push(1, tag="latest")]) == 1
        await delivered(outbox)

    asyncio.run(run())

    assert [event.payload["digest"][-1] for batch in server.batches for event in batch] == ["1", "2", "1"]


def test_a_repetition_counts_again_after_a_while() -> None:
    server = Server()

    async def run() -> None:
        outbox = outbox_for(server, quiet=0.0)
        outbox.put([push(1)])
        moment = time.monotonic()
        while time.monotonic() == moment:  # noqa: ASYNC110 - a clock is no event
            await asyncio.sleep(0)
        assert outbox.put([push(1)]) == 1

    asyncio.run(run())


def test_what_is_left_at_the_end_is_named(caplog: pytest.LogCaptureFixture) -> None:
    server = Server(failures=1000)

    async def run() -> None:
        outbox = outbox_for(server)
        delivery = asyncio.create_task(outbox.deliver())
        outbox.put([push(1)])
        assert not await outbox.emptied(0.1)
        assert "nobody listens" in outbox.trouble
        delivery.cancel()

    asyncio.run(run())

    assert f"stopped before {push(1)} was delivered" in caplog.text
