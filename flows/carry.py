"""The work of a mirror, as tasks of this run."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from oci.errors import TransshipError
from oci.mirror.policy import OnFailure
from oci.mirror.work import WorkItem
from oci.relocation.transfer import FAILED
from tasks.mirror import MirrorRun, left_out, mirror_image, useless
from tasks.run import shared_out, together


async def carry_all(run: MirrorRun, work: Sequence[WorkItem]) -> None:
    """Some images at a time. One that fails doesn't stop the others, unless the mirror says so."""
    places = asyncio.Semaphore(run.width)

    async def carry(items: list[WorkItem]) -> None:
        async with places:
            await carry_some(run, items)

    await together(*(carry(items) for items in shared_out(work)))


async def carry_some(run: MirrorRun, items: list[WorkItem]) -> None:
    """What becomes of each is kept in the run."""
    if run.mirror.on_failure is OnFailure.STOP and any(outcome.status == FAILED for outcome in run.outcomes.values()):
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
