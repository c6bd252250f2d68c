"""The plan of an archive: a frozen value, to be printed, stored as JSON, sent to another machine and carried out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from msgspec import Struct

from oci.archive.open import in_object_store
from oci.descriptor import parse_json
from oci.digest import Digest, parse_digest
from oci.errors import InvalidDocument, InvalidReference
from oci.export import parts as cutting
from oci.export.parts import Part
from oci.export.tar_plan import TarPlan
from oci.output import to_dict
from oci.reference import ArchiveName, parse_tag
from oci.relocation.plan import PlannedBlob, planned_blob
from oci.relocation.report import ArchiveFacts

PLAN_VERSION = 1

_OBJECT_REQUESTS = 7
"""For one object: is it there, is an upload unfinished, begin, note, list, complete, look."""


class Volume(Struct, frozen=True, kw_only=True):
    """One file or object: `location` is an absolute path or `s3://BUCKET/KEY`."""

    location: str
    tar: TarPlan
    parts: tuple[Part, ...]

    @property
    def bytes_copied(self) -> int:
        """Returns what comes out of an older archive without being fetched."""
        return sum(part.size for part in self.parts if part.copy_from is not None)


class Group(Struct, frozen=True, kw_only=True):
    """Parts of one volume that are written by one process; `volume` counts from 0, `numbers` are the parts'."""

    volume: int
    numbers: tuple[int, ...]


class ArchivePlan(Struct, frozen=True, kw_only=True, dict=True):
    """All volumes of an archive, and where its blobs are."""

    source: str
    format: str
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
    version: int = PLAN_VERSION

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
                    pieces = volume.tar.pieces(part.start, part.end)
                    requests += sum(
                        piece.member is not None and piece.member.content.digest in remote for piece in pieces
                    )
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

    def groups(self, count: int) -> tuple[Group, ...]:
        """At least one for each volume, `count` in all where that is more; of about the same size."""
        groups: list[Group] = []
        for number, volume in enumerate(self.volumes):
            share = max(1, round(count * volume.tar.size / self.size))
            numbers = cutting.groups(volume.tar, volume.parts, share)
            groups.extend(Group(volume=number, numbers=group) for group in numbers)
        return tuple(groups)

    def to_json(self) -> str:
        body = {
            "version": self.version,
            "source": self.source,
            "format": self.format,
            "images": self.images,
            "blob_count": self.blob_count,
            "base": self.base,
            "docker_tags": self.docker_tags,
            "left_out": self.left_out,
            "blobs": [to_dict(blob) for blob in self.blobs],
            "volumes": [
                {
                    "location": volume.location,
                    "tar": volume.tar.to_dict(),
                    "parts": [[part.start, part.end, part.copy_from] for part in volume.parts],
                }
                for volume in self.volumes
            ],
        }
        return json.dumps(body, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> ArchivePlan:
        """Returns the inverse of `to_json`. Raises InvalidDocument for another version or shape, and for a plan whose
        bytes were changed."""
        try:
            body = parse_json(text)
            if body.get("version") != PLAN_VERSION:
                raise InvalidDocument(f"archive plan version {body.get('version')!r}, expected {PLAN_VERSION}")
            return cls(
                source=str(body["source"]),
                format=str(body["format"]),
                images=int(body["images"]),
                blob_count=int(body["blob_count"]),
                base=str(body["base"]),
                docker_tags=tuple(map(parse_tag, body["docker_tags"])),
                left_out=tuple((parse_digest(digest), int(size)) for digest, size in body["left_out"]),
                blobs=tuple(planned_blob(entry) for entry in body["blobs"]),
                volumes=tuple(_volume(entry) for entry in body["volumes"]),
            )
        except (ValueError, TypeError, KeyError, AttributeError, InvalidReference) as error:
            raise InvalidDocument(f"not the plan of an archive: {error}") from error


def _volume(entry: dict[str, Any]) -> Volume:
    return Volume(
        location=ArchiveName.of(str(entry["location"])).location,
        tar=TarPlan.from_dict(entry["tar"]),
        parts=tuple(
            Part(number, start, end, copy_from) for number, (start, end, copy_from) in enumerate(entry["parts"], 1)
        ),
    )
