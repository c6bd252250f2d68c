"""What a server may send, and what it costs at most: framing, broken answers, endless answers, connections that end."""

from __future__ import annotations

import gzip
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Self

import pytest

from oci.errors import NotFound, Refused, StoreError, Unavailable
from oci.reference import Repository
from oci.registry import endpoints
from oci.registry.endpoints import Kind, Request, Scope
from oci.registry.http.answer import Answer
from oci.registry.http.body import PIECE, Buffers
from tests.oci.registry.conftest import Client

Make = Callable[..., Client]
Script = Callable[[socket.socket, bytes], None]
OK = b"HTTP/1.1 200 OK\r\n"


class ScriptedServer:
    """Answers each request by a script that writes what it likes. TLS is refused with plain HTTP. A script that is a
    bytes object is sent as it is, and the connection closed when it says so."""

    def __init__(self, *scripts: Script | bytes) -> None:
        self._scripts = list(scripts)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.host = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self.requests: list[bytes] = []
        self.connections = 0
        self._open: list[socket.socket] = []

    def __enter__(self) -> Self:
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)  # which ends accept; closing alone doesn't
        self._accepting.join()
        self._socket.close()
        for connection in self._open:
            connection.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self._open.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        counted = False
        try:
            while head := _read_head(connection):
                if not head[:1].isupper():
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
                    connection.close()
                    return
                self.connections += not counted
                counted = True
                self.requests.append(head)
                script = self._scripts.pop(0) if len(self._scripts) > 1 else self._scripts[0]
                if isinstance(script, bytes):
                    connection.sendall(script)
                    if b"close" in script:
                        connection.close()
                        return
                else:
                    script(connection, head)
        except OSError:
            return


def _read_head(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(1 << 16)
        if not more:
            return b""
        data += more
        if data[0] == 0x16:  # a TLS greeting
            return data
    return data


def request(method: str = "GET", **more: object) -> Request:
    fields: dict[str, object] = {
        "kind": Kind(method, "tags", "", "asking", frozenset({200})),
        "target": endpoints.tags(Repository("registry.example", "a/b")),
        "scopes": (Scope("a/b", "pull"),),
        "subject": "a/b",
        **more,
    }
    return Request(**fields)  # type: ignore[arg-type]


def ask(make_client: Make, host: str, asked: Request | None = None, **settings: object) -> Answer:
    client = make_client(**{"retries": 0, "header_timeout": 2.0, "idle_timeout": 1.0, **settings})
    return client.registries.transport(host).send(asked or request())


@pytest.mark.parametrize(
    ("raw", "body"),
    [
        (OK + b"Content-Length: 3\r\n\r\nabc", b"abc"),
        (OK + b"content-length:3\r\nContent-Length: 3\r\n\r\nabc", b"abc"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1;x=y\r\nc\r\n0\r\n\r\n", b"abc"),
        (OK + b"Transfer-Encoding: Chunked\r\n\r\n003\r\nabc\r\n0\r\nTrailer: x\r\n\r\n", b"abc"),
        (OK + b"Connection: close\r\n\r\nabc", b"abc"),
        (b"HTTP/1.0 200 OK\r\nX: close\r\n\r\nabc", b"abc"),
        (b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", b""),
        (b"HTTP/1.1 200 OK\nContent-Length: 3\n\nabc", b"abc"),
        (
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: x\r\n\r\n" + OK + b"Content-Length: 1\r\n\r\na",
            b"a",
        ),
        (OK + b"X: a\r\n b\r\nContent-Length: 1\r\n\r\na", b"a"),
    ],
)
def test_framing_as_servers_write_it(make_client: Make, raw: bytes, body: bytes) -> None:
    with ScriptedServer(raw) as server:
        assert ask(make_client, server.host).body == body


def test_fields_that_come_twice_are_one(make_client: Make) -> None:
    raw = (
        OK + b"WWW-Authenticate: Negotiate\r\nwww-authenticate: Basic realm=x\r\nX:  a\tb \r\nContent-Length: 0\r\n\r\n"
    )
    with ScriptedServer(raw) as server:
        headers = ask(make_client, server.host).headers
    assert headers["www-authenticate"] == "Negotiate, Basic realm=x"
    assert headers["x"] == "a\tb"


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\nclose", "isn't HTTP"),
        (b"HTTP/2 200 OK\r\n\r\nclose", "isn't HTTP"),
        (b"HTTP/1.1 999 OK\r\n\r\nclose", "isn't HTTP"),
        (OK + b"no colon\r\n\r\nclose", "broken header"),
        (OK + b"Bad Name: x\r\n\r\nclose", "broken header"),
        (OK + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nclose", "broken Content-Length"),
        (OK + b"Content-Length: -3\r\n\r\nclose", "broken Content-Length"),
        (OK + b"Content-Length: " + b"9" * 400 + b"\r\n\r\nclose", "broken Content-Length"),
        (OK + b"Transfer-Encoding: gzip, chunked\r\n\r\nclose", "transfer coding"),
        (OK + b"Content-Length: 90\r\n\r\nclose", "closed in the middle"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nclose", "framing"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcXX\r\nclose", "framing"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"1" * 9000 + b"close", "framing"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"T: x\r\n" * 9000 + b"\r\nclose", "trailer"),
        (OK + b"X: " + b"x" * 70_000 + b"\r\n\r\nclose", "longer than 65536 bytes"),
        (OK + b"X: y\r\n" * 20_000 + b"\r\nclose", "longer than 65536 bytes"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 200 + b"close", "interim answers only"),
        (b"HTTP/1.1 101 Switching\r\n\r\nclose", "interim answers only"),
        (b"HTTP/1.1 2close", "without an answer"),
    ],
)
def test_a_broken_answer_is_a_typed_error(make_client: Make, raw: bytes, why: str) -> None:
    with ScriptedServer(raw) as server, pytest.raises(Unavailable, match=why) as caught:
        ask(make_client, server.host)
    assert caught.value.store == server.host


def test_a_header_that_drips_ends_with_its_time_out(make_client: Make) -> None:
    def drip(connection: socket.socket, head: bytes) -> None:
        for byte in OK + b"X: " + b"x" * 500:
            connection.sendall(bytes([byte]))
            time.sleep(0.1)

    with ScriptedServer(drip) as server:
        started = time.monotonic()
        with pytest.raises(Unavailable, match="no answer in time"):
            ask(make_client, server.host, header_timeout=0.7)
        assert time.monotonic() - started < 30


def test_interim_answers_without_an_end_keep_to_the_time_out(make_client: Make) -> None:
    def drip(connection: socket.socket, head: bytes) -> None:
        while True:
            connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            time.sleep(0.2)

    with ScriptedServer(drip) as server:
        started = time.monotonic()
        with pytest.raises(Unavailable):
            ask(make_client, server.host, header_timeout=0.7)
        assert time.monotonic() - started < 30


def test_a_document_without_an_end_is_refused(make_client: Make) -> None:
    def endless(connection: socket.socket, head: bytes) -> None:
        connection.sendall(OK + b"Transfer-Encoding: chunked\r\n\r\n")
        while True:
            connection.sendall(b"100000\r\n" + bytes(1 << 20) + b"\r\n")

    with ScriptedServer(endless) as server, pytest.raises(Refused, match="longer than"):
        ask(make_client, server.host)


def test_a_compressed_document_is_read_and_bounded(make_client: Make) -> None:
    def coded(data: bytes) -> bytes:
        fields = f"Content-Encoding: gzip\r\nContent-Length: {len(data)}\r\n\r\n"
        return OK + fields.encode() + data

    with ScriptedServer(coded(gzip.compress(b'{"tags":["v1"]}'))) as server:
        assert json.loads(ask(make_client, server.host).body) == {"tags": ["v1"]}
    with ScriptedServer(coded(b'{"tags":["v1"]}')) as server:  # decoded by a proxy, which left the header
        assert json.loads(ask(make_client, server.host).body) == {"tags": ["v1"]}
    with ScriptedServer(coded(gzip.compress(bytes(20 << 20)))) as server, pytest.raises(Refused, match="longer than"):
        ask(make_client, server.host)


def test_a_connection_that_the_server_closed_meanwhile_is_replaced(make_client: Make) -> None:
    def once(connection: socket.socket, head: bytes) -> None:
        connection.sendall(OK + b"Content-Length: 0\r\n\r\n")
        connection.close()  # though it said nothing of that

    with ScriptedServer(once) as server:
        transport = make_client(retries=0).registries.transport(server.host)
        for _ in range(5):
            transport.send(request())
            time.sleep(0.01)
    assert len(server.requests) == 5


def test_one_connection_serves_many_requests(make_client: Make) -> None:
    chunked = OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n"
    with ScriptedServer(OK + b"Content-Length: 1\r\n\r\na", chunked) as server:
        transport = make_client(retries=0).registries.transport(server.host)
        for _ in range(5):
            transport.send(request())
    assert server.connections == 1


def _silent(connection: socket.socket, head: bytes) -> None:
    connection.recv(1 << 16)


def _stream(pieces: Sequence[bytes]) -> Callable[[], Iterator[bytes]]:
    return lambda: iter(pieces)


def test_an_answer_before_the_end_of_the_body_counts(make_client: Make) -> None:
    def refuse(connection: socket.socket, head: bytes) -> None:
        connection.sendall(b"HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        time.sleep(0.2)

    sent: list[int] = []

    def pieces() -> Iterator[bytes]:
        for number in range(400):
            sent.append(number)
            yield bytes(1 << 16)
            time.sleep(0.01)

    asked = request("PUT", stream=pieces, length=400 << 16)
    with ScriptedServer(refuse) as server, pytest.raises(NotFound):
        ask(make_client, server.host, asked)
    assert len(sent) < 400


def test_a_body_of_unknown_length_goes_in_chunks(make_client: Make) -> None:
    seen = b""

    def read(connection: socket.socket, head: bytes) -> None:
        nonlocal seen
        seen = head.partition(b"\r\n\r\n")[2]
        while not seen.endswith(b"0\r\n\r\n"):
            seen += connection.recv(1 << 16)
        connection.sendall(OK + b"Content-Length: 0\r\n\r\n")

    with ScriptedServer(read) as server:
        ask(make_client, server.host, request("PUT", stream=_stream([b"abc", b"", b"x" * 20])))
    assert seen == b"3\r\nabc\r\n14\r\n" + b"x" * 20 + b"\r\n0\r\n\r\n"
    assert b"Transfer-Encoding: chunked" in server.requests[0]


@pytest.mark.parametrize("length", [3, 5])
def test_a_body_of_another_length_than_announced_is_an_error(make_client: Make, length: int) -> None:
    with ScriptedServer(_silent) as server, pytest.raises(StoreError, match="a body of"):
        ask(make_client, server.host, request("PUT", stream=_stream([b"ab", b"cd"]), length=length))


def test_an_error_of_the_source_goes_up_unchanged(make_client: Make) -> None:
    def broken() -> Iterator[bytes]:
        yield b"x"
        raise OSError("the disk is gone")

    with ScriptedServer(_silent) as server, pytest.raises(OSError, match="the disk is gone"):
        ask(make_client, server.host, request("PUT", stream=broken, length=10))


def test_memory_is_used_again_only_when_nothing_refers_to_it() -> None:
    buffers = Buffers(4)
    first = buffers.take(PIECE)
    first[:5] = b"first"
    kept = memoryview(first)[:5]
    del first
    for _ in range(10):
        other = buffers.take(PIECE)
        other[:5] = b"other"
    assert bytes(kept) == b"first"

    place = id(buffers.take(PIECE))
    assert id(buffers.take(PIECE)) == place


def test_no_header_carries_a_line_break(make_client: Make) -> None:
    with ScriptedServer(OK + b"Content-Length: 0\r\n\r\n") as server, pytest.raises(Exception, match="line break"):
        ask(make_client, server.host, request(headers={"X": "a\r\nY: b"}))
    assert server.requests == []
