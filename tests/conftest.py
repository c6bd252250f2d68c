"""Servers that many tests share, and how tests are chosen and spread over workers.

Each test uses repositories of its own, so that a registry may be shared.
"""

from __future__ import annotations

import gc
import itertools
import os
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
import pytest_timeout
from hypothesis import settings

from tests.servers.docker_registry import DockerRegistry
from tests.servers.seaweedfs import BUCKET, SeaweedFS
from tests.servers.strict_registry import StrictRegistry
from tests.support.authorities import trust_one
from tests.support.command import stop_warm_command
from tests.support.content import push
from tests.support.prefect_server import log_of_shared_server, stop_shared_server
from tests.support.selection import groups_of, needs_server, refuse_to_listen, uses_prefect
from tests.support.signing import SIGNER, STRANGER, written_keys

_numbers = itertools.count(1)
LITTER = ("transship-warm-*", "transship-postgresql-*", "prefect-*", "tmp*prefect", "runner_storage", "seaweedfs-*")
"""What is deleted by who made it, unless that was killed; then it belongs in a folder of a test."""

settings.register_profile("quick", max_examples=25, deadline=None, derandomize=True, database=None)
settings.register_profile("ci", max_examples=100, deadline=None, derandomize=True, database=None)
settings.register_profile("long", max_examples=400, deadline=None, print_blob=True)
settings.register_profile(
    "fuzz", max_examples=int(os.environ.get("HYPOTHESIS_EXAMPLES", "20000")), deadline=None, print_blob=True
)
settings.load_profile("quick")  # unless --hypothesis-profile names another one


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--no-servers", action="store_true", help="run only tests that start no server")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item, group in groups_of(items).items():
        item.add_marker(pytest.mark.xdist_group(group))
    for item in items:
        if item.get_closest_marker("drill"):
            item.add_marker(pytest.mark.timeout(1200))  # these wait for Prefect's clocks, up to nine minutes for one
    if hasattr(config, "workerinput"):  # what takes long begins first: no process works on it while the others are done
        items.sort(key=_turn)
    if config.getoption("--no-servers"):
        chosen = [item for item in items if not needs_server(item)]
        config.hook.pytest_deselected(items=[item for item in items if needs_server(item)])
        items[:] = chosen


def _turn(item: pytest.Item) -> tuple[bool, bool, bool]:
    """Returns when the turn of a test comes in a run of several processes. Tests with Prefect stay in the order of
    their modules."""
    prefect = uses_prefect(item)
    marked = item.get_closest_marker
    return not prefect, not prefect and marked("slow") is None, not prefect and marked("xdist_group") is None


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Nearly all that is made while tests are collected stays: to search it for garbage takes a sixth of the time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


def pytest_collection_finish() -> None:
    """Modules and tests stay to the end: a search for garbage passes over them, and takes milliseconds instead of a
    quarter of a second."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    if getattr(item, "execution_count", 1) > 1:  # pytest-timeout sets one alarm for both attempts
        settings = pytest_timeout._get_item_settings(item)
        item.config.hook.pytest_timeout_set_timer(item=item, settings=settings)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, None, None]:
    yield
    # In a run of several processes these tests are the first of a process, and follow each other.
    if hasattr(item.config, "workerinput") and uses_prefect(item) and not (nextitem and uses_prefect(nextitem)):
        stop_shared_server(item.config)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed and (log := log_of_shared_server(item.config)):
        report.sections.append(("The Prefect server's log", log))
    return report


@pytest.fixture(scope="session", autouse=True)
def authorities(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        trust_one(patch, tmp_path_factory.mktemp("authorities"))
        yield


@pytest.fixture(scope="session", autouse=True)
def temporary_files(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What tests, and programs that they start, make for a time is in a folder of this process. What servers, workers
    and runs of Prefect would leave in that of a machine fails the last test."""
    folder = tmp_path_factory.mktemp("temporary")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(folder))
        patch.setattr(tempfile, "tempdir", str(folder))
        yield
        stop_shared_server(request.config)
        stop_warm_command()
    assert [path.name for pattern in LITTER for path in folder.glob(pattern)] == []


@pytest.fixture(autouse=True)
def no_server(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--no-servers"):
        refuse_to_listen(request.getfixturevalue("monkeypatch"))


@pytest.fixture(autouse=True)
def no_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one test learned about a registry is nothing for the next, whose registry may have the same port."""
    monkeypatch.setattr("oci.relocation.session.default_folder", str)


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    """Debian's docker-registry, plain http."""
    with DockerRegistry(tmp_path_factory.mktemp("registry")) as server:
        yield server


@pytest.fixture(scope="session")
def other_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    """A second one, to copy to."""
    with DockerRegistry(tmp_path_factory.mktemp("other-registry")) as server:
        yield server


@pytest.fixture(scope="session")
def object_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    """SeaweedFS with the one bucket that all tests share."""
    with SeaweedFS(tmp_path_factory.mktemp("seaweedfs")) as server:
        yield server


@pytest.fixture
def s3_location() -> str:
    """An object that no other test uses."""
    return f"s3://{BUCKET}/test{next(_numbers)}/shop.tar"


@pytest.fixture
def repository() -> str:
    """A repository path that no other test uses."""
    return f"test{next(_numbers)}/repository"


@pytest.fixture
def origin(request: pytest.FixtureRequest) -> Iterator[StrictRegistry]:
    """A strict registry of the test's own, with the module's CONTENT as `shop/web:1.0`."""
    with StrictRegistry() as server:
        push(server.url, "shop/web", request.module.CONTENT, "1.0")
        yield server


@pytest.fixture
def destination() -> Iterator[StrictRegistry]:
    """An empty strict registry of the test's own."""
    with StrictRegistry() as server:
        yield server


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """A folder with the keys of SIGNER, as `own`, and of STRANGER, as `strange`."""
    return written_keys(tmp_path / "keys", own=SIGNER, strange=STRANGER)
