"""Carrying out a plan: look again, then delete what is unwanted still, roots before all they list.

Registries have no conditional delete. Before every few deletions the tags are listed again and the kept ones asked for,
and before each deletion every tag of the manifest; what is pushed in the moment after that isn't noticed: don't prune
a repository while it is being filled.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

import msgspec

from oci.bundle.tagnames import KEEP_ALIVE_SUFFIX
from oci.digest import Digest, digest_of
from oci.errors import NotFound, Refused, StoreError, TransshipError
from oci.manifest import Manifest
from oci.meter import Receipt, unheard
from oci.prune import grace as note
from oci.prune.keep import Keep
from oci.prune.plan import PrunePlan, UnwantedManifest, UnwantedTag, bytes_freed
from oci.prune.planner import look, remember
from oci.prune.survey import Surveyor
from oci.relocation.session import Session
from oci.store import Destination

_UNSUPPORTED = frozenset({400, 405, 501})
_AT_ONCE = 64
"""Deletions between two looks at the names, if few names are kept."""


class Deleted(msgspec.Struct, frozen=True, kw_only=True):
    """A manifest that is gone, and the tags that went with it."""

    digest: Digest
    kind: str
    tags: tuple[str, ...] = ()


class Remaining(msgspec.Struct, frozen=True, kw_only=True):
    """A manifest or tag of the plan that is still at the destination, and why."""

    subject: str
    reason: str
    retryable: bool = False


class PruneReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a prune did. Sizes in bytes. `skipped` were spared, because something has changed since the plan was made;
    `refused` are tags that the registry can't take away alone; `failed` could not be deleted."""

    destination: str
    deleted: tuple[Deleted, ...] = ()
    untagged: tuple[str, ...] = ()
    skipped: tuple[Remaining, ...] = ()
    refused: tuple[Remaining, ...] = ()
    failed: tuple[Remaining, ...] = ()
    gone: int = 0
    """Number of things of the plan that other programs have deleted already."""
    waiting: int = 0
    """What is unwanted and not yet for as long as the grace period."""
    bytes_freed: int = 0
    """A layout folder: what its disk got back. A registry: what it can free when it collects garbage, at most."""
    receipt: Receipt

    def to_dict(self) -> dict[str, Any]:
        body: dict[str, Any] = msgspec.to_builtins(msgspec.structs.replace(self, receipt=Receipt()))
        return body | {"receipt": self.receipt.to_dict()}


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
    name = plan.store
    policy = msgspec.structs.replace(plan.keep.and_also(keep or Keep()), nothing=plan.keep.nothing)
    again, listed, kept_tags = look(session, name, policy, grace=plan.grace, now=now, extra=plan.by_digest)
    work = _Work(session, again, listed, kept_tags, on_deleted)
    chosen = work.compare(plan)
    tags = work.compare_tags(plan)
    if chosen or tags:
        check_deletes(work.store)
        with suppress(*() if plan.grace else (Refused,)):  # a registry whose tags can't move takes no second note
            remember(session, name, again)
        work.delete(chosen)
        if tags and (reason := check_untags(work.store)):
            work.refused.extend(Remaining(subject=tag.tag, reason=reason) for tag in tags)
        else:
            work.untag(tags)
    freed = work.freed()
    work.forget()
    return PruneReport(
        destination=plan.destination,
        deleted=tuple(work.deleted),
        untagged=tuple(work.untagged),
        skipped=tuple(work.skipped),
        refused=tuple(work.refused),
        failed=tuple(work.failed),
        gone=work.gone,
        waiting=again.waiting,
        bytes_freed=freed,
        receipt=session.meter.receipt(),
    )


def check_deletes(destination: Destination) -> None:
    """Asks the store to delete a manifest that never existed: a registry that deletes answers that there is none.

    Raises Refused where deletions are switched off, and Denied or Unauthorized for an identity that may not delete.
    """
    try:
        destination.delete_manifest(digest_of(secrets.token_bytes(32)))
    except NotFound:
        return
    except StoreError as error:
        if error.status not in _UNSUPPORTED and error.code != "UNSUPPORTED":
            raise
        raise Refused(
            f"this registry doesn't delete: {error.message}",
            side=error.side,
            store=error.store,
            operation="pruning",
            status=error.status,
            code=error.code,
            hint="nothing was deleted; switch deletions on (docker-registry: REGISTRY_STORAGE_DELETE_ENABLED=true)",
        ) from error


def check_untags(destination: Destination) -> str:
    """Says why the store can't take a tag away alone; empty when it can. Tried with a manifest and a tag that are made
    for it, never with one in use: some registries delete the manifest, and all its tags, with the tag.

    What is made is deleted again, as far as the store lets it be.
    """
    if not destination.name.registry:  # a layout folder names a manifest in one file, and nothing else does
        return ""
    tag = f"transship-probe-{secrets.token_hex(8)}{KEEP_ALIVE_SUFFIX}"
    try:
        probe = note.push(destination, secrets.token_hex(16), tag)
    except StoreError as error:
        return f"whether it can be done couldn't be tried with a manifest made for it: {error.message}"
    try:
        destination.delete_tag(tag)
        if destination.head_manifest(tag) is not None:
            return "the registry says that it has deleted a tag, and the tag is there still"
        if destination.head_manifest(probe) is None:
            return "the registry deletes the manifest together with its tag"
    except StoreError as error:
        return error.message  # without the hint: to delete the manifest instead is just what must not happen here
    finally:
        with suppress(StoreError):
            destination.delete_manifest(probe)
    return ""


class _Work:
    """One execution, and how it went so far."""

    def __init__(
        self,
        session: Session,
        again: PrunePlan,
        listed: Collection[str],
        kept_tags: Mapping[str, Digest | None],
        on_deleted: Callable[[str], None],
    ) -> None:
        """`again` is the new plan; `listed` and `kept_tags` are what `look` gave with it."""
        self.store = session.destination(again.store)
        self.deleted: list[Deleted] = []
        self.untagged: list[str] = []
        self.skipped: list[Remaining] = []
        self.refused: list[Remaining] = []
        self.failed: list[Remaining] = []
        self.gone = 0
        self._session = session
        self._again = again
        self._listed = listed
        self._kept_tags = kept_tags
        self._on_deleted = on_deleted

    def compare(self, plan: PrunePlan) -> list[UnwantedManifest]:
        """Returns what the plan has and what is so still. A manifest stays while anything stays that lists it."""
        chosen: dict[Digest, UnwantedManifest] = {}
        planned = {manifest.digest: manifest for manifest in plan.due_manifests}
        for manifest in self._again.manifests:
            before = planned.pop(manifest.digest, None)
            if before is None:
                continue
            reason = _changed(before, manifest) or _blocked_by(manifest, chosen)
            if reason:
                self.skipped.append(Remaining(subject=_shown(manifest), reason=reason))
            else:
                chosen[manifest.digest] = manifest
        for manifest in planned.values():
            if self.store.head_manifest(manifest.digest) is None:
                self.gone += 1
            else:
                self.skipped.append(Remaining(subject=_shown(manifest), reason="something that is kept needs it now"))
        return list(chosen.values())

    def compare_tags(self, plan: PrunePlan) -> list[UnwantedTag]:
        now = {(tag.tag, tag.digest): tag for tag in self._again.due_tags}
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
        at_once = max(_AT_ONCE, 4 * len(self._kept_tags))
        while pending:
            self._session.cancel.check()
            if reason := self._changed_meanwhile():
                self.skipped.extend(Remaining(subject=_shown(manifest), reason=reason) for manifest in pending.values())
                return
            free = [manifest for manifest in pending.values() if not pending.keys() & set(manifest.after)][:at_once]
            blocked = [manifest for manifest in free if stuck & set(manifest.after)]
            going = [manifest for manifest in free if manifest not in blocked]
            for manifest in blocked:
                self.failed.append(Remaining(subject=_shown(manifest), reason="what lists it could not be deleted"))
            for manifest, error in zip(going, self._session.workers.map(self._delete, going), strict=True):
                if error is None:
                    self.deleted.append(Deleted(digest=manifest.digest, kind=manifest.kind, tags=manifest.tags))
                    self._on_deleted(_shown(manifest))
                elif isinstance(error, str):
                    stuck.add(manifest.digest)
                    self.skipped.append(Remaining(subject=_shown(manifest), reason=error))
                else:
                    stuck.add(manifest.digest)
                    self.failed.append(
                        Remaining(subject=_shown(manifest), reason=str(error), retryable=error.retryable)
                    )
            stuck.update(manifest.digest for manifest in blocked)
            for manifest in free:
                del pending[manifest.digest]

    def _changed_meanwhile(self) -> str:
        """Why nothing more is deleted: a tag that the look before hadn't, which may need anything, or a kept tag that
        shows something else by now."""
        if not self.store.name.registry:  # the folder is of one program at a time
            return ""
        new = [tag for tag in Surveyor(self._session, self.store).listed() if tag not in self._listed]
        if new:
            return f"the tag {min(new)} was pushed meanwhile; run it again"
        for tag, shown in zip(
            self._kept_tags, self._session.workers.map(self.store.head_manifest, self._kept_tags), strict=True
        ):
            if (shown.digest if shown else None) != self._kept_tags[tag]:
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
            self._session.cancel.check()
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
        self._on_deleted(unwanted.tag)

    def _pushed_again(self, manifest: Manifest, tag: str) -> bool:
        """Tried twice: nothing else brings back what was deleted by mistake."""
        for _ in range(2):
            with suppress(StoreError):
                self.store.put_manifest(manifest, tag)
                return True
        return False

    def forget(self) -> None:
        """What is done, and without a grace period what was never to be remembered, leaves the note."""
        digests = {deleted.digest for deleted in self.deleted}
        noted = self._again
        if not (noted.grace or self.failed):
            noted = msgspec.structs.replace(noted, manifests=(), tags=())
        with suppress(StoreError):  # a stale note names what is gone, and the next plan finds that out
            remember(self._session, self.store.name, noted, gone=digests, untagged=self.untagged)

    def freed(self) -> int:
        """Returns what the deleted manifests leave unused; a layout folder is swept."""
        gone = {deleted.digest for deleted in self.deleted}
        manifests = sum(manifest.size for manifest in self._again.manifests if manifest.digest in gone)
        blobs = {blob for digest in gone for blob, _ in self._again.by_digest[digest].blobs}
        swept = self.store.sweep(blobs)
        return bytes_freed(self._again.manifests, gone) if swept is None else manifests + swept


def _changed(before: UnwantedManifest, now: UnwantedManifest) -> str:
    fresh = sorted(set(now.tags) - set(before.tags))
    if fresh:
        return f"the tag {fresh[0]} shows it since the plan was made"
    return "" if now.due else "its grace period has begun anew"


def _blocked_by(manifest: UnwantedManifest, chosen: Mapping[Digest, UnwantedManifest]) -> str:
    blocking = [digest for digest in manifest.after if digest not in chosen]
    return f"{blocking[0]}, which needs it, stays" if blocking else ""


def _shown(manifest: UnwantedManifest) -> str:
    return f"{manifest.digest} ({', '.join(manifest.tags)})" if manifest.tags else str(manifest.digest)
