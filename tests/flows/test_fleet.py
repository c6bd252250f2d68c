"""Relocations spread over workers of a work pool: real ones, some of which are killed in the middle."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName
from prefect.client.schemas.objects import FlowRun

from flows import FleetOptions, RelocateParameters, RelocationReport, relocate_sync
from flows.parameters import SourceKind, Verify
from tests.faults.proxy import Fault, FaultProxy, Span
from tests.flows.cargo import Image, push_image, write_lock
from tests.servers.docker_registry import DockerRegistry
from tests.support.prefect_server import PrefectServer, deploy, settings_for

IMAGES = 200
SHARDS = 8
LIMIT = 8
"""Images that may be on their way at a time; three shards together would have fifteen."""


@pytest.fixture(scope="module")
def deployed(prefect_server: PrefectServer) -> Iterator[PrefectServer]:
    deploy(prefect_server)
    with settings_for(prefect_server):
        yield prefect_server


@pytest.fixture(scope="module")
def images(registry: DockerRegistry) -> list[Image]:
    return [push_image(registry, f"fleet/web-{n}", size=300, seed=1000 + n) for n in range(IMAGES)]


@pytest.fixture
def source(registry: DockerRegistry) -> Iterator[FaultProxy]:
    """In front of the registry: every layer and config takes a while, so that images overlap as over a real line."""
    with FaultProxy(registry.port, Fault(method="GET", path="/blobs/", delay=0.05)) as proxy:
        yield proxy


@contextmanager
def limit_of(host: str, slots: int) -> Iterator[None]:
    async def create() -> None:
        async with get_client() as client:
            await client.create_global_concurrency_limit(
                GlobalConcurrencyLimitCreate(name=f"registry:{host}", limit=slots, active=True)
            )

    asyncio.run(create())
    yield


def images_at_once(spans: list[Span]) -> int:
    """The most images of which a blob was being read at one moment; each has a repository of its own."""
    edges = [
        edge
        for span in spans
        if "/blobs/" in span.path
        for edge in ((span.began, 1, span.path), (span.ended, 0, span.path))
    ]
    reading: list[str] = []
    most = 0
    for _, begins, path in sorted(edges):
        repository = path.partition("/blobs/")[0]
        if begins:
            reading.append(repository)
        else:
            reading.remove(repository)
        most = max(most, len(set(reading)))
    return most


def runs_called(like: str) -> list[FlowRun]:
    async def read() -> list[FlowRun]:
        async with get_client() as client:
            return await client.read_flow_runs(flow_run_filter=FlowRunFilter(name=FlowRunFilterName(like_=like)))

    return asyncio.run(read())


def children_of(process: int) -> list[int]:
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process)], capture_output=True, text=True, check=False)
    children = [int(pid) for pid in listed.stdout.split()]
    return [*children, *(below for child in children for below in children_of(child))]


def kill_machine(worker: subprocess.Popen[bytes]) -> int:
    """As if its plug was pulled: the worker, and the flow runs that it has started."""
    below = children_of(worker.pid)
    worker.kill()
    for process in below:
        os.kill(process, signal.SIGKILL)
    return len(below)


def arrived(destination: DockerRegistry, repository: str) -> int:
    return len([tag for tag in destination.repository_tags(repository) if tag.endswith(".imgpkg")])


def when(condition: Callable[[], bool], action: Callable[[], None]) -> threading.Thread:
    def wait() -> None:
        deadline = time.monotonic() + 120
        while not condition():
            if time.monotonic() > deadline:
                return
            time.sleep(0.05)
        action()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def test_a_worker_killed_in_the_middle_costs_one_shard_that_finishes_elsewhere(
    deployed: PrefectServer,
    images: list[Image],
    source: FaultProxy,
    other_registry: DockerRegistry,
    tmp_path: Path,
) -> None:
    repository = f"fleet/{uuid.uuid4().hex[:8]}"
    lock = write_lock(tmp_path / "images.lock.yml", [image.at(source.host) for image in images])
    killed: list[int] = []

    with (
        limit_of(source.host, LIMIT),
        deployed.worker("transship-fleet", "--limit", "1") as first,
        deployed.worker("transship-fleet", "--limit", "2"),
    ):
        busy = when(
            lambda: arrived(other_registry, repository) > IMAGES // 5 and len(children_of(first.pid)) > 0,
            lambda: killed.append(kill_machine(first)),
        )
        report: RelocationReport = relocate_sync(
            RelocateParameters(
                kind=SourceKind.LOCK,
                source=lock,
                destination=f"{other_registry.host}/{repository}",
                concurrency=5,
                verify=Verify.DEEP,
                fleet=FleetOptions(shards=SHARDS, lost_after_seconds=15),
            )
        )
        busy.join()

    assert killed
    assert killed[0] >= 1
    assert report.published
    assert report.images_copied == IMAGES
    assert report.verified_manifests == IMAGES
    assert arrived(other_registry, repository) == IMAGES
    assert 0 < images_at_once(source.spans) <= LIMIT
    runs = runs_called(f"{repository}, shard")
    states = sorted(str(run.state and run.state.name) for run in runs)
    assert states == [*["Completed"] * SHARDS, "Crashed"]
    assert sum("sent again" in run.name for run in runs) == 1
