"""How far a run is, as an artifact that moves with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import UUID

from prefect.artifacts import acreate_progress_artifact, aupdate_progress_artifact
from prefect.logging import get_run_logger

from oci.relocation.transfer import DONE
from oci.units import counted, percent, show_size
from tasks.relocate import RelocationRun
from tasks.report import artifact_key

PERIOD = 1.0
"""Seconds between updates: each costs the server some 12 ms."""


@asynccontextmanager
async def percent_shown(key: str, description: str, done: Callable[[], float]) -> AsyncIterator[None]:
    """Keeps a progress artifact while the block runs; `done` gives percent."""
    artifact = await acreate_progress_artifact(progress=0.0, key=key, description=description)
    watching = asyncio.create_task(_watch(artifact, done))
    try:
        yield
    finally:
        watching.cancel()
        await asyncio.wait([watching])
    await aupdate_progress_artifact(artifact, progress=done())


async def _watch(artifact: UUID, done: Callable[[], float]) -> None:
    shown, told = 0.0, False
    while True:
        await asyncio.sleep(PERIOD)
        now = done()
        if now == shown:
            continue
        try:
            await aupdate_progress_artifact(artifact, progress=now)
        except Exception as error:  # noqa: BLE001 - whatever the Prefect server's trouble is, the copy goes on
            if not told:
                get_run_logger().warning("progress can't be shown for now: %s", error)
            told = True
            continue
        shown = now


@dataclass(slots=True)
class BytesMoving:
    """Of one transfer: `count` says how many bytes have moved, `expect` is told how many are still to come."""

    count: Callable[[], int]
    expected: int | None = None

    def expect(self, size: int) -> None:
        self.expected = (self.expected or 0) + size

    def percent(self) -> float:
        return 0.0 if self.expected is None else round(percent(self.count(), self.expected), 1)


@asynccontextmanager
async def progress_shown(run: RelocationRun, what: str, *, kind: str = "progress") -> AsyncIterator[None]:
    """A progress artifact of a plan being carried out; `what` is its source as people know it. Without anything to copy
    there is none."""
    plan = run.planned
    if not plan.to_transfer:
        yield
        return
    key = artifact_key(kind, str(plan.destination))
    description = (
        f"{counted(len(plan.to_transfer), 'image')}, {show_size(plan.bytes_to_move)}: {what} → {plan.destination}"
    )
    async with percent_shown(key, description, lambda: _done(run)):
        yield


def _done(run: RelocationRun) -> float:
    """Percent, by bytes where there are any and by images where all that is missing is small print."""
    plan = run.planned
    images = len(plan.to_transfer)
    copied = sum(1 for outcome in run.outcomes.values() if outcome.status == DONE)
    if copied == images:
        return 100.0
    receipt = run.receipt()
    moved = receipt.bytes_written + receipt.bytes_mounted + receipt.bytes_skipped
    return round(min(99.0, percent(moved, plan.bytes_to_move) if plan.bytes_to_move else percent(copied, images)), 1)
