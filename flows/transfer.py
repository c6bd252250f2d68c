"""The images of a plan, on their way as tasks of this run."""

from __future__ import annotations

import asyncio

from oci.errors import Cancelled, TransshipError
from oci.relocation.plan import Plan
from tasks.push import batches, push_to_target_registry
from tasks.transfer import Transfer


async def push_all(transfer: Transfer, plan: Plan) -> None:
    """Transfers the images of `plan`, all or some of the transfer's own, some at a time. One that fails doesn't stop
    the others: its outcome is kept in the transfer."""
    slots = asyncio.Semaphore(transfer.width)

    async def push(images: list[str]) -> None:
        async with slots:
            try:
                await push_to_target_registry(images, str(plan.destination))
            except TransshipError:
                return

    async with asyncio.TaskGroup() as group:
        for images in batches(plan):
            group.create_task(push(images))


def the_one(error: BaseException) -> BaseException:
    """Out of exception groups, what Prefect has to see: its signal to end this run before any other error. Cancelled
    becomes asyncio's, from which Prefect makes the state Cancelled and not Crashed."""
    while isinstance(error, BaseExceptionGroup):
        error = min(error.exceptions, key=lambda inner: (isinstance(inner, Exception), isinstance(inner, Cancelled)))
    return asyncio.CancelledError() if isinstance(error, Cancelled) else error
