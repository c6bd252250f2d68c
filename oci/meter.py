"""Counting what a run costs: requests by kind and registry, bytes by outcome, retries, seconds; and these numbers for
Prometheus, in a file for the textfile collector of node_exporter, or sent to a Pushgateway.

Every store counts from its first request on. A display of progress reads `Meter.receipt()` as often as it likes.

    TRANSSHIP_METRICS_FILE   a file for the last run with all its mirrors, or a folder that gets one file for each
                             destination or mirror
    TRANSSHIP_PUSHGATEWAY    http://HOST:9091, with USER:PASSWORD@ before the host where it asks for a login

A run never fails because its metrics couldn't be written.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import msgspec

from oci.output import write_output

if TYPE_CHECKING:  # importing it takes longer than a small copy
    from prometheus_client.metrics_core import Metric


def unheard(*event: object) -> None:
    """Does nothing: the default of a callback."""
    del event


class Receipt(msgspec.Struct, frozen=True):
    """What was spent so far. Sizes in bytes. `requests[registry][kind]` counts every HTTP request sent, retries and
    token fetches included; a layout folder counts none. `written` are bytes sent to a destination, `mounted` and
    `skipped` bytes that didn't have to travel."""

    seconds: float = 0.0
    requests: Mapping[str, Mapping[str, int]] = {}
    retries: int = 0
    throttled_seconds: float = 0.0
    bytes_read: int = 0
    bytes_written: int = 0
    bytes_mounted: int = 0
    bytes_skipped: int = 0
    blobs_written: int = 0
    blobs_mounted: int = 0
    blobs_skipped: int = 0
    identities: Mapping[str, str] = {}
    fallbacks: Mapping[str, tuple[str, ...]] = {}
    """By registry: what it refused, and what was done instead."""

    @property
    def total_requests(self) -> int:
        return sum(sum(kinds.values()) for kinds in self.requests.values())

    @property
    def bytes_moved(self) -> int:
        """Bytes that have come to the destination, in whatever way."""
        return self.bytes_written + self.bytes_mounted + self.bytes_skipped

    def plus(self, other: Receipt) -> Receipt:
        """Adds what another process spent meanwhile: everything but the seconds."""
        requests = {registry: Counter(kinds) for registry, kinds in self.requests.items()}
        for registry, kinds in other.requests.items():
            requests.setdefault(registry, Counter()).update(kinds)
        return msgspec.structs.replace(
            self,
            requests={registry: dict(kinds) for registry, kinds in requests.items()},
            identities={**other.identities, **self.identities},
            fallbacks={
                registry: tuple(dict.fromkeys((*self.fallbacks.get(registry, ()), *other.fallbacks.get(registry, ()))))
                for registry in {**other.fallbacks, **self.fallbacks}
            },
            **{name: getattr(self, name) + getattr(other, name) for name in _NUMBERS},
        )

    def by_outcome(self, amount: Literal["bytes", "blobs"]) -> dict[str, int]:
        """Returns bytes or blobs by what became of them."""
        names = ("read", "written", "mounted", "skipped") if amount == "bytes" else ("written", "mounted", "skipped")
        return {name: getattr(self, f"{amount}_{name}") for name in names}

    def to_dict(self) -> dict[str, Any]:
        return {
            "seconds": round(self.seconds, 3),
            "requests": {registry: dict(sorted(kinds.items())) for registry, kinds in sorted(self.requests.items())},
            "retries": self.retries,
            "throttled_seconds": round(self.throttled_seconds, 3),
            "bytes": self.by_outcome("bytes"),
            "blobs": self.by_outcome("blobs"),
            "identities": dict(sorted(self.identities.items())),
            "fallbacks": {registry: list(texts) for registry, texts in sorted(self.fallbacks.items())},
        }


_NUMBERS = tuple(
    name for name in Receipt.__struct_fields__ if name.startswith(("retries", "throttled", "bytes", "blobs"))
)

T = TypeVar("T")
_PART: ContextVar[Meter | None] = ContextVar("part of a run", default=None)


class PartThreads(ThreadPoolExecutor):
    """Threads that count for the part of a run that their work was given by."""

    def submit(self, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        return super().submit(copy_context().run, function, *args, **kwargs)


class Meter:
    """The one mutable counter of a run; safe from any thread. What a part of the run spends (one mirror among several)
    is counted in a meter of its own as well, see `part`. Who wants to know what was spent asks for the `receipt`."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._started = time.monotonic()
        self.requests: dict[str, Counter[str]] = {}
        self.numbers: defaultdict[str, Any] = defaultdict(int, throttled_seconds=0.0)
        self.identities: dict[str, str] = {}
        self.fallbacks: dict[str, dict[str, None]] = {}

    def _and_part(self) -> tuple[Meter, ...]:
        part = _PART.get()
        return (self,) if part is None or part is self else (self, part)

    def _add(self, name: str, amount: float) -> None:
        for meter in self._and_part():
            with meter.lock:
                meter.numbers[name] += amount

    def request(self, registry: str, kind: str) -> None:
        """`kind` is METHOD and endpoint, such as `GET manifest`, `POST upload`, `GET token`."""
        for meter in self._and_part():
            with meter.lock:
                meter.requests.setdefault(registry, Counter())[kind] += 1

    def retry(self) -> None:
        self._add("retries", 1)

    def throttled(self, seconds: float) -> None:
        self._add("throttled_seconds", seconds)

    def read(self, count: int) -> None:
        self._add("bytes_read", count)

    def sent(self, count: int) -> None:
        """Bytes on their way to a destination, counted while they flow."""
        self._add("bytes_written", count)

    def blob(self, outcome: str, size: int) -> None:
        """`outcome` is `written`, `mounted` or `skipped`; the bytes of a written one were counted by `sent`."""
        self._add(f"blobs_{outcome}", 1)
        if outcome != "written":
            self._add(f"bytes_{outcome}", size)

    def identity(self, registry: str, identity: str) -> None:
        """Says who we are at a registry, in words without a secret: `user bob (docker config)`, `anonymous`."""
        for meter in self._and_part():
            with meter.lock:
                meter.identities[registry] = identity

    def fallback(self, registry: str, text: str) -> None:
        """Says what a registry refused and what was done instead: `single POST refused (405), PUT used`."""
        for meter in self._and_part():
            with meter.lock:
                meter.fallbacks.setdefault(registry, {})[text] = None

    @contextmanager
    def part(self, part: Meter | None = None) -> Iterator[Meter]:
        """Counts in a second meter what is spent inside, in this thread and in the `PartThreads` that it starts."""
        part = part or Meter()
        token = _PART.set(part)
        try:
            yield part
        finally:
            _PART.reset(token)

    def receipt(self) -> Receipt:
        with self.lock:
            return Receipt(
                seconds=time.monotonic() - self._started,
                requests={registry: dict(kinds) for registry, kinds in self.requests.items()},
                identities=dict(self.identities),
                fallbacks={registry: tuple(texts) for registry, texts in self.fallbacks.items()},
                **self.numbers,
            )


METRICS_FILE = "TRANSSHIP_METRICS_FILE"
PUSHGATEWAY = "TRANSSHIP_PUSHGATEWAY"

_PUSH_SECONDS = 10.0
_PATIENCE = 2.0
"""Seconds that the reader of a pipe is waited for: the numbers are of now, and others wait to be written."""
_READABLE = 0o644
"""The collector is another user."""

Sample = tuple[Mapping[str, str], float]


class RunMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """The numbers of one run. `names` says which run it was, by `destination` or by `mirror`: a later run of the same
    names takes its place. `images` counts by outcome; `ended` is in seconds since the epoch."""

    names: Mapping[str, str]
    succeeded: bool
    ended: float = msgspec.field(default_factory=time.time)
    receipt: Receipt
    images: Mapping[str, int]

    def families(self) -> Iterator[tuple[str, str, list[Sample]]]:
        """(name, help, samples) of each metric."""
        receipt = self.receipt
        requests: list[Sample] = [
            ({"registry": registry, "kind": kind}, count)
            for registry, kinds in sorted(receipt.requests.items())
            for kind, count in sorted(kinds.items())
        ]
        yield "success", "Whether the last run completed: 1 or 0.", [({}, int(self.succeeded))]
        yield "end_timestamp_seconds", "When the last run ended.", [({}, self.ended)]
        yield "duration_seconds", "How long the last run took.", [({}, receipt.seconds)]
        yield "images", "Images of the last run by outcome.", _by_outcome(self.images)
        yield "bytes", "Bytes of the last run by outcome.", _by_outcome(receipt.by_outcome("bytes"))
        yield "blobs", "Blobs of the last run by outcome.", _by_outcome(receipt.by_outcome("blobs"))
        yield "requests", "Requests of the last run by registry and kind, repeated ones included.", requests
        yield "retries", "Requests of the last run that had to be repeated.", [({}, receipt.retries)]
        yield "throttled_seconds", "Time that registries told the last run to wait.", [({}, receipt.throttled_seconds)]


class _Gauges(msgspec.Struct, frozen=True):
    """A Collector of prometheus_client. All metrics are gauges of the last run: a command that ends can't count on."""

    runs: Sequence[RunMetrics]

    def collect(self) -> Iterator[Metric]:
        from prometheus_client.core import GaugeMetricFamily  # noqa: PLC0415

        gauges: dict[str, GaugeMetricFamily] = {}
        for run in self.runs:
            for name, text, samples in run.families():
                full = f"transship_run_{name}"
                if samples:
                    gauges.setdefault(full, GaugeMetricFamily(full, text))
                for labels, value in samples:
                    gauges[full].add_sample(full, _unicode({**run.names, **labels}), value)
        yield from gauges.values()


def exposition(*runs: RunMetrics) -> str:
    """Prometheus' text format."""
    from prometheus_client import generate_latest  # noqa: PLC0415

    return generate_latest(_Gauges(runs)).decode()


def export_metrics(
    *runs: RunMetrics, warn: Callable[[str], object], path: str = "", before: Sequence[RunMetrics] = ()
) -> None:
    """Writes `path`, or what the environment names, and pushes where the environment says so. Failures are warnings.
    `before` were written already, and stay in a file that has all of them."""
    path = path or os.environ.get(METRICS_FILE, "")
    gateway = os.environ.get(PUSHGATEWAY, "")
    if path and runs:
        try:
            write(runs, path, before)
        except OSError as error:
            warn(f"metrics could not be written to {path}: {error.strerror}")
    if gateway:
        from http.client import HTTPException  # noqa: PLC0415 - a run without a gateway doesn't pay for it
        from urllib.error import URLError  # noqa: PLC0415

        try:
            for run in runs:
                push(run, gateway)
        except (OSError, HTTPException) as error:
            # What urllib wraps, but for the answer of a server; no variable has it, for it would keep the socket open.
            warn(f"metrics could not be pushed to {PUSHGATEWAY}: {error.reason if type(error) is URLError else error}")
        except ValueError:  # may quote the address with its login
            warn(f"metrics could not be pushed: {PUSHGATEWAY} is not an http address")


def write(runs: Sequence[RunMetrics], path: str, before: Sequence[RunMetrics] = ()) -> None:
    """Replaces the file; a folder gets one for each run, named after what the run is called. Raises OSError."""
    if not (path.endswith("/") or os.path.isdir(path)):
        write_output(path, exposition(*before, *runs).encode(), _READABLE, _PATIENCE)
        return
    for run in runs:
        slug = re.sub(r"[^a-z0-9]+", "-", "-".join(run.names.values()).lower()).strip("-")
        write_output(os.path.join(path, f"transship-{slug[:200]}.prom"), exposition(run).encode(), _READABLE, _PATIENCE)


def push(run: RunMetrics, gateway: str, *, timeout: float = _PUSH_SECONDS) -> None:
    """Replaces the group of the run's names. Raises OSError, ValueError or HTTPException."""
    from urllib.parse import unquote, urlsplit, urlunsplit  # noqa: PLC0415

    from prometheus_client.exposition import basic_auth_handler, default_handler, push_to_gateway  # noqa: PLC0415

    parts = urlsplit(gateway)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError(f"{PUSHGATEWAY} is not an http address")
    login, _, host = parts.netloc.rpartition("@")
    user, _, password = unquote(login).partition(":")
    handler = partial(basic_auth_handler, username=user, password=password) if login else default_handler
    push_to_gateway(
        urlunsplit((parts.scheme, host, parts.path, "", "")),
        job="transship",
        registry=_Gauges([run]),
        grouping_key=_unicode(run.names),
        timeout=timeout,
        handler=handler,
    )


def _by_outcome(counts: Mapping[str, int]) -> list[Sample]:
    return [({"outcome": outcome}, count) for outcome, count in counts.items()]


def _unicode(labels: Mapping[str, str]) -> dict[str, str]:
    """Replaces what is no Unicode, such as bytes of a file name: the format is UTF-8."""
    return {name: value.encode(errors="replace").decode() for name, value in labels.items()}
