"""One real Prefect server for the whole test run: `prefect server start` with the settings of deployments/server.env,
a SQLite file of its own and a free port. It takes some ten seconds to start, so everything shares it."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PREFECT = str(Path(sys.executable).with_name("prefect"))


def profile(name: str) -> dict[str, str]:
    """The settings in a file of deployments/, comments left out."""
    lines = (ROOT / "deployments" / name).read_text().splitlines()
    pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
    return {key: value for key, _, value in pairs}


_FASTER = {"PREFECT_SERVER_SERVICES_EVENT_PERSISTER_FLUSH_INTERVAL": "0.5"}
"""Only so that tests needn't wait for it."""


class PrefectServer:
    """A running server, and the environment for programs that are to use it."""

    def __init__(self, home: Path, database: str = "") -> None:
        """`database` is the address of a PostgreSQL database; without it, SQLite."""
        self.home = home
        settings = {"PREFECT_HOME": str(home)} | (
            {"PREFECT_SERVER_DATABASE_CONNECTION_URL": database} if database else {}
        )
        port = free_port()
        self.api = f"http://127.0.0.1:{port}/api"
        self.ui = f"http://127.0.0.1:{port}"
        plain = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")}
        self.environment = plain | {
            "PREFECT_HOME": str(home),
            "PREFECT_API_URL": self.api,
            "PREFECT_RESULTS_LOCAL_STORAGE_PATH": str(home / "results"),
            "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",
            "PREFECT_CLI_PROMPT": "false",
            "DO_NOT_TRACK": "1",
            "PYTHONPATH": str(ROOT),
        }
        self._log = (home / "server.log").open("wb")
        self._process = subprocess.Popen(
            [PREFECT, "server", "start", "--port", str(port)],
            env=plain | profile("server.env") | _FASTER | settings,
            cwd=home,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )

    def wait(self, seconds: float = 240.0) -> None:
        deadline = time.monotonic() + seconds
        while not self._healthy():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"the Prefect server did not start:\n{(self.home / 'server.log').read_text()}")
            time.sleep(0.1)

    def _healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.api}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def stop(self) -> None:
        stop(self._process)
        self._log.close()

    def cli(self, *arguments: str) -> str:
        """Runs `prefect ARGUMENTS` from the root of the repository, and gives what it prints."""
        result = subprocess.run(
            [PREFECT, *arguments],
            env=self.environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    @contextmanager
    def worker(
        self, pool: str, *options: str, environ: Mapping[str, str] | None = None
    ) -> Iterator[subprocess.Popen[bytes]]:
        """`environ` is added to what the worker, and with it each flow run, has in its environment."""
        with (self.home / "worker.log").open("ab") as log:
            process = subprocess.Popen(
                [PREFECT, "worker", "start", "--pool", pool, *options],
                env={
                    **profile("worker.env"),
                    **self.environment,
                    "PREFECT_WORKER_QUERY_SECONDS": "0.5",
                    **(environ or {}),
                },
                cwd=self.home,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            try:
                yield process
            finally:
                stop(process)


_SERVER = pytest.StashKey[PrefectServer]()


def shared_server(request: pytest.FixtureRequest, folders: pytest.TempPathFactory) -> PrefectServer:
    """The server of this test run, started by whoever asks first and stopped with the run."""
    config = request.config
    if _SERVER not in config.stash:
        server = PrefectServer(folders.mktemp("prefect"))
        config.add_cleanup(server.stop)
        server.wait()
        config.stash[_SERVER] = server
    return config.stash[_SERVER]


def forget_automations(config: pytest.Config) -> None:
    """Whatever the tests of a module made at the shared server. Left there, they act on the runs of later ones: a
    minute and a half after the last sign of life, and SQLite is locked while they do."""
    if _SERVER not in config.stash:
        return
    api = config.stash[_SERVER].api
    asked = urllib.request.Request(
        f"{api}/automations/filter", data=b"{}", headers={"Content-Type": "application/json"}, method="POST"
    )
    with urllib.request.urlopen(asked, timeout=120) as answer:
        known = json.load(answer)
    for one in known:
        urllib.request.urlopen(
            urllib.request.Request(f"{api}/automations/{one['id']}", method="DELETE"), timeout=120
        ).close()


@cache
def deploy(server: PrefectServer) -> None:
    """Work pools and deployments, made as deployments/prefect.yaml says; once for a server."""
    for pool in ("transship", "transship-fleet"):
        make_work_pool(server, pool)
    server.cli("--no-prompt", "deploy", "--all", "--prefect-file", "deployments/prefect.yaml")


def make_work_pool(server: PrefectServer, name: str) -> None:
    """One of processes, if it isn't there."""
    from prefect.client.orchestration import PrefectClient

    from flows.deploy.surroundings import put_work_pool

    async def make() -> None:
        async with PrefectClient(server.api) as client:
            await put_work_pool(client, name, "process", dry_run=False)

    asyncio.run(make())


@contextmanager
def settings_for(server: PrefectServer) -> Iterator[None]:
    """Makes flows that are called in this process use the server, and keep nothing outside its folder. Logs and events
    have reached the server at the end."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker
    from prefect.settings import (
        PREFECT_API_URL,
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
        PREFECT_HOME,
        PREFECT_RESULTS_LOCAL_STORAGE_PATH,
        PREFECT_SERVER_EPHEMERAL_ENABLED,
        temporary_settings,
    )

    with temporary_settings(
        {
            PREFECT_API_URL: server.api,
            PREFECT_HOME: server.home,
            PREFECT_RESULTS_LOCAL_STORAGE_PATH: server.home / "results",
            PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None,
            PREFECT_SERVER_EPHEMERAL_ENABLED: False,
        }
    ):
        yield
        EventsWorker.drain_all()
        with suppress(RuntimeError):  # nothing was logged yet
            APILogWorker.instance().drain()
        gc.collect()


@pytest.fixture(scope="session")
def prefect_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> PrefectServer:
    return shared_server(request, tmp_path_factory)


@pytest.fixture
def prefect(prefect_server: PrefectServer) -> Iterator[PrefectServer]:
    """Flows called in the test run on the shared server."""
    with settings_for(prefect_server):
        yield prefect_server


def filter_prefect_leaks(items: Iterable[pytest.Item], folder: Path) -> None:
    """Prefect drops connections to its server, and folders it was listing, unclosed when an event loop ends; only
    tests that run flows may."""
    for item in items:
        if item.path.is_relative_to(folder):
            item.add_marker(
                pytest.mark.filterwarnings("ignore:.*unclosed .socket.socket:ResourceWarning"),
            )
            item.add_marker(
                pytest.mark.filterwarnings(
                    r"ignore:Exception ignored in. <(socket\.socket|posix\.ScandirIterator)"
                    ":pytest.PytestUnraisableExceptionWarning"
                )
            )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
