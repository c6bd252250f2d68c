"""One tag taken away, and nothing else with it."""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from oci.bundle.tagnames import list_tags, resolve_tag
from oci.digest import Digest
from oci.errors import InvalidInput, Refused
from oci.prune.execute import check_untags
from oci.prune.keep import Keep
from oci.prune.planner import make_prune_plan
from oci.prune.survey import Surveyor
from oci.reference import ArchiveName, Reference, StoreName
from oci.relocation.session import Session
from oci.store import Destination

ALONE, WITH_MANIFEST = "tag", "manifest"


class Untag(Struct, frozen=True, kw_only=True):
    """A tag, what it shows, and the other tags that show the same. `deleted` is "tag" where the name alone went,
    "manifest" where the manifest went with its only name, and empty as long as nothing is deleted."""

    repository: str
    tag: str
    digest: Digest
    others: tuple[str, ...] = ()
    deleted: str = ""

    def __str__(self) -> str:
        return f"{self.repository}:{self.tag} ({self.digest})"


def plan_untag(session: Session, reference: Reference) -> Untag:
    """Says what the tag shows, and which other tags show the same: each tag is asked for. Raises NotFound, and
    InvalidInput for a digest or an archive."""
    name = reference.repository
    if isinstance(name, ArchiveName) or reference.digest is not None:
        raise InvalidInput(
            f"{reference} is no tag of a repository or a folder",
            hint="name one: REGISTRY/REPOSITORY:TAG or oci:PATH:TAG",
        )
    store = session.destination(name)
    digest = resolve_tag(store, reference).digest
    shown = list_tags(store, internal=True, digests=session.workers)
    others = tuple(tag.name for tag in shown if tag.digest == digest and tag.name != reference.tag)
    return Untag(repository=str(name), tag=reference.tag, digest=Digest(digest or ""), others=others)


def untag(session: Session, reference: Reference) -> Untag:
    """Takes the tag away. A registry that can't do that alone loses the manifest with it, when the tag is its only name
    and nothing that has a name lists it. Raises Refused otherwise, before anything is deleted, and what `plan_untag`
    and the look of a prune raise."""
    plan = plan_untag(session, reference)
    store = session.destination(reference.repository)
    reason = check_untags(store)
    if not reason:
        _check_still(store, plan)
        store.delete_tag(plan.tag)
        return replace(plan, deleted=ALONE)
    if plan.others:
        raise _refused(plan, reason, f"would delete {', '.join(plan.others)} as well")
    needed_by = _needed_by(session, reference.repository, plan)
    if needed_by:
        raise _refused(plan, reason, f"isn't possible either: {needed_by}")
    _check_still(store, plan)
    store.delete_manifest(plan.digest)
    return replace(plan, deleted=WITH_MANIFEST)


def _needed_by(session: Session, name: StoreName, plan: Untag) -> str:
    """Says what needs the manifest though the tag is gone; empty when nothing does."""
    tags = tuple(tag for tag in Surveyor(session, session.destination(name)).listed() if tag != plan.tag)
    look = make_prune_plan(session, name, Keep(tags=tags, optional=tags, nothing=not tags))
    return next((tag.because for tag in look.tags if tag.tag == plan.tag), "")


def _check_still(store: Destination, plan: Untag) -> None:
    shown = store.head_manifest(plan.tag)
    if shown is None or shown.digest != plan.digest:
        raise Refused(
            f"it shows {shown.digest if shown else 'nothing'} now",
            side="destination",
            store=plan.repository,
            subject=plan.tag,
            operation="deleting the tag",
            hint="nothing was deleted; look at it again",
        )


def _refused(plan: Untag, reason: str, but: str) -> Refused:
    return Refused(
        f"the registry can't take a tag away alone ({reason}), and to delete {plan.digest} {but}",
        side="destination",
        store=plan.repository,
        subject=plan.tag,
        operation="deleting the tag",
        hint="nothing was deleted; `transship prune` deletes what nothing needs any more",
    )
