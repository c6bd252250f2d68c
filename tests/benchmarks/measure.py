"""One run of one command, by the operating system's own account of the finished process."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

LAUNCHER = Path(__file__).with_name("launch.py")


@dataclass(frozen=True, slots=True)
class Run:
    """Seconds and bytes of one finished command, and what it made the registries see."""

    wall: float
    cpu: float
    rss: int
    requests: dict[str, int] = field(default_factory=dict)

    @property
    def total_requests(self) -> int:
        return sum(self.requests.values())


class CommandFailed(Exception):
    """A measured command ended with an error: its figures would mean nothing."""


def run(commands: Sequence[Sequence[str]], *, timeout: float = 900) -> Run:
    """Runs the commands one after the other as one measurement; memory is the largest of them."""
    wall, cpu, rss = 0.0, 0.0, 0
    # Compiling Python anew at every start is nothing that an installed program does.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    for command in commands:
        with tempfile.NamedTemporaryFile("r") as report, tempfile.TemporaryFile() as output:
            subprocess.run(
                [sys.executable, "-I", "-S", str(LAUNCHER), report.name, *command],
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                timeout=timeout,
                check=True,
                env=environment,
            )
            code, one_wall, one_cpu, one_rss = report.read().split()
            if int(code) != 0:
                output.seek(0)
                raise CommandFailed(f"{' '.join(command)}: {output.read()[-2000:].decode(errors='replace')}")
        wall += float(one_wall)
        cpu += float(one_cpu)
        rss = max(rss, int(one_rss))
    return Run(wall, cpu, rss)


def by_kind(side: str, records: Sequence[tuple[str, str, int]]) -> Counter[str]:
    """Counts access-log records (method, path, status) as `source GET blob` and so on."""
    counts: Counter[str] = Counter()
    for method, path, _ in records:
        counts[f"{side} {method} {kind(path)}"] += 1
    return counts


def kind(path: str) -> str:
    for part, name in (
        ("/blobs/uploads", "upload"),
        ("/blobs/", "blob"),
        ("/manifests/", "manifest"),
        ("/tags/", "tags"),
        ("/referrers/", "referrers"),
    ):
        if part in path:
            return name
    return "ping"
