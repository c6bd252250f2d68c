"""What archives cost: to disk and from disk beside other tools, to S3 beside a file that is uploaded afterwards, and a
newer archive beside a whole one. Every figure is read as a ratio within one run."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.benchmarks.measure import Run, run
from tests.benchmarks.tools import PROGRAM, archive_tools, images_lock
from tests.benchmarks.workloads import KIB, MIB, Image, Pushed, Workload, push
from tests.servers.docker_registry import DockerRegistry
from tests.servers.seaweedfs import BUCKET, SeaweedFS

TRANSSHIP = "transship"
OUT_OF_OLDER = "out of the older one"
TWO_STEPS = "file, then boto3"
UPLOAD = "import boto3, sys; boto3.client('s3').upload_file(sys.argv[1], sys.argv[2], sys.argv[3])"


@dataclass(slots=True)
class Measured:
    """Bytes of `disk` are what a tool has left on this machine's disk, `moved` what went through it to an archive."""

    run: Run
    disk: int = 0
    moved: int = 0


Results = dict[tuple[str, str], list[Measured]]
"""(phase, tool) → runs."""


def one_image() -> Workload:
    """As an archive of skopeo's holds one."""
    layers = tuple((300 + number, 128 * MIB) for number in range(4))
    return Workload("archive", "1 image, 4 layers of 128 MiB", (Image("archive/one", layers),))


def nightly(day: int) -> Workload:
    """40 images of 8 MiB, of which two are others every day."""
    seeds = [400 + number + (1000 * day if number < 2 else 0) for number in range(40)]
    images = tuple(
        Image(f"nightly/app{number:02}", ((seed, 8 * MIB - 64 * KIB), (seed + 5000, 64 * KIB)))
        for number, seed in enumerate(seeds)
    )
    return Workload("nightly", "40 images of 8 MiB, 5% changed", images)


@dataclass(slots=True)
class Bench:
    origin: DockerRegistry
    store: SeaweedFS
    place: Path
    results: Results = field(default_factory=lambda: defaultdict(list))

    def measure(self, phase: str, tool: str, *commands: Sequence[str], moved: Callable[[], int] = int) -> None:
        """With a folder for temporary files that is looked at in the end."""
        print(f"archives: {phase}, {tool}", file=sys.stderr)
        before = _bytes_in(self.place)
        os.environ.update(self.store.environment, TMPDIR=str(self.place))
        measured = run(commands)
        self.results[(phase, tool)].append(Measured(measured, _bytes_in(self.place) - before, moved()))


def measure_archives(runs: int) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        place = root / "place"
        place.mkdir()
        with DockerRegistry(root / "origin") as origin, SeaweedFS(root / "store") as store:
            bench = Bench(origin, store, place)
            image = push(one_image(), origin.url, origin.host)
            days = [push(nightly(day), origin.url, origin.host) for day in (0, 1)]
            for number in range(runs):
                _disk(bench, image, root / f"registries-{number}")
                _object_store(bench, image, number)
                _newer(bench, days, number)
    return list(_rows(bench.results))


def _disk(bench: Bench, image: Pushed, registries: Path) -> None:
    """Out to a file and back to an empty registry, by whoever can."""
    for tool in archive_tools(image, bench.place):
        bench.measure("disk export", tool.name, *tool.export)
        with DockerRegistry(registries / tool.name) as destination:
            bench.measure("disk import", tool.name, *tool.arrive(f"{destination.host}/arrived/one"))
        _emptied(bench.place)


def _object_store(bench: Bench, image: Pushed, number: int) -> None:
    lock = images_lock(image, bench.place)
    file = str(bench.place / "two.tar")
    key = f"run{number}/two.tar"
    bench.measure("S3 export", TRANSSHIP, _export(lock, f"s3://{BUCKET}/run{number}/direct.tar"))
    bench.measure("S3 export", TWO_STEPS, _export(lock, file), [sys.executable, "-c", UPLOAD, file, BUCKET, key])
    direct, later = (bench.store.head(f"s3://{BUCKET}/run{number}/{name}.tar") for name in ("direct", "two"))
    if not direct or not later or direct["ContentLength"] != later["ContentLength"]:
        raise RuntimeError("the two ways have not made the same archive")
    _emptied(bench.place)
    for name in ("direct", "two"):
        bench.store.client.delete_object(Bucket=BUCKET, Key=f"run{number}/{name}.tar")


def _newer(bench: Bench, days: list[Pushed], number: int) -> None:
    """Tuesday's archive, whole and out of Monday's."""
    monday, tuesday = (images_lock(day, _made(bench.place / f"day{n}")) for n, day in enumerate(days))
    base = f"s3://{BUCKET}/run{number}/monday.tar"
    subprocess.run(
        _export(monday, base), check=True, capture_output=True, env={**os.environ, **bench.store.environment}
    )
    report = bench.place / "report.json"
    tools: dict[str, list[str]] = {"whole": [], OUT_OF_OLDER: ["--base", base]}
    for tool, more in tools.items():
        to = f"s3://{BUCKET}/run{number}/tuesday-{len(more)}.tar"
        command = [*_export(tuesday, to), *more, "--report", str(report)]
        bench.measure("newer archive", tool, command, moved=lambda: _sent(report))
    _emptied(bench.place)


def _sent(report: Path) -> int:
    sent: int = json.loads(report.read_text())["sent"]
    return sent


def _export(lock: str, to: str) -> list[str]:
    return [PROGRAM, "copy", "--lock", lock, "--to-tar", to]


def _made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


def _bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _emptied(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            path.unlink()


def _rows(results: Results) -> Iterator[dict[str, Any]]:
    walls = {key: statistics.median(one.run.wall for one in runs) for key, runs in results.items()}
    for (phase, tool), runs in results.items():
        others = [wall for (when, other), wall in walls.items() if when == phase and other != tool]
        ours = tool in (TRANSSHIP, OUT_OF_OLDER)
        yield {
            "phase": phase,
            "tool": tool,
            "wall": walls[(phase, tool)],
            "cpu": statistics.median(one.run.cpu for one in runs),
            "rss": max(one.run.rss for one in runs),
            "disk": max(one.disk for one in runs),
            "moved": max(one.moved for one in runs),
            "wall_over_best_other": walls[(phase, tool)] / min(others) if ours and others else None,
        }
