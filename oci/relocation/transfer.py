"""Moving one image: blobs first, children before parents. Idempotent; on any machine, in any order, any number of
times."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from msgspec.structs import replace

from oci.digest import Chunk, Digest
from oci.errors import IntegrityError, InvalidInput, NotFound, Refused, StoreError, TransshipError
from oci.manifest import Manifest, parse_manifest
from oci.reference import Repository, StoreName
from oci.relocation.fanout import SharedRead, wait_all
from oci.relocation.plan import Plan, PlannedBlob, PlannedManifest
from oci.relocation.session import WORTH_SHARING, Claim, Session
from oci.store import BlobOutcome, BlobReader, Destination, Source, reader_of

DONE = "done"
PRESENT = "present"
FAILED = "failed"
CHILD_UNREAD = "a child of this index couldn't be read when the plan was made"

_READ_ROUNDS = 2
"""How often all places of a blob are tried when what they give isn't what was promised."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageOutcome:
    """What became of one image. Sizes in bytes, counted for the image that first needed the blob."""

    digest: Digest
    subject: str
    role: str
    status: str
    bytes_written: int = 0
    bytes_mounted: int = 0
    bytes_skipped: int = 0
    seconds: float = 0.0
    error: str = ""
    error_class: str = ""
    side: str = ""
    """Whose failure it was, source or destination, and which registry's or layout's."""
    store: str = ""
    retryable: bool = False

    @classmethod
    def of(cls, image: PlannedManifest, status: str, **more: Any) -> ImageOutcome:
        return cls(digest=image.digest, subject=image.subject, role=image.role.value, status=status, **more)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def transfer_image(session: Session, plan: Plan, digest: Digest) -> ImageOutcome:
    """Brings the image and all below it to the destination; a bundle's own manifest waits for `publish`, and so does
    one that its tag is to hold.

    Raises whatever stopped it (retryable errors say so); nothing is named by then.
    """
    started = time.monotonic()
    image = plan.by_digest[digest]
    if image.present:
        return ImageOutcome.of(image, PRESENT)
    destination = session.destination(plan.destination)
    if (unread := plan.unread_child(image)) is not None:
        store = str(image.store)
        raise NotFound(CHILD_UNREAD, side="source", store=store, subject=unread, operation="transferring")
    below = list(plan.below(image))
    blobs = [plan.blob_by_digest[blob] for manifest in below if not manifest.present for blob in manifest.blobs]
    blobs.sort(key=lambda blob: -blob.size)
    owned, others = session.ledger.claim(
        plan.destination, [blob.digest for blob in blobs if blob.size >= WORTH_SHARING]
    )
    stored = False
    try:
        moved = _move_blobs(session, plan, blobs, others)
        complete = (
            plan.repair
            and not moved[BlobOutcome.WRITTEN]
            and all(destination.head_manifest(manifest.digest) is not None for manifest in below)
        )
        for manifest in below:
            awaited = any(claim.waiters for claim in owned.values())
            if not manifest.is_bundle and not manifest.present and (awaited or not manifest.held_by_tag):
                _push_manifest(session, plan, manifest, blobs)
        stored = True
    finally:
        session.ledger.release(owned, stored=stored)
    return ImageOutcome.of(
        image,
        PRESENT if complete else DONE,
        **{f"bytes_{outcome.value}": size for outcome, size in moved.items()},
        seconds=time.monotonic() - started,
    )


def failure(image: PlannedManifest, error: TransshipError) -> ImageOutcome:
    """Returns the outcome of an image that `transfer_image` gave up."""
    return ImageOutcome.of(
        image,
        FAILED,
        error=str(error),
        error_class=type(error).__name__,
        side=error.side if isinstance(error, StoreError) else "",
        store=error.store if isinstance(error, StoreError) else "",
        retryable=error.retryable,
    )


def load_manifest(session: Session, planned: PlannedManifest) -> Manifest:
    """Returns the bytes of a planned manifest: from the plan, from what planning has read, or from where it was
    found."""
    if planned.raw:
        return parse_manifest(planned.raw.encode(), planned.media_type)
    raw = session.cache.get(planned.digest)
    if raw is not None:
        return parse_manifest(raw, planned.media_type, limit=len(raw))
    # What the destination has was found there, with the login that is for the destination.
    home = session.destination(planned.store) if planned.present else session.source(planned.store)
    manifest = home.get_manifest(planned.digest)
    session.cache.put(planned.digest, manifest.raw)
    return manifest


def put_manifest(session: Session, destination: Destination, manifest: Manifest, tag: str) -> None:
    """Pushes a manifest under a tag, or by digest, while no other push in this session disturbs it."""
    with session.manifests.pushing(destination.name, manifest):
        destination.put_manifest(manifest, tag)


def _move_blobs(
    session: Session, plan: Plan, blobs: Sequence[PlannedBlob], others: Mapping[Digest, Claim]
) -> dict[BlobOutcome, int]:
    """Returns the bytes by outcome. Blobs that another repository of the registry is about to have (`others`) come
    last: they are mounted from there."""
    begun: list[tuple[PlannedBlob, Future[BlobOutcome], bool]] = []
    for blob in sorted(blobs, key=lambda blob: blob.digest in others):
        if blob.digest in others:
            others[blob.digest].wait(session.cancel)
        move = partial(_move_blob, session, plan, blob)
        begun.append((blob, *session.blobs.once((plan.destination, blob.digest), blob.size, move)))
    outcomes = wait_all([future for _, future, _ in begun])
    moved = dict.fromkeys(BlobOutcome, 0)
    for (blob, _, mine), outcome in zip(begun, outcomes, strict=True):
        if mine:
            moved[outcome] += blob.size
    return moved


def share_reads(session: Session, plans: Sequence[Plan]) -> None:
    """Starts to move the blobs that several of the plans need, each read once for all of their destinations. The
    transfers of the plans find them on their way."""
    plan_of = {plan.destination: plan for plan in plans}
    stores_of: dict[Digest, list[StoreName]] = {}
    for plan in plans:
        for blob in plan.blobs:
            stores_of.setdefault(blob.digest, []).append(plan.destination)
    for blob in {blob.digest: blob for plan in plans for blob in plan.blobs}.values():
        stores = stores_of[blob.digest]
        if blob.size >= WORTH_SHARING:  # the first repository of each registry: others mount from there (BlobLedger)
            stores = list({store.registry or store: store for store in reversed(stores)}.values())
        if len(stores) > 1:
            claims = {store: session.ledger.claim(store, [blob.digest])[0] for store in stores}
            keys = [(store, blob.digest) for store in stores]
            move = partial(_move_to_all, session, plan_of, blob, claims)
            if not session.blobs.together(keys, blob.size, move):
                for owned in claims.values():
                    session.ledger.release(owned, stored=False)


def _move_to_all(  # noqa: PLR0917 - called by the pool
    session: Session,
    plan_of: Mapping[StoreName, Plan],
    blob: PlannedBlob,
    claims: Mapping[StoreName, Mapping[Digest, Claim]],
    keys: Sequence[Hashable],
    resolve: Callable[[Hashable, BlobOutcome | BaseException], None],
) -> None:
    """Starts a thread for each destination, because each waits for its own network."""
    read = partial(_followed, session, blob, session.source(blob.stores[0]), {name.registry for name in claims})
    shared = SharedRead(read, seats=len(keys), cancel=session.cancel)

    def move(name: StoreName) -> None:
        seat = shared.seat()
        outcome: BlobOutcome | BaseException
        try:
            plan = plan_of[name]
            outcome = _move_blob(session, plan, plan.blob_by_digest[blob.digest], seat.open)
        except BaseException as error:  # noqa: BLE001 - the transfers that wait for this blob raise it
            outcome = error
        finally:
            seat.leave()
        resolve((name, blob.digest), outcome)
        session.ledger.release(claims[name], stored=isinstance(outcome, BlobOutcome))

    first, *others = [name for name in claims if (name, blob.digest) in keys]
    threads = [threading.Thread(target=move, args=(name,), name="blob-shared", daemon=True) for name in others]
    for thread in threads:
        thread.start()
    move(first)
    for thread in threads:
        thread.join()
    for owned in claims.values():  # of destinations whose transfers have begun to move the blob themselves
        session.ledger.release(owned, stored=False)


def _move_blob(session: Session, plan: Plan, blob: PlannedBlob, read: BlobReader | None = None) -> BlobOutcome:
    """Reads from the first place that gives the right bytes. A wrong byte is never a reason to give up at once: another
    place, or another read, may have the right one. `read` opens the blob at first, where the read is shared."""
    registry = plan.destination.registry
    near = [place for place in blob.stores if isinstance(place, Repository) and place.registry == registry]
    put = partial(
        session.destination(plan.destination).put_blob,
        blob.descriptor,
        mount_from=(*session.ledger.owners(plan.destination, blob.digest), *near),
        fresh=plan.fresh,
    )
    problem: TransshipError | None = None
    outcome: BlobOutcome | None = None
    cached = session.cache.get(blob.digest)
    session.moving[blob.digest] = 0
    try:
        if cached is not None:
            outcome = put(reader_of(cached))
        for place in blob.stores * _READ_ROUNDS:
            if outcome is not None:
                break
            try:
                outcome = put(read or partial(_followed, session, blob, session.source(place), {registry}))
            except (IntegrityError, StoreError) as error:
                if isinstance(error, StoreError) and error.side != "source":
                    raise
                problem = problem or error
            read = None
    finally:
        session.moving.pop(blob.digest, None)
    if outcome is None:
        raise problem or InvalidInput(f"the plan names no place to read {blob.digest} from")
    session.moved.add(blob.digest)
    return outcome


def _followed(
    session: Session, blob: PlannedBlob, source: Source, registries: Collection[str], offset: int
) -> Iterator[Chunk]:
    """Reads a blob that goes to `registries`, no faster than the bandwidth allows, and notes in the session how far the
    read is."""
    position = offset
    for chunk in source.read_blob(blob.descriptor, offset):
        session.bandwidth.take(len(chunk), {source.name.registry, *registries})
        position += len(chunk)
        session.moving[blob.digest] = position
        yield chunk


def _push_manifest(session: Session, plan: Plan, manifest: PlannedManifest, blobs: Sequence[PlannedBlob]) -> None:
    """Pushes a manifest by its keep-alive tag, so that no moment passes without a tag, or by digest.

    A registry that says that a blob is unknown contradicts what it said of that blob before: everything below (`blobs`)
    is then asked for again, once, without trusting the memo.
    """
    mark = (plan.destination, manifest.digest)
    if mark in session.pushed:
        return
    destination = session.destination(plan.destination)
    raw = load_manifest(session, manifest)
    try:
        put_manifest(session, destination, raw, manifest.keep_alive)
    except Refused as error:
        if error.code != "MANIFEST_BLOB_UNKNOWN":
            raise
        for blob in manifest.blobs:
            session.blobs.forget((plan.destination, blob))
        _move_blobs(session, replace(plan, fresh=False), blobs, {})
        put_manifest(session, destination, raw, manifest.keep_alive)
    session.pushed.add(mark)
