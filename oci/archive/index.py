"""What is in an archive that exists, and where: from its first member alone, or from one pass over the headers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from oci.archive import index_json, manifest_json, transship_json
from oci.archive.entry import ArchiveEntry
from oci.archive.open import ByteReader
from oci.archive.transship_json import TransshipJson
from oci.digest import Digest
from oci.errors import InvalidInput, InvalidManifest, NotFound
from oci.files import tar
from oci.files.members import REGULAR, Members
from oci.manifest import Manifest

IMGPKG = "imgpkg"
OCI_LAYOUT = "oci-layout"
FORMATS = (IMGPKG, OCI_LAYOUT)

_WINDOW = 16 << 10
"""Bytes read for each header that is looked at: small members after it come with it."""

_GZIP = b"\x1f\x8b"


@dataclass(frozen=True, slots=True)
class Stretch:
    """Where the bytes of a member are; `header` is the offset of its header where that wasn't read yet, else -1."""

    reader: ByteReader
    offset: int
    size: int
    header: int = -1


@dataclass(slots=True)
class Contents:
    """Everything an archive holds. `members` are by name, over all volumes; `blobs` those that hold a blob, by digest;
    `configs` are the blobs that stand in the text of manifest.json."""

    format: str
    members: dict[str, Stretch]
    elements: list[ArchiveEntry] = field(default_factory=list)
    manifests: dict[Digest, Manifest] = field(default_factory=dict)
    configs: dict[Digest, bytes] = field(default_factory=dict)
    blobs: dict[Digest, Stretch] = field(default_factory=dict)
    transship_json: TransshipJson = field(default_factory=TransshipJson)


def read_contents(readers: Sequence[ByteReader]) -> Contents:
    """One reader, or one for each volume in any order. Raises InvalidManifest for what is no such archive."""
    volumes = _in_order(readers) if len(readers) > 1 else list(readers)
    found = _calculated(volumes[0]) if len(volumes) == 1 else None
    if found is not None:
        return found
    members: dict[str, Stretch] = {}
    notes: list[TransshipJson] = []
    for reader in volumes:
        listed = scan(reader)
        if transship_json.NAME in listed:
            notes.append(
                TransshipJson.from_json(_bytes(listed[transship_json.NAME], transship_json.LIMIT), reader.location)
            )
        members.update({name: stretch for name, stretch in listed.items() if name not in members})
    _check_volumes(notes, volumes)
    return _read(members, volumes[0], notes[0] if notes else TransshipJson())


def scan(reader: ByteReader) -> dict[str, Stretch]:
    """Every regular file by its name, the first where there are several; reads headers only."""
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

    found: dict[str, Stretch] = {}
    members = Members(windows(), skip)
    try:
        for member in members:
            if members.position + member.size > reader.size:
                raise InvalidManifest("it is cut short")  # noqa: TRY301 - told below, with all other damage
            name = member.name.decode(errors="surrogateescape").removeprefix("./")
            if member.kind == REGULAR:
                found.setdefault(name, Stretch(reader, members.position, member.size))
    except InvalidManifest as error:
        head = b"".join(reader.read(0, min(2, reader.size)))
        raise InvalidManifest(
            f"{reader.location}: this is no tarball, or it is damaged or cut short",
            hint="unpack it with gunzip first" if head == _GZIP else "compare its checksum with that of the original",
        ) from error
    return found


def _calculated(reader: ByteReader) -> Contents | None:
    """From manifest.json alone, when it comes first and the sizes it speaks of add up to the size of the archive."""
    head = _Head(reader)
    raw = head.member(manifest_json.NAME, manifest_json.LIMIT)
    if raw is None:
        return None
    try:
        parsed = manifest_json.parse(raw)
    except InvalidManifest:
        return None  # another format may have a file of that name; whoever scans will say what is wrong
    noted = head.member(transship_json.NAME, transship_json.LIMIT)
    note = TransshipJson.from_json(noted, reader.location) if noted is not None else TransshipJson()
    left_out = {digest for digest, _ in note.requires}
    layers = sorted(layer for layer in parsed.layers if layer not in left_out)
    for chosen in ([layer for layer in layers if parsed.layers[layer].distributable], layers):
        members: dict[str, Stretch] = dict(head.members)
        offset = head.position
        for digest in chosen:
            name, size = manifest_json.member_name(digest), parsed.layers[digest].size
            data = offset + len(tar.header(name, mode=0o644, size=size))
            members[name] = Stretch(reader, data, size, offset)
            offset = data + size + -size % tar.BLOCK
        if offset + len(tar.END) == reader.size:
            return _of_document(parsed, members, note)
    return None


class _Head:
    """The members at the beginning of an archive, read one by one as long as they are the expected ones."""

    def __init__(self, reader: ByteReader) -> None:
        self.members: dict[str, Stretch] = {}
        self.position = 0
        self._reader = reader

    def member(self, name: str, limit: int) -> bytes | None:
        reader = self._reader
        at = self.position
        if at + tar.BLOCK > reader.size:
            return None
        try:
            header = Members(reader.read(at, tar.BLOCK))
            found = next(iter(header), None)
        except InvalidManifest:
            return None
        if found is None or found.name.decode(errors="replace") != name or not 0 <= found.size <= limit:
            return None
        stretch = Stretch(reader, at + tar.BLOCK, found.size)
        if stretch.offset + stretch.size > reader.size:
            return None
        self.members[name] = stretch
        self.position = stretch.offset + found.size + -found.size % tar.BLOCK
        return _bytes(stretch, limit)


def _read(members: dict[str, Stretch], reader: ByteReader, note: TransshipJson) -> Contents:
    if index_json.MARK in members and index_json.INDEX in members:
        return _of_layout(members, reader, note)
    if manifest_json.NAME not in members:
        raise InvalidManifest(
            f"{reader.location}: neither {manifest_json.NAME} nor an image layout is in it",
            hint="give an archive that imgpkg or transship wrote, or an OCI archive",
        )
    try:
        parsed = manifest_json.parse(_bytes(members[manifest_json.NAME], manifest_json.LIMIT))
    except InvalidManifest as error:
        raise InvalidManifest(f"{reader.location}: {error.message}", hint=error.hint) from error
    return _of_document(parsed, members, note)


def _of_document(parsed: manifest_json.ManifestJson, members: dict[str, Stretch], note: TransshipJson) -> Contents:
    names = {layer: manifest_json.member_name(layer) for layer in parsed.layers}
    return Contents(
        format=IMGPKG,
        members=members,
        elements=parsed.elements,
        manifests=parsed.manifests,
        configs=parsed.configs,
        blobs={layer: members[name] for layer, name in names.items() if name in members},
        transship_json=note,
    )


def _of_layout(members: dict[str, Stretch], reader: ByteReader, note: TransshipJson) -> Contents:
    blobs = {}
    for name, stretch in members.items():
        digest = index_json.digest_of_member(name)
        if digest is not None:
            blobs[digest] = stretch

    def small(digest: Digest, limit: int) -> bytes:
        if digest not in blobs:
            raise NotFound("isn't in the archive", side="source", store=reader.location, subject=digest)
        return _bytes(blobs[digest], limit)

    try:
        elements, manifests = index_json.parse(_bytes(members[index_json.INDEX], manifest_json.LIMIT), small)
    except InvalidManifest as error:
        raise InvalidManifest(f"{reader.location}: {error.message}", hint=error.hint) from error
    return Contents(OCI_LAYOUT, members, elements, manifests, blobs=blobs, transship_json=note)


def _in_order(readers: Sequence[ByteReader]) -> list[ByteReader]:
    """By their number, the first one first; what each says is checked later."""

    def number(reader: ByteReader) -> int:
        head = _Head(reader)
        head.member(manifest_json.NAME, manifest_json.LIMIT)
        for name in (index_json.MARK, index_json.INDEX):
            head.member(name, manifest_json.LIMIT)
        noted = head.member(transship_json.NAME, transship_json.LIMIT)
        if noted is None:
            raise InvalidInput(
                f"{reader.location} is not one volume of several", hint="give one archive, or the volumes of one"
            )
        return TransshipJson.from_json(noted, reader.location).volume

    return sorted(readers, key=number)


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
            f"of {notes[0].volumes} volumes these are missing: {', '.join(map(str, missing))}",
            hint="give all volumes, in any order: copy takes one --tar for each",
        )


def _bytes(stretch: Stretch, limit: int) -> bytes:
    if stretch.size > limit:
        raise InvalidManifest(f"{stretch.reader.location}: a file of {stretch.size} bytes, where {limit} are the limit")
    return b"".join(stretch.reader.read(stretch.offset, stretch.size))
