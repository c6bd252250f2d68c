"""The body of an answer (RFC 9112, 6): its framing, and the memory that it is received into."""

from __future__ import annotations

import contextlib
import mmap
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Protocol

from oci.digest import Chunk, end_read
from oci.errors import CancelToken

PIECE = 512 << 10
"""Bytes of a body that are received before they are passed on. Each costs a turn of its thread: in pieces of 256 KiB a
copy of a GiB takes an eighth more CPU."""

_MOMENT = 0.05
"""Seconds without a byte after which a piece is passed on as it is."""

_LONGEST_FILL = 1.0
"""Seconds after which a piece is passed on as it is, although bytes keep coming."""

_POLL = 0.2
"""Seconds after which a waiting thread looks whether the run was cancelled."""

_SINGLE = frozenset({"content-range", "content-type", "docker-content-digest", "location", "oci-subject", "range"})
_TRAILER_LIMIT = 16 << 10
_CHUNK_SIZE = re.compile(rb"([0-9a-fA-F]{1,16})[ \t]*(?:;.*)?")


class WireError(Exception):
    """A connection failed or broke HTTP. The cause is the OSError, where there was one. `timed_out`: nothing came in
    time. `connecting`: no request has been sent. `unanswered`: the peer closed before the first byte of an answer.
    `hint`: what to do, where that isn't about the registry; `lasting`: another attempt fails as well."""

    def __init__(
        self,
        message: str,
        *,
        timed_out: bool = False,
        connecting: bool = False,
        unanswered: bool = False,
        hint: str = "",
        lasting: bool = False,
    ) -> None:
        super().__init__(message)
        self.hint = hint
        self.lasting = lasting
        self.timed_out = timed_out
        self.connecting = connecting
        self.unanswered = unanswered


class Headers(dict[str, str]):
    """Header fields by lower-case name. Fields that came several times are one, joined by commas (RFC 9110, 5.3), but
    for those of a single value that say the same: proxies add what is there already."""

    def add(self, name: str, value: str) -> None:
        """`name` is in lower case."""
        before = self.get(name)
        if before is None or (before == value and name in _SINGLE):
            self[name] = value
        else:
            self[name] = f"{before}, {value}"


class Incoming(Protocol):
    """The connection that a body comes on."""

    reusable: bool

    def receive(self, view: memoryview) -> int: ...
    def line(self, limit: int) -> bytes: ...
    def set_idle_timeout(self, seconds: float) -> None: ...
    def close(self) -> None: ...


class Response:
    """An answer whose body hasn't been read yet. `release` ends it in any case."""

    def __init__(self, connection: Incoming, method: str, status: int, headers: Headers, version: int) -> None:
        self.status = status
        self.headers = headers
        self.ended_with: Callable[[], None] | None = None
        """Takes the connection back when the answer is released."""
        self._connection = connection
        self._remaining: int | None = None
        """Bytes of the body, or of the current chunk, that are to come; None: until the connection is closed."""
        self._chunked = False
        self._between = False
        """Is the end of a chunk to be read?"""
        tokens = headers.get("connection", "").lower()
        self._keep = "close" not in tokens and (version == 1 or "keep-alive" in tokens)
        coding = headers.get("transfer-encoding", "").lower()
        if method == "HEAD" or status in (204, 304):
            self._remaining = 0
        elif coding:
            if coding != "chunked":
                raise WireError(f"the body has the transfer coding {coding[:50]!r}, which was not asked for")
            self._chunked, self._remaining = True, 0
        elif (length := headers.get("content-length")) is not None:
            self._remaining = _length(length)
        else:
            self._keep = False
        self.ended = self._remaining == 0 and not self._chunked

    def readinto(self, view: memoryview) -> int:
        """Receives at most `len(view)` bytes of the body; 0 at its end. Raises WireError when it breaks off. After a
        time-out it may be called again."""
        if self.ended or (self._chunked and not self._remaining and not self._next_chunk()):
            return 0
        target = view if self._remaining is None or self._remaining >= len(view) else view[: self._remaining]
        count = self._connection.receive(target)
        if self._remaining is None:
            self.ended = not count
        elif not count:
            raise WireError("the connection was closed in the middle of the body")
        else:
            self._remaining -= count
            self._between = self._chunked and not self._remaining
            self.ended = not self._chunked and not self._remaining
        return count

    def chunks(self, idle: float, rate: int) -> Iterator[Chunk]:
        """The body as it comes over the wire, never decoded, in pieces of up to PIECE bytes. The memory of a piece is
        used again as soon as nothing refers to it. Raises WireError when no byte comes for `idle` seconds, or fewer
        than `rate` bytes a second over that time: a body that drips is as dead as a body that stalls."""
        size = min(PIECE, self._remaining) if self._remaining and not self._chunked else PIECE
        waited, got = 0.0, 0
        while not self.ended:
            view = memoryview(BUFFERS.take(size))
            begun = time.monotonic()
            filled, error = self._fill(view[:size], idle)
            waited += time.monotonic() - begun
            got += filled
            if filled:
                yield view[:filled]
            del view
            if error is not None:
                raise error
            if waited > idle:
                if got < rate * waited:
                    self._keep = False
                    raise WireError(f"only {got} bytes in {waited:.0f} s")
                waited, got = 0.0, 0

    def _fill(self, view: memoryview, idle: float) -> tuple[int, WireError | None]:
        """Receives until `view` is full, the body ends, or nothing comes for a moment: what came is passed on then.
        What came before an error is worth having, too: a read is continued behind it."""
        filled = 0
        begun = time.monotonic()
        self._connection.set_idle_timeout(idle)
        try:
            while filled < len(view) and time.monotonic() - begun < _LONGEST_FILL:
                count = self.readinto(view[filled:])
                if not count:
                    break
                filled += count
                self._connection.set_idle_timeout(_MOMENT)
        except WireError as error:
            if error.timed_out and filled:
                return filled, None
            self._keep = False
            return filled, error
        return filled, None

    def release(self, *, drain: int = 0) -> None:
        """Gives the connection back for the next request, or closes it. At most `drain` remaining bytes are read for
        that, which costs less than a new connection."""
        if self._keep and not self.ended and 0 < drain >= (self._remaining or 0):
            with contextlib.suppress(WireError):
                self._connection.set_idle_timeout(2.0)
                scratch = memoryview(bytearray(8 << 10))
                read, count = 0, 1
                while count and read <= drain:
                    count = self.readinto(scratch)
                    read += count
        if self.ended and self._keep:
            self._connection.reusable = True
        else:
            self._connection.close()
        if self.ended_with is not None:
            self.ended_with()
            self.ended_with = None

    def _next_chunk(self) -> bool:
        """Reads the framing up to the next chunk; False when there is none."""
        if self._between:
            if self._connection.line(16):
                raise WireError("the framing of the body is broken")
            self._between = False
        size = _CHUNK_SIZE.fullmatch(self._connection.line(4096))
        if size is None:
            raise WireError("the framing of the body is broken")
        self._remaining = int(size.group(1), 16)
        if self._remaining:
            return True
        trailer = 0
        while line := self._connection.line(_TRAILER_LIMIT):
            trailer += len(line)
            if trailer > _TRAILER_LIMIT:
                raise WireError(f"the trailer of the answer is longer than {_TRAILER_LIMIT} bytes")
        self.ended = True
        return False


class Buffers:
    """Memory of bodies, used again: fresh memory costs a page fault for every 4 KiB. Whether a piece is in use shows in
    its count of references, for a memoryview refers to what it shows; so nothing that is kept is ever overwritten."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._lock = threading.Lock()
        self._spare: list[bytearray] = [bytearray()]
        self._free = sys.getrefcount(self._spare[0])
        self._spare.clear()

    def take(self, size: int) -> bytearray:
        """Memory for at least `size` bytes."""
        if size < PIECE:
            return bytearray(size)
        with self._lock:
            for index in range(len(self._spare)):
                if sys.getrefcount(self._spare[index]) == self._free:
                    return self._spare[index]
            memory = bytearray(PIECE)
            if len(self._spare) < self._count:
                self._spare.append(memory)
            return memory


BUFFERS = Buffers(64)


class Parts:
    """Hands out a blob in parts. `read` begins it at an offset: once for all parts that follow one another, and again
    for one that has to be sent a second time."""

    def __init__(self, read: Callable[[int], Iterator[Chunk]]) -> None:
        self._read = read
        self._position = 0
        self._stream: Iterator[Chunk] | None = None
        self._unread = memoryview(b"")

    def at(self, offset: int, count: int) -> Iterator[Chunk]:
        """Yields `count` bytes, or those that remain."""
        if self._stream is None or offset != self._position:
            self.close()
            self._stream, self._position, self._unread = self._read(offset), offset, memoryview(b"")
        while count:
            piece = self._unread if len(self._unread) else memoryview(next(self._stream, b""))
            if not len(piece):
                return
            now, self._unread = piece[:count], piece[count:]
            count -= len(now)
            self._position += len(now)
            yield now

    def close(self) -> None:
        if self._stream is not None:
            end_read(self._stream)
            self._stream = None

    def take(self, offset: int, count: int) -> memoryview:
        """Returns `count` bytes, or those that remain, in pages of their own: the heap of each thread would keep as
        much again for the next time."""
        data, filled = memoryview(mmap.mmap(-1, count)), 0
        for piece in self.at(offset, count):
            data[filled : filled + len(piece)] = piece
            filled += len(piece)
        return data[:filled]


class Memory:
    """Memory that the chunks of all blobs share. A blob takes its part before it is read, so that a blob that waits
    keeps nothing that another one needs."""

    def __init__(self, size: int) -> None:
        self._size = self._free = size
        self._freed = threading.Condition()
        self.waiting = 0
        """Blobs that wait for memory."""

    @contextlib.contextmanager
    def reserved(self, count: int, cancel: CancelToken) -> Iterator[None]:
        """Waits for `count` bytes, all of it where that is less. Raises Cancelled."""
        count = min(count, self._size)
        with self._freed:
            self.waiting += 1
            try:
                while self._free < count:
                    self._freed.wait(_POLL)
                    cancel.check()
            finally:
                self.waiting -= 1
            self._free -= count
        try:
            yield
        finally:
            with self._freed:
                self._free += count
                self._freed.notify_all()


def size_of(text: str) -> int | None:
    """The number in a header; None for what isn't one, or is beyond all sizes."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None


def _length(text: str) -> int:
    """Content-Length, which may come twice when it says the same (RFC 9110, 8.6)."""
    values = {part.strip() for part in text.split(",")}
    size = size_of(values.pop())
    if values or size is None:
        raise WireError(f"the answer has a broken Content-Length: {text[:60]!r}")
    return size
