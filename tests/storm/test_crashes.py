"""Whatever ends a command in the middle, no name shows something incomplete, and the next run completes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.servers.docker_registry import DockerRegistry
from tests.storm.crashes import COMMANDS, LIMITS, SIGNALS, crash
from tests.storm.stage import Stage


@pytest.fixture(scope="module")
def stage(
    registry: DockerRegistry, other_registry: DockerRegistry, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    ports = {"source": registry.port, "destination": other_registry.port}
    with Stage(ports, tmp_path_factory.mktemp("crashes") / "stage") as one:
        yield one


EVENTS = [*SIGNALS, *LIMITS, "registry restarted"]
QUICK = {("SIGKILL", "copy"), ("Ctrl-C", "copy"), ("SIGTERM", "export"), ("disk full", "pull"), ("descriptors", "copy")}


@pytest.mark.parametrize(
    ("what", "command"),
    [
        pytest.param(what, command, marks=[] if (what, command) in QUICK else pytest.mark.slow)
        for what in EVENTS
        for command in COMMANDS
    ],
)
def test_after_a_crash(stage: Stage, what: str, command: str) -> None:
    assert crash(stage, what, COMMANDS[command], stage.fresh()) == []
