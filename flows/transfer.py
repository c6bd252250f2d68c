"""The images of a plan, on their way as tasks of this run."""

from __future__ import annotations

import asyncio

from oci.errors import TransshipError
from oci.relocation.plan import Plan
from tasks.relocate import RelocationRun, batches, push_to_target_registry
from tasks.run import together


async def push_all(run: RelocationRun, plan: Plan) -> None:
    """Transfers the images of `plan`, all or some of the run's own, some at a time. One that fails doesn't stop the
    others: its outcome is kept in the run."""
    places = asyncio.Semaphore(run.width)

    async def push(images: list[str]) -> None:
        async with places:
            try:
                await push_to_target_registry(images, str(plan.destination))
            except TransshipError:
                return

    await together(*(push(images) for images in batches(plan)))
