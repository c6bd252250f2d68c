"""Tar: headers as Go's archive/tar writes them for imgpkg, and the members of a stream that isn't trusted.

Written, the same files give the same bytes on every machine. Owner, group and times are never recorded; a directory's
name has no trailing slash. An entry that fits is written as USTAR; a name that doesn't, or 8 GiB and more, goes into a
PAX extended header (POSIX.1-2001, "pax Interchange Format").

Not Python's tarfile: its stream mode takes a name's length from the archive and reads that much into memory, keeps
every member it met, recurses once for each extension header, and takes a damaged end for the end.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable, Iterator, Mapping

from msgspec import Struct

from oci.errors import InvalidInput, InvalidManifest

BLOCK = 512
END = bytes(2 * BLOCK)
"""Ends an archive. Nothing pads it to 10 KiB."""

REGULAR, HARD_LINK, SYMLINK, CHARACTER, DEVICE, FOLDER, FIFO = (b"%d" % number for number in range(7))
WITHOUT_DATA = frozenset({HARD_LINK, SYMLINK, CHARACTER, DEVICE, FOLDER, FIFO})

_OLD_REGULAR = b"\0"
_PAX, _PAX_GLOBAL, _GNU_LONG_NAME, _GNU_LONG_LINK, _GNU_SPARSE = b"x", b"g", b"L", b"K", b"S"
_SPARSE_KEYS = b"GNU.sparse."
_EXTENSION_LIMIT = 1 << 20
"""Bytes of a PAX or GNU header, which holds one long name; Go's reader has the same limit."""

_DAMAGED = "the layer isn't a tar, or is damaged"
_SECOND = 10**9
_LAST_TIME = (1 << 40) * _SECOND
"""Nanoseconds: beyond it no file system has times."""

_NAME = 100
_PREFIX = 155
_SIZE_LIMIT = 1 << 33
_MODE_LIMIT = 1 << 12
_DEVICE = (329, 337)


def header(name: str, *, mode: int, size: int, typeflag: bytes = REGULAR) -> bytes:
    """Returns the header of one entry, with its PAX extended header before it where one is needed.

    `mode` has permission bits only, `size` is in bytes (0 for a directory). A name that isn't UTF-8 is passed as the
    operating system's functions give it, with surrogate escapes. Raises InvalidInput for a name no tar can hold.
    """
    raw = _raw(name, typeflag)
    if not 0 <= mode < _MODE_LIMIT:
        raise InvalidInput(f"{name!r}: mode {mode:o} has more than permission bits")
    split = _split(raw)
    if split and size < _SIZE_LIMIT:
        prefix, suffix = split
        return _block(suffix, mode, size, typeflag, prefix=prefix)
    records = {}
    if len(raw) > _NAME or not raw.isascii():
        records[b"path"] = raw
    if size >= _SIZE_LIMIT:
        records[b"size"] = b"%d" % size
    data = b"".join(_record(key, value) for key, value in sorted(records.items()))
    folder, base = posixpath.split(raw)
    extended = posixpath.normpath(posixpath.join(folder, b"PaxHeaders.0", base))
    short = _ascii(raw)
    if len(short) > _NAME:
        # Old readers take a file for a directory when its name ends in a slash: the cut must not leave one there.
        short = short[:_NAME].rstrip(b"/")
    return b"".join(
        (
            _block(_ascii(extended)[:_NAME].rstrip(b"/"), 0, len(data), _PAX),
            data,
            padding(len(data)),
            _block(short, mode, size if size < _SIZE_LIMIT else 0, typeflag),
        )
    )


def padding(size: int) -> bytes:
    """Returns the zeros that fill the last block of a member of `size` bytes."""
    return bytes(-size % BLOCK)


def _raw(name: str, typeflag: bytes) -> bytes:
    try:
        raw = name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise InvalidInput(f"{name!r} can't be a name in a tar: it isn't Unicode") from error
    if not raw or b"\0" in raw or (typeflag == REGULAR and raw.endswith(b"/")):
        raise InvalidInput(f"{name!r} can't be a name in a tar")
    return raw


def _split(raw: bytes) -> tuple[bytes, bytes] | None:
    """Prefix and name as USTAR holds them, or None. The prefix ends at the last slash that leaves it short enough."""
    if not raw.isascii():
        return None
    if len(raw) <= _NAME:
        return b"", raw
    cut = raw.rfind(b"/", 0, min(len(raw.removesuffix(b"/")), _PREFIX + 1))
    if cut <= 0 or not 0 < len(raw) - cut - 1 <= _NAME:
        return None
    return raw[:cut], raw[cut + 1 :]


def _block(name: bytes, mode: int, size: int, typeflag: bytes, *, prefix: bytes = b"") -> bytes:
    block = bytearray(BLOCK)
    block[0 : len(name)] = name
    block[100:108] = b"%07o\0" % mode
    block[108:116] = block[116:124] = b"0000000\0"
    block[124:136] = b"%011o\0" % size
    block[136:148] = b"00000000000\0"
    block[148:156] = b" " * 8
    block[156:157] = typeflag
    block[257:265] = b"ustar\x0000"
    if typeflag != _PAX:
        for field in _DEVICE:
            block[field : field + 8] = b"0000000\0"
    block[345 : 345 + len(prefix)] = prefix
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def _record(key: bytes, value: bytes) -> bytes:
    """`LENGTH key=value` and a line break, where LENGTH counts its own digits."""
    unnumbered = len(key) + len(value) + 3
    length = unnumbered + len(str(unnumbered))
    length = unnumbered + len(str(length))
    return b"%d %s=%s\n" % (length, key, value)


def _ascii(raw: bytes) -> bytes:
    """For readers that don't know PAX: what is left of the name without the rest of Unicode."""
    return bytes(sign for sign in raw if sign < 0x80)


class Member(Struct, frozen=True):
    """`name` is as written, hostile parts included; `size` in bytes, `mtime` in nanoseconds since 1970; `kind` is the
    type flag, one of the constants above for the usual kinds."""

    name: bytes
    kind: bytes
    size: int
    mode: int
    mtime: int


class Members:
    """Iterates over the members; `data` streams the current one, and what is left of it is passed over.

    Knows USTAR, PAX, GNU's long names and base-256 numbers. Raises InvalidManifest for what is damaged or cut short.
    `skip` passes over bytes that `pieces` hasn't given yet, where they needn't be read for that; `position` counts the
    bytes that are behind.
    """

    def __init__(self, pieces: Iterable[bytes], skip: Callable[[int], None] | None = None) -> None:
        self._pieces = iter(pieces)
        self._skip = skip
        self.position = 0
        self._piece = b""
        self._at = 0
        self._remaining = 0

    def __iter__(self) -> Iterator[Member]:
        long_name = b""
        records: Mapping[bytes, bytes] = {}
        while (block := self._header()) is not None:
            kind, size = block[156:157], _number(block[124:136])
            if kind in (_PAX, _PAX_GLOBAL, _GNU_LONG_NAME, _GNU_LONG_LINK):
                if not 0 <= size <= _EXTENSION_LIMIT:
                    raise InvalidManifest(f"the layer's tar has a name of {size} bytes")
                extension = self._take(size)
                self._take(-size % BLOCK)
                if kind == _PAX:
                    records = {**records, **_records(extension)}
                elif kind == _GNU_LONG_NAME:
                    long_name = extension.partition(b"\0")[0]
                continue
            member = _member(block, kind, size, long_name, records)
            more_of_sparse_map = block[482] if kind == _GNU_SPARSE else 0
            while more_of_sparse_map:
                more_of_sparse_map = self._take(BLOCK)[504]
            self._remaining = member.size
            yield member
            long_name, records = b"", {}
            if self._skip is not None:
                buffered = min(len(self._piece) - self._at, self._remaining)
                self._at += buffered
                self._skip(self._remaining - buffered)
                self.position += self._remaining
                self._remaining = 0
            for _ in self.data():
                pass
            self._take(-member.size % BLOCK)

    def data(self) -> Iterator[bytes]:
        """Yields the bytes of the current member that weren't given yet."""
        while self._remaining:
            part = self._part(self._remaining)
            self._remaining -= len(part)
            yield part

    def _header(self) -> bytes | None:
        """Returns the next header block, or None at the end: two blocks of zeros, or no more bytes."""
        if self._ended():
            return None
        block = self._take(BLOCK)
        if not any(block):
            if not self._ended() and any(self._take(BLOCK)):
                raise InvalidManifest(_DAMAGED)
            return None
        # The checksum counts its own field as spaces; some old writers summed signed bytes.
        field = block[148:156]
        stated, total = _number(field), sum(block) - sum(field) + 8 * ord(" ")
        if stated != total and stated != total - 256 * sum(byte > 127 for byte in block[:148] + block[156:]):
            raise InvalidManifest(_DAMAGED)
        return block

    def _take(self, size: int) -> bytes:
        parts = []
        while size > 0:
            parts.append(self._part(size))
            size -= len(parts[-1])
        return b"".join(parts)

    def _part(self, size: int) -> bytes:
        """Returns the next bytes, at most `size`."""
        if self._ended():
            raise InvalidManifest("the layer's tar is cut short")
        part = self._piece[self._at : self._at + size]
        self._at += len(part)
        self.position += len(part)
        return part

    def _ended(self) -> bool:
        while self._at == len(self._piece):
            piece = next(self._pieces, None)
            if piece is None:
                return True
            self._piece, self._at = piece, 0
        return False


def _member(block: bytes, kind: bytes, size: int, long_name: bytes, records: Mapping[bytes, bytes]) -> Member:
    name = records.get(b"path") or long_name or _name(block)
    if kind == _OLD_REGULAR:
        kind = FOLDER if name.endswith(b"/") else REGULAR
    if _SPARSE_KEYS in records:
        kind = _GNU_SPARSE
    if b"size" in records:
        size = _decimal(records[b"size"])
    if kind in WITHOUT_DATA:
        size = 0
    if size < 0:
        raise InvalidManifest(_DAMAGED)
    mtime = _time(records[b"mtime"]) if b"mtime" in records else _number(block[136:148]) * _SECOND
    return Member(
        name=name,
        kind=kind,
        size=size,
        mode=_number(block[100:108]),
        mtime=max(-_LAST_TIME, min(mtime, _LAST_TIME)),
    )


def _number(field: bytes) -> int:
    """Octal text, or GNU's base-256 for what doesn't fit."""
    if field[0] & 0x80:
        negative = -(1 << (8 * len(field) - 1)) if field[0] & 0x40 else 0
        return int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big") + negative
    digits = field.partition(b"\0")[0].strip(b" ") or field.strip(b" \0")
    if not digits:
        return 0
    if digits.strip(b"01234567"):
        raise InvalidManifest(_DAMAGED)
    return int(digits, 8)


def _decimal(text: bytes) -> int:
    if not text.isdigit() or len(text) > 19:
        raise InvalidManifest(_DAMAGED)
    return int(text)


def _time(text: bytes) -> int:
    """Seconds with a fraction, as nanoseconds."""
    whole, _, fraction = text.removeprefix(b"-").partition(b".")
    value = _decimal(whole) * _SECOND + _decimal(fraction[:9].ljust(9, b"0"))
    return -value if text.startswith(b"-") else value


def _name(block: bytes) -> bytes:
    name = block[:100].partition(b"\0")[0]
    if block[257:263] != b"ustar\0":
        return name
    prefix = block[345 : 476 if block[508:512] == b"tar\0" else 500].partition(b"\0")[0]
    return b"/".join((prefix, name)) if prefix else name


def _records(data: bytes) -> dict[bytes, bytes]:
    """Returns those PAX records that matter, for any number of headers may stand before a member. A record is
    `LENGTH key=value` and a line break, where LENGTH counts the whole record."""
    records = {}
    at = 0
    while at < len(data):
        length = _decimal(data[at : at + 20].partition(b" ")[0])
        record = data[at : at + length]
        key, equals, value = record.partition(b" ")[2].partition(b"=")
        if len(record) < length or not equals or not value.endswith(b"\n"):
            raise InvalidManifest(_DAMAGED)
        if key.startswith(_SPARSE_KEYS):
            records[_SPARSE_KEYS] = b""
        elif key in (b"path", b"size", b"mtime"):
            records[key] = value[:-1]
        at += length
    return records
