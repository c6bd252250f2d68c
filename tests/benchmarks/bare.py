#!/usr/bin/env -S python3 -I -S
"""The same copy by bare sockets, which no program that sends these requests undercuts: `copy --lock FILE --to-repo
REPOSITORY`, as tests.benchmarks calls each transship. It takes the benchmark's own registries and images, hashes every
byte, and checks nothing else: no time-outs, no second attempt, no login, no report.

    python -m tests.benchmarks --workload typical --against bare=tests/benchmarks/bare.py
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

U = TypeVar("U")

PROCESSES, THREADS = 2, 4
PIECE = 512 << 10
MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"


class Connection:
    """One connection, for one request after the other."""

    def __init__(self, host: str) -> None:
        name, _, port = host.rpartition(":")
        self.host = host
        self.socket = socket.create_connection((name, int(port)))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.place = memoryview(bytearray(PIECE))

    def send(self, line: str, *fields: str, body: bytes = b"") -> None:
        head = "\r\n".join((f"{line} HTTP/1.1", f"Host: {self.host}", *fields, "", ""))
        self.socket.sendall(head.encode() + body)

    def receive(self, expected: int) -> tuple[dict[str, str], bytes]:
        """Returns the fields of an answer, and what came of its body with them."""
        data = b""
        while b"\r\n\r\n" not in data:
            data += self.socket.recv(1 << 16)
        head, _, rest = data.partition(b"\r\n\r\n")
        status, *lines = head.decode().split("\r\n")
        if int(status.split()[1]) != expected:
            raise RuntimeError(f"{status}: {rest!r}")
        return dict(line.split(": ", 1) for line in lines), rest


def main() -> None:
    if "--help" in sys.argv:
        return
    lock, destination = Path(sys.argv[3]), sys.argv[5]
    to, _, target = destination.partition("/")
    references = [line.partition("image: ")[2] for line in lock.read_text().splitlines() if "image: " in line]
    host = references[0].partition("/")[0]
    images = [(path, digest) for path, _, digest in (each.partition("/")[2].partition("@") for each in references)]
    manifests: dict[str, bytes] = {}

    def fetch(image: tuple[str, str], source: Connection, sink: Connection) -> None:
        del sink
        path, digest = image
        source.send(f"GET /v2/{path}/manifests/{digest}", f"Accept: {MANIFEST_TYPE}")
        fields, body = source.receive(200)
        while len(body) < int(fields["Content-Length"]):
            body += source.socket.recv(PIECE)
        check(hashlib.sha256(body).hexdigest(), digest)
        manifests[digest] = body

    def move(blob: tuple[str, str, int], source: Connection, sink: Connection) -> None:
        path, digest, size = blob
        sink.send(f"POST /v2/{target}/blobs/uploads/", "Content-Length: 0")
        source.send(f"GET /v2/{path}/blobs/{digest}")
        session = sink.receive(202)[0]["Location"].partition(to)[2]
        _, first = source.receive(200)
        sink.send(f"PUT {session}&digest={digest}", f"Content-Length: {size}", body=first)
        hashing, left = hashlib.sha256(first), size - len(first)
        while left:
            count = source.socket.recv_into(source.place, min(left, PIECE))
            hashing.update(source.place[:count])
            sink.socket.sendall(source.place[:count])
            left -= count
        check(hashing.hexdigest(), digest)
        sink.receive(201)

    def put(image: tuple[str, str], source: Connection, sink: Connection) -> None:
        del source
        body = manifests[image[1]]
        fields = (f"Content-Type: {MANIFEST_TYPE}", f"Content-Length: {len(body)}")
        sink.send(f"PUT /v2/{target}/manifests/{image[1]}", *fields, body=body)
        sink.receive(201)

    side_by_side(images, fetch, host, to)
    blobs = {}
    for path, digest in images:
        manifest = json.loads(manifests[digest])
        for part in (manifest["config"], *manifest["layers"]):
            blobs[part["digest"]] = (path, part["digest"], part["size"])
    largest_first = sorted(blobs.values(), key=lambda blob: -blob[2])
    children = []
    for number in range(1, PROCESSES):
        child = os.fork()
        if child == 0:
            side_by_side(largest_first[number::PROCESSES], move, host, to)
            os._exit(0)
        children.append(child)
    side_by_side(largest_first[::PROCESSES], move, host, to)
    for child in children:
        if os.waitpid(child, 0)[1] != 0:
            raise RuntimeError("a process failed")
    side_by_side(images, put, host, to)


def side_by_side(units: Sequence[U], do: Callable[[U, Connection, Connection], None], host: str, to: str) -> None:
    """Does all units in some threads, each with a connection to either side. Ends the process at the first error."""
    remaining = iter(units)

    def work() -> None:
        try:
            source, sink = Connection(host), Connection(to)
            for unit in remaining:
                do(unit, source, sink)
        except Exception as error:  # noqa: BLE001 - whatever it is, no figure is to come of it
            print(repr(error), file=sys.stderr)
            os._exit(1)

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def check(hexadecimal: str, digest: str) -> None:
    if digest != f"sha256:{hexadecimal}":
        raise RuntimeError(f"not {digest}")


if __name__ == "__main__":
    main()
