"""Mirrors whose source is a lock file: it pins its images, so nothing is selected, and nothing is compared by tag."""

from __future__ import annotations

from oci.bundle.lockfile import ImagesLock, read_lock
from oci.digest import Digest
from oci.errors import TransshipError
from oci.mirror.archives import held_in
from oci.mirror.comparison import Comparison, DestinationComparison, TagComparison, TagState
from oci.mirror.config import Mirror
from oci.mirror.work import LOCK, Target, WorkItem
from oci.reference import ArchiveName, StoreName
from oci.relocation.planner import make_plan
from oci.relocation.session import Session


def compare_lock(session: Session, mirror: Mirror) -> Comparison:
    """What has to move is what a plan says: one request for each image that is there."""
    name = mirror.source.lock
    found = []
    targets: list[Target] = []
    for destination in mirror.destinations:
        item = WorkItem.of(mirror, LOCK, name, names=(name,), targets=(Target(destination=str(destination)),))
        state, error = _state(session, item, destination.store)
        tag = TagComparison(tag=name, state=state, reason=str(error or ""), error=error)
        found.append(DestinationComparison(destination=str(destination), tags=(tag,)))
        if state is TagState.STALE:
            targets.extend(item.targets)
    work = (WorkItem.of(mirror, LOCK, name, names=(name,), targets=tuple(targets)),) if targets else ()
    return Comparison(mirror=mirror.name, source=name, destinations=tuple(found), work=work)


def _state(session: Session, item: WorkItem, store: StoreName) -> tuple[TagState, TransshipError | None]:
    try:
        if isinstance(store, ArchiveName):
            archive = held_in(session, store)
            there = all(archive.head_manifest(digest) is not None for digest in _pinned(item.source))
            return TagState.IN_PLACE if there else TagState.STALE, None
        plan = make_plan(session, item.request(item.targets[0]))
    except TransshipError as error:
        return TagState.FAILED, error
    return TagState.IN_PLACE if plan.unchanged else TagState.STALE, None


def _pinned(path: str) -> list[Digest]:
    lock = read_lock(path)
    images = [image.image for image in lock.images] if isinstance(lock, ImagesLock) else [lock.image]
    return [image.digest for image in images if image.digest is not None]
