"""The same for flow runs that a worker carries out: cancelled, killed with their worker, a minute without the API."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any
from uuid import UUID

import pytest
from prefect.states import Cancelling

from tests.servers.docker_registry import DockerRegistry
from tests.storm.crashes import COMMANDS, LOST, Command, Scene, _held, _reached
from tests.storm.fronts import _mirrors_document
from tests.storm.stage import Stage
from tests.support.api_link import ApiLink
from tests.support.flow_runs import is_over, kill_machine, read_run, start_run, state_of, with_client
from tests.support.prefect_server import PrefectServer, deploy, settings_for
from tests.support.waiting import until

FLOWS: Mapping[str, tuple[Command, Callable[[Scene], dict[str, Any]]]] = {
    "relocate": (
        COMMANDS["copy"],
        lambda scene: {"kind": "bundle", "source": scene.bundle, "destination": scene.at("destination")},
    ),
    "mirror": (COMMANDS["mirror"], lambda scene: {"config": _mirrors_document(scene.stage, scene.name)}),
    "prune": (
        COMMANDS["prune"],
        lambda scene: {
            "destination": scene.at("destination"),
            "keep": {"tags": ["v1", "v2"]},
            "grace": "1ms",
            "after_plan": "delete",
        },
    ),
}


@pytest.fixture(scope="module")
def deployed(prefect_server: PrefectServer) -> Iterator[PrefectServer]:
    deploy(prefect_server)
    with settings_for(prefect_server):
        yield prefect_server


@pytest.fixture(scope="module")
def stage(
    registry: DockerRegistry, other_registry: DockerRegistry, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    ports = {"source": registry.port, "destination": other_registry.port}
    with Stage(ports, tmp_path_factory.mktemp("flow-crashes")) as one:
        yield one


class Run:
    """A run that stands in its middle: the first request of a kind is held by the proxy before the destination."""

    def __init__(self, stage: Stage, flow: str) -> None:
        self.flow = flow
        self.command, parameters = FLOWS[flow]
        nothing: Any = None  # no object store takes part
        self.scene = Scene(stage, {}, nothing, nothing, stage.fresh())
        self.parameters = parameters(self.scene)
        self.command.prepare(self.scene)

    def begin(self) -> UUID:
        if self.flow == "prune":  # the first run notes since when something isn't wanted
            self.completed()
        self.scene.stage.calm()
        self.scene.stage.storm(self.command.side, _held(self.command))
        run = start_run(self.flow, self.parameters)
        until("the middle", lambda: _reached(self.scene, self.command) or is_over(run))
        assert state_of(run) == "Running"
        return run

    def completed(self) -> None:
        run = start_run(self.flow, self.parameters)
        until("its end", lambda: is_over(run))
        assert state_of(run) == "Completed", read_run(run).state

    def proven(self) -> None:
        """Nothing half-made has a name; the next run completes, and sends nothing that has arrived."""
        assert self.command.ruins(self.scene) == []
        self.scene.stage.calm()
        there = self.scene.stage.arrived(self.scene.name)
        self.completed()
        assert self.command.ruins(self.scene) == []
        assert self.scene.stage.sent() & there == set()


def process_of(run: UUID) -> int:
    return int(str(read_run(run).infrastructure_pid).rpartition(":")[2])


def has_ended(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.parametrize("flow", FLOWS)
def test_a_cancelled_run_ends_and_the_next_completes(deployed: PrefectServer, stage: Stage, flow: str) -> None:
    one = Run(stage, flow)
    with deployed.worker("transship"):
        run = one.begin()
        process = process_of(run)

        with_client(lambda client: client.set_flow_run_state(run, Cancelling()))
        until("the end of its process, which a request holds for ten minutes", lambda: has_ended(process), every=0.1)
        until("the state Cancelled", lambda: state_of(run) == "Cancelled")

        one.proven()


@pytest.mark.slow
@pytest.mark.parametrize("flow", FLOWS)
def test_after_a_machine_died_the_next_run_completes(deployed: PrefectServer, stage: Stage, flow: str) -> None:
    one = Run(stage, flow)
    with deployed.worker("transship") as doomed:
        one.begin()
        assert kill_machine(doomed) > 0

    with deployed.worker("transship"):
        one.proven()


@pytest.mark.slow
@pytest.mark.parametrize("flow", FLOWS)
def test_a_run_survives_a_minute_without_the_api(deployed: PrefectServer, stage: Stage, flow: str) -> None:
    one = Run(stage, flow)
    with ExitStack() as stack:
        network = stack.enter_context(ApiLink(deployed.api))
        environ = {"PREFECT_API_URL": network.api, "PREFECT_API_REQUEST_TIMEOUT": "60"}
        stack.enter_context(deployed.worker("transship", environ=environ))
        run = one.begin()

        network.cut()
        end = time.monotonic() + LOST
        until("the end of the trouble", lambda: time.monotonic() >= end, LOST + 60, every=1)
        stage.calm()
        network.restore()
        until("its end", lambda: is_over(run))
        state = read_run(run)
        assert (state.state_name, state.run_count) == ("Completed", 1)

        one.proven()
