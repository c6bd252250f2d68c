"""Going on with an archive: with what a killed run of the very same one has left, or with the one that is there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

from oci.archive.open import ByteReader, in_object_store, open_reader
from oci.digest import Digest, Verifier
from oci.errors import IntegrityError, InvalidManifest, NotFound, Refused
from oci.export.file_writer import open_writer
from oci.export.options import ExportOptions
from oci.export.plan import ArchivePlan, Volume
from oci.export.planner import plan_archive
from oci.export.tar_plan import PlannedMember, TarPlan
from oci.reference import ArchiveName
from oci.relocation.plan import Plan
from oci.relocation.request import RelocationRequest
from oci.relocation.session import Session


def plan_resumed(
    session: Session, request: RelocationRequest, plan: Plan, options: ExportOptions | None = None
) -> ArchivePlan:
    """Like `plan_archive`, for a run that goes on with what an earlier one has left. Where a whole archive is at the
    destination already, that lends its layers, as in imgpkg. Raises Refused when something else is there."""
    options = options or ExportOptions()
    location = request.destination.location
    if options.base or not location:
        return plan_archive(session, request, plan, options)
    if in_object_store(location):
        planned = plan_archive(session, request, plan, options)
        if any(_is_begun(session, volume) for volume in planned.volumes) or is_written(session, planned):
            return planned
    try:
        session.archive(ArchiveName.of(location), "destination")
    except NotFound:
        return plan_archive(session, request, plan, options)
    except (InvalidManifest, IntegrityError) as error:
        raise Refused(f"Reading previously created tar: {error}", hint="remove it, or leave out --resume") from error
    return plan_archive(session, request, plan, options.with_(base=location))


def is_written(session: Session, plan: ArchivePlan) -> bool:
    """Says whether the very archive is there already, as far as its store keeps which one it has."""
    return all(is_in_place(session, volume) for volume in plan.volumes)


def is_in_place(session: Session, volume: Volume, *, read: bool = False) -> bool:
    """Says whether a volume is there already, by what its store keeps of it or, with `read`, by each of its bytes."""
    s3 = session.object_store(volume.location)
    try:
        reader = open_reader(volume.location, s3, side="destination", cancel=session.cancel, meter=session.meter)
    except NotFound:
        return False
    with closing(reader):
        if reader.size != volume.tar.size:
            return False
        if reader.fingerprint or not read or in_object_store(volume.location):
            return reader.fingerprint == volume.tar.fingerprint
        return _is(reader, volume.tar)


def _is(reader: ByteReader, plan: TarPlan) -> bool:
    """Ends at the first difference: another archive mostly begins with another description."""
    for piece in plan.pieces(0, plan.size):
        chunks = reader.read(piece.offset, piece.length)
        if piece.member is None:
            if b"".join(chunks) != piece.data:
                return False
        elif not _has(chunks, piece.member):
            return False
    return True


def _has(chunks: Iterator[bytes], member: PlannedMember) -> bool:
    verifier = Verifier(member.content.digest or Digest(""), member.content.size)
    try:
        for chunk in chunks:
            verifier.update(chunk)
        verifier.finish()
    except IntegrityError:
        return False
    return True


def _is_begun(session: Session, volume: Volume) -> bool:
    """Says whether an unfinished upload has to be gone on with in this very cut."""
    location, meter, cancel = volume.location, session.meter, session.cancel
    writer = open_writer(location, session.object_store(location), meter=meter, cancel=cancel)
    return writer.is_begun(volume.parts, volume.tar.fingerprint)
