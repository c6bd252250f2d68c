"""Whatever happens to a command in the middle, no name shows something incomplete, and the next run completes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.servers.docker_registry import DockerRegistry
from tests.servers.seaweedfs import SeaweedFS
from tests.storm.crashes import COMMANDS, EVENTS, SENSELESS, Scene, crash, scene_of


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """Servers of its own: they are started again in the middle."""
    folder = tmp_path_factory.mktemp("crashes")
    with (
        DockerRegistry(folder / "source") as source,
        DockerRegistry(folder / "destination") as destination,
        SeaweedFS(folder / "store") as store,
        scene_of({"source": source, "destination": destination}, store, folder / "stage") as one,
    ):
        yield one


QUICK = {
    ("SIGKILL", "copy"),
    ("Ctrl-C", "copy"),
    ("SIGTERM", "export"),
    ("disk full", "pull"),
    ("descriptors", "copy"),
    ("registry restarted", "mirror"),
    ("vanishing folder", "export"),
    ("clock jump", "copy"),
}
PATIENT = {("network lost", name) for name in COMMANDS if name not in ("copy", "export to S3")}
"""A minute each: `make drills` has them."""


def marks(cell: tuple[str, str]) -> list[pytest.MarkDecorator]:
    together = pytest.mark.xdist_group(f"crash: {cell[0]}")  # in a process; all cells in a single process take too long
    return [together, *([pytest.mark.drill] if cell in PATIENT else [] if cell in QUICK else [pytest.mark.slow])]


CELLS = [(event, command) for event in EVENTS for command in COMMANDS if (event, command) not in SENSELESS]


@pytest.mark.parametrize(("event", "command"), [pytest.param(*cell, marks=marks(cell)) for cell in CELLS])
def test_after_a_crash(scene: Scene, event: str, command: str) -> None:
    assert crash(scene._replace(name=scene.stage.fresh()), EVENTS[event], COMMANDS[command]) == []


def test_every_cell_that_is_left_out_has_its_reason() -> None:
    assert len(CELLS) + len(SENSELESS) == len(EVENTS) * len(COMMANDS)
    assert all(event in EVENTS and command in COMMANDS and reason for (event, command), reason in SENSELESS.items())
