"""Mirrors that run by themselves, on a Prefect server with SQLite and on one with PostgreSQL: by their schedule, and
because a registry told of a push."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterName
from prefect.client.schemas.objects import FlowRun

from tests.flows.cargo import push_image
from tests.servers.docker_registry import DockerRegistry, Endpoint
from tests.support.command import transship
from tests.support.prefect_server import PrefectServer, make_work_pool, settings_for, shared_server
from tests.support.receiver import TOKEN, Receiver
from tests.support.waiting import until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    with _server(request, tmp_path_factory) as server, settings_for(server):
        yield server


@contextmanager
def _server(request: pytest.FixtureRequest, folders: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    if request.param == "postgresql":
        yield shared_server(request, folders)
        return
    with PrefectServer(folders.mktemp("prefect-sqlite")) as server:
        yield server


@dataclass(frozen=True, slots=True)
class Port:
    """A registry that tells the receiver, a place to mirror to, and workers."""

    server: PrefectServer
    source: DockerRegistry
    destination: DockerRegistry
    pool: str


@pytest.fixture(scope="module")
def port(
    server: PrefectServer, other_registry: DockerRegistry, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Port]:
    folder = tmp_path_factory.mktemp("port")
    pool = f"mirrors-{uuid.uuid4().hex[:8]}"
    make_work_pool(server, pool)
    with (
        server.worker(pool),
        Receiver(folder, server.environment) as receiver,
        DockerRegistry(folder / "registry", notify=Endpoint(f"{receiver.url}/notifications", TOKEN)) as source,
    ):
        port = Port(server, source, other_registry, pool)
        yield port
        _deploy(port, folder, [])


@pytest.fixture
def mirror(port: Port, tmp_path: Path) -> Callable[..., str]:
    """Deploys one mirror of a repository of its own and gives its name, which is the repository's too."""

    def made(**more: Any) -> str:
        name = f"web-{uuid.uuid4().hex[:8]}"
        push_image(port.source, name, size=500, seed=1, tag="1.0")
        described = {
            "name": name,
            "source": {"repository": f"{port.source.host}/{name}"},
            "destinations": [{"repository": f"{port.destination.host}/mirror/{name}"}],
        }
        _deploy(port, tmp_path, [described | more])
        return name

    return made


def _deploy(port: Port, folder: Path, mirrors: list[dict[str, Any]]) -> None:
    file = folder / "mirrors.yaml"
    file.write_text(yaml.safe_dump({"version": 1, "mirrors": mirrors}))
    flags = ("-f", str(file), "--work-pool", port.pool, "--group", port.pool, "--prune")
    done = transship("mirror", "deploy", *flags, environ=port.server.environment)
    assert done.code == 0, done.err


def runs(deployment: str) -> list[FlowRun]:
    async def read() -> list[FlowRun]:
        named = DeploymentFilter(name=DeploymentFilterName(any_=[deployment]))
        async with get_client() as client:
            return await client.read_flow_runs(deployment_filter=named)

    return asyncio.run(read())


def completed(deployment: str) -> list[FlowRun]:
    return [run for run in runs(deployment) if run.state and run.state.is_completed()]


def test_a_push_mirrors_its_tag_alone_and_nothing_that_the_rules_leave_out(
    port: Port, mirror: Callable[..., str]
) -> None:
    name = mirror(tags=[{"deny": ["never"]}], on_push=True)

    push_image(port.source, name, size=500, seed=3, tag="never")
    push_image(port.source, name, size=500, seed=2, tag="2.0")
    until("a run for each push", lambda: len(completed(f"{name}.on-push")) == 2)

    assert port.destination.repository_tags(f"mirror/{name}") == ["2.0"]
    only = sorted(run.parameters["only"] for run in runs(f"{name}.on-push"))
    assert only == [[f"{port.source.host}/{name}:2.0"], [f"{port.source.host}/{name}:never"]]
    assert runs(name) == []


def test_a_schedule_fires_and_its_run_mirrors(port: Port, mirror: Callable[..., str]) -> None:
    """The last one: its runs, one every five seconds, wait at the worker of all tests of the module."""
    name = mirror(schedule={"interval": "5s"})

    until("a run of the schedule", lambda: completed(name))

    assert port.destination.repository_tags(f"mirror/{name}") == ["1.0"]
    assert completed(name)[0].auto_scheduled
