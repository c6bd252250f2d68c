"""Going on with an archive: with what a killed run of the very same one has left, or with the one that is there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

from oci.archive.open import in_object_store, open_reader
from oci.digest import verified
from oci.errors import IntegrityError, InvalidManifest, NotFound, Refused
from oci.export.file_writer import open_writer
from oci.export.options import ExportOptions
from oci.export.plan import ArchivePlan, Volume
from oci.export.planner import plan_archive
from oci.export.tar_plan import Piece
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
        store, meter, cancel = session.object_store(location), session.meter, session.cancel
        for volume in planned.volumes:
            writer = open_writer(volume.location, store, meter=meter, cancel=cancel)
            if writer.is_begun(volume.parts, volume.tar.fingerprint):
                return planned
        if is_written(session, planned):
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
        # Ends at the first difference: another archive mostly begins with another description.
        pieces = volume.tar.pieces(0, volume.tar.size)
        return all(_is(piece, reader.read(piece.offset, piece.length)) for piece in pieces)


def _is(piece: Piece, chunks: Iterator[bytes]) -> bool:
    if not piece.digest:
        return b"".join(chunks) == piece.data
    try:
        for _ in verified(chunks, piece.digest, piece.blob_size):
            pass
    except IntegrityError:
        return False
    return True
