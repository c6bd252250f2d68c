"""What a run of a mirror survives, at the settings of deployments/: a database that is locked, a server that is
restarted, a network that is lost, a machine that dies."""

from __future__ import annotations

import sqlite3
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import pytest
import yaml
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun

from flows.deploy.zombie_runs import STARTED_AGAIN
from tests.servers.docker_registry import DockerRegistry
from tests.servers.registry_data import seed
from tests.support.api_link import ApiLink
from tests.support.command import transship
from tests.support.content import image, layer
from tests.support.flow_runs import is_over, kill_machine, read_run, state_of, with_client
from tests.support.prefect_server import PrefectServer, deploy, settings_for
from tests.support.slow_link import SlowLink
from tests.support.waiting import until

IMAGES = 3
LAYER = 4 << 20
PER_SECOND = 16 << 10
"""Bytes: what is to be copied takes longer than each trouble lasts."""
LOCKED = 120.0
RESTARTED = 300.0
CUT = 60.0
TAKEN_UP = 480.0
"""Seconds: how long each trouble lasts, and within which time a dead run is complete."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    with PrefectServer(tmp_path_factory.mktemp("prefect-drills")) as server, settings_for(server):
        deploy(server)
        yield server


@dataclass(frozen=True, slots=True)
class Drill:
    """A run of a mirror that has begun to copy, and goes on only when its link is let go."""

    run: UUID
    link: SlowLink
    destination: DockerRegistry
    repository: str

    def read(self) -> FlowRun:
        return read_run(self.run)

    def begun(self) -> None:
        until("the run copies", lambda: self.link.passed > LAYER // 64 and state_of(self.run) == "Running")

    def ended(self, seconds: float, *, well: bool = False) -> FlowRun:
        """Return the run when it is over. A run that died is Crashed until it is started again: `well` waits on."""
        self.link.bytes_per_second = 0
        over = (lambda: state_of(self.run) == "Completed") if well else (lambda: is_over(self.run))
        until("its end", over, seconds, every=1)
        assert len(self.destination.repository_tags(self.repository)) == IMAGES
        return self.read()

    def untouched(self) -> None:
        """Raises unless it ended well, as the process that began it."""
        run = self.ended(240)
        assert (run.state_name, run.run_count) == ("Completed", 1)
        assert STARTED_AGAIN not in run.tags


@pytest.fixture
def drill(
    server: PrefectServer, registry: DockerRegistry, other_registry: DockerRegistry, tmp_path: Path
) -> Iterator[Drill]:
    name = f"web-{uuid.uuid4().hex[:8]}"
    first = uuid.uuid4().int % 10**9  # what another drill has sent would be mounted
    layers = [layer(first + number, LAYER) for number in range(IMAGES)]
    seed(registry, name, {f"1.{number}": image(number, layers=[one]) for number, one in enumerate(layers)})
    with SlowLink(registry.host, bytes_per_second=PER_SECOND) as link:
        mirror = {
            "name": name,
            "source": {"repository": f"{link.address}/{name}"},
            "destinations": [{"repository": f"{other_registry.host}/{name}"}],
        }
        file = tmp_path / "mirrors.yaml"
        file.write_text(yaml.safe_dump({"version": 1, "mirrors": [mirror]}))
        done = transship("mirror", "deploy", "-f", str(file), "--group", name, environ=server.environment)
        assert done.code == 0, done.err

        async def start(client: PrefectClient) -> UUID:
            deployment = await client.read_deployment_by_name(f"mirror/{name}")
            return (await client.create_flow_run_from_deployment(deployment.id)).id

        yield Drill(with_client(start), link, other_registry, name)


def last(seconds: float) -> None:
    """Lets the trouble last."""
    end = time.monotonic() + seconds
    until("the end of the trouble", lambda: time.monotonic() >= end, seconds + 60, every=1)


@pytest.mark.slow
def test_a_database_that_is_locked_for_two_minutes_ends_no_run(server: PrefectServer, drill: Drill) -> None:
    with server.worker("transship"):
        drill.begun()
        with closing(sqlite3.connect(server.home / "prefect.db", isolation_level=None, timeout=60)) as database:
            database.execute("BEGIN EXCLUSIVE")
            last(LOCKED)
            database.execute("ROLLBACK")
        drill.untouched()


@pytest.mark.drill
def test_a_run_survives_a_restart_of_the_server(server: PrefectServer, drill: Drill) -> None:
    """Its place in its deployment is a lease, which a server that keeps leases in memory forgets."""
    with server.worker("transship"):
        drill.begun()
        server.restart()
        last(RESTARTED)
        assert state_of(drill.run) == "Running"
        drill.untouched()


@pytest.mark.slow
def test_a_run_survives_a_minute_without_the_server(server: PrefectServer, drill: Drill) -> None:
    with ApiLink(server.api) as network:
        environ = {"PREFECT_API_URL": network.api, "PREFECT_API_REQUEST_TIMEOUT": "60"}
        with server.worker("transship", environ=environ):
            drill.begun()
            network.cut()
            last(CUT)
            network.restore()
            drill.untouched()


@pytest.mark.drill
def test_a_run_whose_machine_died_is_taken_up_and_complete_in_time(server: PrefectServer, drill: Drill) -> None:
    with server.worker("transship") as doomed:
        drill.begun()
        kill_machine(doomed)
    with server.worker("transship"):
        run = drill.ended(TAKEN_UP, well=True)

    assert (run.state_name, run.run_count) == ("Completed", 2)
    assert STARTED_AGAIN in run.tags
