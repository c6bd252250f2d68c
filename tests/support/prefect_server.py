"""Real Prefect servers: `prefect server start` with the settings of deployments/server.env and a free port.

A server takes some ten seconds to start, so that all tests of one pytest worker share one. Its database is PostgreSQL:
several flow runs at a time lock SQLite for so long that requests are answered with 503. In a run of several workers the
first one migrates its database and deploys, and the others begin with a copy.
"""

from __future__ import annotations

import asyncio
import fcntl
import gc
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import pytest

from tests.servers.ports import free_port
from tests.servers.postgresql import PostgreSQL
from tests.support.authorities import VARIABLE, for_prefect
from tests.support.parent import ending_with_parent
from tests.support.waiting import until

ROOT = Path(__file__).parent.parent.parent
FLEET_POOL = "transship-fleet"
PREFECT = str(Path(sys.executable).with_name("prefect"))
MEMO = "memo_store.toml"
"""Where a server notes which types of blocks its database has; otherwise it writes them anew as it starts."""


def profile(name: str) -> dict[str, str]:
    """The settings in a file of deployments/, comments left out."""
    lines = (ROOT / "deployments" / name).read_text().splitlines()
    pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
    return {key: value for key, _, value in pairs}


_FOR_TESTS = {
    # Tests wait for events.
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_FLUSH_INTERVAL": "0.5",
    # On a busy machine PostgreSQL needs more than the 5 and 10 seconds after which the server answers 500.
    "PREFECT_SERVER_DATABASE_CONNECTION_TIMEOUT": "120",
    "PREFECT_SERVER_DATABASE_TIMEOUT": "120",
    "PREFECT_SERVER_DATABASE_SQLALCHEMY_POOL_TIMEOUT": "120",
}


class PrefectServer:
    """A running server, and the environment for programs that are to use it. Stops when left."""

    def __init__(self, home: Path, database: PostgreSQL | None = None) -> None:
        """Without `database`, the server has a SQLite file in `home`."""
        self.home = home
        self.database = database
        self.deployed = False
        """Whether its deployments are those of `deploy`."""
        port = free_port()
        self.api = f"http://127.0.0.1:{port}/api"
        self.ui = f"http://127.0.0.1:{port}"
        # A worker or a run that is killed leaves folders there.
        temporary = home / "tmp"
        temporary.mkdir(exist_ok=True)
        plain = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")}
        plain["TMPDIR"] = str(temporary)
        self.environment = plain | {
            "PREFECT_HOME": str(home),
            "PREFECT_API_URL": self.api,
            "PREFECT_RESULTS_LOCAL_STORAGE_PATH": str(home / "results"),
            "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",
            "PREFECT_CLI_PROMPT": "false",
            "PREFECT_API_REQUEST_TIMEOUT": "240",
            "DO_NOT_TRACK": "1",
            "PYTHONPATH": str(ROOT),
            **for_prefect(),
        }
        settings = {"PREFECT_HOME": str(home), "PREFECT_API_URL": self.api, **for_prefect()}
        if database:
            settings["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = database.url
        self._port = port
        self._settings = plain | profile("server.env") | _FOR_TESTS | settings
        self._process: subprocess.Popen[bytes] | None = None

    def _start(self) -> subprocess.Popen[bytes]:
        with (self.home / "server.log").open("ab") as log:
            return subprocess.Popen(
                ending_with_parent([PREFECT, "server", "start", "--port", str(self._port)], "TERM"),
                env=self._settings,
                cwd=self.home,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def restart(self) -> None:
        """The same server with the same data, on the same port."""
        self.stop()
        self.__enter__()

    def __enter__(self) -> Self:
        with ExitStack() as failure:
            failure.callback(self.stop)
            process = self._process = self._start()
            until("the Prefect server answers", lambda: self._healthy() or process.poll() is not None)
            if process.poll() is not None:
                raise RuntimeError(f"the Prefect server ended:\n{(self.home / 'server.log').read_text()}")
            failure.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def _healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.api}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            stop(process)

    def stored(self) -> bytes:
        """Everything in the database, as text or as the file that SQLite writes, with its write-ahead log."""
        if self.database:
            return self.database.dump()
        return b"".join(path.read_bytes() for path in self.home.glob("prefect.db*"))

    def traces(self) -> dict[str, bytes]:
        """All that server, workers and runs have left, by name: files, and "database"."""
        files = {path.name: path.read_bytes() for path in self.home.rglob("*") if path.is_file()}
        return files | {"database": self.stored()}

    def request(self, method: str, path: str, body: object = None) -> Any:
        """Sends a request to the API, again for up to two minutes while the server answers that it is busy (5xx)."""
        data = None if body is None else json.dumps(body).encode()
        answers: list[Any] = []

        def answered() -> bool:
            headers = {"Content-Type": "application/json"}
            request = urllib.request.Request(f"{self.api}{path}", data=data, headers=headers, method=method)
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:
                    answers.append(json.loads(answer.read() or b"null"))
            except urllib.error.HTTPError as error:
                if error.code < 500:
                    raise
                return False
            except (urllib.error.URLError, TimeoutError):
                return False
            return True

        until(f"the Prefect server answers {method} {path}", answered, 120)
        return answers[0]

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
                ending_with_parent([PREFECT, "worker", "start", "--pool", pool, *options], "TERM"),
                env={
                    **profile("worker.env"),
                    **self.environment,
                    "PREFECT_WORKER_QUERY_SECONDS": "1",
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
_STARTED = pytest.StashKey[ExitStack]()


def shared_server(request: pytest.FixtureRequest, folders: pytest.TempPathFactory) -> PrefectServer:
    """The server of this pytest worker: started for the first test that needs it, stopped after the last one."""
    config = request.config
    if _SERVER not in config.stash:
        stack = config.stash[_STARTED] = ExitStack()
        config.add_cleanup(stack.close)  # first: nothing that is started afterwards is forgotten
        with ExitStack() as failure:
            failure.callback(stack.close)
            database = stack.enter_context(PostgreSQL())
            server = PrefectServer(folders.mktemp("prefect"), database)
            if hasattr(config, "workerinput"):
                _start_from_copy(server, database, stack, folders.getbasetemp().parent)
            else:
                stack.enter_context(server)
            failure.pop_all()
        config.stash[_SERVER] = server
    return config.stash[_SERVER]


def _start_from_copy(server: PrefectServer, database: PostgreSQL, stack: ExitStack, shared: Path) -> None:
    """Starts the server on a copy of the database that the first worker of this run has migrated and deployed to, and
    makes the copy where there is none yet. To migrate and to deploy takes 10 s of CPU, a copy less than one."""
    tables, memo = shared / "prefect.sql", shared / "prefect-memo.toml"
    with (shared / "prefect.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not tables.exists():
            stack.enter_context(server)
            deploy(server)
            memo.write_bytes((server.home / MEMO).read_bytes())
            part = tables.with_suffix(".part")
            part.write_bytes(database.copy())
            part.replace(tables)
            return
    database.restore(tables.read_bytes())
    (server.home / MEMO).write_bytes(memo.read_bytes())
    server.deployed = True
    stack.enter_context(server)


def stop_shared_server(config: pytest.Config) -> None:
    if _SERVER in config.stash:
        del config.stash[_SERVER]
        config.stash[_STARTED].close()


def log_of_shared_server(config: pytest.Config) -> str:
    """The end of what the server of this pytest worker wrote; empty if it wasn't started."""
    if _SERVER not in config.stash:
        return ""
    lines = (config.stash[_SERVER].home / "server.log").read_text(errors="replace").splitlines()
    return "\n".join(lines[-60:])


def delete_automations(config: pytest.Config) -> None:
    """Deletes the automations that the tests of a module have made. Otherwise they act on the runs of later modules, a
    minute and a half after the last heartbeat of a run."""
    if _SERVER not in config.stash:
        return
    server = config.stash[_SERVER]
    for automation in server.request("POST", "/automations/filter", {}):
        server.request("DELETE", f"/automations/{automation['id']}")


def deploy(server: PrefectServer) -> None:
    """Work pools and deployments, made as deployments/prefect.yaml says, and those that `transship mirror deploy` adds
    for the rescue of runs and for a fleet; once for a server."""
    if server.deployed:
        return
    make_work_pool(server, "transship")
    server.cli("--no-prompt", "deploy", "--all", "--prefect-file", "deployments/prefect.yaml")
    _deploy_rescue_and_fleet(server)
    server.deployed = True


def _deploy_rescue_and_fleet(server: PrefectServer) -> None:
    from prefect.client.orchestration import PrefectClient

    from flows.deploy.deployments import FLEET, RESCUE, Server, put

    make_work_pool(server, FLEET_POOL)

    async def make() -> None:
        async with PrefectClient(server.api) as client:
            await put(Server(client), replace(RESCUE, work_pool="transship"))
            for declaration in FLEET:
                await put(Server(client), replace(declaration, work_pool=FLEET_POOL))

    asyncio.run(make())


def make_work_pool(server: PrefectServer, name: str) -> None:
    """One of processes, if it isn't there."""
    from prefect.client.orchestration import PrefectClient

    from flows.deploy.deploy import put_work_pool
    from flows.deploy.deployments import Server

    async def make() -> None:
        async with PrefectClient(server.api) as client:
            await put_work_pool(Server(client), name, "process")

    asyncio.run(make())


@contextmanager
def settings_for(server: PrefectServer) -> Iterator[None]:
    """Makes flows that are called in this process use the server, and keep nothing outside its folder. Logs and events
    have reached the server at the end."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker
    from prefect.settings import (
        PREFECT_API_REQUEST_TIMEOUT,
        PREFECT_API_SSL_CERT_FILE,
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
            PREFECT_API_REQUEST_TIMEOUT: 240.0,
            PREFECT_API_SSL_CERT_FILE: os.environ.get(VARIABLE),
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
        gc.freeze()  # the next search passes over what has stayed, and takes no longer from test to test


@pytest.fixture(scope="module")
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


def stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        with suppress(subprocess.TimeoutExpired):
            process.wait(15)
    finally:
        process.kill()  # does nothing to a process that was waited for
        process.wait()
