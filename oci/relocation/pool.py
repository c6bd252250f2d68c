"""The threads that move blobs: biggest first, one thread kept for small ones, each blob once per destination."""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import Future
from typing import Generic, TypeAlias, TypeVar

from oci.cancel import CancelToken
from oci.errors import Cancelled

T = TypeVar("T")
Together: TypeAlias = Callable[[Sequence[Hashable], Callable[[Hashable, T | BaseException], None]], None]

SMALL = 1 << 20
"""Bytes up to which a blob counts as small: one thread takes nothing bigger, so that small ones never queue behind
a row of big ones."""


class BlobPool(Generic[T]):
    """A priority pool with a memo. `once` runs a key's function one time; a failure is forgotten, so that the next
    caller tries again."""

    def __init__(self, threads: int, cancel: CancelToken) -> None:
        self._cancel = cancel
        self._changed = threading.Condition()
        self._big: list[tuple[int, int, Callable[[], None]]] = []
        self._small: list[tuple[int, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._memo: dict[Hashable, Future[T]] = {}
        self._unclaimed: set[Hashable] = set()
        """Keys that `together` has started and nobody has asked for yet."""
        self._closed = False
        self._threads = [
            threading.Thread(target=self._work, args=(threads > 1 and number == 0,), name=f"blob-{number}", daemon=True)
            for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def once(self, key: Hashable, size: int, function: Callable[[], T]) -> tuple[Future[T], bool]:
        """The future of `key`, and whether this call is the first that asks for it."""
        with self._changed:
            known = self._memo.get(key)
            if known is not None:
                mine = key in self._unclaimed
                self._unclaimed.discard(key)
                return known, mine
            future: Future[T] = Future()
            self._memo[key] = future
            self._push(size, lambda: self._run(key, future, function))
            return future, True

    def together(self, keys: Sequence[Hashable], size: int, function: Together[T]) -> None:
        """Runs one function for several keys, unless all but one of them have been seen to already. It is given those
        that haven't, and calls back with a result or an exception for each as soon as it has one; who asks for a key
        later, finds it."""
        with self._changed:
            futures: dict[Hashable, Future[T]] = {key: Future() for key in keys if key not in self._memo}
            if len(futures) < 2:
                return
            self._memo.update(futures)
            self._unclaimed.update(futures)
            self._push(size, lambda: self._run_together(futures, function))

    def forget(self, key: Hashable) -> None:
        with self._changed:
            self._memo.pop(key, None)
            self._unclaimed.discard(key)

    def close(self) -> None:
        """Waits for what is running; what is still queued is answered with Cancelled."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        for _, _, job in (*self._big, *self._small):
            self._cancel.cancel()
            job()

    def _push(self, size: int, job: Callable[[], None]) -> None:
        queue = self._small if size <= SMALL else self._big
        heapq.heappush(queue, (-size, next(self._order), job))
        self._changed.notify_all()

    def _run_together(self, futures: Mapping[Hashable, Future[T]], function: Together[T]) -> None:
        def settle(key: Hashable, outcome: T | BaseException) -> None:
            if isinstance(outcome, BaseException):
                self.forget(key)
                futures[key].set_exception(outcome)
            else:
                futures[key].set_result(outcome)

        try:
            self._cancel.check()
            function(list(futures), settle)
        except BaseException as error:  # noqa: BLE001 - whatever it was belongs to whoever waits on the futures
            for key, future in futures.items():
                if not future.done():
                    settle(key, error)

    def _run(self, key: Hashable, future: Future[T], function: Callable[[], T]) -> None:
        try:
            self._cancel.check()
            result = function()
        except BaseException as error:  # noqa: BLE001 - whatever it was belongs to whoever waits on the future
            self.forget(key)
            future.set_exception(error)
        else:
            future.set_result(result)

    def _work(self, small_only: bool) -> None:
        while True:
            with self._changed:
                while not self._closed and not self._small and (small_only or not self._big):
                    self._changed.wait()
                if self._closed:
                    return
                queue = self._big if self._big and not small_only else self._small
                _, _, job = heapq.heappop(queue)
            job()


def wait_all(futures: list[Future[T]]) -> list[T]:
    """The results in order. Waits for every one before it raises the first failure, so that nothing is left running
    behind the caller's back; a cancellation outranks the failures it caused."""
    errors = [error for error in (future.exception() for future in futures) if error is not None]
    for error in errors:
        if isinstance(error, Cancelled):
            raise error
    if errors:
        raise errors[0]
    return [future.result() for future in futures]
