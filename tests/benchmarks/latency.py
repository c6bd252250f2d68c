"""Registries that are far away, 20 ms each way: do the windows fill the pipe without being told how many fit?"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.benchmarks.measure import Run, run
from tests.benchmarks.tools import PROGRAM, images_lock
from tests.benchmarks.workloads import KIB, MIB, Image, Pushed, Workload, push
from tests.servers.docker_registry import DockerRegistry
from tests.support.far_link import FarLink

ROUND_TRIP = 0.04
FIXED = (4, 8, 16, 32, 64)
UNTOLD = "not told"


def far_tiny() -> Workload:
    images = tuple(
        Image(f"far-tiny/app{number:03}", tuple((70_000 + number * 3 + layer, 4 * KIB) for layer in range(3)))
        for number in range(80)
    )
    return Workload("tiny", "80 images, 3 layers of 4 KiB each", images)


def far_typical() -> Workload:
    images = []
    for number in range(24):
        base = number % 4
        shared = tuple((80_000 + base * 3 + layer, 4 * MIB) for layer in range(3))
        own = tuple((81_000 + number * 2 + layer, 400 * KIB) for layer in range(2))
        images.append(Image(f"far-typical/app{number:02}", shared + own))
    return Workload("typical", "24 images, 5 layers each, shared bases, 67 MiB", tuple(images))


def measure_latency(runs: int) -> list[dict[str, Any]]:
    """Cold copies, each to a repository of its own, interleaved."""
    measured: dict[tuple[str, str], list[Run]] = defaultdict(list)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        origin = stack.enter_context(DockerRegistry(folder / "origin"))
        destination = stack.enter_context(DockerRegistry(folder / "destination"))
        far_origin = stack.enter_context(FarLink(origin.host, ROUND_TRIP)).address
        far_destination = stack.enter_context(FarLink(destination.host, ROUND_TRIP)).address
        for workload in (far_tiny(), far_typical()):
            pushed = push(workload, origin.url, origin.host)
            lock = images_lock(Pushed(far_origin, pushed.images), folder)
            for number in range(runs):
                for told in (UNTOLD, *map(str, FIXED)):
                    print(f"latency: {workload.name}, run {number + 1} of {runs}, {told}", file=sys.stderr)
                    flags = [] if told == UNTOLD else ["--concurrency", told]
                    target = f"{far_destination}/far/{workload.name}-{number}-{told.replace(' ', '-')}"
                    cost = run([[PROGRAM, "copy", "--lock", lock, "--to-repo", target, *flags]])
                    measured[workload.name, told].append(cost)
    return [_row(measured, workload, told) for workload, told in measured]


def _row(measured: dict[tuple[str, str], list[Run]], workload: str, told: str) -> dict[str, Any]:
    walls = {key: statistics.median(one.wall for one in runs) for key, runs in measured.items() if key[0] == workload}
    best = min(wall for (_, other), wall in walls.items() if other != UNTOLD)
    return {
        "phase": workload,
        "concurrency": told,
        "wall": walls[workload, told],
        "cpu": statistics.median(one.cpu for one in measured[workload, told]),
        "rss": max(one.rss for one in measured[workload, told]),
        "wall_over_best_fixed": walls[workload, told] / best,
    }
