"""The work of a mirror, as tasks of this run."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from flows.transfer import the_one
from oci.errors import TransshipError
from oci.mirror.policy import OnFailure
from oci.mirror.work import WorkItem
from oci.relocation.transfer import FAILED
from tasks.mirror import batches, left_out, mirror_image, useless
from tasks.mirror_run import MirrorRun


async def carry_all(run: MirrorRun, work: Sequence[WorkItem]) -> None:
    """Some images at a time. One that fails doesn't stop the others, unless the mirror says so."""
    places = asyncio.Semaphore(run.width)
    stops = run.mirror.on_failure is OnFailure.STOP

    async def carry(items: list[WorkItem]) -> None:
        async with places:
            if stops and any(outcome.status == FAILED for outcome in run.outcomes.values()):
                run.leave(items)
                return
            if all(map(useless, items)):
                for item in items:
                    await left_out(item)
                return
            destinations = list(dict.fromkeys(target.destination for item in items for target in item.targets))
            title = items[0].title if len(items) == 1 else f"{len(items)} images"
            try:
                await mirror_image(title, [item.key for item in items], destinations)
            except TransshipError as error:
                run.fail(items, error)

    try:
        async with asyncio.TaskGroup() as group:
            for items in batches(work):
                group.create_task(carry(items))
    except BaseExceptionGroup as group_of_errors:
        raise the_one(group_of_errors) from None
