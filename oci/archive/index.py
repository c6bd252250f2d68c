"""What is in an archive, and where: from its first member alone, or from one pass over the headers.

An archive that isn't the whole, a delta or a volume of several, or that has a receipt, says so in `transship.json`,
which imgpkg passes over.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Annotated

import msgspec
from msgspec import Meta, Raw, Struct, field

from oci.archive import docker_archive, index_json, manifest_json
from oci.archive.entry import DOCKER_ARCHIVE, IMGPKG, OCI_LAYOUT, ArchiveEntry
from oci.archive.open import ByteReader, Stretch
from oci.descriptor import parse_json
from oci.digest import Digest, parse_digest
from oci.errors import InvalidDocument, InvalidInput, InvalidManifest, InvalidReference, NotFound
from oci.files import tar
from oci.files.tar import REGULAR, SYMLINK, Members
from oci.manifest import Manifest
from oci.reference import clipped
from oci.units import some_of

MEMBERS_LIMIT = 2_000_000
"""Regular files of an archive: some hundred bytes of memory for each."""

TRANSSHIP_JSON = "transship.json"
TRANSSHIP_JSON_LIMIT = 16 << 20
"""Bytes of it that are read or written: some 150,000 blobs that a delta requires."""

_VERSION = 1
_BASE_LENGTH = 4096
"""Characters of the name of the archive or store that a delta is made against."""

_WINDOW = 16 << 10
"""Bytes read for each header: small members after it come with it."""

_GZIP = b"\x1f\x8b"


class RequiredBlob(Struct, frozen=True):
    """A blob that an archive leaves out, because the other side has it; its size in bytes."""

    digest: Digest
    size: Annotated[int, Meta(ge=0, lt=1 << 53)]


class TransshipJson(Struct, frozen=True, kw_only=True):
    """`base` names what has the blobs that the archive `requires`, for messages, and has nothing in it that a terminal
    obeys. `volume` counts from 1 to `volumes`, and `whole` is the fingerprint of all volumes together. `receipt` is an
    in-toto statement about the archive (docs/reference/receipts.md), as JSON, in the first volume."""

    base: Annotated[str, Meta(max_length=_BASE_LENGTH, pattern=r"^[^\x00-\x1f\x7f-\x9f]*\Z")] = ""
    requires: tuple[RequiredBlob, ...] = ()
    volume: Annotated[int, Meta(ge=1, le=99_999)] = 1
    volumes: Annotated[int, Meta(ge=1, le=99_999)] = 1
    whole: Annotated[str, Meta(pattern=r"^([0-9a-f]{64})?\Z")] = ""
    receipt: Raw = Raw()

    @property
    def required(self) -> frozenset[Digest]:
        return frozenset(blob.digest for blob in self.requires)

    def to_json(self) -> bytes:
        """Raises InvalidDocument beyond TRANSSHIP_JSON_LIMIT."""
        body: dict[str, object] = {"version": _VERSION}
        if self.requires or self.base:
            body |= {"base": _printed(self.base), "requires": msgspec.to_builtins(self.requires)}
        if self.volumes > 1:
            body |= {"volume": self.volume, "volumes": self.volumes, "whole": self.whole}
        if self.receipt:
            body["receipt"] = parse_json(bytes(self.receipt))
        data = json.dumps(body, separators=(",", ":")).encode()
        if len(data) > TRANSSHIP_JSON_LIMIT:
            message = f"{TRANSSHIP_JSON} has {len(data)} bytes, and {TRANSSHIP_JSON_LIMIT} are the limit"
            raise InvalidDocument(message, hint="make several deltas")
        return data

    @classmethod
    def from_json(cls, data: bytes, where: str) -> TransshipJson:
        try:
            version = msgspec.json.decode(data, type=dict[str, Raw]).get("version", b"none")
            if bytes(version) != b"%d" % _VERSION:
                shown = bytes(version)[:40].decode(errors="replace")
                raise InvalidManifest(
                    f"{where}: {TRANSSHIP_JSON} has version {shown}, which a later transship wrote",
                    hint="update transship",
                )
            note = msgspec.json.decode(data, type=cls)
            if note.volume > note.volumes or (note.volumes > 1 and not note.whole):
                raise ValueError(f"this is no volume {note.volume} of {note.volumes}")  # noqa: TRY301 - as all other damage
            for blob in note.requires:
                parse_digest(blob.digest)
        except (ValueError, RecursionError, InvalidReference) as error:
            raise InvalidManifest(f"{where}: {TRANSSHIP_JSON} is damaged: {error}") from error
        return note


def _printed(name: str) -> str:
    """Returns a name as `base` may have it. Any file may be a base: control characters and bytes that aren't UTF-8 in
    its name are written as escapes."""
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in name)[:_BASE_LENGTH]


class Contents(Struct):
    """Everything an archive has. `blobs` are the members that hold a blob, by digest, over all volumes; `configs` are
    the blobs that stand in the text of manifest.json."""

    format: str
    entries: list[ArchiveEntry]
    manifests: dict[Digest, Manifest]
    blobs: dict[Digest, Stretch]
    transship_json: TransshipJson
    configs: dict[Digest, bytes] = field(default_factory=dict)


def read_contents(readers: Sequence[ByteReader]) -> Contents:
    """One reader, or one for each volume in any order; none for an archive that is to be written.

    Raises InvalidManifest for what is no such archive.
    """
    if not readers:
        return Contents("", [], {}, {}, TransshipJson())
    volumes = sorted(readers, key=_volume_number) if len(readers) > 1 else list(readers)
    calculated = _calculated(volumes[0]) if len(volumes) == 1 else None
    if calculated is not None:
        return calculated
    members: dict[str, Stretch] = {}
    links: dict[str, Stretch] = {}
    notes: list[TransshipJson] = []
    for reader in volumes:
        listed = _scan(reader, links)
        if TRANSSHIP_JSON in listed:
            notes.append(_note(listed[TRANSSHIP_JSON]))
        members = {**listed, **members}
    _check_volumes(notes, volumes)
    note = notes[0] if notes else TransshipJson()
    where = volumes[0].location
    try:
        if index_json.MARK in members and index_json.INDEX in members:
            return _of_layout(members, where, note)
        if manifest_json.NAME in members:
            docker = _of_docker(members, links, note)
            if docker is not None:
                return docker
            parsed = manifest_json.parse(members[manifest_json.NAME].chunks(manifest_json.LIMIT))
            names = {layer: manifest_json.member_name(layer) for layer in parsed.layers}
            blobs = {layer: members[name] for layer, name in names.items() if name in members}
            return Contents(IMGPKG, parsed.entries, parsed.manifests, blobs, note, parsed.configs)
    except InvalidManifest as error:
        raise InvalidManifest(f"{where}: {error.message.removeprefix(f'{where}: ')}", hint=error.hint) from error
    raise InvalidManifest(
        f"{where}: neither {manifest_json.NAME} nor an image layout is in it",
        hint="give an archive that imgpkg or transship wrote, an OCI archive, or what `docker save` wrote",
    )


def _scan(reader: ByteReader, links: dict[str, Stretch]) -> dict[str, Stretch]:
    """Returns every regular file by its name; reads headers only. `links` gets the headers of symbolic links.

    A blob may be there twice, as its name says which bytes it has. Of any other file, readers of tarballs would take
    the first or the last: an archive that is one thing to this program and another to the next is refused."""
    position = 0

    def windows() -> Iterator[bytes]:
        nonlocal position
        while position < reader.size:
            window = b"".join(reader.read(position, min(_WINDOW, reader.size - position)))
            position += len(window)
            yield window

    def skip(count: int) -> None:
        nonlocal position
        position += count

    listed: dict[str, Stretch] = {}
    twice = ""
    members = Members(windows(), skip)
    try:
        for member in members:
            if members.position + member.size > reader.size:
                raise InvalidManifest("it is cut short")  # noqa: TRY301 - reported below, with all other damage
            name = member.name.decode(errors="surrogateescape").removeprefix("./")
            if member.kind == REGULAR:
                if name in listed and index_json.digest_of_member(name) is None and not manifest_json.is_layer(name):
                    twice = twice or name
                listed.setdefault(name, Stretch(reader, members.position, member.size))
            elif member.kind == SYMLINK:
                links.setdefault(name, Stretch(reader, members.position - tar.BLOCK, tar.BLOCK))
            if len(listed) + len(links) > MEMBERS_LIMIT:
                break
    except InvalidManifest as error:
        head = b"".join(reader.read(0, min(2, reader.size)))
        raise InvalidManifest(
            f"{reader.location}: this is no tarball, or it is damaged or cut short",
            hint="unpack it with gunzip first" if head == _GZIP else "compare its checksum with that of the original",
        ) from error
    if len(listed) + len(links) > MEMBERS_LIMIT:
        raise InvalidManifest(f"{reader.location}: more than {MEMBERS_LIMIT} files are in it")
    if twice:
        raise InvalidManifest(
            f"{reader.location}: {clipped(twice)} is in it twice", hint="unpack it and make the archive again"
        )
    return listed


def _calculated(reader: ByteReader) -> Contents | None:
    """From manifest.json alone, when it comes first and the sizes it speaks of add up to the size of the archive."""
    description = _member_at(reader, 0, manifest_json.NAME)
    if description is None:
        return None
    try:
        parsed = manifest_json.parse(description.chunks(manifest_json.LIMIT))
    except InvalidManifest:
        return None  # another format may have a file of that name: the scan will say what is wrong
    noted = _member_at(reader, description.end, TRANSSHIP_JSON)
    note = _note(noted) if noted is not None else TransshipJson()
    layers = sorted(parsed.layers.keys() - note.required)
    for chosen in ([layer for layer in layers if parsed.layers[layer].distributable], layers):
        blobs: dict[Digest, Stretch] = {}
        offset = (noted or description).end
        for digest in chosen:
            name, size = manifest_json.member_name(digest), parsed.layers[digest].size
            data = offset + len(tar.header(name, mode=0o644, size=size))
            blobs[digest] = Stretch(reader, data, size, offset)
            offset = data + size + -size % tar.BLOCK
        if offset + len(tar.END) == reader.size:
            return Contents(IMGPKG, parsed.entries, parsed.manifests, blobs, note, parsed.configs)
    return None


def _member_at(reader: ByteReader, at: int, name: str) -> Stretch | None:
    """Reads one header. Returns the member where it is the expected one."""
    if at + tar.BLOCK > reader.size:
        return None
    try:
        member = next(iter(Members(reader.read(at, tar.BLOCK))), None)
    except InvalidManifest:
        return None
    data = at + tar.BLOCK
    if member is None or member.name.decode(errors="replace") != name or data + member.size > reader.size:
        return None
    return Stretch(reader, data, member.size)


def _of_layout(members: dict[str, Stretch], where: str, note: TransshipJson) -> Contents:
    digests = {name: index_json.digest_of_member(name) for name in members}
    files = {digest: members[name] for name, digest in digests.items() if digest is not None}

    def small(digest: Digest, limit: int) -> bytes:
        if digest not in files:
            raise NotFound("isn't in the archive", side="source", store=where, subject=digest)
        return files[digest].bytes(limit)

    entries, manifests = index_json.parse(members[index_json.INDEX].bytes(index_json.LIMIT), small)
    blobs = {digest: stretch for digest, stretch in files.items() if digest not in manifests}
    return Contents(OCI_LAYOUT, entries, manifests, blobs, note)


def _of_docker(members: dict[str, Stretch], links: dict[str, Stretch], note: TransshipJson) -> Contents | None:
    """None where manifest.json is imgpkg's."""
    description = members[manifest_json.NAME]
    if description.size > docker_archive.LIMIT:
        return None

    def member(name: str) -> Stretch | None:
        if name in links and name not in members:
            name = docker_archive.link_target(name, links[name].bytes(tar.BLOCK))
        return members.get(name)

    parsed = docker_archive.parse(description.bytes(docker_archive.LIMIT), member)
    if parsed is None:
        return None
    return Contents(DOCKER_ARCHIVE, parsed.entries, parsed.manifests, parsed.blobs, note)


def _note(stretch: Stretch) -> TransshipJson:
    return TransshipJson.from_json(stretch.bytes(TRANSSHIP_JSON_LIMIT), stretch.reader.location)


def _volume_number(reader: ByteReader) -> int:
    """Returns the number that a volume gives itself; it is checked later, against the others."""
    at, noted = 0, None
    for name in (manifest_json.NAME, index_json.MARK, index_json.INDEX, TRANSSHIP_JSON):
        noted = _member_at(reader, at, name)
        at = noted.end if noted is not None else at
    if noted is None:
        raise InvalidInput(
            f"{reader.location} is not one volume of several", hint="give one archive, or the volumes of one"
        )
    return _note(noted).volume


def _check_volumes(notes: Sequence[TransshipJson], readers: Sequence[ByteReader]) -> None:
    """Raises InvalidInput, naming what is missing, unless all volumes of one archive are there."""
    if not notes or (len(notes) == 1 and notes[0].volumes == 1):
        return
    if len({(note.whole, note.volumes) for note in notes}) > 1:
        names = ", ".join(reader.location for reader in readers)
        raise InvalidInput(f"these are volumes of different archives: {names}")
    missing = sorted(set(range(1, notes[0].volumes + 1)) - {note.volume for note in notes})
    if missing:
        raise InvalidInput(
            f"of {notes[0].volumes} volumes these are missing: {some_of(missing, 10)}",
            hint="give all volumes, in any order: copy takes one --tar for each",
        )
