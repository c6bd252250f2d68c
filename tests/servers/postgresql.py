"""Debian's PostgreSQL: a cluster of its own in a folder, on a unix socket and a free loopback port."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.servers.ports import free_port
from tests.support.parent import ending_with_parent
from tests.support.waiting import until

START_SECONDS = 120.0
TEMPORARY = tempfile.gettempdir()
"""That of the machine: a run of tests has one of its own, which is closed to other users."""


class PostgreSQL:
    """Starts when entered and is gone, with its data, when left.

    PostgreSQL refuses to run as root; then it runs as the user that Debian's package made for it. pytest closes its
    folders to other users whenever a run begins, so the data are in a folder elsewhere.
    """

    def __init__(self) -> None:
        self.port = free_port()
        self._programs = programs()
        self._owner = pwd.getpwnam("postgres") if os.geteuid() == 0 else None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """As Prefect wants it."""
        return f"postgresql+asyncpg://prefect:only-for-the-tests@127.0.0.1:{self.port}/prefect"

    def __enter__(self) -> Self:
        self.folder = Path(tempfile.mkdtemp(prefix="transship-postgresql-", dir=TEMPORARY))
        with ExitStack() as failure:
            failure.push(self.__exit__)
            self._start()
            failure.pop_all()
        return self

    def _start(self) -> None:
        data = str(self.folder / "data")
        if self._owner:
            os.chown(self.folder, self._owner.pw_uid, self._owner.pw_gid)
        password = self.folder / "password"
        password.write_text("only-for-the-tests\n")
        password.chmod(0o644)
        login = ("-U", "prefect", "-A", "scram-sha-256", "--pwfile", str(password))
        self._run("initdb", "--no-sync", "-D", data, *login)
        command = [
            str(self._programs / "postgres"),
            *("-D", data, "-k", str(self.folder), "-h", "127.0.0.1", "-p", str(self.port)),
            *("-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off"),
            *("-c", "shared_buffers=64MB", "-c", "max_connections=50"),
        ]
        with (self.folder / "log").open("wb") as log:
            self._process = self._spawn(ending_with_parent(command, "QUIT"), log.fileno())
        self._wait()
        self._run("createdb", *self._login(), "prefect")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process, self._process = self._process, None
        try:
            if process is not None:
                process.send_signal(signal.SIGQUIT)  # at once, nothing is kept
                with suppress(subprocess.TimeoutExpired):
                    process.wait(20)
        finally:
            if process is not None:
                process.kill()  # does nothing to a process that was waited for
                process.wait()
            shutil.rmtree(self.folder, ignore_errors=True)

    def dump(self) -> bytes:
        """All rows of all tables as text."""
        return self._run("pg_dump", *self._login(), "--data-only", "prefect")

    def copy(self) -> bytes:
        """All that `restore` needs: tables and rows as SQL."""
        return self._run("pg_dump", *self._login(), "prefect")

    def restore(self, copy: bytes) -> None:
        """Makes the tables and rows of another cluster's `copy`; the database must be empty."""
        self._run("psql", *self._login(), "-q", "-v", "ON_ERROR_STOP=1", "prefect", text=copy)

    def _login(self) -> tuple[str, ...]:
        return ("-h", "127.0.0.1", "-p", str(self.port), "-U", "prefect")

    def _wait(self) -> None:
        until("PostgreSQL is ready", self._ready, START_SECONDS, every=0.05)

    def _ready(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            raise RuntimeError(f"PostgreSQL didn't start:\n{(self.folder / 'log').read_text()}")
        command = [str(self._programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(command, check=False).returncode == 0

    def _run(self, program: str, *arguments: str, text: bytes | None = None) -> bytes:
        command = [str(self._programs / program), *arguments]
        process = self._spawn(command, subprocess.PIPE, subprocess.DEVNULL if text is None else subprocess.PIPE)
        output, _ = process.communicate(text, timeout=240)
        if process.returncode:
            raise RuntimeError(f"{program} failed:\n{output.decode(errors='replace')}")
        return output

    def _spawn(self, command: list[str], output: int, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
        environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "PGPASSWORD": "only-for-the-tests"}
        return subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=stdin,
            cwd=self.folder,
            env=environment,
            start_new_session=True,
            user=self._owner.pw_uid if self._owner else None,
            group=self._owner.pw_gid if self._owner else None,
            extra_groups=[] if self._owner else None,
        )


def programs() -> Path:
    """Where Debian keeps the newest version's. Raises RuntimeError where there is none."""
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[4]))
    if not versions:
        raise RuntimeError("PostgreSQL is not installed: apt-get install postgresql")
    return versions[-1].parent
