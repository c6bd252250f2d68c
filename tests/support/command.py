"""Runs the command in a process of its own, as a script would."""

from __future__ import annotations

import atexit
import functools
import os
import pty
import re
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tests.support.warm import WarmCommand

PROGRAM = Path(sys.executable).with_name("transship")


@dataclass(frozen=True, slots=True)
class Done:
    code: int
    out: str
    err: str


def transship(*arguments: str, program: Path | None = None, environ: Mapping[str, str] | None = None) -> Done:
    """Runs the command with pipes for its output. Credentials of the user who runs the tests are out of reach.

    Without `program` the process is a fork of one that has the imports behind it; with it, a new interpreter.
    """
    if program is None:
        code, out, err = _warm_command().run([str(PROGRAM), *arguments], _environment(environ))
        return Done(code, out.decode(), err.decode())
    done = subprocess.run(
        [str(program), *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=_environment(environ),
        stdin=subprocess.DEVNULL,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def imgpkg(*arguments: str, environ: Mapping[str, str] | None = None) -> Done:
    """Runs the command under the name `imgpkg`, as through a link."""
    code, out, err = _warm_command().run([str(PROGRAM.with_name("imgpkg")), *arguments], _environment(environ))
    return Done(code, out.decode(), err.decode())


_started = ExitStack()
atexit.register(_started.close)


@functools.cache
def _warm_command() -> WarmCommand:
    folder = _started.enter_context(tempfile.TemporaryDirectory(prefix="transship-warm-"))
    warm = WarmCommand(Path(folder))
    _started.callback(warm.close)
    return warm


def stop_warm_command() -> None:
    """Ends the process that commands are forks of."""
    _started.close()
    _warm_command.cache_clear()


def transship_on_terminal(*arguments: str) -> Done:
    """On a pseudo terminal: what a person would see, both streams in one, without colours and cursor movements."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [str(PROGRAM), *arguments], stdin=follower, stdout=follower, stderr=follower, env=_environment(None)
    )
    os.close(follower)
    seen = bytearray()
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        ready, _, _ = select.select([leader], [], [], 0.2)
        try:
            if ready:
                piece = os.read(leader, 65536)
                seen += piece
                if not piece:
                    break
        except OSError:  # the other end is closed
            break
    os.close(leader)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.decode(errors="replace"))
    return Done(process.wait(60), re.sub(r"[\r\n]+", "\n", text), "")


def _environment(more: Mapping[str, str] | None) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("IMGPKG_", "TRANSSHIP_"))}
    return {**kept, "HOME": "/nonexistent", "TERM": "xterm", "COLUMNS": "120", **(more or {})}
