"""Whatever ends a test, its database ends with it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers import postgresql
from tests.servers.postgresql import PostgreSQL
from tests.support.prefect_server import ROOT
from tests.support.waiting import until

_LEAVES = """
import os, sys
from tests.servers.postgresql import PostgreSQL
server = PostgreSQL().__enter__()
print(server.folder, server._process.pid, flush=True)
sys.stdin.read()
os._exit(1)
"""


def runs(process: int) -> bool:
    return Path(f"/proc/{process}/stat").exists()


@pytest.mark.parametrize("killed", [True, False], ids=["killed", "left without its fixtures"])
def test_a_server_ends_with_the_process_that_started_it(killed: bool) -> None:
    starter = subprocess.Popen(
        [sys.executable, "-c", _LEAVES],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": postgresql.TEMPORARY},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert starter.stdin is not None
    assert starter.stdout is not None
    with starter:
        folder, number = starter.stdout.readline().split()
        server = int(number)
        assert runs(server)
        if killed:
            starter.kill()
        starter.stdin.close()
    try:
        until("the end of the server", lambda: not runs(server))
    finally:
        if runs(server):
            os.kill(server, signal.SIGQUIT)
        shutil.rmtree(folder)


@pytest.mark.slow
def test_a_start_that_is_interrupted_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []
    server = PostgreSQL()

    def interrupted(*arguments: object, **more: object) -> None:
        assert server._process is not None
        started.append(server._process.pid)
        raise KeyboardInterrupt

    monkeypatch.setattr(postgresql, "until", interrupted)
    with pytest.raises(KeyboardInterrupt):
        server.__enter__()

    assert len(started) == 1
    assert not runs(started[0])
    assert not server.folder.exists()
