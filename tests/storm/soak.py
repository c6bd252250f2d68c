"""Mirrors for an hour, with faults: `python -m tests.storm.soak [--seconds N] [--seed N]`.

One `transship mirror watch` keeps four repositories, whose tags move all the while, through proxies that play the rows
of the storm. Its memory, descriptors and threads stay as they are; it ends with all of its runs; and what it leaves is
what the source has, every byte of it.
"""

from __future__ import annotations

import argparse
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.faults.proxy import FaultProxy
from tests.servers.docker_registry import DockerRegistry
from tests.storm.faults import PLACES, ROWS
from tests.storm.walk import Walker
from tests.support import content
from tests.support.command import PROGRAM, transship
from tests.support.waiting import until

REPOSITORIES = tuple(f"shop/web{number}" for number in range(4))
TAGS = 30
"""At most, in each repository: they move."""
STEP = 3.0
"""Seconds between two changes, of the source and of the weather."""
REQUESTS = 100
"""A second, to each of the two registries."""
SETTINGS = {
    "retry-count": 2,
    "retry-budget": "5s",
    "response-header-timeout": "2s",
    "idle-timeout": "2s",
    "connect-timeout": "2s",
    "requests-per-second": REQUESTS,
}

ROOM = 24 << 20
"""Bytes by which the memory may be larger in the last third than in the second, whatever Python keeps for later."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Of the process: bytes of memory, open descriptors, threads."""

    memory: int
    descriptors: int
    threads: int

    @classmethod
    def of(cls, process: int) -> Sample:
        place = Path(f"/proc/{process}")
        resident = next(line for line in (place / "status").read_text().splitlines() if line.startswith("VmRSS"))
        return cls(
            int(resident.split()[1]) << 10, len(list((place / "fd").iterdir())), len(list((place / "task").iterdir()))
        )


@dataclass(slots=True)
class Soaked:
    """What became of it: `wrong` is empty when all is well."""

    seconds: float = 0.0
    samples: list[Sample] = field(default_factory=list)
    changes: int = 0
    faults: int = 0
    requests: int = 0
    busiest: int = 0
    """Requests in the busiest second."""
    runs: int = 0
    failed_runs: int = 0
    wrong: list[str] = field(default_factory=list)

    def thirds(self) -> Iterator[tuple[str, float, float]]:
        """In the second and in the last third, the median of memory, and the least descriptors and threads: those that
        stay when no run is under way. A run has up to fifty threads more, and on a busy machine there is nearly always
        one."""
        count = len(self.samples) // 3
        second, last = self.samples[count : 2 * count], self.samples[2 * count :]
        for name, of in (("memory", statistics.median), ("descriptors", min), ("threads", min)):
            before, after = (of([getattr(sample, name) for sample in part]) for part in (second, last))
            yield name, before, after

    def grown(self) -> list[str]:
        """What is more in the last third than in the second."""
        room = {"memory": ROOM}
        return [
            f"{name} grew from {before} to {after}"
            for name, before, after in self.thirds()
            if after > before + room.get(name, 3)
        ]

    def __str__(self) -> str:
        figures = [
            f"{name} {before / 2**20:.1f} MiB, then {after / 2**20:.1f} MiB"
            if name == "memory"
            else f"{name} {before:.0f}, then {after:.0f}"
            for name, before, after in self.thirds()
        ]
        return (
            f"{self.seconds:.0f} s: {self.changes} changes, {self.faults} faults, {self.requests} requests (at most "
            f"{self.busiest} in a second), {self.runs} runs of which {self.failed_runs} met faults; "
            f"{'; '.join(figures)}"
        )


def soak(folder: Path, seconds: float, seed: int) -> Soaked:
    found = Soaked()
    chance = random.Random(seed)
    with (
        DockerRegistry(folder / "a") as source,
        DockerRegistry(folder / "b") as destination,
        FaultProxy(source.port) as near,
        FaultProxy(destination.port) as far,
    ):
        log = folder / "log"
        with _watching(folder, near, far, log) as process:
            begun = time.monotonic()
            while (left := begun + seconds - time.monotonic()) > 0:
                _change(source, chance, found)
                proxy = chance.choice((near, far))
                if chance.random() < 0.7:
                    _blow(proxy, chance)
                    found.faults += 1
                _wait(min(STEP, left), process, found)
                _count((near, far), found)
                near.rules.clear()
                far.rules.clear()
            found.seconds = time.monotonic() - begun
            found.wrong += _arrived(source, destination)
            process.send_signal(signal.SIGTERM)
            code = process.wait(60)
        found.wrong += [f"it ended with {code}"] if code else []
        found.wrong += _complete(source, destination)
        _read_log(log.read_text(), found)
        found.wrong += [f"left: {path}" for path in (folder / "home").rglob("uploads/*")]
    found.wrong += found.grown()
    found.wrong += [f"{found.busiest} requests in a second"] if found.busiest > 2 * REQUESTS * 1.1 else []
    return found


@contextmanager
def _watching(folder: Path, near: FaultProxy, far: FaultProxy, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    mirrors: list[dict[str, Any]] = [
        {
            "name": name.replace("/", "-"),
            "source": {"repository": f"{near.host}/{name}"},
            "destinations": [{"repository": f"{far.host}/{name}"}],
        }
        for name in REPOSITORIES
    ]
    path = folder / "mirrors.yaml"
    path.write_text(yaml.safe_dump({"version": 1, "mirrors": mirrors}))
    home = folder / "home"
    home.mkdir()
    flags = ["--interval=2s", "--jitter=0s", "--port=0"]
    flags += [f"--registry-{name}={value}" for name, value in SETTINGS.items()]
    with log.open("wb") as written:
        process = subprocess.Popen(
            [
                str(PROGRAM),
                "mirror",
                "watch",
                "-f",
                str(path),
                "--interval",
                "2s",
                "--jitter",
                "0s",
                "--port",
                "0",
                *flags,
            ],
            env={"PATH": "/usr/bin:/bin", "HOME": str(home), "XDG_CACHE_HOME": str(home)},
            stdin=subprocess.DEVNULL,
            stdout=written,
            stderr=written,
        )
    try:
        until("the first run", lambda: "listening" in log.read_text(), every=0.1)
        yield process
    finally:
        process.kill()
        process.wait()


def _change(source: DockerRegistry, chance: random.Random, found: Soaked) -> None:
    number = chance.randrange(1 << 30)
    made = content.image(number, layers=(content.layer(chance.randrange(20)), content.noise(number, 100_000)))
    tags = {f"v{chance.randrange(TAGS)}", chance.choice(("latest", "edge", "stable"))}
    content.push(source.url, chance.choice(REPOSITORIES), made, *tags)
    found.changes += 1


def _blow(proxy: FaultProxy, chance: random.Random) -> None:
    row = chance.choice(ROWS)
    method, path = PLACES[row.place]
    proxy.rules.append(row.fault(chance.randrange(1, 6), method, path))


def _wait(seconds: float, process: subprocess.Popen[bytes], found: Soaked) -> None:
    """Takes a sample of the process each second."""
    end = time.monotonic() + seconds

    def over() -> bool:
        assert process.poll() is None, f"it ended with {process.returncode}"
        found.samples.append(Sample.of(process.pid))
        return time.monotonic() >= end

    until("the next step", over, seconds + 60, every=min(1.0, seconds))


def _count(proxies: Sequence[FaultProxy], found: Soaked) -> None:
    at: dict[int, int] = {}
    for proxy in proxies:
        seen, proxy.seen = proxy.seen, []
        proxy.spans.clear()
        for moment, _, _ in seen:
            at[int(moment)] = at.get(int(moment), 0) + 1
    found.requests += sum(at.values())
    found.busiest = max(found.busiest, *at.values(), 0)


def _walkers(source: DockerRegistry, destination: DockerRegistry) -> tuple[Walker, Walker]:
    return Walker(source.url, {}), Walker(destination.url, {})


def _arrived(source: DockerRegistry, destination: DockerRegistry) -> list[str]:
    """In calm weather, what the source shows is soon shown by the destination."""
    near, far = _walkers(source, destination)
    try:
        for name in REPOSITORIES:
            until(f"all of {name}", lambda name=name: near.tags(name) == far.tags(name), 120, every=1.0)  # type: ignore[misc]
    except AssertionError as error:
        return [str(error)]
    finally:
        near.http.close()
        far.http.close()
    return []


def _complete(source: DockerRegistry, destination: DockerRegistry) -> list[str]:
    near, far = _walkers(source, destination)
    try:
        wrong = [problem for name in REPOSITORIES for problem in far.half_made(name)]
    finally:
        near.http.close()
        far.http.close()
    everything = [f"--all-tags={destination.host}/{name}" for name in REPOSITORIES]
    done = transship("verify", "--deep", "--no-state", *everything)
    return [*wrong, *([done.err] if done.code else [])]


def _read_log(text: str, found: Soaked) -> None:
    for line in text.splitlines():
        one = re.search(r" (INFO|ERROR) +(shop-web\d): (?!.*: 127)", line)
        if one:
            found.runs += 1
            found.failed_runs += one.group(1) == "ERROR"
    found.wrong += [text[-3000:]] if "Traceback" in text else []
    found.wrong += ["no run is known of"] if not found.runs else []


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=3600.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        found = soak(Path(name), options.seconds, options.seed)
    print(found)
    print("\n".join(found.wrong) or "All is well.")
    return 1 if found.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
