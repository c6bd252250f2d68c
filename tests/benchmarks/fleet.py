"""The same relocation by one run alone, and with helpers, in four cases. Each process takes part from the moment that
a work pool gives it: what is measured is the time of the flow run, from Running to its end.

All of it is on this machine: a Prefect server with PostgreSQL, workers, registries. What a process waits for (distance,
a line of its own) is what several have more of; its processors are shared. On SQLite a server with five workers stood
still for minutes: it slept with a write transaction open, for which every other write waited its 60 seconds.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import yaml
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows import FleetOptions, RelocateParameters
from flows.parameters.relocate import SourceKind
from tasks.fleet.queue import NO_WORK
from tests.benchmarks.tools import IMAGES_LOCK
from tests.benchmarks.workloads import KIB, MIB, Image, Workload, push
from tests.servers.docker_registry import DockerRegistry
from tests.servers.postgresql import PostgreSQL
from tests.support.api_link import ApiLink
from tests.support.far_link import FarLink
from tests.support.flow_runs import is_over, read_run, start_run, with_client
from tests.support.prefect_server import FLEET_POOL, PrefectServer, deploy, settings_for
from tests.support.slow_link import SlowLink
from tests.support.waiting import until

HELPERS = (0, 3, 4)
"""Beside the run itself: 1, 4 and 5 processes."""
ROUND_TRIP = 0.05
"""Seconds, added to every one."""
LONG_TRIP = 0.3
"""So far away that the processors of one machine, which all processes and both registries share, wait with them."""
LINE = 20_000_000
"""Bytes a second that a process gets from the source."""
SLOW_LINE = 400_000
CONCURRENCY = 4
LONGEST = 900
"""Seconds of one run."""


def small() -> Workload:
    images = tuple(Image(f"small/app{number:04}", ((400_000 + number, 4 * KIB),)) for number in range(3000))
    return Workload("small", "3,000 images of a layer of 4 KiB, 50 ms away", images)


def distant() -> Workload:
    images = tuple(Image(f"distant/app{number:03}", ((430_000 + number, 4 * KIB),)) for number in range(540))
    return Workload("distant", "540 images of a layer of 4 KiB, 300 ms away", images)


def bodies() -> Workload:
    images = tuple(Image(f"bodies/app{number:02}", ((410_000 + number, 64 * MIB),)) for number in range(96))
    return Workload("bodies", "96 images of 64 MiB, 20 MB/s for each process", images)


def slow() -> Workload:
    first = Image("slow/first", ((420_000, 40 * MIB),))
    rest = tuple(Image(f"slow/app{number:03}", ((420_001 + number, 4 * KIB),)) for number in range(200))
    return Workload("slow", "200 small images, 50 ms away, and one of 40 MiB at 400 kB/s", (first, *rest))


@dataclass(frozen=True, slots=True)
class Place:
    """The address of a registry, as images of a workload see it."""

    of_image: Callable[[str], str]
    """By repository."""


@contextmanager
def far(registry: DockerRegistry, round_trip: float = ROUND_TRIP) -> Iterator[Place]:
    with FarLink(registry.host, round_trip) as link:
        yield Place(lambda repository: link.address)


@contextmanager
def line_for_each(registry: DockerRegistry) -> Iterator[Place]:
    with SlowLink(registry.host, LINE, each_process=True) as link:
        yield Place(lambda repository: link.address)


@contextmanager
def one_slow(registry: DockerRegistry) -> Iterator[Place]:
    with FarLink(registry.host, ROUND_TRIP) as link, SlowLink(registry.host, SLOW_LINE) as narrow:
        yield Place(lambda repository: narrow.address if repository == "slow/first" else link.address)


@dataclass(frozen=True, slots=True)
class Case:
    workload: Callable[[], Workload]
    source: Callable[[DockerRegistry], AbstractContextManager[Place]]
    round_trip: float
    """Seconds that are added to each way to the destination and back; 0: none."""


CASES = {
    "small": Case(small, far, ROUND_TRIP),
    "distant": Case(distant, partial(far, round_trip=LONG_TRIP), LONG_TRIP),
    "bodies": Case(bodies, line_for_each, 0),
    "slow": Case(slow, one_slow, ROUND_TRIP),
}


@dataclass(frozen=True, slots=True)
class Measured:
    """Times in seconds."""

    wall: float
    slowest_image: float
    api_requests: int
    shards: int
    cores: float
    """Processors of this machine that were busy, with those of registries, links and the Prefect server: where one
    process takes half of all, several can't be more than twice as fast."""
    decision: str


def measure_fleet(runs: int, cases: Sequence[str]) -> list[dict[str, Any]]:
    """One row for each case and number of helpers, with the median of its runs."""
    rows = []
    for name in cases:
        with tempfile.TemporaryDirectory() as folder:
            found = measure(Path(folder), CASES[name], runs)
        walls = {helpers: statistics.median(one.wall for one in ran) for helpers, ran in found.items()}
        for helpers, ran in found.items():
            last = ran[-1]
            rows.append(
                {
                    "phase": CASES[name].workload().says,
                    "processes": 1 + helpers,
                    "wall": walls[helpers],
                    "times_one": walls[0] / walls[helpers] if walls.get(0) else None,
                    "over_slowest_image": walls[helpers] / last.slowest_image if name == "slow" else None,
                    "api_requests": last.api_requests,
                    "shards": last.shards,
                    "cores": last.cores,
                    "requests_a_shard": _requests_a_shard(last, found.get(0)),
                    "decision": last.decision,
                }
            )
    return rows


def _requests_a_shard(fleet: Measured, alone: Sequence[Measured] | None) -> float | None:
    """Without those of the run alone, which has no shards."""
    return (fleet.api_requests - alone[-1].api_requests) / fleet.shards if fleet.shards and alone else None


def measure(folder: Path, case: Case, runs: int) -> dict[int, list[Measured]]:
    """By number of helpers; the numbers take turns."""
    found: dict[int, list[Measured]] = {helpers: [] for helpers in HELPERS}
    with ExitStack() as stack:
        server = stack.enter_context(PrefectServer(made(folder / "prefect"), stack.enter_context(PostgreSQL())))
        deploy(server)
        stack.enter_context(settings_for(server))
        origin = stack.enter_context(DockerRegistry(folder / "origin"))
        pushed = push(case.workload(), origin.url, origin.host)
        place = stack.enter_context(case.source(origin))
        images = [f"{place.of_image(repository)}/{repository}@{digest}" for repository, digest in pushed.images]
        for number in range(runs):
            for helpers in HELPERS:
                print(f"fleet: run {number + 1} of {runs}: {helpers} helpers", file=sys.stderr)
                with DockerRegistry(folder / f"destination-{number}-{helpers}") as registry, ExitStack() as around:
                    host = registry.host
                    if case.round_trip:
                        host = around.enter_context(FarLink(registry.host, case.round_trip)).address
                    link = around.enter_context(ApiLink(server.api))
                    around.enter_context(temporary_settings({PREFECT_API_URL: link.api}))
                    environ = {"PREFECT_API_URL": link.api}
                    around.enter_context(server.worker("transship", "--limit", "1", environ=environ))
                    for _ in range(helpers):
                        around.enter_context(server.worker(FLEET_POOL, "--limit", "1", environ=environ))
                    found[helpers].append(timed(images, f"{host}/mirror/set", folder, helpers, link))
                    print(found[helpers][-1], file=sys.stderr)
    return found


def timed(images: list[str], destination: str, folder: Path, helpers: int, link: ApiLink) -> Measured:
    lock = folder / "images.lock.yml"
    lock.write_text(yaml.safe_dump({**IMAGES_LOCK, "images": [{"image": image} for image in images]}))
    report = folder / f"report-{helpers}.json"
    report.unlink(missing_ok=True)
    parameters = RelocateParameters(
        kind=SourceKind.LOCK,
        source=str(lock),
        destination=destination,
        concurrency=CONCURRENCY,
        fleet=FleetOptions(helpers=helpers) if helpers else None,
        report=str(report),
    )
    began, used_before = time.monotonic(), machine_cpu()
    run = start_run("relocate", parameters.to_dict())
    until("the end of the run", lambda: is_over(run), LONGEST)
    cores = (machine_cpu() - used_before) / (time.monotonic() - began)
    ended = read_run(run)
    assert ended.state_name == "Completed", ended.state
    written = yaml.safe_load(report.read_text())
    assert written["images_copied"] == len(images), ended.state
    own = own_requests(link, ended)
    shards = [key for key, text in inputs(run).items() if "-shard-" in key and text != NO_WORK]
    slowest = max(image["seconds"] for image in written["biggest"])
    return Measured(ended.total_run_time.total_seconds(), slowest, own, len(shards), cores, written["fleet"])


def machine_cpu() -> float:
    """Returns the seconds that the processors of this machine have been busy."""
    user, nice, system, *_ = Path("/proc/stat").read_text().split(maxsplit=4)[1:4]
    return (int(user) + int(nice) + int(system)) / os.sysconf("SC_CLK_TCK")


def own_requests(link: ApiLink, run: FlowRun) -> int:
    """Requests of runs: not those of workers that ask for work, nor those with which this program waits."""
    polls = ("/work_pools/", f"GET /api/flow_runs/{run.id}")
    return sum(count for name, count in link.requests.items() if not any(poll in name for poll in polls))


def inputs(run: UUID) -> dict[str, str]:
    found = with_client(lambda client: client.filter_flow_run_input(run, "shards-", 10_000, set()))
    return {entry.key: entry.value for entry in found}


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder
