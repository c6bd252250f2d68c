"""How far a relocation is, as an artifact that moves while it runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

from prefect.artifacts import acreate_progress_artifact, aupdate_progress_artifact
from prefect.logging import get_run_logger

from oci.relocation.transfer import DONE
from tasks.relocation import Relocation
from tasks.report import artifact_key
from tasks.sizes import human, percent

PERIOD = 1.0
"""Seconds between updates: each costs the server some 12 ms."""


@asynccontextmanager
async def progress_shown(relocation: Relocation) -> AsyncIterator[None]:
    """Keeps a progress artifact while the block runs. Without anything to copy there is none.

    What the block raises comes out in an exception group, as from the TaskGroup that this is."""
    plan = relocation.planned
    if not plan.to_transfer:
        yield
        return
    artifact = await acreate_progress_artifact(
        progress=0.0, key=artifact_key("progress", plan.destination), description=_description(relocation)
    )
    async with asyncio.TaskGroup() as group:
        watching = group.create_task(_watch(relocation, artifact))
        yield
        watching.cancel()
    await aupdate_progress_artifact(artifact, progress=_done(relocation))


async def _watch(relocation: Relocation, artifact: UUID) -> None:
    shown = 0.0
    while True:
        await asyncio.sleep(PERIOD)
        done = _done(relocation)
        if done == shown:
            continue
        try:
            await aupdate_progress_artifact(artifact, progress=done)
        except Exception as error:  # noqa: BLE001 - whatever the Prefect server's trouble is, the copy goes on
            get_run_logger().warning("progress can't be shown: %s", error)
            return
        shown = done


def _done(relocation: Relocation) -> float:
    """Percent, by bytes where there are any and by images where all that is missing is small print."""
    plan = relocation.planned
    images = len(plan.to_transfer)
    copied = sum(1 for outcome in relocation.outcomes.values() if outcome.status == DONE)
    if copied == images:
        return 100.0
    receipt = relocation.meter.receipt()
    moved = receipt.bytes_written + receipt.bytes_mounted + receipt.bytes_skipped
    return round(min(99.0, percent(moved, plan.bytes_to_move) if plan.bytes_to_move else percent(copied, images)), 1)


def _description(relocation: Relocation) -> str:
    """The source as it was asked for: a digest is wider than the page."""
    plan, source = relocation.planned, relocation.source
    name = source.reference if source else plan.source
    return f"{len(plan.to_transfer)} images, {human(plan.bytes_to_move)}: {name} → {plan.destination}"
