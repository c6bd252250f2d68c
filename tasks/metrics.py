"""The numbers of a run for Prometheus, in its text format: left in a file for node_exporter's textfile collector, or
sent to a Pushgateway.

    TRANSSHIP_METRICS_FILE   a file for the last run with all its mirrors, or a folder that gets one file for each
                             destination or mirror
    TRANSSHIP_PUSHGATEWAY    http://HOST:9091, with USER:PASSWORD@ before the host where it asks for a login

A run never fails because its numbers couldn't be told.
"""

from __future__ import annotations

import base64
import os
import re
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from typing import TYPE_CHECKING
from urllib.error import URLError
from urllib.parse import unquote, urlsplit, urlunsplit

from oci.meter import Receipt
from oci.output import write_output

if TYPE_CHECKING:  # importing it takes longer than a copy of little needs
    from oci.mirror.run import MirrorReport

METRICS_FILE = "TRANSSHIP_METRICS_FILE"
PUSHGATEWAY = "TRANSSHIP_PUSHGATEWAY"

_PUSH_SECONDS = 10.0
_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""The collector is another user."""

Sample = tuple[Mapping[str, str], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunMetrics:
    """What is told of one run. `names` says which it was, by `destination` or by `mirror`: a later run of the same
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


def of_mirror(report: MirrorReport) -> RunMetrics:
    """Of one mirror whose run has just ended; what is counted are tags."""
    return RunMetrics(
        names={"mirror": report.mirror},
        succeeded=report.succeeded,
        ended=time.time(),
        receipt=report.receipt,
        images={"copied": report.copied, "present": report.in_place, "failed": len(report.failed)},
    )


def exposition(*runs: RunMetrics) -> str:
    """The text format. Everything is a gauge of the last run: a command that ends can't count on."""
    lines: dict[str, list[str]] = {}
    for run in runs:
        for name, words, samples in run.families():
            full = f"transship_run_{name}"
            if samples:
                lines.setdefault(full, [f"# HELP {full} {words}", f"# TYPE {full} gauge"])
            for labels, value in samples:
                lines[full].append(f"{full}{_labels({**run.names, **labels})} {value!r}")
    return "".join(f"{line}\n" for family in lines.values() for line in family)


def tell(*runs: RunMetrics, warn: Callable[[str], object], path: str = "", before: Sequence[RunMetrics] = ()) -> None:
    """Writes `path`, or what the environment names, and pushes where the environment says so. Failures are warnings.
    `before` are told already, and stay in a file that holds all of them."""
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
        write_output(path, exposition(*before, *runs).encode())
        return
    for run in runs:
        slug = re.sub(r"[^a-z0-9]+", "-", "-".join(run.names.values()).lower()).strip("-")
        write_output(os.path.join(path, f"transship-{slug[:200]}.prom"), exposition(run).encode())


def push(run: RunMetrics, gateway: str, *, timeout: float = _PUSH_SECONDS) -> None:
    """Replaces the group of the run's names. Raises OSError, ValueError or HTTPException."""
    parts = urlsplit(gateway)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError(f"{PUSHGATEWAY} is not an http address")
    group = "".join(f"/{name}@base64/{_base64(value)}" for name, value in run.names.items())
    path = f"{parts.path.rstrip('/')}/metrics/job/transship{group}"
    login, _, host = parts.netloc.rpartition("@")
    request = urllib.request.Request(  # noqa: S310 - the scheme was looked at
        urlunsplit((parts.scheme, host, path, "", "")), data=exposition(run).encode(), method="PUT"
    )
    request.add_header("Content-Type", _CONTENT_TYPE)
    if login:
        request.add_header("Authorization", f"Basic {base64.b64encode(unquote(login).encode()).decode()}")
    with urllib.request.urlopen(request, timeout=timeout) as answer:  # noqa: S310
        answer.read()


def _by_outcome(counts: Mapping[str, int]) -> list[Sample]:
    return [({"outcome": outcome}, count) for outcome, count in counts.items()]


def _labels(labels: Mapping[str, str]) -> str:
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _escaped(value: str) -> str:
    """As the format wants it; what is no Unicode is replaced, for the file is UTF-8."""
    text = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return text.encode(errors="replace").decode()


def _base64(value: str) -> str:
    """As the Pushgateway wants what has slashes; "=" alone stands for nothing at all."""
    return base64.urlsafe_b64encode(value.encode(errors="replace")).decode() or "="


def _reason(error: Exception) -> str:
    return str(error.reason if type(error) is URLError else error)
