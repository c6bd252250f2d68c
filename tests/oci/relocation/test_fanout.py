from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from oci.errors import Cancelled, CancelToken, IntegrityError
from oci.relocation.fanout import Seat, SharedRead, as_done

PARTS = [bytes([number]) * 1000 for number in range(50)]


class Source:
    """Gives PARTS; counts how often it was opened, and can break."""

    def __init__(self, broken_after: int = 1000) -> None:
        self.opened = 0
        self._broken_after = broken_after

    def read(self, offset: int) -> Iterator[bytes]:
        self.opened += 1
        data = b"".join(PARTS)[offset:]
        for number, start in enumerate(range(0, len(data), 1000)):
            if number == self._broken_after:
                raise IntegrityError("not the promised bytes")
            yield data[start : start + 1000]


def shared(source: Source, seats: int, **more: Any) -> SharedRead:
    return SharedRead(source.read, seats=seats, cancel=more.pop("cancel", CancelToken()), **more)


def read_all(seat: Seat) -> bytes:
    try:
        return b"".join(seat.open(0))
    finally:
        seat.leave()


def test_all_readers_get_every_byte_of_one_read() -> None:
    source = Source()
    read = shared(source, 4)

    with ThreadPoolExecutor(4) as threads:
        results = list(threads.map(read_all, [read.seat() for _ in range(4)]))

    assert results == [b"".join(PARTS)] * 4
    assert source.opened == 1


def test_who_needs_nothing_is_not_waited_for() -> None:
    source = Source()
    read = shared(source, 3, patience=60)
    idle, one, other = read.seat(), read.seat(), read.seat()
    idle.leave()

    with ThreadPoolExecutor(2) as threads:
        results = list(threads.map(read_all, [one, other]))

    assert results == [b"".join(PARTS)] * 2
    assert source.opened == 1


def test_who_comes_too_late_reads_for_itself() -> None:
    source = Source()
    read = shared(source, 2, patience=0.0)
    early, late = read.seat(), read.seat()

    assert read_all(early) == read_all(late) == b"".join(PARTS)
    assert source.opened == 2


def test_a_reader_that_stalls_is_left_behind_and_still_gets_every_byte() -> None:
    source = Source()
    read = shared(source, 2, window=5000, patience=0.2)
    slow, fast = read.seat(), read.seat()
    done = threading.Event()

    def slowly() -> bytes:
        chunks = []
        for number, chunk in enumerate(slow.open(0)):
            chunks.append(chunk)
            if number == 3:
                done.wait(60)
        slow.leave()
        return b"".join(chunks)

    with ThreadPoolExecutor(2) as threads:
        late = threads.submit(slowly)
        assert threads.submit(read_all, fast).result(60) == b"".join(PARTS)
        done.set()
        assert late.result(60) == b"".join(PARTS)
    assert source.opened == 2


def test_what_breaks_the_source_breaks_every_reader() -> None:
    read = shared(Source(broken_after=7), 2)

    with ThreadPoolExecutor(2) as threads:
        futures = [threads.submit(read_all, read.seat()) for _ in range(2)]
        for future in futures:
            with pytest.raises(IntegrityError):
                future.result(60)


def test_a_read_from_the_middle_or_a_second_one_is_not_shared() -> None:
    source = Source()
    read = shared(source, 1)
    seat = read.seat()

    assert b"".join(seat.open(49_000)) == PARTS[49]
    assert b"".join(seat.open(0)) == b"".join(PARTS)
    assert b"".join(seat.open(0)) == b"".join(PARTS)
    assert source.opened == 3


def test_waiting_ends_when_the_run_is_cancelled() -> None:
    cancel = CancelToken()
    read = shared(Source(), 2, cancel=cancel, patience=60)
    threading.Timer(0.1, cancel.cancel).start()

    with pytest.raises(Cancelled):
        read_all(read.seat())


def test_work_is_begun_in_order_some_at_a_time_and_given_as_soon_as_it_is_done() -> None:
    begun: dict[int, Future[str]] = {}

    def begin(item: int) -> Future[str]:
        begun[item] = Future()
        if item == 1:
            begun[item].set_result("at once")
        return begun[item]

    work = as_done(range(5), 3, begin)

    item, future = next(work)
    assert (item, future.result(), list(begun)) == (1, "at once", [0, 1, 2])
    begun[2].set_exception(IntegrityError("damaged"))
    item, future = next(work)
    assert (item, str(future.exception()), list(begun)) == (2, "damaged", [0, 1, 2, 3])
    for other in (3, 0):
        begun[other].set_result("later")
    assert [item for item, _ in (next(work), next(work))] == [3, 0]
    begun[4].set_result("last")
    assert [item for item, _ in work] == [4]


def test_work_that_is_not_to_be_begun_any_more_is_left_and_what_runs_is_awaited() -> None:
    waiting = iter(range(100))
    done: list[int] = []

    def until_the_third() -> Iterator[int]:
        for item in waiting:
            yield item
            if len(done) > 2:
                return

    with ThreadPoolExecutor(2) as threads:
        for item, _ in as_done(until_the_third(), 2, lambda item: threads.submit(abs, item)):
            done.append(item)

    assert sorted(done) == list(range(len(done)))
    assert list(waiting) == list(range(len(done), 100))
