"""`transship mirror watch`."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

import httpx
import pytest

from flows.cli.mirror.watch import CONNECTIONS_OF_A_PEER, Batch, Watch, _read_again
from flows.cli.output import ExitCode
from oci.mirror.config import Mirror
from oci.mirror.policy import Schedule
from oci.mirror.results import MirrorReport
from tests.servers.docker_registry import DockerRegistry
from tests.servers.registry_data import seed
from tests.support.command import PROGRAM
from tests.support.content import image, push
from tests.support.mirroring import mirror_of
from tests.support.waiting import PATIENCE, until

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


def named(name: str, **more: object) -> Mirror:
    return mirror_of("registry.example/web", "registry.corp.example/web", **more).with_(name=name)


def report_of(mirror: Mirror) -> MirrorReport:
    return MirrorReport(mirror=mirror.name, source=str(mirror.source), destinations=())


class Runs:
    """Batches that end when they are let go, at a time that the test sets."""

    def __init__(self, *mirrors: Mirror, hours: int = 1) -> None:
        self.now = NOON
        self.begun: list[list[str]] = []
        self.go = threading.Semaphore(0)
        self.watch = Watch(interval=timedelta(hours=hours), now=lambda: self.now)
        self.use(*mirrors)

    def use(self, *mirrors: Mirror) -> None:
        self.watch.use(mirrors, self._run)

    def _run(self, mirrors: Sequence[Mirror], done: Callable[[MirrorReport], None]) -> None:
        self.begun.append([mirror.name for mirror in mirrors])
        self.go.acquire()
        for mirror in mirrors:
            done(report_of(mirror))

    def later(self, **time: float) -> None:
        self.now += timedelta(**time)
        self.watch._wake.set()
        states = self.watch._states
        until("what is due was seen", lambda: all(one.due is None or one.due > self.now for one in states.values()))

    def __enter__(self) -> Self:
        self._loop = threading.Thread(target=self.watch.loop)
        self._loop.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.go.release(1000)
        self.watch.drain()
        self._loop.join()


def test_a_mirror_without_a_schedule_runs_at_once_and_others_when_they_are_due() -> None:
    nightly = named("nightly", schedule={"cron": "0 13 * * *"})
    with Runs(named("web"), nightly) as runs:
        runs.go.release(1000)
        until("the first run", lambda: runs.begun == [["web"]] and runs.watch.late() == [])
        runs.later(hours=1)
        until("the second runs", lambda: sorted(runs.begun[-1]) == ["nightly", "web"])
        until("their end", lambda: 'mirror="nightly"' in runs.watch.metrics())


def test_a_mirror_runs_at_most_once_at_a_time_and_holds_up_no_other() -> None:
    with Runs(named("web")) as runs:
        until("a run that doesn't end", lambda: runs.begun == [["web"]])
        runs.use(named("web"), named("quick"))
        until("the other mirror", lambda: runs.begun[1:] == [["quick"]])
        runs.later(hours=1)
        runs.later(hours=1)
        assert runs.begun == [["web"], ["quick"]]
        runs.go.release(2)
        until("both have ended", lambda: not runs.watch._running)
        runs.later(hours=1)
        until("both again", lambda: runs.begun[2:] == [["web", "quick"]])


def test_a_mirror_is_late_when_two_of_its_intervals_have_passed_without_an_end() -> None:
    with Runs(named("web"), named("nightly", schedule={"cron": "0 3 * * *"})) as runs:
        assert runs.watch.late() == ["web"]
        runs.go.release(1)
        until("the first run has ended", lambda: runs.watch.late() == [])
        runs.later(hours=1)
        until("a run that doesn't end", lambda: len(runs.begun) == 2)
        assert runs.watch.late() == []
        runs.later(hours=1, minutes=1)
        assert runs.watch.late() == ["web"]
        runs.later(hours=40)
        assert sorted(runs.watch.late()) == ["nightly", "web"]


def test_a_schedule_that_changes_holds_from_then_on_and_a_mirror_that_is_gone_runs_no_more() -> None:
    with Runs(named("web", schedule={"cron": "0 13 * * *"}), named("gone", schedule={"cron": "0 13 * * *"})) as runs:
        runs.go.release(1000)
        runs.use(named("web", schedule={"cron": "0 14 * * *"}))
        runs.later(hours=1)
        runs.later(hours=1)
        until("its run", lambda: runs.begun == [["web"]])


def test_the_starts_of_an_interval_are_spread_by_name() -> None:
    hourly = Schedule(interval=timedelta(hours=1))
    starts = {hourly.following(NOON, f"mirror-{number}") for number in range(50)}

    assert len(starts) > 40
    assert all(start is not None and NOON < start <= NOON + timedelta(hours=1) for start in starts)


def test_of_two_signals_in_a_row_the_later_reading_counts() -> None:
    """The first reading takes its time: what it has read is older than what the second one reads."""
    runs, slow, begun, said = Runs(), threading.Event(), list[int](), list[str]()

    def read() -> tuple[Sequence[Mirror], Batch]:
        begun.append(len(begun))
        name = f"read-{len(begun)}"
        if len(begun) == 1:
            slow.wait(PATIENCE)
        said.append(name)
        return [named(name)], runs._run

    with _read_again(runs.watch, read):
        os.kill(os.getpid(), signal.SIGHUP)
        until("the first reading", lambda: len(begun) == 1)
        os.kill(os.getpid(), signal.SIGHUP)
        time.sleep(0.3)
        slow.set()
        until("both were read", lambda: len(said) == 2)
        until("the later one is used", lambda: list(runs.watch._states) == ["read-2"])
        time.sleep(0.1)
    assert list(runs.watch._states) == ["read-2"]


def test_a_mirror_runs_with_the_file_that_it_was_read_from() -> None:
    """What a host needs stands in the same file: a batch of an older one doesn't run with the settings of a newer."""
    files: list[str] = []

    def of(file: str) -> Batch:
        return lambda mirrors, done: files.extend(f"{file} {mirror.name}" for mirror in mirrors)

    watch = Watch(interval=timedelta(hours=1), now=lambda: NOON)
    watch.use([named("web")], of("old"))
    watch._begin()
    watch.use([named("shop")], of("new"))
    watch._begin()
    until("both have run", lambda: sorted(files) == ["new shop", "old web"])


class Watching:
    """The command in a process of its own."""

    def __init__(self, file: Path, *flags: str) -> None:
        self._log = file.with_suffix(".log")
        command = [str(PROGRAM), "mirror", "watch", "-f", str(file), "--port", "0", "--jitter", "0s", *flags]
        environ = {**os.environ, "XDG_CACHE_HOME": str(file.parent / "cache")}
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environ)
        listening = re.compile(r"listening on (\S+) port (\d+)")
        until("it listens", lambda: listening.search(self.log) or self.process.poll() is not None)
        found = listening.search(self.log)
        assert found, self.log
        self.url = f"http://{found[1]}:{found[2]}"

    @property
    def log(self) -> str:
        return self._log.read_text()

    def status(self, path: str) -> int:
        return httpx.get(f"{self.url}{path}").status_code


@contextmanager
def watching(file: Path, *flags: str) -> Iterator[Watching]:
    watched = Watching(file, *flags)
    try:
        yield watched
    finally:
        watched.process.kill()
        watched.process.wait()


def write(file: Path, source: DockerRegistry, destination: DockerRegistry, repositories: Sequence[str]) -> None:
    entries = "".join(
        f"  - name: {name.replace('/', '-')}\n    source: {{repository: {source.host}/{name}}}\n"
        f"    destinations: [{{repository: {destination.host}/{name}}}]\n"
        for name in repositories
    )
    file.write_text(f"version: 1\nmirrors:\n{entries}")


@pytest.fixture
def file(registry: DockerRegistry, other_registry: DockerRegistry, repository: str, tmp_path: Path) -> Path:
    seed(registry, repository, {"1.0": image(1)})
    file = tmp_path / "mirrors.yaml"
    write(file, registry, other_registry, [repository])
    return file


def test_the_command_mirrors_again_and_again_reads_its_file_again_and_drains(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str, file: Path
) -> None:
    with watching(file, "--interval", "1s") as watched:
        until("the first run", lambda: other_registry.repository_tags(repository) == ["1.0"])
        until("it is ready", lambda: watched.status("/readyz") == 200)
        push(registry.url, repository, image(2), "2.0")
        until("a later run", lambda: other_registry.repository_tags(repository) == ["1.0", "2.0"])
        seed(registry, f"{repository}-more", {"1.0": image(3)})

        file.write_text("version: 1\nmirrors: [{nam: web}]\n")
        watched.process.send_signal(signal.SIGHUP)
        until("the mistake is said", lambda: "unknown key" in watched.log)
        assert watched.status("/healthz") == 200
        write(file, registry, other_registry, [repository])
        file.write_text(f"{file.read_text()}registries: {{registry.example: {{proxy: 'http://proxy.example:1'}}}}\n")
        watched.process.send_signal(signal.SIGHUP)
        until("what the machine didn't agree to is said", lambda: "stay as they are: the mirrors ask" in watched.log)
        push(registry.url, repository, image(4), "3.0")
        until("a run by the mirrors as they were", lambda: "3.0" in other_registry.repository_tags(repository))
        write(file, registry, other_registry, [repository, f"{repository}-more"])
        watched.process.send_signal(signal.SIGHUP)
        until("the mirror that is new", lambda: other_registry.repository_tags(f"{repository}-more") == ["1.0"])

        metrics = httpx.get(f"{watched.url}/metrics").text
        assert f'transship_run_success{{mirror="{repository.replace("/", "-")}"}} 1' in metrics
        assert watched.status("/nothing") == 404
        watched.process.send_signal(signal.SIGTERM)
        assert watched.process.wait(60) == 0


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
def test_a_first_signal_lets_runs_end_and_a_second_one_stops_them(tmp_path: Path, first: signal.Signals) -> None:
    """Of a registry that takes a request and doesn't answer."""
    file = tmp_path / "mirrors.yaml"
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host = f"127.0.0.1:{silent.getsockname()[1]}"
        file.write_text(
            f"version: 1\nmirrors:\n  - name: web\n    source: {{repository: {host}/web}}\n"
            f"    destinations: [{{repository: {host}/to}}]\n"
        )
        with watching(file) as watched:
            connection, _ = silent.accept()
            with connection:
                watched.process.send_signal(first)
                with pytest.raises(subprocess.TimeoutExpired):
                    watched.process.wait(1)
                assert watched.status("/healthz") == 200
                watched.process.send_signal(signal.SIGTERM)
                assert watched.process.wait(60) == ExitCode.TERMINATED


@pytest.fixture
def quiet(tmp_path: Path) -> Iterator[Watching]:
    """With nothing to do."""
    file = tmp_path / "mirrors.yaml"
    file.write_text(
        "version: 1\nmirrors:\n  - name: web\n    source: {repository: 127.0.0.1:1/web}\n"
        "    destinations: [{repository: 127.0.0.1:1/to}]\n    schedule: {cron: '0 0 1 1 *'}\n"
    )
    with watching(file, "--debug") as watched:
        yield watched


def descriptors(watched: Watching) -> int:
    return len(os.listdir(f"/proc/{watched.process.pid}/fd"))


def test_no_stranger_holds_up_who_asks_for_health(quiet: Watching) -> None:
    """Connections that send a byte now and then, or nothing, and those that go away in the middle."""
    host, _, port = quiet.url.removeprefix("http://").partition(":")
    before = descriptors(quiet)
    drips = [socket.create_connection((host, int(port))) for _ in range(200)]
    other_address = httpx.HTTPTransport(local_address="127.0.0.2")
    with httpx.Client(transport=other_address, timeout=60) as client:
        assert client.get(f"{quiet.url}/healthz").status_code == 200
        assert descriptors(quiet) <= before + CONNECTIONS_OF_A_PEER + 2

        def ended() -> bool:
            for drip in drips:
                with suppress(OSError):
                    drip.sendall(b"G")
            return descriptors(quiet) <= before

        until("dripping connections are at their end", ended, 60)
    for drip in drips:
        drip.close()
    assert quiet.status("/healthz") == 200
    assert "Traceback" not in quiet.log


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /" + b"x" * (1 << 20),
        b"GET /healthz HTTP/1.1\r\n" + b"".join(b"A%d: b\r\n" % n for n in range(100_000)),
        b"GET /healthz HTTP/1.1\r\nA: " + b"x" * (1 << 20),
        b"\0\xff\r\n\r\n",
        b"GET /healthz HTTP/9.9\r\n\r\n",
        b"GET \x1b[2J HTTP/1.1\r\n\r\n",
    ],
    ids=["path", "headers", "header", "noise", "version", "escape"],
)
def test_what_is_no_request_of_ours_costs_nothing(quiet: Watching, request_bytes: bytes) -> None:
    host, _, port = quiet.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection, suppress(OSError):
        connection.sendall(request_bytes)
        while connection.recv(1 << 16):
            pass

    assert quiet.status("/healthz") == 200
    assert "\x1b[2J" not in quiet.log
    assert "Exception" not in quiet.log


def test_a_port_that_is_taken_and_a_file_that_is_wrong_are_said_at_once(file: Path, registry: DockerRegistry) -> None:
    port = registry.host.rpartition(":")[2]
    taken = subprocess.run(
        [str(PROGRAM), "mirror", "watch", "-f", str(file), "--port", port], capture_output=True, check=False
    )
    asking = file.with_name("asking.yaml")
    asking.write_text(f"{file.read_text()}registries: {{registry.example: {{proxy: 'http://proxy.example:1'}}}}\n")
    refused = subprocess.run(
        [str(PROGRAM), "mirror", "watch", "-f", str(asking), "--port", "0"], capture_output=True, check=False
    )
    lost = subprocess.run(
        [str(PROGRAM), "mirror", "watch", "-f", f"{file}.lost", "--port", "0"], capture_output=True, check=False
    )

    assert taken.returncode == ExitCode.USAGE
    assert f"can't listen on 127.0.0.1 port {port}" in taken.stderr.decode()
    assert refused.returncode == ExitCode.USAGE
    assert "this machine didn't agree to" in refused.stderr.decode()
    assert lost.returncode == ExitCode.USAGE
