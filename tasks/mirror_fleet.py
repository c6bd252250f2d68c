"""The work of a mirror, shared with helpers. Each item gives its image its tags by itself, so nothing is left for the
run that is helped but the report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from oci.errors import InvalidDocument
from oci.mirror.execute import ItemOutcome
from oci.mirror.work import WorkItem
from oci.reference import parse_store
from oci.relocation.session import Session
from oci.relocation.transfer import FAILED
from tasks.fleet.queue import ShardQueue, ShardResult
from tasks.mirror import MirrorRun
from tasks.shards import work_stays_here

_MOST_ITEMS = 200
"""In a shard."""

HelperParameters = Callable[[ShardQueue], Mapping[str, Any]]


class MirrorWork:
    """Items as units of tasks.fleet.spread.Work, of a weight of 1 for each destination: what they weigh is known when
    they are looked at."""

    def __init__(self, run: MirrorRun, parameters: HelperParameters) -> None:
        self._run = run
        self._parameters = parameters

    def progress(self) -> float:
        return float(len(self._run.outcomes))

    def weight(self, units: Sequence[WorkItem]) -> float:
        return float(sum(len(item.targets) for item in units))

    def busy(self) -> float:
        return 0.0

    def cut(self, units: Sequence[WorkItem], *, workers: int, least: float) -> list[list[WorkItem]]:
        """Neighbours stay together: tags of one repository have layers in common."""
        waiting, shards = list(units), []
        while waiting:
            count = max(1, round(least), len(waiting) // (2 * workers))
            shards.append(waiting[: min(count, _MOST_ITEMS)])
            waiting = waiting[len(shards[-1]) :]
        return shards

    def pack(self, units: Sequence[WorkItem], *, again: bool) -> str:
        del again  # each item is compared once more where it is carried
        return msgspec.json.encode([item.to_dict() for item in units]).decode()

    def parameters(self, queue: ShardQueue) -> Mapping[str, Any]:
        return self._parameters(queue)

    def note(self, helper: str, text: str) -> None:
        reported = msgspec.json.decode(text, type=ShardResult[ItemOutcome])
        run = self._run
        reported.note(run.outcomes, lambda outcome: (outcome.source, outcome.destination), run.elsewhere, helper)

    async def remaining(self, units: Sequence[WorkItem]) -> list[WorkItem]:
        """Leaves out nothing but what is known to be done: an item that is done costs a few requests."""
        return [item for item in map(self._run.undelivered, units) if item.targets]

    def fail(self, units: Sequence[WorkItem], reason: str) -> None:
        for item in units:
            self._run.record(item, tuple(_lost(item, target.destination, reason) for target in item.targets))


def unpack(text: str) -> list[WorkItem]:
    """Returns the items of a shard. Raises InvalidDocument."""
    try:
        return [WorkItem.from_dict(item) for item in msgspec.json.decode(text, type=list[dict[str, Any]])]
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidDocument(f"not a shard of a mirror: {error}") from error


def result_of(run: MirrorRun, items: Sequence[WorkItem]) -> str:
    """Returns what has become of some items, and what the run has cost so far."""
    sources = {item.source for item in items}
    outcomes = [outcome for (source, _), outcome in run.outcomes.items() if source in sources]
    return ShardResult(outcomes, run.receipt()).to_json()


def stays_here(items: Sequence[WorkItem], session: Session, *, always: bool) -> str:
    """Returns why other machines can't carry the items, or make nothing faster, or nothing."""
    stores = {(side, parse_store(store)) for item in items for side, store in item.stores}
    return work_stays_here(stores, session, always=always)


def _lost(item: WorkItem, destination: str, reason: str) -> ItemOutcome:
    return ItemOutcome(
        source=item.source,
        names=item.names,
        destination=destination,
        status=FAILED,
        error=f"was not copied: {reason}",
        error_class="Unavailable",
        retryable=True,
    )
