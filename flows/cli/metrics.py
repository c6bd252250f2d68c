"""The numbers of a run for Prometheus: --metrics-file, and what the environment asks for."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import click

from flows.cli.progress import RelocationProgress
from flows.cli.verb import Invocation
from oci.relocation.session import Session
from oci.relocation.transfer import DONE, FAILED, PRESENT
from tasks.metrics import METRICS_FILE, PUSHGATEWAY, RunMetrics, tell

F = TypeVar("F", bound=Callable[..., Any])

metrics_flag: Callable[[F], F] = click.option(
    "--metrics-file",
    default="",
    envvar=METRICS_FILE,
    help=f"Leave the run's numbers for Prometheus in this file or folder ({METRICS_FILE}); {PUSHGATEWAY} pushes them.",
)


@contextmanager
def told(
    session: Session, images: Callable[[], Mapping[str, int]], invocation: Invocation, *, destination: str, path: str
) -> Iterator[None]:
    """Tells the numbers of the block when it ends, however it ends; `images` counts them by outcome."""
    succeeded = False
    try:
        yield
        succeeded = True
    finally:
        run = RunMetrics(
            names={"destination": destination},
            succeeded=succeeded,
            ended=time.time(),
            receipt=session.meter.receipt(),
            images=images(),
        )
        tell(run, warn=invocation.output.warn, path=path)


def sums(progress: RelocationProgress) -> Mapping[str, int]:
    """Images of a relocation so far."""
    found = Counter(outcome.status for outcome in progress.done.values())
    unread = len(progress.plan.failures) if progress.plan else 0
    return {"copied": found[DONE], "present": found[PRESENT], "failed": found[FAILED] + unread}
