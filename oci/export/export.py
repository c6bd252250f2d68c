"""Carrying out the plan of an archive: by one process, or by many that write groups of its parts.

An archive has no name before it is complete. What a run that was killed has stored stays for one that resumes.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from msgspec import Struct, structs

from oci.archive.docker_archive import DockerImage, docker_name, write_docker_archive
from oci.archive.inventory import verify_archive
from oci.archive.open import SIGNATURE_SUFFIX, hash_of, open_reader
from oci.archive.source import ArchiveSource
from oci.bundle.push import Pushed, PushRequest, push
from oci.descriptor import Descriptor
from oci.digest import Chunk, Digest
from oci.errors import Incomplete, InvalidInput, StoreError, TransshipError
from oci.export.assembly import OpenBlob, WriteReport, Writing
from oci.export.file_writer import ByteWriter, open_writer
from oci.export.plan import ArchivePlan, PartGroup, Volume, is_in_place
from oci.export.planner import check_whole, plan_archive
from oci.export.tar_plan import Part, StoredPart
from oci.files.pack import FileEntry
from oci.meter import unheard
from oci.output import to_dict
from oci.reference import LAYOUT_PREFIX, ArchiveName, LayoutFolder, Reference, Repository, StoreName, in_object_store
from oci.relocation.driver import RelocationResult, Verify
from oci.relocation.plan import Plan, PlannedManifest, Role
from oci.relocation.planner import make_plan
from oci.relocation.request import RelocationRequest
from oci.relocation.session import Session
from oci.relocation.transfer import load_manifest
from oci.relocation.verify import Verification
from oci.units import counted

if TYPE_CHECKING:
    from oci.receipts.record import Recorder
    from oci.signatures.keys import PrivateKey

OnPart = Callable[[Part], None]

SUMS_SUFFIX = ".SHA256SUMS"


class ArchiveReport(Struct, frozen=True, kw_only=True):
    """An archive that is complete. Bytes: `sent` went through here, `copied` came out of an older archive without
    doing so, `kept` is what an earlier run had stored; `unread` of these two were not read again (see WriteReport).
    `requests` are all those of the session."""

    locations: tuple[str, ...]
    sizes: tuple[int, ...]
    images: int
    blobs: int
    left_out: int
    sent: int = 0
    copied: int = 0
    kept: int = 0
    unread: int = 0
    parts: int = 0
    seconds: float = 0.0
    requests: int = 0

    @property
    def size(self) -> int:
        return sum(self.sizes)

    def to_dict(self) -> dict[str, Any]:
        return to_dict(self)


def write_archive(
    session: Session, plan: ArchivePlan, *, resume: bool = False, on_part: OnPart = unheard
) -> ArchiveReport:
    """Writes all of it in this process. With `resume`, what an earlier run of the same plan has stored, whole volumes
    or parts of one, isn't written again. `on_part` is called with each part that is in place, those of the earlier run
    among them."""
    started = time.monotonic()
    written = []
    for volume in plan.volumes:
        if resume and is_in_place(session, volume, read=True):
            for part in volume.parts:
                on_part(part)
            unread = volume.tar.size if in_object_store(volume.location) else 0
            written.append(WriteReport(kept=volume.tar.size, unread=unread, parts=len(volume.parts)))
            continue
        with _writer(session, volume) as writer:
            stored = writer.begin(volume.parts, volume.tar.fingerprint, resume=resume)
            written.append(_write(session, plan, volume, writer, stored, on_part=on_part))
            session.wait_for_proofs()
            writer.finish(volume.parts)
    return _report(session, plan, written, time.monotonic() - started)


def begin_archive(session: Session, plan: ArchivePlan, *, resume: bool = False) -> tuple[str, ...]:
    """For many processes: a ticket for each volume, with which they write groups of its parts."""
    tickets = []
    for volume in plan.volumes:
        with _writer(session, volume) as writer:
            writer.begin(volume.parts, volume.tar.fingerprint, resume=resume)
            tickets.append(writer.ticket)
    return tuple(tickets)


def write_parts(
    session: Session, plan: ArchivePlan, group: PartGroup, ticket: str, *, on_part: OnPart = unheard
) -> WriteReport:
    """Writes what isn't in place yet of one group. May be repeated, and run by any process that reaches the stores."""
    volume = plan.volumes[group.volume]
    with _writer(session, volume) as writer:
        stored = writer.join(ticket, volume.parts)
        return _write(session, plan, volume, writer, stored, numbers=group.numbers, on_part=on_part)


def finish_archive(
    session: Session, plan: ArchivePlan, tickets: Sequence[str], written: Sequence[WriteReport], *, seconds: float = 0.0
) -> ArchiveReport:
    """Gives the volumes their names, now that every group was written. Raises IntegrityError when a part is missing."""
    session.wait_for_proofs()
    for volume, ticket in zip(plan.volumes, tickets, strict=True):
        with _writer(session, volume) as writer:
            writer.join(ticket, volume.parts)
            writer.finish(volume.parts)
    return _report(session, plan, written, seconds)


def verify_written(session: Session, locations: Sequence[str], *, deep: bool) -> Verification:
    """Reads an archive where it was written: every blob has to be there, and with `deep` every byte is hashed. What is
    wrong is in `problems`."""
    archive = session.archive(ArchiveName.of(*locations), "destination", anew=True)
    verdict = verify_archive(archive, session.workers, deep=deep)
    return Verification(
        manifests=verdict.images, blobs=verdict.blobs, bytes_hashed=verdict.bytes_hashed, problems=verdict.problems
    )


def prove_written(session: Session, locations: Sequence[str], verify: Verify) -> Verification | None:
    """Verifies an archive that was written, as far as is asked for. Raises Incomplete where something is wrong."""
    if verify is Verify.NONE:
        return None
    verification = verify_written(session, locations, deep=verify is Verify.DEEP)
    if verification.problems:
        raise Incomplete(
            f"{counted(len(verification.problems), 'problem')} in {ArchiveName.of(*locations)}",
            [StoreError(problem, side="destination") for problem in verification.problems],
            hint="write the archive again",
        )
    return verification


def docker_images(session: Session, plan: Plan, name: str = "") -> list[DockerImage]:
    """Returns what an archive of docker's can hold of a plan: no signatures, and nothing that is attached. `name` is
    what its only image is called; empty for what its source or the tags that are asked for call each.

    Raises Incomplete for a source that isn't whole, InvalidInput for what docker can't hold.
    """
    check_whole(plan)
    listed = (image for image in plan.images if image.role not in (Role.SIGNATURE, Role.REFERRER))
    images = [_docker_image(session, plan, image) for image in listed]
    if name:
        reference = Reference.parse(name)
        if reference.digest is not None or not isinstance(reference.repository, Repository):
            raise InvalidInput(f"{name!r} is no name of docker's", hint="write NAME:TAG")
        if len(images) != 1:
            raise InvalidInput(
                f"{counted(len(images), 'image')} can't all be called {name}", hint="name the file alone"
            )
        names = (docker_name(reference.repository, reference.tag),)
        images = [DockerImage(manifest=images[0].manifest, names=names)]
    return images


def _docker_image(session: Session, plan: Plan, image: PlannedManifest) -> DockerImage:
    """Of an index, its only image."""
    manifests = [manifest for manifest in plan.below(image) if not manifest.children or manifest.is_bundle]
    if len(manifests) != 1:
        platforms = ", ".join(filter(None, (manifest.platform for manifest in manifests)))
        raise InvalidInput(
            f"{image.subject} has {len(manifests)} images ({platforms}), and docker's archives have no index",
            hint="choose one: --platform linux/amd64",
        )
    home = image.origin.repository if image.origin else image.store
    names = tuple(docker_name(home, tag) for tag in image.tags) if isinstance(home, Repository) else image.tags
    return DockerImage(manifest=load_manifest(session, manifests[0]), names=tuple(n for n in names if ":" in n))


def write_docker(session: Session, plan: Plan, path: str, images: Sequence[DockerImage]) -> ArchiveReport:
    """Writes images of a plan as docker's archive, in one piece: an unpacked layer's size is known when it is there."""
    started = time.monotonic()

    def read(blob: Descriptor) -> Iterator[Chunk]:
        planned = plan.blob_by_digest.get(blob.digest)
        if planned is None:
            raise InvalidInput(
                f"the layer {blob.digest} is non-distributable, and docker needs all layers",
                hint="bring it along: --include-non-distributable-layers",
            )
        return session.source(planned.stores[0]).read_blob(blob)

    size = write_docker_archive(path, images, read)
    return ArchiveReport(
        locations=(path,),
        sizes=(size,),
        images=len(images),
        blobs=len({layer.digest for image in images for layer in image.manifest.layers}),
        left_out=0,
        sent=size,
        seconds=time.monotonic() - started,
        requests=session.meter.receipt().total_requests,
    )


def seal_archive(
    session: Session,
    plan: Plan,
    locations: Sequence[str],
    name: str,
    *,
    sha256sums: bool,
    recorder: Recorder | None,
    verification: Verification | None = None,
) -> dict[str, str]:
    """Writes what goes beside an archive that is complete: its checksums, its signatures, its receipt. Reads it once
    more for any of these, and returns the SHA-256 of each volume, in hex, by location; nothing where none is asked for.
    `name` is what the archive was to be called, be it one volume or several."""
    if not sha256sums and recorder is None:
        return {}
    sums = sums_of(session, locations)
    if sha256sums:
        write_sums(session, sums, name)
    if recorder is not None:
        if recorder.key is not None:
            sign_archive(session, sums, recorder.key)
        result = RelocationResult(plan=plan, verification=verification, receipt=session.meter.receipt())
        recorder.record(session, result, sums)
    return sums


def sums_of(session: Session, locations: Iterable[str]) -> dict[str, str]:
    """Reads every volume once more, and returns the SHA-256 of each, in hex, by location in order."""

    def sum_of(location: str) -> str:
        reader = open_reader(location, session.object_store(location), side="destination", cancel=session.cancel)
        with closing(reader):
            return hash_of(reader)

    locations = tuple(locations)
    return dict(zip(locations, session.workers.map(sum_of, locations), strict=True))


def write_sums(session: Session, sums: Mapping[str, str], name: str) -> None:
    """Writes `NAME.SHA256SUMS`."""
    lines = (_sums_line(digest, location.rpartition("/")[2]) for location, digest in sums.items())
    _write_beside(session, f"{name}{SUMS_SUFFIX}", os.fsencode("".join(lines)))


def _sums_line(digest: str, name: str) -> str:
    """Returns the line of a file as sha256sum writes it: a backslash comes first where the name has escapes (GNU
    coreutils, "md5sum invocation")."""
    escaped = name.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    return f"{'' if escaped == name else chr(92)}{digest}  {escaped}\n"


def sign_archive(session: Session, sums: Mapping[str, str], key: PrivateKey) -> None:
    """Writes the signature of each volume beside it, over its SHA-256."""
    from oci.signatures.keys import signature_of  # noqa: PLC0415 - only where it is asked for

    for location, digest in sums.items():
        _write_beside(session, f"{location}{SIGNATURE_SUFFIX}", signature_of(digest, key))


def push_to_archive(
    session: Session,
    request: PushRequest,
    entries: Sequence[FileEntry],
    location: str,
) -> tuple[Pushed, ArchiveReport]:
    """Returns the image that `push` would make, in an archive that knows it by the name it was to have. What a bundle
    lists isn't in it, no more than a push sends it."""
    named = request.destination
    with tempfile.TemporaryDirectory(prefix="transship-") as folder:
        place = f"{LAYOUT_PREFIX}{folder}:{named.tag}"
        local = replace(request, bundle=request.bundle and place, image=request.image and place)
        pushed = push(session.destination(LayoutFolder(folder)), local, entries, cancel=session.cancel)
        copied = RelocationRequest(image=place, shallow=True, to=str(ArchiveName.of(location)))
        plan = make_plan(session, copied)
        renamed = (structs.replace(manifest, store=named.repository) for manifest in plan.manifests)
        renamed_plan = structs.replace(plan, manifests=tuple(renamed))
        report = write_archive(session, plan_archive(session, copied, renamed_plan))
    return structs.replace(pushed, reference=named.at(renamed_plan.manifests[-1].digest)), report


def _write(
    session: Session,
    plan: ArchivePlan,
    volume: Volume,
    writer: ByteWriter,
    stored: Mapping[int, StoredPart],
    *,
    numbers: Sequence[int] | None = None,
    on_part: OnPart = unheard,
) -> WriteReport:
    base: ArchiveSource | None = None
    if plan.base:
        with suppress(TransshipError):  # if it is gone by now, its bytes are fetched instead
            base = session.archive(ArchiveName.of(plan.base), "destination")

    def places(digest: Digest) -> list[OpenBlob]:
        """Returns what was read while planning, then the older archive, then where the plan found the blob."""
        blob = plan.blob_by_digest[digest]
        readers: list[OpenBlob] = []
        cached = session.cache.get(digest)
        if cached is not None:
            readers.append(lambda offset, length: iter([cached[offset : None if length is None else offset + length]]))
        if base is not None and base.blob_size(digest) == blob.size:
            readers.append(partial(base.read_blob, blob.descriptor))
        readers.extend(partial(_followed, session, store, blob.descriptor) for store in blob.stores)
        return readers

    writing = Writing(
        plan=volume.tar,
        parts=volume.parts,
        writer=writer,
        places=places,
        base=base.readers[0] if base else None,
        cancel=session.cancel,
        meter=session.meter,
        concurrency=session.concurrency,
        on_part=on_part,
    )
    return writing.run(stored, numbers)


def _followed(session: Session, store: StoreName, blob: Descriptor, offset: int, length: int | None) -> Iterator[Chunk]:
    """The session knows how much of it was read, by all who read parts of it."""
    moving, end = session.moving, blob.size
    for chunk in session.source(store).read_blob(blob, offset, length):
        session.bandwidth.take(len(chunk), {store.registry})
        moving[blob.digest] = moving.get(blob.digest, 0) + len(chunk)
        yield chunk
    if moving.get(blob.digest, end) >= end:
        moving.pop(blob.digest, None)


@contextmanager
def _writer(session: Session, volume: Volume) -> Iterator[ByteWriter]:
    """Let go of in the end, finished or not."""
    location, meter, cancel = volume.location, session.meter, session.cancel
    writer = open_writer(location, session.object_store(location), meter=meter, cancel=cancel)
    try:
        yield writer
    finally:
        writer.leave()


def _report(session: Session, plan: ArchivePlan, written: Sequence[WriteReport], seconds: float) -> ArchiveReport:
    return ArchiveReport(
        locations=plan.locations,
        sizes=tuple(volume.tar.size for volume in plan.volumes),
        images=plan.images,
        blobs=plan.blob_count,
        left_out=sum(size for _, size in plan.left_out),
        **structs.asdict(WriteReport.total(written)),
        seconds=seconds,
        requests=session.meter.receipt().total_requests,
    )


def _write_beside(session: Session, location: str, data: bytes) -> None:
    whole = Part(1, 0, len(data))
    writer = open_writer(location, session.object_store(location))
    try:
        writer.begin([whole], hashlib.sha256(data).hexdigest(), resume=False)
        writer.put(whole, bytearray(data))
        writer.finish([whole])
    finally:
        writer.leave()
