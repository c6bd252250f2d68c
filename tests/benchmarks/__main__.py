"""`python -m tests.benchmarks`: measures, prints a table, writes `.bench/results.json`."""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.benchmarks.archives import measure_archives
from tests.benchmarks.fleet import CASES, measure_fleet
from tests.benchmarks.latency import measure_latency
from tests.benchmarks.measure import Run, by_kind, run
from tests.benchmarks.mirrors import measure_estate, measure_flow, measure_mirrors
from tests.benchmarks.tools import OURS, Tool, available, warm
from tests.benchmarks.workloads import WORKLOADS, Pushed, push
from tests.servers.docker_registry import DockerRegistry

ARCHIVES = "archives"
MIRRORS = "mirrors"
ESTATE = "estate"
FLEET = "fleet"
LATENCY = "latency"
ALL = [*WORKLOADS, ARCHIVES, MIRRORS, ESTATE, FLEET, LATENCY]
NEEDS = {ARCHIVES: ["weed"], MIRRORS: ["prefect"], FLEET: ["prefect"]}
RESULTS = Path(".bench/results.json")
Results = dict[tuple[str, str, str], list[Run]]
"""(workload, phase, tool) → runs; the phases are cold, unchanged and mount."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--workload", action="append", choices=ALL, help="can be given several times; default: all")
    parser.add_argument("--case", action="append", choices=CASES, help="of the fleet; can be given several times")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--against", action="append", default=[], metavar="NAME=PROGRAM", help="another transship")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # its servers end with it
    left_out = {name: absent for name in options.workload or ALL if (absent := missing(name))}
    chosen = [name for name in options.workload or ALL if name not in left_out]
    results: Results = defaultdict(list)
    for name in chosen:
        if name in WORKLOADS:
            measure_workload(name, options.runs, results, options.against)
    rows = list(summary(results))
    show(rows)
    archives = measure_archives(options.runs) if ARCHIVES in chosen else []
    show_archives(archives)
    mirrors = measure_mirrors(options.runs) if MIRRORS in chosen else []
    mirrors += measure_estate(options.runs) if ESTATE in chosen else []
    flow = measure_flow(options.runs) if MIRRORS in chosen else []
    show_mirrors(mirrors, flow)
    fleet = measure_fleet(options.runs, options.case or tuple(CASES)) if FLEET in chosen else []
    show_fleet(fleet)
    latency = measure_latency(options.runs) if LATENCY in chosen else []
    show_latency(latency)
    measured = {
        "latency": latency,
        "rows": rows,
        "archives": archives,
        "mirrors": mirrors,
        "flow": flow,
        "fleet": fleet,
    }
    if chosen:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps({"runs": options.runs, **measured}, indent=1))
        print(f"written: {RESULTS}", file=sys.stderr)
    for name, absent in left_out.items():
        print(f"{name} was left out: {', '.join(absent)} not found; `make servers` installs servers", file=sys.stderr)
    return 1 if left_out else 0


def missing(name: str) -> list[str]:
    """Programs that a workload can't do without, and that aren't on PATH or beside this Python."""
    beside = str(Path(sys.executable).parent)
    needs = ["docker-registry", "skopeo", "transship", *NEEDS.get(name, [])]
    return [program for program in needs if not (shutil.which(program) or shutil.which(program, path=beside))]


def measure_workload(name: str, runs: int, results: Results, against: Sequence[str]) -> None:
    """Makes one copy before those that count: a virtual machine's first use of its memory costs the registry of the
    first tool up to half as much CPU again."""
    workload = WORKLOADS[name]()
    with tempfile.TemporaryDirectory() as folder, DockerRegistry(Path(folder) / "origin") as origin:
        pushed = push(workload, origin.url, origin.host)
        tools = available(against)
        warm(tools, pushed, Path(folder))
        rounds = [(0, tools[0]), *((number, tool) for number in range(1, runs + 1) for tool in tools)]
        for number, tool in rounds:
            print(f"{name}: run {number} of {runs}, {tool.name}{'' if number else ', not counted'}", file=sys.stderr)
            with tempfile.TemporaryDirectory() as place:
                for phase, measured in phases(tool, pushed, origin, Path(place), number):
                    if number:
                        results[(name, phase, tool.name)].append(measured)


def phases(tool: Tool, pushed: Pushed, origin: DockerRegistry, place: Path, number: int) -> Iterator[tuple[str, Run]]:
    """A fresh destination for every tool and run: cold, again unchanged; then to another repository of the origin's
    own registry, where blobs can be mounted."""
    with DockerRegistry(place / "destination") as destination:
        sides = {"source": origin, "destination": destination}
        for phase in ("cold", "unchanged"):
            yield phase, counted(tool, pushed, f"{destination.host}/mirror/set", place, sides)
    target = f"{origin.host}/mounted-{number}/{tool.name}"
    yield "mount", counted(tool, pushed, target, place, {"registry": origin})


def counted(tool: Tool, pushed: Pushed, target: str, place: Path, sides: dict[str, DockerRegistry]) -> Run:
    before = {side: len(registry.requests()) for side, registry in sides.items()}
    measured = run(tool.commands(pushed, target, place))
    seen: dict[str, int] = {}
    for side, registry in sides.items():
        seen.update(by_kind(side, [record[:3] for record in registry.requests()[before[side] :]]))
    return replace(measured, requests=seen)


def summary(results: Results) -> Iterable[dict[str, Any]]:
    for (workload, phase, tool), runs in results.items():
        peers = [
            statistics.median(run.wall for run in others)
            for (name, when, other), others in results.items()
            if (name, when) == (workload, phase) and other != OURS.name
        ]
        wall = statistics.median(run.wall for run in runs)
        yield {
            "workload": workload,
            "phase": phase,
            "tool": tool,
            "wall": wall,
            "cpu": statistics.median(run.cpu for run in runs),
            "rss": max(run.rss for run in runs),
            "requests": runs[-1].requests,
            "total_requests": runs[-1].total_requests,
            "wall_over_best_peer": wall / min(peers) if peers and tool == OURS.name else None,
        }


def show_archives(rows: Iterable[dict[str, Any]]) -> None:
    table = Table("archives", "tool", "wall s", "cpu s", "peak MB", "disk MB", "moved MB", "wall / best other")
    for row in rows:
        ratio = row["wall_over_best_other"]
        table.add_row(
            row["phase"],
            row["tool"],
            f"{row['wall']:.2f}",
            f"{row['cpu']:.2f}",
            f"{row['rss'] / 1e6:.0f}",
            f"{row['disk'] / 1e6:.0f}",
            f"{row['moved'] / 1e6:.0f}" if row["moved"] else "",
            f"{ratio:.2f}" if ratio else "",
        )
    if table.row_count:
        Console(width=120).print(table)


def show_mirrors(rows: Iterable[dict[str, Any]], flow: Iterable[dict[str, Any]]) -> None:
    table = Table("mirrors", "tool", "wall s", "cpu s", "peak MB", "requests", "wall / best other")
    for row in rows:
        ratio = row["wall_over_best_other"]
        table.add_row(
            row["phase"],
            row["tool"],
            f"{row['wall']:.2f}",
            f"{row['cpu']:.2f}",
            f"{row['rss'] / 1e6:.0f}",
            str(row["requests"]),
            f"{ratio:.2f}" if ratio else "",
        )
    prefect = Table("mirrors", "run as", "wall s", "unchanged s", "ms each image", "of it Prefect's")
    for row in flow:
        added = row["prefect_per_image"]
        prefect.add_row(
            row["phase"],
            row["tool"],
            f"{row['wall']:.2f}",
            f"{row['wall_unchanged']:.2f}",
            f"{row['per_image'] * 1000:.1f}",
            f"{added * 1000:.1f} ms" if added is not None else "",
        )
    for one in (table, prefect):
        if one.row_count:
            Console(width=120).print(one)


def show_fleet(rows: Iterable[dict[str, Any]]) -> None:
    table = Table(
        "fleet",
        "processes",
        "wall s",
        "times one",
        "/ slowest image",
        "API requests",
        "shards",
        "requests / shard",
        "cores",
    )
    for row in rows:
        over = row["over_slowest_image"]
        table.add_row(
            row["phase"],
            str(row["processes"]),
            f"{row['wall']:.1f}",
            f"{row['times_one']:.2f}",
            f"{over:.2f}" if over else "",
            str(row["api_requests"]),
            str(row["shards"]),
            f"{row['requests_a_shard']:.1f}" if row["requests_a_shard"] is not None else "",
            f"{row['cores']:.2f}",
        )
    if table.row_count:
        Console(width=120).print(table)


def show_latency(rows: Iterable[dict[str, Any]]) -> None:
    table = Table("20 ms each way", "concurrency", "wall s", "cpu s", "peak MB", "wall / best fixed")
    for row in rows:
        table.add_row(
            row["phase"],
            row["concurrency"],
            f"{row['wall']:.2f}",
            f"{row['cpu']:.2f}",
            f"{row['rss'] / 1e6:.0f}",
            f"{row['wall_over_best_fixed']:.2f}",
        )
    if table.row_count:
        Console(width=120).print(table)


def show(rows: Iterable[dict[str, Any]]) -> None:
    table = Table("workload", "phase", "tool", "wall s", "cpu s", "peak MB", "requests", "wall / best peer")
    for row in rows:
        ratio = row["wall_over_best_peer"]
        table.add_row(
            row["workload"],
            row["phase"],
            row["tool"],
            f"{row['wall']:.2f}",
            f"{row['cpu']:.2f}",
            f"{row['rss'] / 1e6:.0f}",
            str(row["total_requests"]),
            f"{ratio:.2f}" if ratio else "",
        )
    if table.row_count:
        Console(width=120).print(table)


if __name__ == "__main__":
    sys.exit(main())
