"""The pace at which a registry is asked: windows, rates, pauses, and limits as ECR has them."""

from __future__ import annotations

import heapq
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from oci.descriptor import OCI_MANIFEST, Descriptor
from oci.digest import digest_of
from oci.errors import Cancelled, CancelToken, RateLimited, StoreError, Unavailable
from oci.manifest import parse_manifest
from oci.meter import Meter
from oci.reference import Repository
from oci.registry.http.errors import remaining_pulls
from oci.registry.http.pace import Attempts, Pace, Window, is_slow_down, retry_after
from oci.store import reader_of
from tests.oci.registry.conftest import Client
from tests.servers.capped_registry import ECR, CappedRegistry
from tests.servers.quirky_registry import Quirky

Make = Callable[..., Client]
NOW = datetime(2026, 11, 29, 12, 0, tzinfo=UTC)
ECR_CAPS = {"PUT manifest": 10.0, "POST upload": 100.0, "PUT upload": 100.0, "HEAD blob": 1000.0}


def pace(ceiling: int = 50, caps: dict[str, float] | None = None) -> Pace:
    return Pace(ceiling=ceiling, meter=Meter(), cancel=CancelToken(), caps=caps or {})


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("120", 120),
        ("1.5", 1.5),
        ("-5", 0),
        (format_datetime(NOW + timedelta(seconds=90), usegmt=True), 90),
        (format_datetime(NOW - timedelta(days=9), usegmt=True), 0),
        ("Sun, 29 Nov 2026 12:00:30 -0000", 30),
        ("3, 7", 7),
        ("9" * 390, 10 * 365 * 86400),
        ("1e400", 10 * 365 * 86400),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 10 * 365 * 86400),
        ("soon", None),
        ("", None),
        ("nan", None),
        ("inf", None),
        ("Fri, 31 Dec 99999 23:59:59 GMT", None),
        ("١٢", None),
    ],
)
def test_retry_after_in_every_form(text: str, seconds: float | None) -> None:
    assert retry_after({"retry-after": text}, NOW) == seconds


def test_a_quota_header() -> None:
    assert remaining_pulls({"ratelimit-remaining": "76;w=21600"}) == (76, 21600)
    assert remaining_pulls({"ratelimit-remaining": "many"}) is None
    assert remaining_pulls({}) is None


def error(kind: type[StoreError] = RateLimited, status: int = 429, wait: float | None = 0.0) -> StoreError:
    made = kind("x", status=status)
    made.retry_after = wait
    return made


def attempts(retries: int, budget: float = 5.0) -> Attempts:
    return Attempts(retries=retries, budget=budget, meter=Meter(), cancel=CancelToken())


def test_a_slow_down_is_never_counted_as_a_failed_attempt() -> None:
    tries = attempts(retries=1)
    for _ in range(8):
        tries.again(error(), 0.0)
    tries.again(error(Unavailable, 503, 0.01), 0.01)
    tries.again(error(Unavailable, 500, None), 0.0)
    with pytest.raises(Unavailable):
        tries.again(error(Unavailable, 500, None), 0.0)


def test_a_wait_of_nothing_is_not_asked_for_without_end() -> None:
    """`Retry-After: 0`, or a date that has passed, each time: the pauses grow nevertheless, and use up the budget."""
    tries = attempts(retries=0, budget=0.2)
    for _ in range(4):
        tries.again(error(), 0.0)
    with pytest.raises(RateLimited):
        tries.again(error(), 0.0)


def test_github_says_when_its_budget_begins_anew() -> None:
    headers = {"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(int(NOW.timestamp()) + 90)}
    assert retry_after(headers, NOW) == 90
    assert retry_after(headers | {"retry-after": "5"}, NOW) == 5
    assert retry_after(headers | {"x-ratelimit-remaining": "17"}, NOW) is None
    assert retry_after(headers | {"x-ratelimit-reset": "soon"}, NOW) is None


def test_a_quota_that_is_used_up_ends_the_work_at_once_and_is_named(make_client: Make) -> None:
    """Docker Hub: 429 without Retry-After, and a window of six hours."""
    used_up = {"ratelimit_limit": "100;w=21600", "ratelimit_remaining": "0;w=21600"}

    def limited(call: Any, path: str) -> bool:
        call.answer(429, b'{"errors":[{"code":"TOOMANYREQUESTS","message":"pull rate limit"}]}', **used_up)
        return True

    with Quirky(limited) as server:
        store = make_client(side="source").repository(server.host, "a/b")
        for _ in range(2):
            with pytest.raises(RateLimited, match="the quota is used up, and its window is 21600 s long"):
                store.get_manifest("v1")
        assert len(server.requests()) == 1


def test_slow_downs_end_with_the_budget_for_waiting() -> None:
    tries = attempts(retries=0, budget=0.05)
    tries.again(error(), 0.03)
    with pytest.raises(RateLimited, match="more than the"):
        tries.again(error(), 0.03)


def test_only_a_503_that_says_when_is_a_slow_down() -> None:
    assert is_slow_down(error(Unavailable, 503, 1.0))
    assert not is_slow_down(error(Unavailable, 503, None))
    quota = RateLimited("used up", retryable=False)
    assert not is_slow_down(quota)


def test_a_window_is_halved_once_for_all_that_was_on_its_way() -> None:
    one = pace()
    started = [one.start("PUT manifest", large=False) for _ in range(8)]
    window = one._window("PUT manifest")
    for moment in started:
        one.slow_down("PUT manifest", moment, None)
    assert window.size == 4

    for _ in started:
        one.finish("PUT manifest", large=False, seconds=None)
    one.slow_down("PUT manifest", one.start("PUT manifest", large=False), None)
    assert window.size == 2


def test_a_window_grows_while_answers_come_quickly_and_no_further() -> None:
    one = pace()
    for seconds in (0.05, 0.2):
        for _ in range(100):
            window = one._window("HEAD blob")
            for _ in range(int(window.size)):
                one.start("HEAD blob", large=False)
            for _ in range(window.in_flight):
                one.finish("HEAD blob", large=False, seconds=seconds)
        grown = one._window("HEAD blob").size
        assert grown == 50
    slow = pace()
    for number in range(30):
        slow.start("HEAD blob", large=False)
        slow.finish("HEAD blob", large=False, seconds=0.01 if number == 0 else 0.5)
    assert slow._window("HEAD blob").size == 8


def _simulated(ceiling: int, round_trip: float, work: float, begin: float | None = None) -> float:
    """Seconds of a simulated clock in which a registry with two cores answers 1,500 requests. Each takes `work`
    seconds of a core, give or take half. `begin` is the size of a window that doesn't change."""
    chance = random.Random(7)
    window = Window(threading.Lock(), ceiling, 0.0)
    window.size = begin or window.size
    free = [0.0, 0.0]
    answers: list[tuple[float, float]] = []
    now, left = 0.0, 1500
    while left or answers:
        while left and window.in_flight < min(int(window.size), ceiling):
            window.start(now)
            core = free.index(min(free))
            free[core] = max(free[core], now + round_trip / 2) + work * chance.uniform(0.5, 1.5)
            heapq.heappush(answers, (free[core] + round_trip / 2, now))
            left -= 1
        window.waiting = left
        now, started = heapq.heappop(answers)
        window.in_flight -= 1
        if begin is None:
            window.succeeded(now, now - started, ceiling)
    return now


@pytest.mark.parametrize("round_trip", [0.0002, 0.04, 0.2])
@pytest.mark.parametrize("work", [0.0005, 0.002, 0.01])
def test_a_window_fills_the_pipe_as_well_as_the_best_fixed_one(round_trip: float, work: float) -> None:
    best = min(_simulated(50, round_trip, work, float(fixed)) for fixed in (4, 8, 16, 32, 50))

    assert _simulated(50, round_trip, work) <= 1.1 * best


def test_one_family_slows_no_other() -> None:
    one = pace()
    one.slow_down("PUT manifest", one.start("PUT manifest", large=False), 120.0)
    started = time.monotonic()
    one.start("PUT upload", large=True)
    assert time.monotonic() - started < 60  # and not the two minutes of the other family
    assert one._window("PUT manifest").wait(time.monotonic()) > 60


def test_a_shared_budget_has_one_window() -> None:
    one = pace(caps={"*": 33.0})
    assert one._window("PUT manifest") is one._window("GET blob")


def test_a_pause_ends_at_once_when_the_run_is_cancelled() -> None:
    token = CancelToken()
    one = Pace(ceiling=4, meter=Meter(), cancel=token)
    one.slow_down("GET blob", one.start("GET blob", large=True), 60.0)
    threading.Timer(0.1, token.cancel).start()
    started = time.monotonic()
    with pytest.raises(Cancelled):
        one.start("GET blob", large=True)
    assert time.monotonic() - started < 40  # and not the minute of the pause


def test_large_bodies_leave_a_slot_for_small_requests() -> None:
    one = pace(ceiling=3)
    one.start("GET blob", large=True)
    one.start("GET blob", large=True)
    waiting = threading.Thread(target=one.start, args=("GET blob",), kwargs={"large": True}, daemon=True)
    waiting.start()
    one.start("HEAD manifest", large=False)
    assert waiting.is_alive()
    one.finish("GET blob", large=True, seconds=0.1)
    waiting.join(60)
    assert not waiting.is_alive()


def test_an_ended_registry_refuses_at_once() -> None:
    one = pace()
    one.end(RateLimited("the quota is used up"), 60.0)
    with pytest.raises(RateLimited, match="the quota is used up"):
        one.start("GET manifest", large=False)


def _image(number: int) -> tuple[list[bytes], bytes]:
    layers = [f"layer {number} {part}".encode() for part in range(5)]
    config = f'{{"image":{number}}}'.encode()
    entry = '{{"mediaType":"{}","digest":"{}","size":{}}}'
    listed = ",".join(entry.format("application/vnd.oci.image.layer.v1.tar", digest_of(d), len(d)) for d in layers)
    first = entry.format("application/vnd.oci.image.config.v1+json", digest_of(config), len(config))
    raw = f'{{"schemaVersion":2,"mediaType":"{OCI_MANIFEST}","config":{first},"layers":[{listed}]}}'
    return [*layers, config], raw.encode()


def _push(client: Client, host: str, number: int) -> None:
    store = client.repository(host, f"repo{number % 20}/app")
    blobs, raw = _image(number)
    for data in blobs:
        store.put_blob(Descriptor("application/octet-stream", digest_of(data), len(data)), reader_of(data), fresh=True)
    store.put_manifest(parse_manifest(raw, OCI_MANIFEST), f"v{number}")


@pytest.mark.slow
@pytest.mark.parametrize(("known", "refused", "share"), [(True, 0.02, 0.85), (False, 0.10, 0.0)])
def test_ecrs_limits_cost_little_and_nothing_fails(
    make_client: Make, known: bool, refused: float, share: float
) -> None:
    """500 images of 5 layers into 20 repositories from 3 workers, each with a pace of its own."""
    images = 500
    with CappedRegistry(ECR) as server, ExitStack() as stack:
        clients = [make_client(concurrency=50) for _ in range(3)]
        for client in clients:
            transport = client.registries.transport(server.host)
            if known:
                transport.pace._caps = ECR_CAPS
        pools = [stack.enter_context(ThreadPoolExecutor(16)) for _ in clients]
        done = [pools[number % 3].submit(_push, clients[number % 3], server.host, number) for number in range(images)]
        for future in done:
            future.result()

    puts = server.taken["PutImage"]
    assert len(puts) == images
    total = sum(map(len, server.taken.values())) + server.refused.total()
    steady = [moment for moment in puts if puts[0] + 10 <= moment <= puts[-1] - 5]
    # In the best ten seconds: a machine that has other work to do lowers the others, and the cap bounds all of them.
    rate = max(sum(began <= moment < began + 10 for moment in steady) for began in steady) / 10
    print(f"{total} requests, {dict(server.refused)} refused, {rate:.2f} PutImage a second")
    assert server.refused.total() <= refused * total
    assert rate >= share * ECR["PutImage"]


def test_one_429_on_a_mount_ends_nothing(make_client: Make) -> None:
    with CappedRegistry({"InitiateLayerUpload": 3.0}) as server:
        store = make_client(retries=0).repository(server.host, "a/b")
        for number in range(8):
            data = f"{number}".encode()
            store.put_blob(
                Descriptor("application/octet-stream", digest_of(data), len(data)),
                reader_of(data),
                mount_from=(Repository(server.host, "other/one"),),
            )
    assert server.refused["InitiateLayerUpload"] > 0
