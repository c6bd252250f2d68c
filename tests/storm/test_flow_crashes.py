"""The same for flow runs that a worker carries out: cancelled, killed with their worker, a minute without the API."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
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
def stages(
    registry: DockerRegistry, other_registry: DockerRegistry, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mapping[str, Stage]]:
    """One for each flow, so that all of them are in their middle at the same time: what a test waits for, it waits for
    once."""
    ports = {"source": registry.port, "destination": other_registry.port}
    with ExitStack() as stack:
        yield {flow: stack.enter_context(Stage(ports, tmp_path_factory.mktemp(flow))) for flow in FLOWS}


class Run:
    """A run that stands in its middle: the first request of a kind is held by the proxy before the destination."""

    def __init__(self, stage: Stage, flow: str) -> None:
        self.flow = flow
        self.command, parameters = FLOWS[flow]
        nothing: Any = None  # no object store takes part
        self.scene = Scene(stage, {}, nothing, nothing, stage.fresh())
        self.parameters = parameters(self.scene)
        self.command.prepare(self.scene)
        if flow == "prune":  # the first run notes since when something isn't wanted
            self.completes(self.start())
        stage.calm()
        stage.storm(self.command.side, _held(self.command))
        self.id = self.start()

    def start(self) -> UUID:
        return start_run(self.flow, self.parameters)

    def in_the_middle(self) -> None:
        until(f"the middle of {self.flow}", lambda: _reached(self.scene, self.command) or is_over(self.id))
        assert state_of(self.id) == "Running", self.flow

    def cancel(self) -> None:
        with_client(lambda client: client.set_flow_run_state(self.id, Cancelling()))

    def is_cancelled(self) -> bool:
        return state_of(self.id) == "Cancelled"

    def completes(self, run: UUID) -> None:
        until(f"the end of {self.flow}", lambda: is_over(run))
        assert state_of(run) == "Completed", (self.flow, read_run(run).state)


def begun(stages: Mapping[str, Stage]) -> list[Run]:
    """A run of each flow, in its middle."""
    runs = [Run(stages[flow], flow) for flow in FLOWS]
    for one in runs:
        one.in_the_middle()
    return runs


def prove(runs: Iterable[Run]) -> None:
    """Nothing half-made has a name; the next run completes, and sends nothing that has arrived."""
    following = []
    for one in runs:
        assert one.command.ruins(one.scene) == [], one.flow
        one.scene.stage.calm()
        there = one.scene.stage.arrived(one.scene.name)
        following.append((one, there, one.start()))
    for one, there, run in following:
        one.completes(run)
        assert one.command.ruins(one.scene) == [], one.flow
        assert one.scene.stage.sent() & there == set(), one.flow


def process_of(run: UUID) -> int:
    return int(str(read_run(run).infrastructure_pid).rpartition(":")[2])


def has_ended(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.slow
def test_cancelled_runs_end_and_the_next_ones_complete(deployed: PrefectServer, stages: Mapping[str, Stage]) -> None:
    with deployed.worker("transship"):
        runs = begun(stages)
        processes = {one.flow: process_of(one.id) for one in runs}

        for one in runs:
            one.cancel()
        for one in runs:
            ended = partial(has_ended, processes[one.flow])
            until(f"the end of {one.flow}'s process, which a request holds for ten minutes", ended)
            until(f"the state Cancelled of {one.flow}", one.is_cancelled)

        prove(runs)


@pytest.mark.slow
def test_after_a_machine_died_the_next_runs_complete(deployed: PrefectServer, stages: Mapping[str, Stage]) -> None:
    with deployed.worker("transship") as doomed:
        runs = begun(stages)
        assert kill_machine(doomed) >= len(runs)

    with deployed.worker("transship"):
        prove(runs)


@pytest.mark.slow
def test_runs_survive_a_minute_without_the_api(deployed: PrefectServer, stages: Mapping[str, Stage]) -> None:
    with ExitStack() as stack:
        network = stack.enter_context(ApiLink(deployed.api))
        environ = {"PREFECT_API_URL": network.api, "PREFECT_API_REQUEST_TIMEOUT": "60"}
        stack.enter_context(deployed.worker("transship", environ=environ))
        runs = begun(stages)

        network.cut()
        end = time.monotonic() + LOST
        until("the end of the trouble", lambda: time.monotonic() >= end, LOST + 60, every=1)
        for one in runs:
            one.scene.stage.calm()
        network.restore()
        for one in runs:
            one.completes(one.id)
            assert read_run(one.id).run_count == 1, one.flow

        prove(runs)
