"""One read of a blob for several destinations.

What comes from the source is kept until the slowest reader has it, in a window of a few megabytes. A reader that holds
up the others for too long is left behind: it goes on with a read of its own, and they go on without it.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator

from oci.cancel import CancelToken
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
        self._began = False
        self._source: Iterator[bytes] | None = None
        self._pumping = False
        self._started_at = 0.0
        self._full_since = 0.0
        """When a reader found the window full, or 0."""
        self._held_up = 0.0
        """Seconds that readers waited for the slowest of them so far."""
        self._ended = False
        self._error: BaseException | None = None
        self._chunks: deque[bytes] = deque()
        self._first = 0
        """Number of the first chunk that is kept."""
        self._held = 0
        self._positions: dict[Seat, int] = {}
        """The next chunk of each reader that takes part."""

    def seat(self) -> Seat:
        return Seat(self)

    def join(self, seat: Seat) -> bool:
        """False when the others have begun: too late."""
        with self._changed:
            if self._began:
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

    def next_chunk(self, seat: Seat) -> bytes | None:
        """The next chunk for this reader; empty at the end, None when it was left behind. Raises what the source
        raised."""
        while True:
            with self._changed:
                self._wait_for_others()
                chunk = self._turn(seat)
                if chunk is not None or seat not in self._positions:
                    return chunk
            self._pump()

    def _wait_for_others(self) -> None:
        """All begin together, or those that are there when patience ends."""
        deadline = time.monotonic() + self._patience
        while not self._began:
            self._cancel.check()
            if self._awaited <= 0 or time.monotonic() >= deadline:
                self._began = True
                self._started_at = time.monotonic()
                self._changed.notify_all()
                return
            self._changed.wait(_POLL)

    def _turn(self, seat: Seat) -> bytes | None:
        """A chunk that is kept, or None when it is this reader's turn to fetch one, or when it was left behind."""
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
            if self._ended:
                return b""
            if not self._pumping:
                if self._held < self._window:
                    self._pumping = True
                    self._count_waiting(full=False)
                    return None
                if self._count_waiting(full=True):
                    self._leave_slowest_behind()
                    continue
            self._changed.wait(_POLL)
        return None

    def _pump(self) -> None:
        chunk, error = b"", None
        try:
            if self._source is None:
                self._source = self.read(0)
            chunk = next((chunk for chunk in self._source if chunk), b"")
        except BaseException as caught:  # noqa: BLE001 - it belongs to every reader
            error = caught
        with self._changed:
            self._pumping = False
            self._error = error
            if chunk:
                self._chunks.append(chunk)
                self._held += len(chunk)
            elif error is None:
                self._ended = True
            self._changed.notify_all()

    def _count_waiting(self, *, full: bool) -> bool:
        """Whether the slowest has held up the others for too long."""
        now = time.monotonic()
        self._held_up += now - self._full_since if self._full_since else 0.0
        self._full_since = now if full else 0.0
        return self._held_up >= self._patience and self._held_up > (now - self._started_at) / 2

    def _leave_slowest_behind(self) -> None:
        slowest = min(self._positions.values())
        for seat in [seat for seat, position in self._positions.items() if position == slowest]:
            del self._positions[seat]
        self._held_up = self._full_since = 0.0
        self._trim()
        self._changed.notify_all()

    def _trim(self) -> None:
        """Forgets what every reader has."""
        needed = min(self._positions.values(), default=self._first + len(self._chunks))
        while self._first < needed and self._chunks:
            self._held -= len(self._chunks.popleft())
            self._first += 1


class Seat:
    """One destination's part in a shared read. `leave` when it needs no more, whether it has read or not."""

    def __init__(self, shared: SharedRead) -> None:
        self._shared = shared
        self._joined = False
        self._left = False

    def open(self, offset: int) -> Iterator[bytes]:
        """A BlobReader. Only the first read from the beginning is shared; any other is one of its own."""
        if offset or self._joined or self._left or not self._shared.join(self):
            return self._shared.read(offset)
        self._joined = True
        return self._follow()

    def leave(self) -> None:
        if not self._left:
            self._left = True
            self._shared.leave(self, joined=self._joined)

    def _follow(self) -> Iterator[bytes]:
        given = 0
        while chunk := self._shared.next_chunk(self):
            given += len(chunk)
            yield chunk
        if chunk is None:
            yield from self._alone(given)

    def _alone(self, given: int) -> Iterator[bytes]:
        """From the beginning, because only a whole read is verified; what the destination has got is skipped."""
        left = given
        for chunk in self._shared.read(0):
            if left >= len(chunk):
                left -= len(chunk)
                continue
            yield chunk[left:] if left else chunk
            left = 0
