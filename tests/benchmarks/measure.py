"""One run of one command, by the operating system's own account of the finished process."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field


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
    started = time.monotonic()
    cpu, rss = 0.0, 0
    for command in commands:
        with tempfile.TemporaryFile() as output:
            process = subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode != 0:
                output.seek(0)
                raise CommandFailed(f"{' '.join(command)}: {output.read()[-2000:].decode(errors='replace')}")
        cpu += usage.ru_utime + usage.ru_stime
        rss = max(rss, usage.ru_maxrss * 1024)
        if time.monotonic() - started > timeout:
            raise CommandFailed(f"{' '.join(command)}: took longer than {timeout:.0f} s")
    return Run(time.monotonic() - started, cpu, rss)


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
