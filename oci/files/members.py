"""The members of a tar stream, read without trusting it.

Not Python's tarfile: its stream mode takes a name's length from the archive and reads that much into memory, keeps
every member it met, recurses once for each extension header, and takes a damaged end for the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from msgspec import Struct

from oci.errors import InvalidManifest
from oci.files.tar import BLOCK

REGULAR, HARD_LINK, SYMLINK, CHARACTER, DEVICE, FOLDER, FIFO = (b"%d" % number for number in range(7))
WITHOUT_DATA = frozenset({HARD_LINK, SYMLINK, CHARACTER, DEVICE, FOLDER, FIFO})

_OLD_REGULAR = b"\0"
_PAX, _PAX_GLOBAL, _GNU_LONG_NAME, _GNU_LONG_LINK, _GNU_SPARSE = b"x", b"g", b"L", b"K", b"S"
_SPARSE_KEYS = b"GNU.sparse."
_EXTENSION_LIMIT = 1 << 20
"""Bytes of a PAX or GNU header, which holds one long name; Go's reader has the same limit."""

_DAMAGED = "the layer isn't a tar, or is damaged"
_SECOND = 10**9
_LAST_TIME = 1 << 40
"""Seconds: beyond it no file system has times."""


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
        self._padding = 0

    def __iter__(self) -> Iterator[Member]:
        long_name = b""
        records: Mapping[bytes, bytes] = {}
        while (block := self._header()) is not None:
            kind, size = block[156:157], _number(block[124:136])
            if kind in (_PAX, _PAX_GLOBAL, _GNU_LONG_NAME, _GNU_LONG_LINK):
                extension = self._extension(size)
                if kind == _PAX:
                    records = {**records, **_wanted_records(extension)}
                elif kind == _GNU_LONG_NAME:
                    long_name = extension.partition(b"\0")[0]
                continue
            member = _member(block, kind, size, long_name, records)
            if kind == _GNU_SPARSE:
                self._skip_sparse_map(block)
            self._remaining, self._padding = member.size, -member.size % BLOCK
            yield member
            long_name, records = b"", {}
            self._pass_over()

    def data(self) -> Iterator[bytes]:
        """Yields the bytes of the current member that weren't given yet."""
        while self._remaining:
            if self._ended():
                raise InvalidManifest("the layer's tar is cut short")
            part = self._piece[self._at : self._at + self._remaining]
            self._at += len(part)
            self._remaining -= len(part)
            self.position += len(part)
            yield part

    def _pass_over(self) -> None:
        """The rest of the current member, and what fills its last block."""
        if self._skip is not None:
            buffered = min(len(self._piece) - self._at, self._remaining)
            self._at += buffered
            self._skip(self._remaining - buffered)
            self.position += self._remaining
            self._remaining = 0
        for _ in self.data():
            pass
        self._take(self._padding)

    def _header(self) -> bytes | None:
        """Returns the next header block, or None at the end: two blocks of zeros, or no more bytes."""
        if self._ended():
            return None
        block = self._take(BLOCK)
        if not any(block):
            if not self._ended() and any(self._take(BLOCK)):
                raise InvalidManifest(_DAMAGED)
            return None
        _check(block)
        return block

    def _extension(self, size: int) -> bytes:
        if not 0 <= size <= _EXTENSION_LIMIT:
            raise InvalidManifest(f"the layer's tar has a name of {size} bytes")
        data = self._take(size)
        self._take(-size % BLOCK)
        return data

    def _skip_sparse_map(self, block: bytes) -> None:
        more = block[482]
        while more:
            more = self._take(BLOCK)[504]

    def _take(self, size: int) -> bytes:
        parts = []
        while size > 0:
            if self._ended():
                raise InvalidManifest("the layer's tar is cut short")
            part = self._piece[self._at : self._at + size]
            self._at += len(part)
            self.position += len(part)
            size -= len(part)
            parts.append(part)
        return b"".join(parts)

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
        mtime=max(-_LAST_TIME * _SECOND, min(mtime, _LAST_TIME * _SECOND)),
    )


def _check(block: bytes) -> None:
    # The checksum counts its own field as spaces; some old writers summed signed bytes.
    field = block[148:156]
    stated, total = _number(field), sum(block) - sum(field) + 8 * ord(" ")
    if stated != total and stated != total - 256 * sum(byte > 127 for byte in block[:148] + block[156:]):
        raise InvalidManifest(_DAMAGED)


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


def _wanted_records(data: bytes) -> dict[bytes, bytes]:
    """Returns the few headers that matter: any number of headers may stand before a member."""
    records = {}
    for key, value in _records(data):
        if key.startswith(_SPARSE_KEYS):
            records[_SPARSE_KEYS] = b""
        elif key in (b"path", b"size", b"mtime"):
            records[key] = value
    return records


def _records(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """PAX records: `LENGTH key=value` and a line break, where LENGTH counts the whole record."""
    at = 0
    while at < len(data):
        length = _decimal(data[at : at + 20].partition(b" ")[0])
        record = data[at : at + length]
        key, equals, value = record.partition(b" ")[2].partition(b"=")
        if len(record) < length or not equals or not value.endswith(b"\n"):
            raise InvalidManifest(_DAMAGED)
        yield key, value[:-1]
        at += length
