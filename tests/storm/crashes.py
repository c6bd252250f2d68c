# ruff: noqa: E501 - a command is a line
"""Commands that are ended in the middle: by a signal, by the machine, by a registry that starts again."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.faults.proxy import Fault
from tests.storm.operations import _archive, _files, _half_exported, _half_made, _kept, _make_archive, _make_unwanted
from tests.storm.stage import Stage
from tests.support.command import PROGRAM
from tests.support.waiting import until

SECONDS_TO_END = 5.0
"""After Ctrl-C or SIGTERM."""


@dataclass(frozen=True, slots=True)
class Command:
    """`side` and `path` are the requests in the middle of which it is ended; `ruins` as in `operations`."""

    arguments: Callable[[Stage, str], list[str]]
    side: str
    method: str
    path: str
    ruins: Callable[[Stage, str], list[str]]
    prepare: Callable[[Stage, str], None] = lambda _stage, _name: None


def _mirrors(stage: Stage, name: str) -> str:
    path = stage.folder / f"{name}.yaml"
    path.write_text(
        f"version: 1\nmirrors:\n- name: web\n  source: {{repository: {stage.at('source', 'shop/web')}}}\n"
        f"  destinations: [{{repository: {stage.at('destination', name)}}}]\n"
    )
    return str(path)


def _half_pulled(stage: Stage, name: str) -> list[str]:
    folder = stage.folder / name
    return [str(path) for path in folder.rglob("*") if path.is_file()] if folder.exists() else []


UPLOADS = ("PUT", r"/blobs/uploads/")
READS = ("GET", r"/blobs/sha256")
COMMANDS: Mapping[str, Command] = {
    "copy": Command(
        lambda stage, name: ["copy", "-b", stage.bundle_at("source"), "--to-repo", stage.at("destination", name)],
        "destination", *UPLOADS, _half_made,
    ),
    "push": Command(
        lambda stage, name: ["push", "-b", stage.at("destination", f"{name}:v1"), "-f", _files(stage)],
        "destination", *UPLOADS, _half_made,
    ),
    "pull": Command(
        lambda stage, name: ["pull", "-b", stage.bundle_at("source"), "-o", str(stage.folder / name)],
        "source", *READS, _half_pulled,
    ),
    "export": Command(
        lambda stage, name: ["copy", "-b", stage.bundle_at("source"), "--to-tar", str(_archive(stage, name))],
        "source", *READS, _half_exported,
    ),
    "import": Command(
        lambda stage, name: ["copy", "--tar", str(_archive(stage, "whole")), "--to-repo", stage.at("destination", name)],
        "destination", *UPLOADS, _half_made, _make_archive,
    ),
    "mirror": Command(
        lambda stage, name: ["mirror", "run", "-f", _mirrors(stage, name)],
        "destination", *UPLOADS, _half_made,
    ),
    "prune": Command(
        lambda stage, name: ["prune", stage.at("destination", name), "--keep-tag", "v1", "--keep-tag", "v2", "--approve"],
        "destination", "DELETE", r"/manifests/", _kept, _make_unwanted,
    ),
}  # fmt: skip


def few_descriptors() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (14, 14))


def small_files() -> None:
    """As on a disk that is full: nothing grows beyond 60 KB."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))


SIGNALS: Mapping[str, int] = {"SIGKILL": signal.SIGKILL, "SIGTERM": signal.SIGTERM, "Ctrl-C": signal.SIGINT}
LIMITS: Mapping[str, Callable[[], None]] = {"descriptors": few_descriptors, "disk full": small_files}


def start(arguments: Sequence[str], folder: Path, limit: Callable[[], None] | None = None) -> subprocess.Popen[bytes]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("IMGPKG_", "TRANSSHIP_"))}
    return subprocess.Popen(
        [str(PROGRAM), *arguments],
        env={**kept, "HOME": str(folder), "XDG_CACHE_HOME": str(folder / "cache")},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        preexec_fn=limit,  # noqa: PLW1509 - nothing else forks meanwhile
    )


def crash(stage: Stage, what: str, command: Command, name: str) -> list[str]:
    """Ends one run in the middle, and gives what is wrong after it and after the next."""
    command.prepare(stage, name)
    stage.calm()
    proxy = stage.proxies[command.side]
    if what in SIGNALS:
        proxy.rules[:] = [Fault(method=command.method, path=command.path, first=1, delay=600.0)]
    elif what == "registry restarted":
        proxy.rules[:] = [Fault(method=command.method, path=command.path, last=1, refuse=0.5)]
    process = start(command.arguments(stage, name), stage.folder, LIMITS.get(what))
    wrong: list[str] = []
    if what in SIGNALS:
        until("a request in the middle", lambda: _reached(stage, command) or process.poll() is not None, every=0.02)
        process.send_signal(SIGNALS[what])
    sent = time.monotonic()
    _, said = process.communicate(timeout=120)
    if what in ("SIGTERM", "Ctrl-C"):
        wanted = {"SIGTERM": 143, "Ctrl-C": 130}[what]
        wrong += [f"code {process.returncode} instead of {wanted}"] if process.returncode != wanted else []
        wrong += ["took long to end"] if time.monotonic() - sent > SECONDS_TO_END else []
    if b"Traceback" in said:
        wrong.append(said.decode()[-500:])
    if process.returncode:
        wrong += [f"half-made: {ruin}" for ruin in command.ruins(stage, name)]
    stage.calm()
    process = start(command.arguments(stage, name), stage.folder)
    _, said = process.communicate(timeout=120)
    return [*wrong, *([f"the second run failed: {said.decode()[-500:]}"] if process.returncode else [])]


def _reached(stage: Stage, command: Command) -> bool:
    return stage.proxies[command.side].count(command.method, command.path) > 0
