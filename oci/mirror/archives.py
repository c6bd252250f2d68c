"""Archives as destinations: what one holds by now, and writing it anew with all that is selected.

An archive isn't changed in place: when a tag is missing, stale or no longer wanted, all of it is written again, with
the layers that haven't changed taken out of the old one. It keeps its old bytes until the new ones are complete.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from oci.archive.source import Archive, Nothing
from oci.digest import Digest
from oci.errors import NotFound
from oci.export.export import ArchiveReport, write_archive
from oci.export.options import ExportOptions
from oci.export.plan import ArchivePlan
from oci.export.planner import plan_archive
from oci.mirror.comparison import DestinationComparison, TagState
from oci.mirror.work import WorkItem
from oci.reference import ArchiveName, StoreName, parse_store
from oci.relocation.plan import Plan, PlannedManifest, Role
from oci.relocation.planner import make_plan
from oci.relocation.session import Session

_REWRITTEN = frozenset({TagState.MISSING, TagState.STALE})
_KEPT = frozenset({TagState.MUTATED, TagState.FAILED, TagState.UNSIGNED})


def held_in(session: Session, name: ArchiveName) -> Archive | Nothing:
    """The archive as it is; nothing where there is none yet."""
    try:
        return session.archive(name, "destination")
    except NotFound:
        return Nothing(name)


def has_to_be_written(found: DestinationComparison) -> bool:
    """Not while a tag that it should hold can't be had: what is there then is better."""
    states = {tag.state for tag in found.tags}
    return not states & _KEPT and bool(states & _REWRITTEN or found.extra)


def planned(session: Session, item: WorkItem) -> tuple[Plan, ArchivePlan]:
    """One archive of all that the item names; manifests and configs are read, nothing is written. Raises Incomplete
    when a part of the source can't be read."""
    [target] = item.targets
    requests = item.requests(target)
    plans = [make_plan(session, request) for request in requests]
    plan = plans[0] if len(plans) == 1 else _merged(item.source, parse_store(target.destination), plans)
    name = parse_store(target.destination)
    old = name.locations[0] if isinstance(name, ArchiveName) and isinstance(held_in(session, name), Archive) else ""
    return plan, plan_archive(session, requests[0], plan, ExportOptions(base=old))


def write(session: Session, item: WorkItem) -> tuple[Plan, ArchiveReport]:
    """The same, written. Whatever is raised, the old archive stays then."""
    plan, archive = planned(session, item)
    return plan, write_archive(session, archive)


def _merged(source: str, destination: StoreName, plans: Sequence[Plan]) -> Plan:
    """One plan of several: each manifest and blob once, an image under all of its tags."""
    manifests: dict[Digest, PlannedManifest] = {}
    for manifest in _every(plans):
        known = manifests.get(manifest.digest)
        manifests[manifest.digest] = _both(known, manifest) if known else manifest
    blobs = {blob.digest: blob for plan in plans for blob in plan.blobs}
    return Plan(
        source=source,
        destination=destination,
        root=None,
        manifests=tuple(manifests.values()),
        blobs=tuple(sorted(blobs.values(), key=lambda blob: (-blob.size, blob.digest))),
        bundles=tuple({bundle.digest: bundle for plan in plans for bundle in plan.bundles}.values()),
        failures=tuple(failure for plan in plans for failure in plan.failures),
        skipped_layers=tuple(dict.fromkeys(pair for plan in plans for pair in plan.skipped_layers)),
    )


def _every(plans: Iterable[Plan]) -> Iterable[PlannedManifest]:
    return (manifest for plan in plans for manifest in plan.manifests)


def _both(one: PlannedManifest, other: PlannedManifest) -> PlannedManifest:
    """The reason that makes it an image of its own counts more than being a child of an index."""
    first, second = (other, one) if one.role is Role.CHILD or other.role is Role.ROOT else (one, other)
    return replace(first, tags=tuple(dict.fromkeys((*first.tags, *second.tags))))
