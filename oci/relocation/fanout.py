"""The threads that move blobs, and one read of a blob for several destinations.

Chunks of the source stay in memory until the slowest reader has them, in a window of a few megabytes. A reader that
delays the others for too long leaves the shared read and opens a read of its own.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextvars import copy_context
from itertools import islice
from queue import SimpleQueue
from typing import Generic, TypeAlias, TypeVar

from oci.digest import Chunk
from oci.errors import Cancelled, CancelToken
from oci.store import BlobReader

WINDOW = 4 << 20
"""Bytes that are kept for a slow reader."""

PATIENCE = 3.0
"""Seconds that readers wait for one another to begin; and what a slow one may hold up the others, as long as that is
less than half of the time: one that is half as fast as the others costs them less than a second read would."""

_POLL = 0.1


class SharedRead:
    """`read` opens the source; `seats` is the number of destinations that may want to read. Each takes a Seat."""

    def __init__(
        self,
        read: BlobReader,
        *,
        seats: int,
        cancel: CancelToken,
        window: int = WINDOW,
        patience: float = PATIENCE,
    ) -> None:
        self.read = read
        self._cancel = cancel
        self._window = window
        self._patience = patience
        self._changed = threading.Condition()
        self._awaited = seats
        self._source: Iterator[Chunk] | None = None
        self._pumping = False
        self._started_at = 0.0
        """When the first chunk was asked for, or 0; no reader joins after that."""
        self._full_since = 0.0
        """When a reader found the window full, or 0."""
        self._held_up = 0.0
        """Seconds that readers waited for the slowest of them so far."""
        self._error: BaseException | None = None
        self._chunks: deque[Chunk] = deque()
        """The last chunk of all is empty."""
        self._first = 0
        """Number of the first chunk that is kept."""
        self._buffered = 0
        self._positions: dict[Seat, int] = {}
        """The next chunk of each reader that takes part."""

    def seat(self) -> Seat:
        return Seat(self)

    def join(self, seat: Seat) -> bool:
        """Joins the read; returns False when the others have begun."""
        with self._changed:
            if self._started_at:
                return False
            self._positions[seat] = 0
            self._awaited -= 1
            self._changed.notify_all()
            return True

    def leave(self, seat: Seat, *, joined: bool) -> None:
        with self._changed:
            if not joined:
                self._awaited -= 1
            self._positions.pop(seat, None)
            self._trim()
            self._changed.notify_all()

    def next_chunk(self, seat: Seat) -> Chunk | None:
        """Returns the next chunk for this reader; empty at the end, None when it was left behind. Raises what the
        source raised."""
        while True:
            with self._changed:
                self._wait_for_others()
                while seat in self._positions:
                    self._cancel.check()
                    number = self._positions[seat] - self._first
                    if number < len(self._chunks):
                        self._positions[seat] += 1
                        chunk = self._chunks[number]
                        self._trim()
                        self._changed.notify_all()
                        return chunk
                    if self._error is not None:
                        raise self._error
                    if not self._pumping and self._has_room():
                        self._pumping = True
                        break
                    self._changed.wait(_POLL)
                else:
                    return None
            self._pump()

    def _wait_for_others(self) -> None:
        """Waits until all have joined, or until the patience ends."""
        deadline = time.monotonic() + self._patience
        while not self._started_at:
            self._cancel.check()
            if self._awaited <= 0 or time.monotonic() >= deadline:
                self._started_at = time.monotonic()
                self._changed.notify_all()
                return
            self._changed.wait(_POLL)

    def _has_room(self) -> bool:
        """Says whether the window has room for a chunk; where the slowest reader has delayed the others for too long,
        it is left behind to make room."""
        now = time.monotonic()
        self._held_up += now - self._full_since if self._full_since else 0.0
        if self._buffered >= self._window:
            self._full_since = now
            if self._held_up < self._patience or self._held_up <= (now - self._started_at) / 2:
                return False
            slowest = min(self._positions.values())
            for seat in [seat for seat, position in self._positions.items() if position == slowest]:
                del self._positions[seat]
            self._held_up = 0.0
            self._trim()
            self._changed.notify_all()
        has_room = self._buffered < self._window
        self._full_since = 0.0 if has_room else now
        return has_room

    def _pump(self) -> None:
        chunk: Chunk = b""
        error: BaseException | None = None
        try:
            if self._source is None:
                self._source = self.read(0)
            chunk = next((chunk for chunk in self._source if chunk), b"")
        except BaseException as caught:  # noqa: BLE001 - every reader raises it
            error = caught
        with self._changed:
            self._pumping = False
            self._error = error
            if error is None:
                self._chunks.append(chunk)
                self._buffered += len(chunk)
            self._changed.notify_all()

    def _trim(self) -> None:
        needed = min(self._positions.values(), default=self._first + len(self._chunks))
        while self._first < needed and self._chunks:
            self._buffered -= len(self._chunks.popleft())
            self._first += 1


class Seat:
    """One destination's part in a shared read. `leave` when it needs no more, whether it has read or not."""

    def __init__(self, shared: SharedRead) -> None:
        self._shared = shared
        self._joined = False
        self._has_left = False

    def open(self, offset: int) -> Iterator[Chunk]:
        """Opens the blob, as a BlobReader. Only the first read from the beginning is shared; any other read is its
        own."""
        if offset or self._joined or self._has_left or not self._shared.join(self):
            return self._shared.read(offset)
        self._joined = True
        return self._follow()

    def leave(self) -> None:
        if not self._has_left:
            self._has_left = True
            self._shared.leave(self, joined=self._joined)

    def _follow(self) -> Iterator[Chunk]:
        passed_on = 0
        while chunk := self._shared.next_chunk(self):
            passed_on += len(chunk)
            yield chunk
        if chunk is not None:
            return
        for chunk in self._shared.read(0):  # from the beginning, because only a whole read is verified
            if passed_on < len(chunk):
                yield chunk[passed_on:] if passed_on else chunk
            passed_on = max(0, passed_on - len(chunk))


T = TypeVar("T")
ItemT = TypeVar("ItemT")
Together: TypeAlias = Callable[[Sequence[Hashable], Callable[[Hashable, T | BaseException], None]], None]

SMALL = 1 << 20
"""Bytes up to which a blob counts as small: a thread is left for those, so that they never queue behind a row of big
ones."""

BIG_AT_ONCE = 32
"""Big blobs on their way at the most: each has two pieces of 512 KiB in memory."""


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
        """Keys that `together` has started and that `once` was not called for yet."""
        self._closed = False
        self._most = threads
        self._most_big = max(1, min(threads - 1, BIG_AT_ONCE))
        self._big_ones = 0
        """Big blobs that are on their way."""
        self._idle = 0
        """Threads that wait and that nothing was pushed for."""
        self._threads: list[threading.Thread] = []

    def once(self, key: Hashable, size: int, function: Callable[[], T]) -> tuple[Future[T], bool]:
        """Returns the future of `key`, and whether this call is the first that asks for it."""
        with self._changed:
            memo = self._memo.get(key)
            if memo is not None:
                mine = key in self._unclaimed
                self._unclaimed.discard(key)
                return memo, mine
            future: Future[T] = Future()
            self._memo[key] = future
            self._push(size, lambda: self._run({key: future}, lambda _, resolve: resolve(key, function())))
            return future, True

    def together(self, keys: Sequence[Hashable], size: int, function: Together[T]) -> bool:
        """Runs one function for several keys, unless all but one of them have been run already; says whether it does.
        The function gets the keys that haven't, and calls back with a result or an exception for each."""
        with self._changed:
            futures: dict[Hashable, Future[T]] = {key: Future() for key in keys if key not in self._memo}
            if len(futures) < 2:
                return False
            self._memo.update(futures)
            self._unclaimed.update(futures)
            self._push(size, lambda: self._run(futures, function))
            return True

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
        is_big = size > SMALL
        context = copy_context()  # of the part of the run that pays for it, see Meter.part
        heapq.heappush(self._big if is_big else self._small, (-size, next(self._order), lambda: context.run(job)))
        if is_big and self._big_ones + len(self._big) > self._most_big:
            return  # a thread that ends a big one takes the next
        if self._idle:
            self._idle -= 1
            self._changed.notify()
        elif len(self._threads) < self._most:
            thread = threading.Thread(target=self._work, name=f"blob-{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _run(self, futures: Mapping[Hashable, Future[T]], function: Together[T]) -> None:
        def resolve(key: Hashable, outcome: T | BaseException) -> None:
            if isinstance(outcome, BaseException):
                self.forget(key)
                futures[key].set_exception(outcome)
            else:
                futures[key].set_result(outcome)

        try:
            self._cancel.check()
            function(list(futures), resolve)
        except BaseException as error:  # noqa: BLE001 - the futures hand it to their callers
            for key, future in futures.items():
                if not future.done():
                    resolve(key, error)

    def _work(self) -> None:
        is_big = False
        while True:
            with self._changed:
                self._big_ones -= is_big
                while not self._closed and not self._small and not self._may_take_big():
                    self._idle += 1
                    self._changed.wait()
                if self._closed:
                    return
                is_big = self._may_take_big()
                self._big_ones += is_big
                _, _, job = heapq.heappop(self._big if is_big else self._small)
            job()

    def _may_take_big(self) -> bool:
        return bool(self._big) and self._big_ones < self._most_big


def as_done(
    items: Iterable[ItemT], width: int, begin: Callable[[ItemT], Future[T]]
) -> Iterator[tuple[ItemT, Future[T]]]:
    """Begins items in order, at most `width` at a time, and gives each with its future as soon as that is done. The
    next is asked for when there is room for it: `items` may end early."""
    queue = iter(items)
    running: dict[Future[T], ItemT] = {}
    finished: SimpleQueue[Future[T]] = SimpleQueue()
    while True:
        for item in islice(queue, width - len(running)):
            future = begin(item)
            running[future] = item
            future.add_done_callback(finished.put)
        if not running:
            return
        future = finished.get()
        yield running.pop(future), future


def wait_all(futures: list[Future[T]]) -> list[T]:
    """Returns the results in order. Waits for all of them before it raises the first failure, so that nothing is left
    running behind the caller's back; a cancellation outranks the failures it caused."""
    errors = [error for future in futures if (error := future.exception()) is not None]
    if errors:
        raise next((error for error in errors if isinstance(error, Cancelled)), errors[0])
    return [future.result() for future in futures]
