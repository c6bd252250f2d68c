"""`python -m tests.benchmarks.requests`: CPU of the transport alone, in this process, for a kept-alive GET of 200 bytes
and for a GiB that is read, hashed and sent on; beside it a bare loop over the same bytes, which nothing can undercut.
Servers that only read and write sockets run in processes of their own, so nothing of theirs is counted. CPU, not time:
another program on the machine hardly changes it."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

from oci.descriptor import Descriptor
from oci.digest import Digest, digest_of
from oci.errors import CancelToken
from oci.meter import Meter
from oci.reference import Repository
from oci.registry import endpoints
from oci.registry.credentials.credential import Credentials
from oci.registry.endpoints import Request, Scope
from oci.registry.http.body import PIECE
from oci.registry.options import RegistryOptions
from oci.registry.repository import Registries

REQUESTS = 5000
SIZE = 1 << 30
BLOCK = os.urandom(1 << 20)
SMALL = b"x" * 200
EMPTY = b"Content-Length: 0\r\n\r\n"


def main() -> None:
    with _server(_small_answers) as small, _server(_large_blob) as source, _server(_sink) as sink:
        print(f"small GET: {_per_request(small) * 1e6:.0f} us of CPU a request")
        hashing = hashlib.sha256()
        begun = time.process_time()
        for _ in range(SIZE // len(BLOCK)):
            hashing.update(BLOCK)
        print(f"sha256 alone: {time.process_time() - begun:.2f} s of CPU a GiB")
        blob = Descriptor("application/octet-stream", Digest(f"sha256:{hashing.hexdigest()}"), SIZE)
        bare = _bare_loop(source, sink)
        ours = _per_gib(source, sink, blob)
        print(f"read, hash, send by a bare loop over two sockets: {bare:.2f} s of CPU a GiB")
        print(f"read, hash, send: {ours:.2f} s of CPU a GiB, {ours / bare:.2f} of the bare loop")


def _registries(side: str) -> Registries:
    return Registries(
        side=side,
        settings=lambda _: RegistryOptions(),
        credentials=Credentials([]),
        meter=Meter(),
        cancel=CancelToken(),
    )


def _per_request(host: str) -> float:
    name = Repository(host, "a/b")
    with _registries("source") as registries:
        transport = registries.transport(host)

        def send(count: int) -> None:
            for _ in range(count):
                transport.send(
                    Request(
                        kind=endpoints.GET_MANIFEST,
                        target=endpoints.manifest(name, digest_of(SMALL)),
                        scopes=(Scope(name.path, "pull"),),
                        subject=str(name),
                        headers={"Accept": "*/*"},
                    )
                )

        send(200)
        begun = time.process_time()
        send(REQUESTS)
        return (time.process_time() - begun) / REQUESTS


def _per_gib(source: str, sink: str, blob: Descriptor) -> float:
    with _registries("source") as reading, _registries("destination") as writing:
        read = partial(reading.repository(Repository(source, "a/b")).read_blob, blob)
        begun = time.process_time()
        writing.repository(Repository(sink, "a/b")).put_blob(blob, read)
        return (time.process_time() - begun) * (1 << 30) / SIZE


def _bare_loop(source: str, sink: str) -> float:
    """What no program can do without: the same bytes by `recv_into` a buffer that is used again, `update`, `sendall`.
    No HTTP but the two headers, no time-outs, nothing that could be cancelled."""
    hashing = hashlib.sha256()
    place = memoryview(bytearray(PIECE))
    with _connected(source) as reading, _connected(sink) as writing:
        begun = time.process_time()
        reading.sendall(b"GET /v2/a/b/blobs/x HTTP/1.1\r\n\r\n")
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += reading.recv(1)
        writing.sendall(f"PUT /v2/a/b/blobs/uploads/1 HTTP/1.1\r\nContent-Length: {SIZE}\r\n\r\n".encode())
        left = SIZE
        while left:
            count = reading.recv_into(place)
            hashing.update(place[:count])
            writing.sendall(place[:count])
            left -= count
        writing.recv(1 << 16)
        return (time.process_time() - begun) * (1 << 30) / SIZE


def _connected(host: str) -> socket.socket:
    name, _, port = host.rpartition(":")
    return socket.create_connection((name, int(port)))


@contextmanager
def _server(serve: Callable[[socket.socket, bytes], None]) -> Iterator[str]:
    """A server in a process of its own: `serve` answers one request, whose header it is given."""
    listening = socket.create_server(("127.0.0.1", 0))
    child = os.fork()
    if child == 0:
        while True:
            connection, _ = listening.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=_answer_all, args=(connection, serve), daemon=True).start()
    port = listening.getsockname()[1]
    listening.close()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _answer_all(connection: socket.socket, serve: Callable[[socket.socket, bytes], None]) -> None:
    with connection, suppress(ConnectionError):  # the last reading of a blob ends before the blob does
        while head := connection.recv(1 << 16):
            if head[0] == 0x16:  # a TLS greeting
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n" + EMPTY)
                return
            serve(connection, head)


def _small_answers(connection: socket.socket, head: bytes) -> None:
    del head
    fields = f"Docker-Content-Digest: {digest_of(SMALL)}\r\nContent-Length: {len(SMALL)}\r\n\r\n"
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n" + fields.encode() + SMALL)


def _large_blob(connection: socket.socket, head: bytes) -> None:
    del head
    connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n".encode())
    for _ in range(SIZE // len(BLOCK)):
        connection.sendall(BLOCK)


def _sink(connection: socket.socket, head: bytes) -> None:
    if head.startswith(b"POST"):
        connection.sendall(b"HTTP/1.1 202 Accepted\r\nLocation: /v2/a/b/blobs/uploads/1\r\n" + EMPTY)
    elif head.startswith(b"PUT"):
        left = SIZE - len(head.partition(b"\r\n\r\n")[2])
        place = memoryview(bytearray(1 << 20))
        while left > 0:
            left -= connection.recv_into(place)
        connection.sendall(b"HTTP/1.1 201 Created\r\n" + EMPTY)
    else:
        connection.sendall(b"HTTP/1.1 404 Not Found\r\n" + EMPTY)


if __name__ == "__main__":
    main()
