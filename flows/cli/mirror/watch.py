"""`transship mirror watch`: mirrors by their schedules, without a Prefect server."""

from __future__ import annotations

import logging
import random
import signal
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from types import FrameType
from typing import Any

import click

from flows.cli.click_ext import Invocation, Number, Verb
from flows.cli.flags import Age, metrics_flag, registry_flags, store_flags
from flows.cli.mirror.listener import Listener
from flows.cli.mirror.shared import Mirrors, file_flag
from flows.cli.output import log_to_stderr
from oci.documents import recurrence
from oci.errors import Cancelled, TransshipError
from oci.meter import RunMetrics, export_metrics, exposition
from oci.mirror.config import Mirror
from oci.mirror.reader import read_config
from oci.mirror.results import MirrorReport, mirror_metrics
from oci.mirror.run import run_mirrors
from oci.mirror.work import Breaker
from oci.units import counted

_log = logging.getLogger("transship.watch")

_LONGEST_WAIT = 60.0
"""Seconds after which the clock is looked at again: it may have been set."""

Batch = Callable[[Sequence[Mirror], Callable[[MirrorReport], None]], None]
"""Runs mirrors in one session, and gives each report as soon as it is made."""


@click.command(name="watch", cls=Verb, service=True, examples=("", "-f mirrors.yaml --interval 30m", "web --port 9000"))
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
    with Listener(watched, flags["host"], flags["port"]) as listener:
        _log.info("listening on %s port %d", flags["host"], listener.port)
        with _signals(watched, read, invocation.cancel.cancel) as signals:
            watched.loop()
    if len(signals) > 1:  # the first one drains, and may be heard by the frame of the command as well, when all is over
        invocation.cancel.check()


def _run_batch(file: Mirrors, mirrors: Sequence[Mirror], on_report: Callable[[MirrorReport], None]) -> None:
    """Runs mirrors of a file in one session."""
    batch = replace(file, chosen=tuple(mirrors), breaker=Breaker())
    with batch.session() as session:
        run_mirrors(session, mirrors, batch.shared(), on_report=on_report)


@dataclass(slots=True)
class _State:
    """Of one mirror. `since` is when it was first watched; times in UTC, None where there is none."""

    mirror: Mirror
    since: datetime
    due: datetime | None
    ended: datetime | None = None


class Watch:
    """Runs each mirror when it is due. Safe from any thread; `loop` is the thread that begins runs."""

    def __init__(
        self,
        *,
        interval: timedelta,
        jitter: timedelta = timedelta(),
        metrics_file: str = "",
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._run: Batch | None = None
        self._interval = interval
        self._jitter = jitter.total_seconds()
        self._metrics_file = metrics_file
        self._now = now
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._draining = False
        self._states: dict[str, _State] = {}
        self._running: set[str] = set()
        """Mirrors, watched or not any more."""
        self._batches: set[threading.Thread] = set()
        self._numbers: dict[str, RunMetrics] = {}
        """Of the last runs, by mirror; those of a namespace by each of its repositories."""

    def use(self, mirrors: Sequence[Mirror], run: Batch) -> None:
        """Watches these from now on, and no others; `run` is for batches of them. What runs goes on."""
        now = self._now()
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
            self._wake.wait(self._pause())
            self._wake.clear()
        for thread in list(self._batches):
            thread.join()

    def late(self) -> list[str]:
        """The mirrors whose last run didn't end within two of their intervals; those without a schedule of their own
        until their first run has ended."""
        now = self._now()
        with self._lock:
            return [name for name, state in self._states.items() if self._is_late(state, now)]

    def metrics(self) -> str:
        with self._lock:
            runs = [run for name, run in self._numbers.items() if name.partition("/")[0] in self._states]
        return exposition(*runs)

    def _begin(self) -> None:
        now = self._now()
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
            self._note(report)
            if report.mirror in unreported:
                unreported.remove(report.mirror)
                self._free([report.mirror], ended=True)

        try:
            run(mirrors, report_done)
            self._free(unreported, ended=True)  # a namespace has reports of its repositories alone
            unreported.clear()
        except Cancelled:
            _log.warning("stopped: %s", ", ".join(unreported))
        except TransshipError as error:
            _log.error("%s: %s", ", ".join(unreported), error)
        finally:
            self._free(unreported, ended=False)

    def _free(self, names: Collection[str], *, ended: bool) -> None:
        with self._lock:
            self._running.difference_update(names)
            for state in [self._states[name] for name in names if ended and name in self._states]:
                state.ended = self._now()
        self._wake.set()

    def _note(self, report: MirrorReport) -> None:
        (_log.info if report.succeeded else _log.error)("%s", report)
        for failed in report.failed:
            _log.error("%s: %s: %s", report.mirror, ", ".join(failed.names), failed.error)
        numbers = mirror_metrics(report)
        with self._lock:
            self._numbers[report.mirror] = numbers
            others = [run for name, run in self._numbers.items() if name != report.mirror]
        export_metrics(numbers, warn=_log.warning, path=self._metrics_file, before=others)

    def _is_late(self, state: _State, now: datetime) -> bool:
        if state.ended is None and state.mirror.schedule is None:
            return True
        first = self._next(state.mirror, state.ended or state.since)
        second = self._next(state.mirror, first) if first else None
        return second is not None and now > second + timedelta(seconds=self._jitter)

    def _next(self, mirror: Mirror, moment: datetime) -> datetime | None:
        return mirror.schedule.following(moment, mirror.name) if mirror.schedule else moment + self._interval

    def _delayed(self, moment: datetime | None) -> datetime | None:
        seconds = random.uniform(0, self._jitter)  # noqa: S311 - to spread starts
        return moment + timedelta(seconds=seconds) if moment else None

    def _pause(self) -> float:
        now = self._now()
        with self._lock:
            pauses = [(state.due - now).total_seconds() for state in self._states.values() if state.due is not None]
        return max(0.0, min([_LONGEST_WAIT, *pauses]))


@contextmanager
def _signals(
    watched: Watch, read: Callable[[], tuple[Sequence[Mirror], Batch]], stop: Callable[[], None]
) -> Iterator[list[int]]:
    """SIGHUP has the mirrors read again, SIGTERM and Ctrl-C drain, and stop what runs when they come a second time.
    Gives those that ask for an end."""
    signals: list[int] = []
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
        del frame
        action = again if number == signal.SIGHUP else stop if signals else watched.drain
        if number != signal.SIGHUP:
            signals.append(number)
        # In a thread of its own: the interrupted one may hold the very lock that the action needs.
        threading.Thread(target=action, daemon=True).start()

    before = {number: signal.signal(number, handle) for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT)}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
