"""A sample of the storm for commands and flows; `make storm` plays a trial of each with every fault."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.servers.docker_registry import DockerRegistry
from tests.storm.fronts import COMMANDS, FLOWS
from tests.storm.trial import Kind
from tests.storm.weather import DOCKER, Weather
from tests.support.prefect_server import PrefectServer, settings_for

SEED = 20261130


@pytest.fixture(scope="module")
def commands(
    registry: DockerRegistry, other_registry: DockerRegistry, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Weather]:
    ports = {"source": registry.port, "destination": other_registry.port}
    with Weather(ports, tmp_path_factory.mktemp("commands"), COMMANDS, (DOCKER,)) as one:
        yield one


@pytest.fixture(scope="module")
def flows(
    registry: DockerRegistry,
    other_registry: DockerRegistry,
    prefect_server: PrefectServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Weather]:
    ports = {"source": registry.port, "destination": other_registry.port}
    with (
        settings_for(prefect_server),
        Weather(ports, tmp_path_factory.mktemp("flows"), FLOWS, (DOCKER,)) as one,
    ):
        yield one


@pytest.mark.slow
def test_every_end_of_a_command_is_proven_or_a_clean_error(commands: Weather) -> None:
    outcomes = commands.play(commands.sample(30, SEED), threads=2)

    assert [f"{one.trial.id}: {one.note}" for one in outcomes if one.kind is Kind.OTHER] == []


@pytest.mark.slow
def test_every_end_of_a_flow_is_proven_or_a_clean_error(flows: Weather) -> None:
    outcomes = flows.play(flows.sample(12, SEED), threads=1)

    assert [f"{one.trial.id}: {one.note}" for one in outcomes if one.kind is Kind.OTHER] == []
