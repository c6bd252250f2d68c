"""The plan of an archive: a frozen value, to be printed, and carried out by any process that makes the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import closing
from functools import cached_property

from msgspec import Struct

from oci.archive.open import open_reader
from oci.digest import Digest, verified
from oci.errors import IntegrityError, NotFound
from oci.export import tar_plan
from oci.export.tar_plan import Part, Piece, TarPlan
from oci.reference import in_object_store
from oci.relocation.plan import PlannedBlob
from oci.relocation.report import ArchiveFacts
from oci.relocation.session import Session

_OBJECT_REQUESTS = 7
"""For one object: is it there, is an upload unfinished, begin, note, list, complete, look."""


class Volume(Struct, frozen=True, kw_only=True):
    """One file or object: `location` is an absolute path or `s3://BUCKET/KEY`."""

    location: str
    tar: TarPlan
    parts: tuple[Part, ...]

    @property
    def bytes_copied(self) -> int:
        return sum(part.size for part in self.parts if part.copy_from is not None)


class PartGroup(Struct, frozen=True, kw_only=True):
    """Parts of one volume that are written by one process; `volume` counts from 0, `numbers` are the parts'."""

    volume: int
    numbers: tuple[int, ...]


class ArchivePlan(Struct, frozen=True, kw_only=True, dict=True):
    """All volumes of an archive, and where its blobs are."""

    source: str
    volumes: tuple[Volume, ...]
    blobs: tuple[PlannedBlob, ...]
    """What the volumes hold, in order of digest."""
    images: int
    blob_count: int = 0
    """Distinct blobs that the archive is to have, those in the text of manifest.json among them."""
    base: str = ""
    """Where the older archive is that bytes are taken from."""
    left_out: tuple[tuple[Digest, int], ...] = ()
    """Blobs that the other side of a delta has, with their sizes."""
    docker_tags: tuple[str, ...] = ()
    """Tags of manifests with one of Docker's media types, in an OCI layout."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """Returns what a person who has the archive made should know. skopeo's lookup by name passes over entries of
        index.json that aren't of an OCI type (containers/image, oci/layout), and changing the type would change the
        digest."""
        if not self.docker_tags:
            return ()
        named = ", ".join(self.docker_tags[:10]) + (" and more" if len(self.docker_tags) > 10 else "")
        return (f"in an OCI layout, skopeo doesn't find images of Docker's media types by their tag: {named}",)

    @property
    def size(self) -> int:
        return sum(volume.tar.size for volume in self.volumes)

    @property
    def locations(self) -> tuple[str, ...]:
        return tuple(volume.location for volume in self.volumes)

    @property
    def bytes_copied(self) -> int:
        return sum(volume.bytes_copied for volume in self.volumes)

    @cached_property
    def estimated_requests(self) -> int:
        """Returns what carrying it out will take when nothing has to be repeated: a read for each piece of a blob that
        isn't in a file, and for objects one for each part and a few more."""
        remote = {blob.digest for blob in self.blobs if blob.stores[0].registry}
        requests = 0
        for volume in self.volumes:
            if in_object_store(volume.location):
                requests += len(volume.parts) + _OBJECT_REQUESTS
            for part in volume.parts:
                if part.copy_from is None:
                    requests += sum(piece.digest in remote for piece in volume.tar.pieces(part.start, part.end))
        return requests

    @cached_property
    def blob_by_digest(self) -> Mapping[Digest, PlannedBlob]:
        return {blob.digest: blob for blob in self.blobs}

    @cached_property
    def fingerprint(self) -> str:
        """Returns the same for every plan of the same archive in the same parts, wherever its blobs are read."""
        parts = [
            [volume.location, volume.tar.fingerprint, [[part.start, part.end, part.copy_from] for part in volume.parts]]
            for volume in self.volumes
        ]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    @property
    def part_count(self) -> int:
        return sum(len(volume.parts) for volume in self.volumes)

    def facts(self, *, unchanged: bool = False) -> ArchiveFacts:
        """Returns what a report says of the archive; `unchanged` says that it was in place before."""
        return ArchiveFacts(
            locations=self.locations,
            size=self.size,
            images=self.images,
            blobs=self.blob_count,
            parts=self.part_count,
            left_out=sum(size for _, size in self.left_out),
            unchanged=unchanged,
        )

    def groups(self, count: int) -> tuple[PartGroup, ...]:
        """At least one for each volume, `count` in all where that is more; of about the same size."""
        groups: list[PartGroup] = []
        for number, volume in enumerate(self.volumes):
            share = max(1, round(count * volume.tar.size / self.size))
            numbers = tar_plan.groups(volume.tar, volume.parts, share)
            groups.extend(PartGroup(volume=number, numbers=group) for group in numbers)
        return tuple(groups)


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
