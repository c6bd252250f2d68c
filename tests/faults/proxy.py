"""A proxy in front of a registry that breaks what its rules say, to the byte."""

from __future__ import annotations

import http.client
import re
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tests.servers.http_server import LoopbackServer, QuietHandler
from tests.servers.ports import free_port
from tests.support.waiting import until

_HOP = {"connection", "transfer-encoding", "content-length", "host"}


@dataclass(slots=True, kw_only=True)
class Fault:
    """What happens to requests that match, from the `first`-th to the `last`-th of them (counted from 1), and of these
    to each `every`-th.

    One of: `status` (an answer instead of the real one, with `headers` and `body`); `reset_after` (the connection is
    reset after so many bytes of the answer's body; 0 before any answer); `cut_upload_after` (reset after so many bytes
    of the request's body were passed on); `truncate_after` (closed, the announced length unkept); `corrupt_at` (that
    byte of the body is another); `stall_after` (nothing more after so many bytes, the connection open); `drip` (one
    byte each so many seconds); `delay` (seconds before the answer; lowered, it lets go);
    `replace_headers` (of the real answer; empty takes one away), `replace_status` and `replace_body` (of the real
    answer); `twice` (the real answer is sent two times);
    `raw` (these bytes instead of an answer, and `then` "close", "reset", "stall", "drip" or "repeat", which sends
    `piece` for ever); `refuse` (nobody listens for so many seconds). With `perform` the registry does what it was asked
    before `status`, `raw`, or a reset before the answer. `{host}`, `{path}` and `{name}`, the last part of the
    path, in headers are those of the request; `{authorization}` in `body` is the login that was sent.
    """

    method: str = ".*"
    path: str = ".*"
    first: int = 1
    last: int = 1 << 30
    every: int = 1
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    reset_after: int | None = None
    cut_upload_after: int | None = None
    truncate_after: int | None = None
    corrupt_at: int | None = None
    stall_after: int | None = None
    drip: float = 0.0
    delay: float = 0.0
    replace_headers: Mapping[str, str] = field(default_factory=dict)
    replace_status: int = 0
    replace_body: bytes | None = None
    twice: bool = False
    raw: bytes = b""
    then: str = "close"
    piece: bytes = b""
    refuse: float = 0.0
    perform: bool = False
    matched: int = 0

    def applies(self, method: str, path: str) -> bool:
        if not (re.fullmatch(self.method, method) and re.search(self.path, path)):
            return False
        self.matched += 1
        return self.first <= self.matched <= self.last and self.matched % self.every == 0


class Span(NamedTuple):
    """When a request was being answered, by the monotonic clock."""

    began: float
    ended: float
    method: str
    path: str


class _Handler(QuietHandler):
    @property
    def proxy(self) -> FaultProxy:
        return self.server.owner  # type: ignore[attr-defined, no-any-return]

    def do_GET(self) -> None:
        fault = self.proxy.fault_for(self.command, self.path)
        began = time.monotonic()
        try:
            self._pass_on(fault)
        except (http.client.HTTPException, OSError):
            self.close_connection = True
        self.proxy.spans.append(Span(began, time.monotonic(), self.command, self.path))

    do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = do_GET  # noqa: N815

    def _pass_on(self, fault: Fault | None) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        if fault is not None and fault.refuse:
            self.proxy.refuse(fault.refuse)
            self._reset()
            return
        if fault is not None and (fault.status or fault.raw or fault.reset_after == 0):
            self._instead(fault, length)
            return
        upstream = http.client.HTTPConnection("127.0.0.1", self.proxy.target_port, timeout=120)
        try:
            self._forward(upstream, fault, length)
        finally:
            upstream.close()

    def _instead(self, fault: Fault, length: int) -> None:
        """Something else than the registry's answer."""
        body = b"".join(self._request_body(length)) if fault.perform or fault.status or fault.raw else b""
        if fault.perform:
            upstream = self._ask(body)
            upstream.getresponse().read()
            upstream.close()
        if fault.status:
            names = {name.replace("-", "_"): self._filled(value) for name, value in fault.headers.items()}
            told = self.headers.get("Authorization", "").encode("latin-1")
            self.answer(fault.status, fault.body.replace(b"{authorization}", told), **names)
            return
        if fault.raw:
            self._write_raw(fault)
        else:
            self._reset()

    def _ask(self, body: bytes) -> http.client.HTTPConnection:
        upstream = http.client.HTTPConnection("127.0.0.1", self.proxy.target_port, timeout=120)
        upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in _HOP:
                upstream.putheader(name, value)
        upstream.putheader("Host", self.proxy.host)
        upstream.putheader("Content-Length", str(len(body)))
        upstream.endheaders(body or None)
        return upstream

    def _filled(self, value: str) -> str:
        name = self.path.partition("?")[0].rpartition("/")[2]
        return value.replace("{host}", self.proxy.host).replace("{path}", self.path).replace("{name}", name)

    def _write_raw(self, fault: Fault) -> None:
        if fault.then == "drip":
            self._drip(fault.raw, fault.drip)
            return
        self.wfile.write(fault.raw)
        while fault.then == "repeat" and not self.proxy.stopped.is_set():
            self.wfile.write(fault.piece)
        {"reset": self._reset, "stall": self._stall}.get(fault.then, self._close)()

    def _drip(self, data: bytes, seconds: float) -> None:
        for number in range(len(data)):
            if self.proxy.stopped.wait(seconds):
                break
            self.wfile.write(data[number : number + 1])
            self.wfile.flush()
        self.close_connection = True

    def _forward(self, upstream: http.client.HTTPConnection, fault: Fault | None, length: int) -> None:
        upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in _HOP:
                upstream.putheader(name, value)
        upstream.putheader("Host", self.proxy.host)
        upstream.putheader("Content-Length", str(length))
        upstream.endheaders()
        cut = fault.cut_upload_after if fault else None
        passed = 0
        for piece in self._request_body(length):
            if cut is not None and passed + len(piece) > cut:
                upstream.send(piece[: cut - passed])
                self._reset()
                return
            upstream.send(piece)
            passed += len(piece)
        if fault is not None:
            begun = time.monotonic()
            while (remaining := begun + fault.delay - time.monotonic()) > 0:
                if self.proxy.stopped.wait(min(remaining, 0.2)):
                    break
        answer = upstream.getresponse()
        if fault is not None and (fault.twice or fault.replace_body is not None):
            self._answer_anew(answer, fault)
            return
        self.send_response((fault.replace_status if fault else 0) or answer.status)
        changed = {name.lower(): value for name, value in (fault.replace_headers if fault else {}).items()}
        for name, value in answer.getheaders():
            if name.lower() not in {"connection", "transfer-encoding"} and name.lower() not in changed:
                self.send_header(name, value)
        for name, value in changed.items():
            if value:
                self.send_header(name, self._filled(value))
        endless = self.command != "HEAD" and answer.getheader("Content-Length") is None
        if endless:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self._answer_body(answer, fault)
        self.close_connection = self.close_connection or endless

    def _answer_anew(self, answer: http.client.HTTPResponse, fault: Fault) -> None:
        """The real answer with another body, or twice."""
        body = answer.read()
        headers = {name.lower(): value for name, value in answer.getheaders()}
        if fault.replace_body is not None:
            body = fault.replace_body
            headers["content-length"] = str(len(body))
        headers |= {name.lower(): self._filled(value) for name, value in fault.replace_headers.items()}
        for _ in range(2 if fault.twice else 1):
            self.send_response(fault.replace_status or answer.status)
            for name, value in headers.items():
                if name not in {"connection", "transfer-encoding"}:
                    self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

    def _request_body(self, length: int) -> Iterator[bytes]:
        while length:
            piece = self.rfile.read1(min(65536, length))
            if not piece:
                raise ConnectionError("the client went away")
            length -= len(piece)
            yield piece

    def _answer_body(self, answer: http.client.HTTPResponse, fault: Fault | None) -> None:
        sent = 0
        while piece := answer.read1(65536):
            if fault is not None:
                piece = self._broken(piece, sent, fault)
                if self.close_connection:
                    return
            self.wfile.write(piece)
            sent += len(piece)

    def _broken(self, piece: bytes, sent: int, fault: Fault) -> bytes:
        at = fault.corrupt_at
        if at is not None and sent <= at < sent + len(piece):
            changed = bytearray(piece)
            changed[at - sent] ^= 0xFF
            piece = bytes(changed)
        for limit, end in (
            (fault.reset_after, self._reset),
            (fault.truncate_after, self._close),
            (fault.stall_after, self._stall),
        ):
            if limit is not None and sent + len(piece) > limit:
                self.wfile.write(piece[: limit - sent])
                self.wfile.flush()
                end()
        if fault.drip and not self.close_connection:
            self._drip(piece, fault.drip)
        return piece

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._close()

    def _close(self) -> None:
        self.close_connection = True
        self.rfile.close()
        self.wfile.flush() if not self.wfile.closed else None
        self.connection.close()

    def _stall(self) -> None:
        """Until the client goes away."""
        self.close_connection = True
        self.wfile.flush()
        while not self.proxy.stopped.is_set():
            if select.select([self.connection], [], [], 0.2)[0] and not self.connection.recv(4096):
                return


class FaultProxy(LoopbackServer):
    """`rules` may be changed while it runs; the first that applies decides. `seen` has (seconds, method, path)."""

    handler = _Handler

    def __init__(self, target_port: int, *rules: Fault) -> None:
        super().__init__(free_port())  # a port of its own choice would be lost in `refuse`
        self.target_port = target_port
        self.rules = list(rules)
        self.seen: list[tuple[float, str, str]] = []
        self.spans: list[Span] = []
        """Of requests that have ended."""
        self.stopped = threading.Event()
        self._applied: list[Fault] = []
        """Rules that a request met; they may be no rules any more while it is held."""
        self._lock = threading.Lock()
        self._refusing: threading.Thread | None = None

    def fault_for(self, method: str, path: str) -> Fault | None:
        with self._lock:
            self.seen.append((time.monotonic(), method, path))
            fault = next((rule for rule in self.rules if rule.applies(method, path)), None)
            self._applied += [fault] if fault is not None and fault.delay else []
            return fault

    def refuse(self, seconds: float) -> None:
        """Lets nobody connect for so many seconds. On Linux a socket that is shut down keeps its port, and may listen
        again."""
        listener = self._server.socket

        def again() -> None:
            self.stopped.wait(seconds)
            if not self.stopped.is_set():
                listener.listen(self._server.request_queue_size)

        with self._lock:
            if self._refusing is None or not self._refusing.is_alive():
                listener.shutdown(socket.SHUT_RDWR)
                self._refusing = threading.Thread(target=again, daemon=True)
                self._refusing.start()

    @property
    def refusing(self) -> bool:
        return self._refusing is not None and self._refusing.is_alive()

    def settle(self) -> None:
        """Waits, once all clients are gone, until what they sent was passed on and answered: what the kernel has still
        to hand over is theirs, and would be seen as a request of the next client."""
        for rule in (*self.rules, *self._applied):
            rule.delay = 0.0
        until("the proxy listens again", lambda: not self.refusing, every=0.02)
        with socket.create_connection(("127.0.0.1", self.port)) as last:  # accepted after all others
            last.shutdown(socket.SHUT_WR)
            last.recv(1)
        until("all requests are answered", lambda: not self._server.connections, every=0.02)

    def count(self, method: str, path: str) -> int:
        return sum(bool(one == method and re.search(path, where)) for _, one, where in self.seen)

    @property
    def idle(self) -> bool:
        """Every request that came has ended."""
        return len(self.seen) == len(self.spans)

    def __exit__(self, *error: Any) -> None:  # noqa: PYI036 - passed on as they are
        self.stopped.set()
        super().__exit__(*error)
