"""What a run would do, in numbers: images, bytes by what becomes of them, requests by registry. Nothing is written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from oci.digest import Digest
from oci.errors import TransshipError
from oci.mirror import archives
from oci.mirror.comparison import Comparison, TagState
from oci.mirror.work import Target, WorkItem
from oci.relocation.plan import Plan
from oci.relocation.planner import make_plan
from oci.relocation.session import Session


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedItem:
    """One image for one destination. Bytes that an image before it brings already aren't counted again."""

    title: str
    names: tuple[str, ...]
    destination: str
    tags: tuple[str, ...]
    images: int = 0
    bytes_to_move: int = 0
    bytes_to_mount: int = 0
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MirrorPlan:
    mirror: str
    source: str
    items: tuple[PlannedItem, ...] = ()
    in_place: int = 0
    mutated: tuple[str, ...] = ()
    unsigned: tuple[str, ...] = ()
    held: Mapping[str, str] = field(default_factory=dict)
    waiting: int = 0
    nothing_taken: str = ""
    requests: Mapping[str, int] = field(default_factory=dict)
    """By registry, for carrying it out; what comparing takes is spent already."""

    @property
    def bytes_to_move(self) -> int:
        return sum(item.bytes_to_move for item in self.items)

    @property
    def bytes_to_mount(self) -> int:
        return sum(item.bytes_to_mount for item in self.items)

    def to_dict(self) -> dict[str, Any]:
        return {
            "mirror": self.mirror,
            "source": self.source,
            "in_place": self.in_place,
            "bytes_to_move": self.bytes_to_move,
            "bytes_to_mount": self.bytes_to_mount,
            "requests": dict(self.requests),
            "mutated": list(self.mutated),
            "unsigned": list(self.unsigned),
            "held": dict(self.held),
            "waiting": self.waiting,
            "nothing_taken": self.nothing_taken,
            "items": [
                {
                    "names": list(item.names),
                    "destination": item.destination,
                    "tags": list(item.tags),
                    "images": item.images,
                    "bytes_to_move": item.bytes_to_move,
                    "bytes_to_mount": item.bytes_to_mount,
                    "error": item.error,
                }
                for item in self.items
            ],
        }


def plan_mirror(session: Session, comparison: Comparison) -> MirrorPlan:
    """Plans every item of the comparison's work. An item that can't be planned says so, and the others go on."""
    brought: set[tuple[str, Digest]] = set()
    requests: Counter[str] = Counter()
    items = []
    for item in comparison.work:
        for target in item.targets:
            session.cancel.check()
            planned, plan = _planned(session, item, target, comparison, brought)
            items.append(planned)
            if plan is not None:
                requests.update(plan.estimated_requests)
    return MirrorPlan(
        mirror=comparison.mirror,
        source=comparison.source,
        items=tuple(items),
        in_place=comparison.count(TagState.IN_PLACE),
        mutated=comparison.named(TagState.MUTATED),
        unsigned=comparison.named(TagState.UNSIGNED),
        held=comparison.held,
        waiting=comparison.waiting,
        nothing_taken=comparison.nothing_taken,
        requests=dict(sorted(requests.items())),
    )


def _planned(
    session: Session, item: WorkItem, target: Target, comparison: Comparison, brought: set[tuple[str, Digest]]
) -> tuple[PlannedItem, Plan | None]:
    found = PlannedItem(title=item.title, names=item.names, destination=target.destination, tags=target.tags)
    try:
        if item.writes_archive:
            return _archive(session, found, item.alone(target)), None
        plan = make_plan(session, item.request(target), seen=item.seen(target, comparison.listed))
    except TransshipError as error:
        return replace(found, error=str(error)), None
    new = [blob for blob in plan.blobs if (target.destination, blob.digest) not in brought]
    brought.update((target.destination, blob.digest) for blob in new)
    counted = replace(
        found,
        images=len(plan.to_transfer),
        bytes_to_move=sum(blob.size for blob in new if not plan.mountable(blob)),
        bytes_to_mount=sum(blob.size for blob in new if plan.mountable(blob)),
        error="; ".join(failure.message for failure in plan.failures),
    )
    return counted, plan


def _archive(session: Session, found: PlannedItem, item: WorkItem) -> PlannedItem:
    """Written whole, but for what comes out of the old one."""
    plan, archive = archives.planned(session, item)
    moved = archive.size - archive.bytes_copied
    return replace(found, images=len(list(plan.images)), bytes_to_move=moved)
