"""Carrying out a plan: look again, then delete what is unwanted still, roots before all they list.

Registries have no conditional delete. Before each round of deletions the tags are listed again, and before each
deletion every tag of the manifest is asked for; what is pushed in the moment after that isn't noticed: don't prune a
repository while it is being filled.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

import msgspec

from oci.bundle.tagnames import KEEP_ALIVE_SUFFIX
from oci.digest import Digest, digest_of
from oci.errors import NotFound, Refused, StoreError, TransshipError
from oci.layout.store import Layout
from oci.meter import Receipt
from oci.prune import grace as note
from oci.prune.keep import Keep
from oci.prune.plan import PrunePlan, UnwantedManifest, UnwantedTag, bytes_freed
from oci.prune.planner import look, remember
from oci.prune.survey import Surveyor
from oci.reference import parse_store
from oci.relocation.session import Session
from oci.store import Destination

_UNSUPPORTED = frozenset({400, 405, 501})


class Deleted(msgspec.Struct, frozen=True, kw_only=True):
    """A manifest that is gone, and the tags that went with it."""

    digest: Digest
    kind: str
    tags: tuple[str, ...] = ()


class Left(msgspec.Struct, frozen=True, kw_only=True):
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
    skipped: tuple[Left, ...] = ()
    refused: tuple[Left, ...] = ()
    failed: tuple[Left, ...] = ()
    gone: int = 0
    """Of the plan, what was deleted already by other programs."""
    waiting: int = 0
    """What is unwanted and not yet for as long as the grace period."""
    bytes_freed: int = 0
    """Of a layout folder, what the disk has got back of blobs, with the manifests. Of a registry, what it can free when
    it collects garbage, at most."""
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
    on_deleted: Callable[[str], None] | None = None,
) -> PruneReport:
    """Deletes what the plan says and a new plan by the same policy says too, and nothing else; `keep` is kept besides.

    Every part is tried, whatever becomes of the others; what failed is in the report. May be run again at any time.
    Raises Refused before anything is deleted when the registry has deletions switched off, and what `make_prune_plan`
    raises.
    """
    name = parse_store(plan.destination)
    policy = msgspec.structs.replace(plan.keep.and_also(keep or Keep()), nothing=plan.keep.nothing)
    again, names = look(session, name, policy, grace=plan.grace, now=now, known=plan.by_digest)
    work = _Work(session, again, names, on_deleted or _unheard)
    chosen = work.compare(plan, again)
    tags = work.compare_tags(plan, again)
    if chosen or tags:
        check_deletes(work.store)
        with suppress(*() if plan.grace else (Refused,)):  # a registry whose tags can't move takes no second note
            remember(session, name, again)
        work.delete(chosen)
        if tags and (reason := check_untags(work.store)):
            work.refused.extend(Left(subject=one.tag, reason=reason) for one in tags)
        else:
            work.untag(tags)
    freed = work.freed(again)
    work.forget(again)
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
    """Asks the store to delete a manifest that nobody ever had: a registry that deletes answers that there is none.

    Raises Refused where deletions are switched off, and Denied or Unauthorized for an identity that may not delete.
    """
    try:
        destination.delete_manifest(digest_of(secrets.token_bytes(32)))
    except NotFound:
        return
    except StoreError as error:
        if error.status not in _UNSUPPORTED:
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
    for it, never with one that somebody uses: some registries delete the manifest, and all its tags, with the tag.

    What is made is deleted again, as far as the store lets it be.
    """
    if isinstance(destination, Layout):
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
        self, session: Session, again: PrunePlan, names: Mapping[str, Digest | None], on_deleted: Callable[[str], None]
    ) -> None:
        """`names` are the tags that were listed when `again` was made; a kept one with the digest that it showed."""
        self.store = session.destination(parse_store(again.destination))
        self.deleted: list[Deleted] = []
        self.untagged: list[str] = []
        self.skipped: list[Left] = []
        self.refused: list[Left] = []
        self.failed: list[Left] = []
        self.gone = 0
        self._session = session
        self._again = again
        self._names = names
        self._on_deleted = on_deleted

    def compare(self, plan: PrunePlan, again: PrunePlan) -> list[UnwantedManifest]:
        """What the plan has and what is so still. A manifest stays while anything stays that lists it."""
        chosen: dict[Digest, UnwantedManifest] = {}
        planned = {one.digest: one for one in plan.due_manifests}
        for one in again.manifests:
            before = planned.pop(one.digest, None)
            if before is None:
                continue
            reason = _changed(before, one) or _held(one, chosen)
            if reason:
                self.skipped.append(Left(subject=_shown(one), reason=reason))
            else:
                chosen[one.digest] = one
        for one in planned.values():
            if self.store.head_manifest(one.digest) is None:
                self.gone += 1
            else:
                self.skipped.append(Left(subject=_shown(one), reason="something that is kept needs it now"))
        return list(chosen.values())

    def compare_tags(self, plan: PrunePlan, again: PrunePlan) -> list[UnwantedTag]:
        now = {(one.tag, one.digest): one for one in again.due_tags}
        chosen = []
        for one in plan.due_tags:
            if (one.tag, one.digest) in now:
                chosen.append(one)
            elif (there := self.store.head_manifest(one.tag)) is None:
                self.gone += 1
            else:
                reason = "it is kept now" if there.digest == one.digest else f"it shows {there.digest} now"
                self.skipped.append(Left(subject=one.tag, reason=reason))
        return chosen

    def delete(self, chosen: list[UnwantedManifest]) -> None:
        """In rounds: each after all that lists it. What follows something that couldn't be deleted stays."""
        left = {one.digest: one for one in chosen}
        stuck: set[Digest] = set()
        while left:
            self._session.cancel.check()
            if reason := self._changed_meanwhile(first=len(left) == len(chosen)):
                self.skipped.extend(Left(subject=_shown(one), reason=reason) for one in left.values())
                return
            free = [one for one in left.values() if not left.keys() & set(one.after)]
            held = [one for one in free if stuck & set(one.after)]
            going = [one for one in free if one not in held]
            for one in held:
                self.failed.append(Left(subject=_shown(one), reason="what lists it could not be deleted"))
            for one, error in zip(going, self._session.workers.map(self._delete, going), strict=True):
                if error is None:
                    self.deleted.append(Deleted(digest=one.digest, kind=one.kind, tags=one.tags))
                    self._on_deleted(_shown(one))
                elif isinstance(error, str):
                    stuck.add(one.digest)
                    self.skipped.append(Left(subject=_shown(one), reason=error))
                else:
                    stuck.add(one.digest)
                    self.failed.append(Left(subject=_shown(one), reason=str(error), retryable=error.retryable))
            stuck.update(one.digest for one in held)
            for one in free:
                del left[one.digest]

    def _changed_meanwhile(self, *, first: bool) -> str:
        """Why nothing more is deleted: a tag that the look before hadn't, which may need anything, or, before the first
        round, a kept tag that shows something else by now."""
        if isinstance(self.store, Layout):
            return ""
        new = [tag for tag in Surveyor(self._session, self.store).listed() if tag not in self._names]
        if new:
            return f"the tag {min(new)} was pushed meanwhile; run it again"
        kept = [tag for tag, digest in self._names.items() if digest] if first else []
        for tag, shown in zip(kept, self._session.workers.map(self.store.head_manifest, kept), strict=True):
            if shown is None or shown.digest != self._names[tag]:
                return f"the tag {tag}, which is kept, has moved meanwhile; run it again"
        return ""

    def _delete(self, one: UnwantedManifest) -> TransshipError | str | None:
        """None when it is gone; what has changed since the look before, in words; or the error."""
        try:
            for tag in one.tags:
                shown = self.store.head_manifest(tag)
                if shown is not None and shown.digest != one.digest:
                    return f"the tag {tag} shows {shown.digest} now"
            self.store.delete_manifest(one.digest)
        except NotFound:
            return None  # a registry may take referrers away with their subject
        except TransshipError as error:
            return error
        return None

    def untag(self, tags: list[UnwantedTag]) -> None:
        """One by one. The first is looked at closely, though a manifest made for it was tried before."""
        for number, one in enumerate(tags):
            self._session.cancel.check()
            try:
                self._untag(one, look=number == 0)
            except NotFound:
                self.gone += 1
            except Refused as error:
                # Not the hint: deleting the manifest instead is just what must not happen here.
                self.refused.extend(Left(subject=left.tag, reason=error.message) for left in tags[number:])
                return
            except TransshipError as error:
                self.failed.append(Left(subject=one.tag, reason=str(error), retryable=error.retryable))

    def _untag(self, one: UnwantedTag, *, look: bool) -> None:
        manifest = self.store.get_manifest(one.digest) if look else None
        self.store.delete_tag(one.tag)
        if manifest is not None and self.store.head_manifest(one.digest) is None:
            for tag in one.others or ("",):
                self.store.put_manifest(manifest, tag)
            raise Refused(
                f"the registry deleted {one.digest} together with the tag; it was pushed again under its other tags",
                side="destination",
                store=str(self.store.name),
                subject=one.tag,
                operation="deleting the tag",
            )
        self.untagged.append(one.tag)
        self._on_deleted(one.tag)

    def forget(self, again: PrunePlan) -> None:
        """What is done, and without a grace period what was never to be remembered, leaves the note."""
        done = {one.digest for one in self.deleted}
        left = again if again.grace or self.failed else msgspec.structs.replace(again, manifests=(), tags=())
        with suppress(StoreError):  # it would tell of what is gone, and the next plan finds that out
            remember(self._session, self.store.name, left, gone=done, untagged=self.untagged)

    def freed(self, again: PrunePlan) -> int:
        """What the deleted manifests leave unused; a layout folder is swept."""
        gone = {one.digest for one in self.deleted}
        manifests = sum(one.size for one in again.manifests if one.digest in gone)
        if isinstance(self.store, Layout):
            return manifests + self.store.sweep({one for digest in gone for one, _ in again.by_digest[digest].blobs})
        return bytes_freed(again.manifests, gone)


def _changed(before: UnwantedManifest, now: UnwantedManifest) -> str:
    fresh = sorted(set(now.tags) - set(before.tags))
    if fresh:
        return f"the tag {fresh[0]} shows it since the plan was made"
    return "" if now.due else "its grace period has begun anew"


def _held(one: UnwantedManifest, chosen: Mapping[Digest, UnwantedManifest]) -> str:
    left = [digest for digest in one.after if digest not in chosen]
    return f"{left[0]}, which needs it, stays" if left else ""


def _shown(one: UnwantedManifest) -> str:
    return f"{one.digest} ({', '.join(one.tags)})" if one.tags else str(one.digest)


def _unheard(subject: str) -> None:
    del subject
