from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from functools import partial

import pytest

from oci.errors import Cancelled, CancelToken, Unavailable
from oci.relocation.fanout import BIG_AT_ONCE, SMALL, BlobPool, wait_all
from tests.support.waiting import until


def test_a_key_runs_once_and_every_caller_gets_the_result() -> None:
    pool: BlobPool[int] = BlobPool(4, CancelToken())
    calls = []
    gate = threading.Event()

    def work() -> int:
        gate.wait(60)
        calls.append(1)
        return 7

    begun = [pool.once("a", 1, work) for _ in range(10)]
    gate.set()

    assert wait_all([future for future, _ in begun]) == [7] * 10
    assert [mine for _, mine in begun].count(True) == 1
    assert calls == [1]
    pool.close()


def test_a_failure_is_forgotten() -> None:
    pool: BlobPool[int] = BlobPool(2, CancelToken())

    def fail() -> int:
        raise Unavailable("no")

    future, _ = pool.once("a", 1, fail)
    with pytest.raises(Unavailable):
        wait_all([future])
    future, mine = pool.once("a", 1, lambda: 3)

    assert mine
    assert wait_all([future]) == [3]
    pool.close()


def test_the_biggest_start_first_and_small_ones_never_wait_behind_them() -> None:
    pool: BlobPool[int] = BlobPool(2, CancelToken())
    begun, gate = threading.Event(), threading.Event()
    order: list[int] = []

    def work(size: int) -> int:
        order.append(size)
        return size

    def block() -> int:
        begun.set()
        return int(gate.wait(60))

    blocked, _ = pool.once("gate", SMALL + 1, block)
    assert begun.wait(60)
    big = [pool.once(size, size, partial(work, size))[0] for size in (SMALL + 2, SMALL + 9, SMALL + 5)]
    small, _ = pool.once("small", 10, lambda: work(10))

    assert small.result(60) == 10
    gate.set()
    wait_all([blocked, *big])

    assert order == [10, SMALL + 9, SMALL + 5, SMALL + 2]
    pool.close()


def test_threads_begin_as_they_are_needed_and_big_blobs_take_few_of_them() -> None:
    pool: BlobPool[int] = BlobPool(BIG_AT_ONCE * 2, CancelToken())
    gate = threading.Event()
    begun: list[int] = []

    def block(size: int) -> int:
        begun.append(size)
        return int(gate.wait(60))

    first = [pool.once(size, size, partial(block, size))[0] for size in range(3)]
    assert len(pool._threads) == 3
    big = [pool.once(size, size, partial(block, size))[0] for size in range(SMALL + 1, SMALL + 2 * BIG_AT_ONCE)]
    small, _ = pool.once("small", 10, lambda: 10)

    assert small.result(60) == 10
    until("as many big ones as may", lambda: len(begun) == 3 + BIG_AT_ONCE)
    assert len(pool._threads) == 3 + BIG_AT_ONCE + 1
    gate.set()
    wait_all([*first, *big])
    assert len(begun) == 3 + len(big)
    pool.close()


def test_closing_answers_what_is_queued_with_cancelled() -> None:
    cancel = CancelToken()
    pool: BlobPool[int] = BlobPool(1, cancel)
    started, gate = threading.Event(), threading.Event()

    def block() -> int:
        started.set()
        gate.wait(60)
        return 1

    first, _ = pool.once("a", 1, block)
    second, _ = pool.once("b", 1, lambda: 2)
    started.wait(60)
    closer = threading.Thread(target=pool.close)
    closer.start()
    gate.set()
    closer.join(60)

    assert first.result(60) == 1
    if not second.done() or second.exception() is not None:
        with pytest.raises(Cancelled):
            second.result(0)


def test_one_function_answers_for_several_keys_each_as_soon_as_it_can() -> None:
    pool: BlobPool[int] = BlobPool(2, CancelToken())
    gate = threading.Event()

    def work(keys: Sequence[Hashable], settle: Callable[[Hashable, int | BaseException], None]) -> None:
        settle(keys[0], 1)
        gate.wait(60)
        settle(keys[1], Unavailable("no"))

    pool.together(["a", "b"], 1, work)
    first, mine = pool.once("a", 1, lambda: 9)
    again, theirs = pool.once("a", 1, lambda: 9)
    second, _ = pool.once("b", 1, lambda: 9)

    assert wait_all([first, again]) == [1, 1]
    assert (mine, theirs, second.done()) == (True, False, False)
    gate.set()
    with pytest.raises(Unavailable):
        wait_all([second])
    assert wait_all([pool.once("b", 1, lambda: 7)[0]]) == [7]
    pool.close()


def test_a_function_for_several_keys_is_given_only_those_that_are_not_seen_to() -> None:
    pool: BlobPool[int] = BlobPool(2, CancelToken())
    asked: list[Hashable] = []

    def work(keys: Sequence[Hashable], settle: Callable[[Hashable, int | BaseException], None]) -> None:
        asked.extend(keys)
        for key in keys:
            settle(key, 2)

    known, _ = pool.once("a", 1, lambda: 1)
    pool.together(["a", "b", "c"], 1, work)
    pool.together(["b", "d"], 1, work)

    assert wait_all([known, *(pool.once(key, 1, lambda: 3)[0] for key in "bcd")]) == [1, 2, 2, 3]
    assert asked == ["b", "c"]
    pool.close()


def test_a_function_for_several_keys_that_fails_fails_for_all_it_has_not_answered() -> None:
    pool: BlobPool[int] = BlobPool(2, CancelToken())
    gate = threading.Event()

    def work(keys: Sequence[Hashable], settle: Callable[[Hashable, int | BaseException], None]) -> None:
        gate.wait(60)
        settle(keys[0], 1)
        raise Unavailable("no")

    pool.together(["a", "b"], 1, work)
    first, second = (pool.once(key, 1, lambda: 9)[0] for key in "ab")
    gate.set()

    assert wait_all([first]) == [1]
    with pytest.raises(Unavailable):
        wait_all([second])
    pool.close()
