"""`transship mirror watch`: mirrors by their schedules, without a Prefect server, and what it answers over HTTP.
Any client that reaches the port may ask, and none can hold it up: a connection has some seconds for its request and the
answer together, however slowly it drips, and each address only some of the connections.
"""

from __future__ import annotations

import errno
import io
import logging
import random
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import FrameType
from typing import Any

import click

from flows.cli.click_ext import Invocation, Number, verb
from flows.cli.flags import Age, metrics_flag, registry_flags, store_flags
from flows.cli.mirror.file import Mirrors, file_flag
from flows.cli.output import log_to_stderr
from oci.documents import recurrence
from oci.errors import Cancelled, InvalidInput, TransshipError
from oci.meter import RunMetrics, export_metrics, exposition
from oci.mirror.config import Mirror
from oci.mirror.reader import read_config
from oci.mirror.results import MirrorReport, mirror_metrics
from oci.mirror.run import run_mirrors
from oci.mirror.run_state import Breaker
from oci.units import counted

_log = logging.getLogger("transship.watch")

SECONDS = 10.0
"""From the opening of a connection to the end of the answer."""
CONNECTIONS = 64
CONNECTIONS_OF_A_PEER = 16
"""Connections of one address: no stranger takes all CONNECTIONS."""
_REQUEST_LIMIT = 16 << 10
"""Bytes of a request that are read."""
_LONGEST_WAIT = 60.0
"""Seconds after which the clock is looked at again: it may have been set."""

Batch = Callable[[Sequence[Mirror], Callable[[MirrorReport], None]], None]
"""Runs mirrors in one session, and gives each report as soon as it is made."""


@verb("watch", "", "-f mirrors.yaml --interval 30m", "web --port 9000", service=True)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@file_flag
@click.option(
    "--interval",
    type=Age(recurrence.SHORTEST, recurrence.LONGEST),
    default="1h",
    show_default=True,
    help="Time between the starts of a mirror without a schedule of its own.",
)
@click.option(
    "--jitter",
    type=Age(most=recurrence.LONGEST),
    default="5s",
    show_default=True,
    help="Begin each run up to this much later, at random.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=Number(0, 65535), default=8766, show_default=True, help="0 takes a free one.")
@metrics_flag
@registry_flags(sides=True)
@store_flags
def watch(invocation: Invocation, /, **flags: Any) -> None:
    """Run mirrors by the schedules of the file until SIGTERM, each at most once at a time.

    A mirror without a schedule runs at once and then after each --interval. SIGHUP reads the file again; a file with a
    mistake changes nothing. SIGTERM lets the runs under way end; a second one stops them.

    /healthz answers 200 while the process lives, /readyz when the last run of each mirror ended within two of its
    intervals, /metrics has the numbers of the last runs for Prometheus.
    """
    log_to_stderr(_log, debug=invocation.output.debug)
    first = Mirrors.asked_for(invocation, flags | {"only": ""})

    def read() -> tuple[Sequence[Mirror], Batch]:
        config = read_config(flags["path"])
        changed = replace(first, config=config, chosen=config.chosen(flags["names"]))
        changed.check()
        return changed.chosen, partial(_run_batch, changed)

    watched = Watch(interval=flags["interval"], jitter=flags["jitter"], metrics_file=flags["metrics_file"])
    first.check()
    watched.use(first.chosen, partial(_run_batch, first))
    over = threading.Event()

    def drain() -> None:
        watched.drain()
        over.wait()

    with _listening(watched, flags["host"], flags["port"]) as port, _read_again(watched, read):
        invocation.drain, invocation.drained_by = drain, frozenset({signal.SIGTERM, signal.SIGINT})
        _log.info("listening on %s port %d", flags["host"], port)
        watched.loop()
        invocation.cancel.check()  # a second signal has stopped what ran
        over.set()


def _run_batch(file: Mirrors, mirrors: Sequence[Mirror], on_report: Callable[[MirrorReport], None]) -> None:
    batch = replace(file, chosen=tuple(mirrors), shared=replace(file.shared, breaker=Breaker()))
    with batch.session() as session:
        run_mirrors(session, mirrors, batch.shared, on_report=on_report)


@dataclass(slots=True)
class _State:
    """Of one mirror. `since` is when it was first watched; times in UTC, None where there is none."""

    mirror: Mirror
    since: datetime
    due: datetime | None
    ended: datetime | None = None


@dataclass(kw_only=True)
class Watch:
    """Runs each mirror when it is due. Safe from any thread; `loop` is the thread that begins runs."""

    interval: timedelta
    jitter: timedelta = timedelta()
    metrics_file: str = ""
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    _run: Batch | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _wake: threading.Event = field(default_factory=threading.Event)
    _draining: bool = False
    _states: dict[str, _State] = field(default_factory=dict)
    _running: set[str] = field(default_factory=set)
    """Mirrors, watched or not any more."""
    _batches: set[threading.Thread] = field(default_factory=set)
    _numbers: dict[str, RunMetrics] = field(default_factory=dict)
    """Of the last runs, by mirror; those of a namespace by each of its repositories."""

    def use(self, mirrors: Sequence[Mirror], run: Batch) -> None:
        """Watches these from now on, and no others; `run` is for batches of them. What runs goes on."""
        now = self.now()
        with self._lock:
            self._run = run
            before, self._states = self._states, {}
            for mirror in mirrors:
                state = before.get(mirror.name)
                if state is None or state.mirror.schedule != mirror.schedule:
                    due = self._next(mirror, now) if mirror.schedule else now
                    state = _State(mirror, now, self._delayed(due), state.ended if state else None)
                state.mirror = mirror
                self._states[mirror.name] = state
        self._wake.set()

    def drain(self) -> None:
        """Begins no further run. `loop` returns when those under way have ended."""
        self._draining = True
        self._wake.set()

    def loop(self) -> None:
        while not self._draining:
            self._begin()
            now = self.now()
            with self._lock:
                pauses = [(state.due - now).total_seconds() for state in self._states.values() if state.due is not None]
            self._wake.wait(max(0.0, min([_LONGEST_WAIT, *pauses])))
            self._wake.clear()
        for thread in list(self._batches):
            thread.join()

    def late(self) -> list[str]:
        """The mirrors whose last run didn't end within two of their intervals; those without a schedule of their own
        until their first run has ended."""
        late, now = [], self.now()
        with self._lock:
            for name, state in self._states.items():
                first = self._next(state.mirror, state.ended or state.since)
                second = self._next(state.mirror, first) if first else None
                never_ran = state.ended is None and state.mirror.schedule is None
                if never_ran or (second is not None and now > second + self.jitter):
                    late.append(name)
        return late

    def metrics(self) -> str:
        with self._lock:
            runs = [run for name, run in self._numbers.items() if name.partition("/")[0] in self._states]
        return exposition(*runs)

    def _begin(self) -> None:
        now = self.now()
        with self._lock:
            run = self._run
            due = [state for state in self._states.values() if state.due is not None and state.due <= now]
            for state in due:
                state.due = self._delayed(self._next(state.mirror, now))
            mirrors = [state.mirror for state in due if state.mirror.name not in self._running]
            busy = [state.mirror.name for state in due if state.mirror.name in self._running]
            self._running.update(mirror.name for mirror in mirrors)
        for name in busy:
            _log.warning("%s: its last run hasn't ended yet, this one is left out", name)
        self._batches = {thread for thread in self._batches if thread.is_alive()}
        if mirrors and run is not None:
            thread = threading.Thread(target=self._batch, args=(run, mirrors), name="batch")
            thread.start()
            self._batches.add(thread)

    def _batch(self, run: Batch, mirrors: Sequence[Mirror]) -> None:
        unreported = {mirror.name for mirror in mirrors}

        def report_done(report: MirrorReport) -> None:
            (_log.info if report.succeeded else _log.error)("%s", report)
            for failed in report.failed:
                _log.error("%s: %s: %s", report.mirror, ", ".join(failed.names), failed.error)
            numbers = mirror_metrics(report)
            with self._lock:
                self._numbers[report.mirror] = numbers
                others = [run for name, run in self._numbers.items() if name != report.mirror]
            export_metrics(numbers, warn=_log.warning, path=self.metrics_file, before=others)
            if report.mirror in unreported:
                unreported.remove(report.mirror)
                self._free([report.mirror], ended=True)

        try:
            run(mirrors, report_done)
            self._free(unreported, ended=True)  # a namespace has reports of its repositories alone
            unreported.clear()
        except Cancelled:
            if unreported:  # the reports of the others say that they were interrupted
                _log.warning("stopped: %s", ", ".join(sorted(unreported)))
        except TransshipError as error:
            _log.error("%s: %s", ", ".join(unreported), error)
        finally:
            self._free(unreported, ended=False)

    def _free(self, names: Collection[str], *, ended: bool) -> None:
        with self._lock:
            self._running.difference_update(names)
            for state in [self._states[name] for name in names if ended and name in self._states]:
                state.ended = self.now()
        self._wake.set()

    def _next(self, mirror: Mirror, moment: datetime) -> datetime | None:
        return mirror.schedule.following(moment, mirror.name) if mirror.schedule else moment + self.interval

    def _delayed(self, moment: datetime | None) -> datetime | None:
        seconds = random.uniform(0, self.jitter.total_seconds())  # noqa: S311 - to spread starts
        return moment + timedelta(seconds=seconds) if moment else None


@contextmanager
def _read_again(watched: Watch, read: Callable[[], tuple[Sequence[Mirror], Batch]]) -> Iterator[None]:
    """SIGHUP has the mirrors read again. Signals that ask for an end are those of every command."""
    reading = threading.Lock()
    """Held until what was read is used: of two signals, the later reading counts."""

    def again() -> None:
        with reading:
            try:
                mirrors, run = read()
            except TransshipError as error:
                _log.error("the mirrors stay as they are: %s", error)
                return
            watched.use(mirrors, run)
        _log.info("read again: %s", counted(len(mirrors), "mirror"))

    def handle(number: int, frame: FrameType | None) -> None:
        del number, frame
        # In a thread of its own: the interrupted one may hold the very lock that the action needs.
        threading.Thread(target=again, daemon=True).start()

    before = signal.signal(signal.SIGHUP, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


class _Bounded(io.RawIOBase):
    """The bytes of a connection, as if it had ended after _REQUEST_LIMIT."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._unread = _REQUEST_LIMIT

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._connection.recv_into(buffer, min(len(buffer), self._unread)) if self._unread else 0
        self._unread -= count
        return count


class _Handler(BaseHTTPRequestHandler):
    timeout = SECONDS
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.rfile.close()
        self.rfile = io.BufferedReader(_Bounded(self.connection))

    def do_GET(self) -> None:
        if self.path == "/healthz":
            self._answer(200, "ok\n")
        elif self.path == "/readyz":
            late = self.server.watched.late()
            self._answer(503 if late else 200, "".join(f"late: {name}\n" for name in late) or "ok\n")
        elif self.path == "/metrics":
            self._answer(200, self.server.watched.metrics(), "text/plain; version=0.0.4; charset=utf-8")
        else:
            self._answer(404, "/healthz, /readyz or /metrics\n")

    def _answer(self, status: int, text: str, kind: str = "text/plain; charset=utf-8") -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the standard library's name
        _log.debug(format, *args)


class _Server(ThreadingHTTPServer):
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], watched: Watch) -> None:
        self.watched = watched
        self._lock = threading.Lock()
        self._open: dict[socket.socket, tuple[str, float]] = {}
        """Peer and end of the time of each connection."""
        super().__init__(address, _Handler)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Says whether there is room for one more connection; without, it is closed."""
        peer = str(client_address[0])
        with self._lock:
            of_peer = sum(peer == other for other, _ in self._open.values())
            if len(self._open) >= CONNECTIONS or of_peer >= CONNECTIONS_OF_A_PEER:
                return False
            self._open[request] = (peer, time.monotonic() + SECONDS)
        return True

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Ends connections whose time is over: their threads read an end, and close them."""
        now = time.monotonic()
        with self._lock:
            overdue = [connection for connection, (_, end) in self._open.items() if now > end]
        for connection in overdue:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        del request
        error = sys.exception()
        level = logging.DEBUG if isinstance(error, OSError) else logging.ERROR  # a peer that went away is no error
        _log.log(level, "a request of %s wasn't answered: %r", client_address[0], error)


@contextmanager
def _listening(watched: Watch, host: str, port: int) -> Iterator[int]:
    """Answers requests during the block, which gets the port. Raises InvalidInput for an address that can't be listened
    on."""
    try:
        server = _Server((host, port), watched)
    except OSError as error:
        reason = error.strerror or str(error)
        flag = "--port" if error.errno in (errno.EADDRINUSE, errno.EACCES) else "--host"
        raise InvalidInput(f"can't listen on {host} port {port}: {reason}", hint=f"give another {flag}") from error
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()
