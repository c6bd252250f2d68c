"""A mirror of a thousand tags with nothing to do, beside the tools that can keep one; many repositories of which little
changed, near and far; and what it costs to run a mirror as a Prefect flow."""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.benchmarks.measure import Run, run
from tests.benchmarks.tools import PROGRAM
from tests.servers.docker_registry import DockerRegistry
from tests.servers.registry_data import seed
from tests.support.content import image
from tests.support.far_link import FarLink
from tests.support.mirroring import many, variant
from tests.support.prefect_server import PrefectServer

TAGS = 1000
CHANGED = 200
SOURCE, TARGET = "shop/web", "mirror/shop/web"
REPOSITORIES, TAGS_EACH, NEW = 200, 10, 5
ROUND_TRIP = 0.05
IMMUTABLE = "transship, tags declared immutable"
_FLOW = "import sys; from flows import mirror_sync, MirrorParameters; mirror_sync(MirrorParameters(path=sys.argv[1]))"


@dataclass(frozen=True, slots=True)
class Keeper:
    """A tool that keeps a repository like another."""

    name: str
    command: Sequence[str]


def keepers(origin: str, destination: str, folder: Path) -> list[Keeper]:
    skopeo = folder / "skopeo.yml"
    skopeo.write_text(yaml.safe_dump({origin: {"tls-verify": False, "images": {SOURCE: []}}}))
    regsync = folder / "regsync.yml"
    rule = {"source": f"{origin}/{SOURCE}", "target": f"{destination}/{TARGET}", "type": "repository"}
    plain = [{"registry": host, "tls": "disabled"} for host in (origin, destination)]
    regsync.write_text(yaml.safe_dump({"version": 1, "creds": plain, "sync": [rule]}))
    sync = ("skopeo", "--insecure-policy", "sync", "--src", "yaml", "--dest", "docker", "--dest-tls-verify=false")
    found = [
        Keeper("transship", _ours(mirrors_file(folder, origin, destination))),
        Keeper(IMMUTABLE, _ours(mirrors_file(folder, origin, destination, immutable=[".*"]))),
        Keeper("skopeo", [*sync, "--all", "--scoped=false", str(skopeo), f"{destination}/mirror/shop"]),
        Keeper("regsync", ["regsync", "once", "-c", str(regsync)]),
    ]
    return [keeper for keeper in found if shutil.which(keeper.command[0])]


def mirrors_file(folder: Path, origin: str, destination: str, **more: Any) -> Path:
    mirror = {
        "name": "web",
        "source": {"repository": f"{origin}/{SOURCE}"},
        "destinations": [{"repository": f"{destination}/{TARGET}"}],
        **more,
    }
    path = folder / f"mirrors-{len(list(folder.iterdir()))}.yaml"
    path.write_text(yaml.safe_dump({"version": 1, "mirrors": [mirror]}))
    return path


def measure_mirrors(runs: int) -> list[dict[str, Any]]:
    """One row for each tool, with the median of its runs; each pair of runs is made one after the other."""
    seen: dict[str, list[Run]] = {}
    requests: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        with DockerRegistry(place / "origin") as origin, DockerRegistry(place / "destination") as destination:
            seed(origin, SOURCE, many(TAGS))
            seed(destination, TARGET, many(TAGS))
            (place / "files").mkdir()
            tools = keepers(origin.host, destination.host, place / "files")
            for _ in range(runs):
                for tool in tools:
                    print(f"mirrors: {tool.name}", file=sys.stderr)
                    before = len(origin.requests()) + len(destination.requests())
                    seen.setdefault(tool.name, []).append(run([tool.command]))
                    requests[tool.name] = len(origin.requests()) + len(destination.requests()) - before
    return [{"phase": f"{TAGS} unchanged tags", **row} for row in _rows(seen, requests)]


def _rows(seen: dict[str, list[Run]], requests: dict[str, int]) -> Iterator[dict[str, Any]]:
    walls = {name: statistics.median(one.wall for one in runs) for name, runs in seen.items()}
    best = min((wall for name, wall in walls.items() if not name.startswith("transship")), default=0.0)
    for name, runs in seen.items():
        yield {
            "tool": name,
            "wall": walls[name],
            "cpu": statistics.median(one.cpu for one in runs),
            "rss": max(one.rss for one in runs),
            "requests": requests[name],
            "wall_over_best_other": walls[name] / best if best and name.startswith("transship") else None,
        }


FAR: tuple[tuple[str, list[int], bool], ...] = (
    ("39 repositories, 51 tags, 50 ms", [2] * 12 + [1] * 27, True),
    ("1000 mirrors of one tag, 50 ms", [1] * 1000, True),
    ("100 repositories, 10,000 tags, 50 ms", [100] * 100, False),
)
"""What it is, the tags of each repository, and whether its rule names them; else a pattern takes them."""


def measure_estate(runs: int) -> list[dict[str, Any]]:
    """Many repositories of which five tags changed, each tool with a destination of its own in each run; and unchanged
    ones behind a long way, by ours alone."""
    seen: dict[str, list[Run]] = {}
    requests: dict[str, int] = {}
    names = [f"app-{number}" for number in range(REPOSITORIES)]
    with tempfile.TemporaryDirectory() as folder, DockerRegistry(Path(folder) / "origin") as origin:
        for name in names:
            seed(origin, name, many(TAGS_EACH))
        for number in range(runs):
            for tool in ("transship", "skopeo"):
                place = Path(folder) / f"{tool}-{number}"
                place.mkdir()
                with DockerRegistry(place / "destination") as destination:
                    _seed_behind(destination, names)
                    command = _estate_command(tool, place, origin.host, destination.host, names)
                    if command is None:
                        continue
                    print(f"estate: {tool}", file=sys.stderr)
                    before = len(origin.requests())
                    seen.setdefault(tool, []).append(run([command]))
                    requests[tool] = len(origin.requests()) - before + len(destination.requests())
    changed = f"{REPOSITORIES * TAGS_EACH} tags, {NEW} changed"
    return [*({"phase": changed, **row} for row in _rows(seen, requests)), *_far_rows(runs)]


def _seed_behind(destination: DockerRegistry, names: Sequence[str]) -> None:
    """All tags, those of five repositories with one that shows another image."""
    for number, name in enumerate(names):
        tags = many(TAGS_EACH)
        if number < NEW:
            tags["v0000"] = variant(image(1), TAGS_EACH)
        seed(destination, f"mirror/{name}", tags)


def _estate_command(
    tool: str, place: Path, origin: str, destination: str, names: Sequence[str]
) -> Sequence[str] | None:
    """None where the tool isn't there."""
    if tool == "transship":
        return _ours(estate_file(place, origin, destination, names))
    path = place / "skopeo.yml"
    path.write_text(yaml.safe_dump({origin: {"tls-verify": False, "images": {name: [] for name in names}}}))
    sync = ("skopeo", "--insecure-policy", "sync", "--src", "yaml", "--dest", "docker", "--dest-tls-verify=false")
    return [*sync, "--all", "--scoped=false", str(path), f"{destination}/mirror"] if shutil.which(tool) else None


def estate_file(
    folder: Path, origin: str, destination: str, names: Sequence[str], allow: Sequence[Sequence[str]] = ()
) -> Path:
    """`allow` has the patterns of each mirror's rule; without it every tag is taken."""
    mirrors: list[dict[str, Any]] = [
        {
            "name": name,
            "source": {"repository": f"{origin}/{name}"},
            "destinations": [{"repository": f"{destination}/mirror/{name}"}],
        }
        for name in names
    ]
    for mirror, patterns in zip(mirrors, allow, strict=False):
        mirror["tags"] = [{"allow": list(patterns)}]
    path = folder / "estate.yaml"
    path.write_text(yaml.safe_dump({"version": 1, "mirrors": mirrors}))
    return path


def _far_rows(runs: int) -> Iterator[dict[str, Any]]:
    """Unchanged mirrors, with 50 ms added to each round trip of both registries."""
    for phase, counts, literal in FAR:
        names = [f"app-{number}" for number in range(len(counts))]
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            with DockerRegistry(place / "origin") as origin, DockerRegistry(place / "destination") as destination:
                for name, count in zip(names, counts, strict=True):
                    seed(origin, name, many(count))
                    seed(destination, f"mirror/{name}", many(count))
                with FarLink(origin.host, ROUND_TRIP) as there, FarLink(destination.host, ROUND_TRIP) as back:
                    allow = [list(many(count)) if literal else ["v[0-9]+"] for count in counts]
                    path = estate_file(place, there.address, back.address, names, allow)
                    print(f"estate: {phase}", file=sys.stderr)
                    measured = [run([_ours(path)]) for _ in range(runs)]
                requests = (len(origin.requests()) + len(destination.requests())) // runs
        yield from ({"phase": phase, **row} for row in _rows({"transship": measured}, {"transship": requests}))


def measure_flow(runs: int) -> list[dict[str, Any]]:
    """Seconds that Prefect adds to a changed image: the flow and the command, each with many changed images and with
    none, against a running server."""
    walls: dict[tuple[str, int], list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "prefect"
        home.mkdir()
        with PrefectServer(home) as server:
            for number in range(runs):
                for name, count, wall in _flow_and_command(Path(folder) / str(number), server):
                    walls.setdefault((name, count), []).append(wall)
    middle = {key: statistics.median(values) for key, values in walls.items()}
    added = {name: (middle[name, CHANGED] - middle[name, 0]) / CHANGED for name in ("flow", "command")}
    return [
        {
            "phase": f"{CHANGED} changed images",
            "tool": name,
            "wall": middle[name, CHANGED],
            "wall_unchanged": middle[name, 0],
            "per_image": added[name],
            "prefect_per_image": added["flow"] - added["command"] if name == "flow" else None,
        }
        for name in ("flow", "command")
    ]


def _flow_and_command(folder: Path, server: PrefectServer) -> Iterator[tuple[str, int, float]]:
    folder.mkdir()
    with DockerRegistry(folder / "origin") as origin:
        seed(origin, SOURCE, many(CHANGED))
        for name in ("flow", "command"):
            with DockerRegistry(folder / name) as destination:
                (folder / f"{name}-files").mkdir()
                path = mirrors_file(folder / f"{name}-files", origin.host, destination.host)
                for count in (CHANGED, 0):
                    print(f"mirrors: {name}, {count} changed images", file=sys.stderr)
                    yield name, count, _wall(name, path, server, folder)


def _wall(name: str, path: Path, server: PrefectServer, folder: Path) -> float:
    """The command in the environment of the flow, so that both start from the same."""
    command = _ours(path) if name == "command" else [sys.executable, "-c", _FLOW, str(path)]
    before = dict(os.environ)
    os.environ.update(server.environment | {"XDG_CACHE_HOME": str(folder / "cache")})
    try:
        return run([command]).wall
    finally:
        os.environ.clear()
        os.environ.update(before)


def _ours(path: Path) -> list[str]:
    return [PROGRAM, "mirror", "run", "-f", str(path)]
