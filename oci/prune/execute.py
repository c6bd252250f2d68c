"""Carrying out a plan: look again, then delete what is unwanted still, roots before all they list.

Registries have no conditional delete. Before every few deletions the tags are listed again and the kept ones asked for,
and before each deletion every tag of the manifest; what is pushed in the moment after that isn't noticed: don't prune
a repository while it is being filled.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime

from msgspec import Struct
from msgspec.structs import replace

from oci.bundle.tagnames import list_tags, resolve_tag
from oci.digest import Digest
from oci.errors import InvalidInput, NotFound, Refused, StoreError, TransshipError
from oci.manifest import Manifest
from oci.meter import unheard
from oci.prune.plan import (
    Deleted,
    PrunePlan,
    PruneReport,
    Remaining,
    UnwantedManifest,
    UnwantedTag,
    bytes_freed,
)
from oci.prune.planner import look, make_prune_plan, remember
from oci.prune.policy import Keep
from oci.prune.survey import Survey, check_deletes, check_tag_deletes, check_untags
from oci.reference import ArchiveName, Reference
from oci.relocation.session import Session
from oci.store import Destination

_AT_ONCE = 64
"""Deletions between two looks at the names, if few names are kept."""


def execute(
    session: Session,
    plan: PrunePlan,
    *,
    keep: Keep | None = None,
    now: datetime | None = None,
    on_deleted: Callable[[str], None] = unheard,
) -> PruneReport:
    """Deletes what the plan says and a new plan by the same policy says too, and nothing else; `keep` is kept besides.

    Every part is tried, whatever becomes of the others; what failed is in the report. May be run again at any time.
    Raises Refused before anything is deleted when the registry has deletions switched off, and what `make_prune_plan`
    raises.
    """
    policy = replace(plan.keep.and_also(keep or Keep()), nothing=plan.keep.nothing)
    again, listed, kept_tags = look(session, plan.store, policy, grace=plan.grace, now=now, extra=plan.by_digest)
    work = _Work(
        session=session,
        store=session.destination(plan.store),
        again=again,
        listed=listed,
        kept_tags=kept_tags,
        on_deleted=on_deleted,
    )
    chosen = work.compare(plan)
    tags = work.compare_tags(plan)
    if chosen or tags:
        check_deletes(work.store)
        with suppress(*() if plan.grace else (Refused,)):  # a registry whose tags can't move takes no second note
            remember(session, plan.store, again)
        work.delete(chosen)
        if tags and (reason := check_untags(work.store)):
            work.refused.extend(Remaining(subject=tag.tag, reason=reason) for tag in tags)
        else:
            work.untag(tags)
    freed = work.clean_up()
    return PruneReport(
        destination=plan.destination,
        **{name: tuple(getattr(work, name)) for name in ("deleted", "untagged", "skipped", "refused", "failed")},
        gone=work.gone,
        waiting=again.waiting,
        bytes_freed=freed,
        receipt=session.meter.receipt(),
    )


@dataclass(kw_only=True)
class _Work:
    """One execution, and how it went so far. `again` is the new plan; `listed` and `kept_tags` are what `look` gave
    with it."""

    session: Session
    store: Destination
    again: PrunePlan
    listed: Collection[str]
    kept_tags: Mapping[str, Digest | None]
    on_deleted: Callable[[str], None]
    deleted: list[Deleted] = field(default_factory=list)
    untagged: list[str] = field(default_factory=list)
    skipped: list[Remaining] = field(default_factory=list)
    refused: list[Remaining] = field(default_factory=list)
    failed: list[Remaining] = field(default_factory=list)
    gone: int = 0

    def compare(self, plan: PrunePlan) -> list[UnwantedManifest]:
        """Returns what the plan has and what is so still. A manifest stays while anything stays that lists it."""
        chosen: dict[Digest, UnwantedManifest] = {}
        planned = {manifest.digest: manifest for manifest in plan.due_manifests}
        for manifest in self.again.manifests:
            before = planned.pop(manifest.digest, None)
            if before is None:
                continue
            reason = "" if manifest.due else "its grace period has begun anew"
            if fresh := sorted(set(manifest.tags) - set(before.tags)):
                reason = f"the tag {fresh[0]} shows it since the plan was made"
            elif not reason and (blocking := [digest for digest in manifest.after if digest not in chosen]):
                reason = f"{blocking[0]}, which needs it, stays"
            if reason:
                self.skipped.append(Remaining(subject=str(manifest), reason=reason))
            else:
                chosen[manifest.digest] = manifest
        for manifest in planned.values():
            if self.store.head_manifest(manifest.digest) is None:
                self.gone += 1
            else:
                self.skipped.append(Remaining(subject=str(manifest), reason="something that is kept needs it now"))
        return list(chosen.values())

    def compare_tags(self, plan: PrunePlan) -> list[UnwantedTag]:
        now = {(tag.tag, tag.digest): tag for tag in self.again.due_tags}
        chosen = []
        for tag in plan.due_tags:
            if (tag.tag, tag.digest) in now:
                chosen.append(tag)
            elif (shown := self.store.head_manifest(tag.tag)) is None:
                self.gone += 1
            else:
                reason = "it is kept now" if shown.digest == tag.digest else f"it shows {shown.digest} now"
                self.skipped.append(Remaining(subject=tag.tag, reason=reason))
        return chosen

    def delete(self, chosen: list[UnwantedManifest]) -> None:
        """In rounds: each after all that lists it, and few enough at once that a look at the names, which costs a
        request for each that is kept, comes often and is no more than a part of the work. What follows something that
        couldn't be deleted stays."""
        pending = {manifest.digest: manifest for manifest in chosen}
        stuck: set[Digest] = set()
        at_once = max(_AT_ONCE, 4 * len(self.kept_tags))
        while pending:
            self.session.cancel.check()
            if reason := self._changed_meanwhile():
                self.skipped.extend(Remaining(subject=str(manifest), reason=reason) for manifest in pending.values())
                return
            free = [manifest for manifest in pending.values() if not pending.keys() & set(manifest.after)][:at_once]
            blocked = [manifest for manifest in free if stuck & set(manifest.after)]
            going = [manifest for manifest in free if manifest not in blocked]
            for manifest in blocked:
                self.failed.append(Remaining(subject=str(manifest), reason="what lists it could not be deleted"))
            for manifest, error in zip(going, self.session.workers.map(self._delete, going), strict=True):
                if error is None:
                    self.deleted.append(Deleted(digest=manifest.digest, kind=manifest.kind, tags=manifest.tags))
                    self.on_deleted(str(manifest))
                    continue
                stuck.add(manifest.digest)
                if isinstance(error, str):
                    self.skipped.append(Remaining(subject=str(manifest), reason=error))
                else:
                    self.failed.append(Remaining(subject=str(manifest), reason=str(error), retryable=error.retryable))
            stuck.update(manifest.digest for manifest in blocked)
            for manifest in free:
                del pending[manifest.digest]

    def _changed_meanwhile(self) -> str:
        """Why nothing more is deleted: a tag that the look before hadn't, which may need anything, or a kept tag that
        shows something else by now."""
        if not self.store.name.registry:  # the folder is of one program at a time
            return ""
        new = [tag for tag in Survey(self.session, self.store).listed() if tag not in self.listed]
        if new:
            return f"the tag {min(new)} was pushed meanwhile; run it again"
        heads = self.session.workers.map(self.store.head_manifest, self.kept_tags)
        for tag, shown in zip(self.kept_tags, heads, strict=True):
            if (shown.digest if shown else None) != self.kept_tags[tag]:
                return f"the tag {tag}, which is kept, has moved meanwhile; run it again"
        return ""

    def _delete(self, manifest: UnwantedManifest) -> TransshipError | str | None:
        """Returns None when it is gone; what has changed since the look before, in words; or the error."""
        try:
            for tag in manifest.tags:
                shown = self.store.head_manifest(tag)
                if shown is not None and shown.digest != manifest.digest:
                    return f"the tag {tag} shows {shown.digest} now"
            try:
                self.store.delete_manifest(manifest.digest)
            except Refused as refusal:
                self._untag_all(manifest, refusal)
                self.store.delete_manifest(manifest.digest)
        except NotFound:
            return None  # a registry may take referrers away with their subject
        except TransshipError as error:
            return error
        return None

    def _untag_all(self, manifest: UnwantedManifest, refusal: Refused) -> None:
        """Takes the tags of a manifest away, none of which is wanted, for a registry that keeps a manifest while tags
        show it (GAR). Raises `refusal` where it has none, or keeps them."""
        if not manifest.tags or not refusal.status:
            raise refusal
        for tag in manifest.tags:
            try:
                self.store.delete_tag(tag)
            except NotFound:
                continue
            except StoreError as error:
                raise refusal from error

    def untag(self, tags: list[UnwantedTag]) -> None:
        """One by one. The first is looked at closely, though a manifest made for it was tried before; nothing follows a
        tag that took its manifest along."""
        for number, tag in enumerate(tags):
            self.session.cancel.check()
            try:
                self._untag(tag, look=number == 0)
            except NotFound:
                self.gone += 1
            except Refused as error:
                # Not the hint: deleting the manifest instead is just what must not happen here.
                self.refused.extend(Remaining(subject=other.tag, reason=error.message) for other in tags[number:])
                return
            except TransshipError as error:
                self.failed.append(Remaining(subject=tag.tag, reason=str(error), retryable=error.retryable))

    def _untag(self, unwanted: UnwantedTag, *, look: bool) -> None:
        manifest = self.store.get_manifest(unwanted.digest) if look else None
        shown = self.store.head_manifest(unwanted.tag)
        if shown is not None and shown.digest != unwanted.digest:
            self.skipped.append(Remaining(subject=unwanted.tag, reason=f"it shows {shown.digest} now"))
            return
        self.store.delete_tag(unwanted.tag)
        if manifest is not None and self.store.head_manifest(unwanted.digest) is None:
            refused = [tag for tag in unwanted.others or ("",) if not self._pushed_again(manifest, tag)]
            again = f"and refuses it under {', '.join(refused) or 'its digest'}: copy it again with --repair"
            raise Refused(
                f"the registry deleted {unwanted.digest} together with the tag, "
                f"{again if refused else 'and took it again under its other tags'}",
                side="destination",
                store=str(self.store.name),
                subject=unwanted.tag,
                operation="deleting the tag",
            )
        self.untagged.append(unwanted.tag)
        self.on_deleted(unwanted.tag)

    def _pushed_again(self, manifest: Manifest, tag: str) -> bool:
        """Tried twice: nothing else brings back what was deleted by mistake."""
        for _ in range(2):
            with suppress(StoreError):
                self.store.put_manifest(manifest, tag)
                return True
        return False

    def clean_up(self) -> int:
        """Sweeps a layout folder, and leaves out of the note what is done, and without a grace period what was never
        to be remembered. Returns the bytes that the deleted manifests leave unused."""
        again, digests = self.again, {deleted.digest for deleted in self.deleted}
        manifests = sum(manifest.size for manifest in again.manifests if manifest.digest in digests)
        swept = self.store.sweep({blob for digest in digests for blob, _ in again.by_digest[digest].blobs})
        keeps_note = again.grace or self.failed
        noted = again if keeps_note else replace(again, manifests=(), tags=())
        with suppress(StoreError):  # a stale note names what is gone, and the next plan finds that out
            remember(self.session, self.store.name, noted, gone=digests, untagged=self.untagged)
        return bytes_freed(again.manifests, digests) if swept is None else manifests + swept


# One tag.

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
    reason = check_tag_deletes(store) or check_untags(store)
    if not reason:
        _check_still(store, plan)
        store.delete_tag(plan.tag)
        return replace(plan, deleted=ALONE)
    alone = f"the registry can't take a tag away alone ({reason}), and to delete {plan.digest}"
    advice = "`transship prune` deletes what nothing needs any more"
    if plan.others:
        raise _refused(plan, f"{alone} would delete {', '.join(plan.others)} as well", advice)
    tags = tuple(tag for tag in Survey(session, store).listed() if tag != plan.tag)
    look = make_prune_plan(session, store.name, Keep(tags=tags, optional=tags, nothing=not tags))
    needed_by = next((tag.because for tag in look.tags if tag.tag == plan.tag), "")  # though the tag is gone
    if needed_by:
        raise _refused(plan, f"{alone} isn't possible either: {needed_by}", advice)
    check_deletes(store)
    _check_still(store, plan)
    store.delete_manifest(plan.digest)
    return replace(plan, deleted=WITH_MANIFEST)


def _check_still(store: Destination, plan: Untag) -> None:
    shown = store.head_manifest(plan.tag)
    if shown is None or shown.digest != plan.digest:
        raise _refused(plan, f"it shows {shown.digest if shown else 'nothing'} now", "look at it again")


def _refused(plan: Untag, problem: str, advice: str) -> Refused:
    return Refused(
        problem,
        side="destination",
        store=plan.repository,
        subject=plan.tag,
        operation="deleting the tag",
        hint=f"nothing was deleted; {advice}",
    )
