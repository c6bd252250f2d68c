"""One tag taken away, and nothing else with it; and whether a store can delete, and take a tag away alone."""

from __future__ import annotations

import secrets
from contextlib import suppress

from msgspec import Struct
from msgspec.structs import replace

from oci.bundle.tagnames import KEEP_ALIVE_SUFFIX, list_tags, resolve_tag
from oci.digest import Digest, digest_of
from oci.errors import InvalidInput, NotFound, Refused, StoreError
from oci.manifest import artifact_manifest
from oci.prune.plan import Keep
from oci.prune.planner import make_prune_plan
from oci.prune.survey import NOTE_LAYER, NOTE_TYPE, Survey
from oci.reference import ArchiveName, Reference
from oci.relocation.session import Session
from oci.store import Destination, push_artifact

_UNSUPPORTED = frozenset({400, 405, 501})
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
    alone = f"the registry can't take a tag away alone ({reason}), and to delete {plan.digest}"
    advice = "`transship prune` deletes what nothing needs any more"
    if plan.others:
        raise _refused(plan, f"{alone} would delete {', '.join(plan.others)} as well", advice)
    tags = tuple(tag for tag in Survey(session, store).listed() if tag != plan.tag)
    look = make_prune_plan(session, store.name, Keep(tags=tags, optional=tags, nothing=not tags))
    needed_by = next((tag.because for tag in look.tags if tag.tag == plan.tag), "")  # though the tag is gone
    if needed_by:
        raise _refused(plan, f"{alone} isn't possible either: {needed_by}", advice)
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
    data = secrets.token_hex(16).encode()
    probe = artifact_manifest(NOTE_TYPE, NOTE_LAYER, data)
    try:
        push_artifact(destination, probe, data, tag)
    except StoreError as error:
        return f"whether it can be done couldn't be tried with a manifest made for it: {error.message}"
    try:
        destination.delete_tag(tag)
        if destination.head_manifest(tag) is not None:
            return "the registry says that it has deleted a tag, and the tag is there still"
        if destination.head_manifest(probe.digest) is None:
            return "the registry deletes the manifest together with its tag"
    except StoreError as error:
        return error.message  # without the hint: to delete the manifest instead is just what must not happen here
    finally:
        with suppress(StoreError):
            destination.delete_manifest(probe.digest)
    return ""
