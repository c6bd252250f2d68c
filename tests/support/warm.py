"""Runs the command in a fork of a process that has imported it already.

A fresh interpreter spends 0.8 s of CPU on imports before the command does anything. The fork is a real process: it has
arguments, an environment, a working directory, standard streams and an exit code of its own.

This module has both ends. `WarmCommand` is used by tests. Run as a program, the module listens on a unix socket.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import io
import json
import os
import pkgutil
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).parent.parent.parent
START_SECONDS = 60.0
_LENGTH = struct.Struct("!I")
_STATUS = struct.Struct("!i")


class WarmCommand:
    """Starts the listening process when it is made, and ends it with `close`."""

    def __init__(self, folder: Path) -> None:
        self._address = str(folder / "warm")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.warm", self._address],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,  # its end is that of this process, also where this one is killed
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        with self._process.stdout as ready:
            if ready.readline() != b"ready\n":
                self.close()
                raise RuntimeError(f"the warm process ended at once, with {self._process.wait(5)}")

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.kill()
        self._process.wait()

    def run(self, argv: Sequence[str], environ: Mapping[str, str], seconds: float = 300.0) -> tuple[int, bytes, bytes]:
        """Gives exit code (minus the signal's number, as `subprocess` does), standard output and standard error."""
        order = json.dumps({"argv": [*argv], "environ": dict(environ), "folder": os.getcwd()}).encode()
        (out, out_end), (err, err_end) = os.pipe(), os.pipe()
        texts: dict[int, bytes] = {}
        readers = [threading.Thread(target=_read_all, args=(end, texts), daemon=True) for end in (out, err)]
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(seconds)
            line.connect(self._address)
            try:
                socket.send_fds(line, [_LENGTH.pack(len(order))], [out_end, err_end])
            finally:
                os.close(out_end)
                os.close(err_end)
            line.sendall(order)
            for reader in readers:
                reader.start()
            process = _receive(line, _STATUS)
            try:
                status = _receive(line, _STATUS)
            except TimeoutError:
                os.kill(process, signal.SIGKILL)
                raise
        deadline = time.monotonic() + seconds
        for reader in readers:
            reader.join(max(0.0, deadline - time.monotonic()))
        return os.waitstatus_to_exitcode(status), texts[out], texts[err]


def _read_all(end: int, texts: dict[int, bytes]) -> None:
    with os.fdopen(end, "rb") as stream:
        texts[end] = stream.read()


def _receive(line: socket.socket, form: struct.Struct) -> int:
    return int(form.unpack(_exactly(line, form.size))[0])


def _exactly(line: socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size:
        piece = line.recv(size - len(received))
        if not piece:
            raise ConnectionError("the other side closed the socket")
        received += piece
    return received


def _import_command() -> None:
    for name in ("oci", "flows.cli"):
        package = importlib.import_module(name)
        for module in pkgutil.walk_packages(package.__path__, f"{name}."):
            importlib.import_module(module.name)


def _serve(address: str) -> None:
    """Accepts orders until standard input ends. A middle process per order waits for the command and tells its end."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # so that middle processes need not be waited for
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen(64)
        os.write(1, b"ready\n")
        starter = os.dup(0)
        with open(os.devnull, "r+b") as nothing:
            os.dup2(nothing.fileno(), 0)
            os.dup2(nothing.fileno(), 1)
        while starter not in select.select([listener.fileno(), starter], [], [])[0]:
            line, _ = listener.accept()
            with line:
                if os.fork() == 0:
                    listener.close()
                    os.close(starter)
                    _attend(line)


def _attend(line: socket.socket) -> NoReturn:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    header, ends, _, _ = socket.recv_fds(line, _LENGTH.size, 2)
    order = json.loads(_exactly(line, int(_LENGTH.unpack(header)[0])))
    process = os.fork()
    if process == 0:
        line.close()
        _become_command(order, ends)
    for end in ends:
        os.close(end)
    with contextlib.suppress(OSError):  # the test gave up
        line.sendall(_STATUS.pack(process))
        _, status = os.waitpid(process, 0)
        line.sendall(_STATUS.pack(status))
    os._exit(0)


def _become_command(order: dict[str, object], ends: list[int]) -> NoReturn:
    from flows.cli import main

    for number, end in enumerate(ends, start=1):
        os.dup2(end, number)
        os.close(end)
    out, err = (io.BufferedWriter(io.FileIO(number, "w")) for number in (1, 2))
    sys.stdout = sys.__stdout__ = io.TextIOWrapper(out, "utf-8")  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = io.TextIOWrapper(  # type: ignore[misc]
        err, "utf-8", "backslashreplace", line_buffering=True
    )
    os.environ.clear()
    os.environ.update(order["environ"])  # type: ignore[call-overload]
    os.chdir(str(order["folder"]))
    sys.argv[:] = order["argv"]  # type: ignore[call-overload]
    raise SystemExit(main())


if __name__ == "__main__":
    _import_command()
    gc.freeze()
    _serve(sys.argv[1])
