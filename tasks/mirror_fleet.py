"""The work of a mirror, done by other machines. Each item gives its image its tags by itself, so nothing is left for
the run that sent it but the report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any
from uuid import UUID

import msgspec

from oci.meter import Receipt
from oci.mirror.execute import ItemOutcome
from oci.mirror.work import WorkItem
from oci.reference import LAYOUT_PREFIX
from oci.relocation.transfer import FAILED
from tasks.fleet.dispatch import Fleet, Job, JobEnd, run_on_fleet
from tasks.fleet.heartbeat import Heartbeat
from tasks.mirror import MirrorRun

SHARD_ITEMS = 100
"""Changed images in a shard where their number isn't asked for: what they weigh is known when they are looked at."""
_MOST_ITEMS = 200
"""In a shard: its parameters have a limit."""

MirrorShardParameters = Callable[[Sequence[WorkItem]], Mapping[str, Any]]
"""Makes the parameters of the flow run that is to carry out some items."""


class MirrorAccount(msgspec.Struct, frozen=True):
    """What has become of the items of a shard so far, and what that has cost."""

    outcomes: tuple[ItemOutcome, ...] = ()
    receipt: Receipt = Receipt()

    @classmethod
    def of(cls, run: MirrorRun) -> dict[str, Any]:
        return {
            "outcomes": msgspec.to_builtins(list(run.outcomes.values())),
            "receipt": msgspec.to_builtins(run.receipt()),
        }


def in_shards(items: Sequence[WorkItem], count: int) -> list[list[WorkItem]]:
    """Even shards, in which neighbours stay together: tags of one repository have layers in common. None where there
    would be one only, or where folders of this machine are read or written."""
    if any(store.startswith(LAYOUT_PREFIX) for item in items for _, store in item.stores):
        return []
    shards = min(len(items), max(count or -(-len(items) // SHARD_ITEMS), -(-len(items) // _MOST_ITEMS)))
    if shards < 2:
        return []
    edges = [len(items) * number // shards for number in range(shards + 1)]
    return [list(items[start:end]) for start, end in pairwise(edges)]


async def carry_on_fleet(
    run: MirrorRun, shards: Sequence[Sequence[WorkItem]], fleet: Fleet, parameters: MirrorShardParameters
) -> None:
    """Has the shards carried out by the fleet; what became of each item is in the run's outcomes then. Of a shard that
    was lost, the items without an outcome are sent again: an item that is in place costs a few requests."""
    plans = {f"mirror {run.mirror.name}, shard {n} of {len(shards)}": list(shard) for n, shard in enumerate(shards, 1)}

    def noted(flow_run: UUID, account: Heartbeat) -> None:
        reported = msgspec.convert(account.body, MirrorAccount)
        run.elsewhere[str(flow_run)] = reported.receipt
        run.outcomes.update({(outcome.source, outcome.destination): outcome for outcome in reported.outcomes})

    async def again(job: Job, end: JobEnd) -> Job | None:
        del end
        remaining = [part for item in plans[job.name] if (part := run.undelivered(item)).targets]
        return Job(name=job.name, parameters=parameters(remaining)) if remaining else None

    jobs = [Job(name=name, parameters=parameters(items)) for name, items in plans.items()]
    ends = await run_on_fleet(jobs, fleet, again=again, on_account=noted)
    for items, end in zip(plans.values(), ends, strict=True):
        for item in items:
            run.record(item, tuple(_lost(item, target.destination, end) for target in _unreported(run, item).targets))


def _unreported(run: MirrorRun, item: WorkItem) -> WorkItem:
    """The item with the destinations that no report has named."""
    reported = {name for source, name in run.outcomes if source == item.source}
    return item.without(reported)


def _lost(item: WorkItem, destination: str, end: JobEnd) -> ItemOutcome:
    return ItemOutcome(
        source=item.source,
        names=item.names,
        destination=destination,
        status=FAILED,
        error=f"its shard ended before it was copied: {end.message}",
        error_class="Unavailable",
        retryable=True,
    )
