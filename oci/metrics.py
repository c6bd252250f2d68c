"""The numbers of a run for Prometheus: in a file for the textfile collector of node_exporter, or sent to a Pushgateway.

    TRANSSHIP_METRICS_FILE   a file for the last run with all its mirrors, or a folder that gets one file for each
                             destination or mirror
    TRANSSHIP_PUSHGATEWAY    http://HOST:9091, with USER:PASSWORD@ before the host where it asks for a login

A run never fails because its metrics couldn't be written.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from http.client import HTTPException
from typing import TYPE_CHECKING
from urllib.error import URLError
from urllib.parse import unquote, urlsplit, urlunsplit

import msgspec

from oci.meter import Receipt
from oci.output import replace_file

if TYPE_CHECKING:  # importing it takes longer than a small copy
    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric

METRICS_FILE = "TRANSSHIP_METRICS_FILE"
PUSHGATEWAY = "TRANSSHIP_PUSHGATEWAY"

_PUSH_SECONDS = 10.0
_READABLE = 0o644
"""The collector is another user."""

Sample = tuple[Mapping[str, str], float]


class RunMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """The numbers of one run. `names` says which run it was, by `destination` or by `mirror`: a later run of the same
    names takes its place. `images` counts by outcome; `ended` is in seconds since the epoch."""

    names: Mapping[str, str]
    succeeded: bool
    ended: float
    receipt: Receipt
    images: Mapping[str, int]

    def families(self) -> Iterator[tuple[str, str, list[Sample]]]:
        """(name, help, samples) of each metric."""
        receipt = self.receipt
        moved = {
            "read": receipt.bytes_read,
            "written": receipt.bytes_written,
            "mounted": receipt.bytes_mounted,
            "skipped": receipt.bytes_skipped,
        }
        blobs = {
            "written": receipt.blobs_written,
            "mounted": receipt.blobs_mounted,
            "skipped": receipt.blobs_skipped,
        }
        requests: list[Sample] = [
            ({"registry": registry, "kind": kind}, count)
            for registry, kinds in sorted(receipt.requests.items())
            for kind, count in sorted(kinds.items())
        ]
        yield "success", "Whether the last run completed: 1 or 0.", [({}, int(self.succeeded))]
        yield "end_timestamp_seconds", "When the last run ended.", [({}, self.ended)]
        yield "duration_seconds", "How long the last run took.", [({}, receipt.seconds)]
        yield "images", "Images of the last run by outcome.", _by_outcome(self.images)
        yield "bytes", "Bytes of the last run by outcome.", _by_outcome(moved)
        yield "blobs", "Blobs of the last run by outcome.", _by_outcome(blobs)
        yield "requests", "Requests of the last run by registry and kind, repeated ones included.", requests
        yield "retries", "Requests of the last run that had to be repeated.", [({}, receipt.retries)]
        yield "throttled_seconds", "Time that registries told the last run to wait.", [({}, receipt.throttled_seconds)]


class _Collector:
    """All metrics are gauges of the last run: a command that ends can't count on."""

    def __init__(self, runs: Sequence[RunMetrics]) -> None:
        self._runs = runs

    def collect(self) -> Iterator[Metric]:
        from prometheus_client.core import GaugeMetricFamily  # noqa: PLC0415

        gauges: dict[str, GaugeMetricFamily] = {}
        for run in self._runs:
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

    return generate_latest(_registry(runs)).decode()


def tell(*runs: RunMetrics, warn: Callable[[str], object], path: str = "", before: Sequence[RunMetrics] = ()) -> None:
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
        try:
            for run in runs:
                push(run, gateway)
        except (OSError, HTTPException) as error:
            warn(f"metrics could not be pushed to {PUSHGATEWAY}: {_reason(error)}")
        except ValueError:  # may quote the address with its login
            warn(f"metrics could not be pushed: {PUSHGATEWAY} is not an http address")


def write(runs: Sequence[RunMetrics], path: str, before: Sequence[RunMetrics] = ()) -> None:
    """Replaces the file; a folder gets one for each run, named after what the run is called. Raises OSError."""
    if not (path.endswith("/") or os.path.isdir(path)):
        replace_file(path, exposition(*before, *runs).encode(), mode=_READABLE)
        return
    for run in runs:
        slug = re.sub(r"[^a-z0-9]+", "-", "-".join(run.names.values()).lower()).strip("-")
        replace_file(os.path.join(path, f"transship-{slug[:200]}.prom"), exposition(run).encode(), mode=_READABLE)


def push(run: RunMetrics, gateway: str, *, timeout: float = _PUSH_SECONDS) -> None:
    """Replaces the group of the run's names. Raises OSError, ValueError or HTTPException."""
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
        registry=_registry([run]),
        grouping_key=_unicode(run.names),
        timeout=timeout,
        handler=handler,
    )


def _registry(runs: Sequence[RunMetrics]) -> CollectorRegistry:
    from prometheus_client import CollectorRegistry  # noqa: PLC0415

    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(runs))
    return registry


def _by_outcome(counts: Mapping[str, int]) -> list[Sample]:
    return [({"outcome": outcome}, count) for outcome, count in counts.items()]


def _unicode(labels: Mapping[str, str]) -> dict[str, str]:
    """Replaces what is no Unicode, such as bytes of a file name: the format is UTF-8."""
    return {name: value.encode(errors="replace").decode() for name, value in labels.items()}


def _reason(error: Exception) -> str:
    return str(error.reason if type(error) is URLError else error)
