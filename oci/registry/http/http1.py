"""HTTP/1.1 on one connection (RFC 9112): writes a request, reads its answer.

Written for two costs that a general library has: a small request takes one system call each way and no objects, and a
body is received into memory that is used again, hashed there and sent from there. Everything that the peer decides is
bounded: the size of the header, the number of interim answers, the seconds until an answer begins, the seconds between
two pieces of a body.
"""

from __future__ import annotations

import contextlib
import functools
import re
import select
import socket
import ssl
import time
from collections.abc import Iterable
from typing import NoReturn, Protocol

from oci.digest import Chunk
from oci.registry.http.body import PIECE, Headers, Response, WireError

HEAD_LIMIT = 64 << 10
"""Bytes of an answer's header."""

INTERIM_LIMIT = 32
"""Answers 1xx before the one that counts (RFC 9110, 15.2): a server could send them for ever."""

_TLS_PIECE = 32 << 10
"""Bytes that are handed to TLS at once: its time-out is for all of them."""

_TOGETHER = 64 << 10
"""Bytes of a body that are sent in one system call with the header."""

_STATUS_LINE = re.compile(r"HTTP/1\.([01]) ([1-5][0-9]{2})(?: .*)?")
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


class Socket(Protocol):
    """What is used of a socket, of a TLS socket, and of TLS inside the TLS of a proxy."""

    def recv_into(self, buffer: memoryview, /) -> int: ...
    def send(self, data: memoryview, /) -> int: ...
    def settimeout(self, value: float | None, /) -> None: ...
    def fileno(self) -> int: ...
    def close(self) -> None: ...


class Connection:
    """One connection, for one request at a time. Raises WireError, and whatever the stream of a body raises."""

    def __init__(self, sock: Socket, *, tls: bool) -> None:
        self._sock = sock
        self._piece = _TLS_PIECE if tls else PIECE
        self._buffer = bytearray(16 << 10)
        self._view = memoryview(self._buffer)
        self._start = self._end = 0
        self._timeout = -1.0
        self._poll = select.poll()
        self._poll.register(sock.fileno(), select.POLLIN)
        self.served = 0
        """Requests that were answered on it."""
        self.idle_since = 0.0
        self.reusable = False

    def close(self) -> None:
        self.reusable = False
        with contextlib.suppress(OSError):
            self._sock.close()

    def is_stale(self) -> bool:
        """Did the peer close it while it was idle, or send what was not asked for?"""
        return self._start < self._end or self._something_came(stale=True)

    def request(
        self,
        head: bytes,
        body: bytes | memoryview,
        stream: Iterable[Chunk] | None,
        length: int | None,
        idle: float,
    ) -> None:
        """Sends a request. `head` is the header without the empty line at its end. The `body` follows, or a `stream`:
        as it is when its `length` is known, otherwise in chunks. Stops when the answer comes before the body's end; a
        peer that closes early has perhaps answered, so that is left to `answer`."""
        self.reusable = False
        self.set_idle_timeout(idle)
        if stream is None and len(body) <= _TOGETHER:
            self._send(head + b"\r\n" + body)
            return
        self._send(head + b"\r\n" if length is not None else head + b"Transfer-Encoding: chunked\r\n\r\n")
        stream = stream if stream is not None else (body[at : at + PIECE] for at in range(0, len(body), PIECE))
        sent = 0
        for chunk in stream:
            try:
                if self._something_came() and self._is_final():
                    return
                self.set_idle_timeout(idle)
                if length is None and chunk:
                    self._send(b"%x\r\n" % len(chunk))
                self._send(chunk)
                if length is None and chunk:
                    self._send(b"\r\n")
            except WireError as error:
                if error.timed_out:
                    raise
                return
            sent += len(chunk)
            if length is not None and sent > length:
                raise WireError(f"a body of {length} bytes has more of them")
        if length is not None and sent != length:
            raise WireError(f"a body of {length} bytes has only {sent}")
        if length is None:
            self._send(b"0\r\n\r\n")

    def answer(self, method: str, seconds: float) -> Response:
        """Reads the header of the answer within so many seconds. Interim answers are passed over."""
        deadline = time.monotonic() + seconds
        for _ in range(INTERIM_LIMIT):
            self.set_idle_timeout(max(0.001, deadline - time.monotonic()))
            status, headers, version = self._head(deadline)
            if status >= 200:
                self.served += 1
                return Response(self, method, status, headers, version)
            if status == 101:
                break
        raise WireError("the server sends interim answers only")

    def receive(self, view: memoryview) -> int:
        """Reads what there is, at most `len(view)` bytes; 0 at the end of the connection."""
        ready = self._end - self._start
        if ready:
            count = min(ready, len(view))
            view[:count] = self._view[self._start : self._start + count]
            self._start += count
            return count
        try:
            return self._sock.recv_into(view)
        except ssl.SSLEOFError:
            return 0
        except OSError as error:
            self._failed(error)

    def line(self, limit: int) -> bytes:
        """The next line without its end, for the framing of chunks."""
        while True:
            at = self._buffer.find(b"\n", self._start, self._end)
            if at >= 0:
                line = bytes(self._view[self._start : at]).rstrip(b"\r")
                self._start = at + 1
                return line
            if self._end - self._start > limit:
                raise WireError("the framing of the body is broken")
            if not self._fill():
                raise WireError("the connection was closed in the middle of the body")

    def _head(self, deadline: float) -> tuple[int, Headers, int]:
        scanned = 0
        while True:
            at = self._buffer.find(b"\r\n\r\n", self._start + max(0, scanned - 3), self._end)
            bare = self._buffer.find(b"\n\n", self._start + max(0, scanned - 1), self._end) if at < 0 else -1
            if at >= 0 or bare >= 0:
                break
            scanned = self._end - self._start
            if scanned >= HEAD_LIMIT:
                raise WireError(f"the header of the answer is longer than {HEAD_LIMIT} bytes")
            if scanned:  # some of it came: the rest has what is left of the time
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    raise WireError("timeout awaiting response headers: they don't end", timed_out=True)
                self.set_idle_timeout(remaining)
            try:
                filled = self._fill()
            except WireError as error:
                if error.timed_out:  # the words of Go's net/http, which imgpkg's users look for
                    raise WireError(f"timeout awaiting response headers: {error}", timed_out=True) from error
                raise
            if not filled:
                raise WireError("the server closed the connection without an answer", unanswered=not scanned)
        end, skip = (at, 4) if at >= 0 else (bare, 2)
        text = str(self._view[self._start : end], "latin-1")
        self._start = end + skip
        return _parse(text)

    def _fill(self) -> int:
        """Receives more into the connection's own buffer; 0 at the end of the connection."""
        if self._start == self._end:
            self._start = self._end = 0
        elif self._end == len(self._buffer):
            unread = bytes(self._view[self._start : self._end])
            if len(unread) * 2 > len(self._buffer):
                self._view.release()
                self._buffer = bytearray(len(self._buffer) * 2)
                self._view = memoryview(self._buffer)
            self._view[: len(unread)] = unread
            self._start, self._end = 0, len(unread)
        try:
            count = self._sock.recv_into(self._view[self._end :])
        except ssl.SSLEOFError:
            count = 0
        except ConnectionError as error:
            raise WireError(_why(error), unanswered=self._start == self._end) from error
        except OSError as error:
            self._failed(error)
        self._end += count
        return count

    def _send(self, data: bytes | memoryview) -> None:
        """Sends all of it; the time-out is for each piece, so that a slow peer that takes bytes isn't a dead one."""
        view = memoryview(data)
        try:
            while view:
                view = view[self._sock.send(view[: self._piece]) :]
        except OSError as error:
            self._failed(error)

    def _something_came(self, *, stale: bool = False) -> bool:
        """Without waiting. What TLS sends for itself (session tickets, RFC 8446, 4.6.1) is nothing."""
        if self._start < self._end:
            return True
        if not self._poll.poll(0):
            return False
        self.set_idle_timeout(0.0)
        try:
            return bool(self._fill()) or stale
        except WireError as error:
            if isinstance(error.__cause__, BlockingIOError | ssl.SSLWantReadError):
                return False
            if stale:
                return True
            raise

    def _is_final(self) -> bool:
        """Is what came in the middle of a body more than an interim answer?"""
        while self._buffer.startswith(b"HTTP/1.1 1", self._start, self._end):
            at = self._buffer.find(b"\r\n\r\n", self._start, self._end)
            if at < 0:
                return False
            self._start = at + 4
        return self._start < self._end

    def set_idle_timeout(self, seconds: float) -> None:
        if seconds != self._timeout:
            try:
                self._sock.settimeout(seconds)
            except OSError as error:  # closed meanwhile
                raise WireError(_why(error), unanswered=True) from error
            self._timeout = seconds

    def _failed(self, error: OSError) -> NoReturn:
        raise WireError(_why(error), timed_out=isinstance(error, TimeoutError)) from error


def _parse(text: str) -> tuple[int, Headers, int]:
    """Status, header fields and minor version. Raises WireError for what isn't HTTP."""
    lines = text.replace("\r\n", "\n").split("\n")
    first = _STATUS_LINE.fullmatch(lines[0])
    if first is None:
        raise WireError(f"the answer isn't HTTP/1: {lines[0][:60]!r}")
    headers = Headers()
    name = ""
    for line in lines[1:]:
        if line[:1] in (" ", "\t") and name:  # a folded line (RFC 9112, 5.2)
            headers[name] = f"{headers[name]} {line.strip()}"
            continue
        written, colon, value = line.partition(":")
        if not colon:
            raise WireError(f"the answer has a broken header: {line[:60]!r}")
        name = _lower_name(written)
        value = value.strip(" \t")
        headers.add(name, value)
    return int(first.group(2)), headers, int(first.group(1))


@functools.lru_cache(512)
def _lower_name(written: str) -> str:
    """The name of a header field in lower case. Servers send the same few names again and again."""
    if not _NAME.fullmatch(written):
        raise WireError(f"the answer has a broken header: {written[:60]!r}")
    return written.lower()


def _why(error: OSError) -> str:
    """The cause in words: an OSError's own, without its number."""
    if isinstance(error, TimeoutError):
        return "timed out"
    return error.strerror or str(error) or type(error).__name__


def shut_down(sock: socket.socket) -> None:
    """Wakes whatever waits on a socket, from another thread. Not the TLS socket's own method, which forgets the TLS
    state under the feet of the thread that reads."""
    with contextlib.suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
