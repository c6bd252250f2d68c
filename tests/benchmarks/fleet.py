"""The same relocation by 1, 2 and 4 workers, both registries far away.

A Prefect server, the workers and both registries are on this machine; what differs is the number of workers, each of
which takes one shard at a time. Distance is what makes it worth while to spread a relocation: a worker waits most of
the time, and the processors of one machine are enough for several.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import yaml

from flows import FleetOptions, RelocateParameters, relocate_sync
from flows.parameters import SourceKind
from tests.benchmarks.tools import IMAGES_LOCK
from tests.benchmarks.workloads import Pushed, push, tiny
from tests.servers.docker_registry import DockerRegistry
from tests.support.far_link import FarLink
from tests.support.prefect_server import FLEET_POOL, PrefectServer, deploy, settings_for

WORKERS = (1, 2, 4)
ROUND_TRIP = 0.05
"""Seconds, added to every one."""
SHARDS = 4
CONCURRENCY = 4


def measure_fleet(runs: int) -> list[dict[str, Any]]:
    """One row for each number of workers, with the median of its runs."""
    with tempfile.TemporaryDirectory() as folder:
        seconds = measure(Path(folder), runs)
    walls = {workers: statistics.median(found) for workers, found in seconds.items()}
    return [
        {
            "phase": f"{ROUND_TRIP * 1000:.0f} ms away",
            "workers": workers,
            "wall": wall,
            "wall_over_one": wall / walls[WORKERS[0]],
        }
        for workers, wall in walls.items()
    ]


def measure(folder: Path, runs: int) -> dict[int, list[float]]:
    """Seconds by number of workers; the numbers take turns."""
    seconds: dict[int, list[float]] = defaultdict(list)
    with ExitStack() as stack:
        server = stack.enter_context(PrefectServer(made(folder / "prefect")))
        deploy(server)
        stack.enter_context(settings_for(server))
        origin = stack.enter_context(DockerRegistry(folder / "origin"))
        source = stack.enter_context(FarLink(origin.host, ROUND_TRIP))
        pushed = push(tiny(), origin.url, source.address)
        for number in range(runs):
            for workers in WORKERS:
                destination = stack.enter_context(DockerRegistry(folder / f"destination-{number}-{workers}"))
                far = stack.enter_context(FarLink(destination.host, ROUND_TRIP))
                print(f"fleet: run {number + 1} of {runs}: {workers} workers", file=sys.stderr)
                with ExitStack() as working:
                    for _ in range(workers):
                        working.enter_context(server.worker(FLEET_POOL, "--limit", "1"))
                    seconds[workers].append(timed(pushed, f"{far.address}/mirror/set", folder))
    return seconds


def timed(pushed: Pushed, destination: str, folder: Path) -> float:
    lock = folder / "images.lock.yml"
    images = [{"image": f"{pushed.host}/{repository}@{digest}"} for repository, digest in pushed.images]
    lock.write_text(yaml.safe_dump({**IMAGES_LOCK, "images": images}))
    parameters = RelocateParameters(
        kind=SourceKind.LOCK,
        source=str(lock),
        destination=destination,
        concurrency=CONCURRENCY,
        fleet=FleetOptions(shards=SHARDS),
    )
    began = time.monotonic()
    report = relocate_sync(parameters)
    assert report.images_copied == len(pushed.images)
    return time.monotonic() - began


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder
