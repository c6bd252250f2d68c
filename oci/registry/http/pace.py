"""How many requests a registry gets at a time and per second, and the pause it asks for."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from oci.cancel import CancelToken
from oci.meter import Meter


class Limiter:
    """Shared by every thread that talks to one registry. Waiting ends at once when the run is cancelled."""

    def __init__(self, *, concurrency: int, per_second: float, meter: Meter, cancel: CancelToken) -> None:
        self._slots = max(1, concurrency)
        self._interval = 1.0 / per_second if per_second > 0 else 0.0
        self._meter = meter
        self._cancel = cancel
        self._freed = threading.Condition()
        self._used = 0
        self._used_by_blobs = 0
        self._next = 0.0
        self._paused_until = 0.0

    @contextmanager
    def slot(self, *, blob: bool) -> Iterator[None]:
        """One slot for the time of a request and its answer. Blobs never take the last one."""
        self._take(blob=blob)
        try:
            self._wait_for_turn()
            yield
        finally:
            with self._freed:
                self._used -= 1
                self._used_by_blobs -= blob
                self._freed.notify_all()

    def pause(self, seconds: float) -> None:
        """Nobody starts a request at this registry for so long."""
        with self._freed:
            until = time.monotonic() + seconds
            if until > self._paused_until:
                self._meter.throttled(until - max(self._paused_until, time.monotonic()))
                self._paused_until = until

    def _take(self, *, blob: bool) -> None:
        reserved = 1 if blob and self._slots > 1 else 0
        with self._freed:
            while self._used >= self._slots or (blob and self._used_by_blobs >= self._slots - reserved):
                self._freed.wait(0.2)
                self._cancel.check()
            self._used += 1
            self._used_by_blobs += blob

    def _wait_for_turn(self) -> None:
        self._cancel.check()
        while True:
            with self._freed:
                now = time.monotonic()
                wait = self._paused_until - now
                if wait <= 0:
                    if not self._interval:
                        return
                    turn = max(now, self._next)
                    self._next = turn + self._interval
                    wait = turn - now
                    break
            self._cancel.wait(wait)
        if wait > 0:
            self._cancel.wait(wait)
