"""Reading one small file out of a layer, without unpacking it and without trusting it."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator

from oci.errors import InvalidManifest
from oci.files.decompress import decompressed

_BLOCK = 512
_EXTENSION_LIMIT = 1 << 20
"""Bytes of a PAX or GNU header, which holds one long name; Go's reader has the same limit."""

_REGULAR = (b"0", b"\0", b"7")
_WITHOUT_DATA = (b"1", b"2", b"3", b"4", b"5", b"6")
_PAX, _GNU_LONG_NAME, _GNU_SPARSE = b"x", b"L", b"S"
_BETWEEN = (b"K", b"g")
"""Headers that may stand between a long name and the entry it belongs to."""

_NOT_A_TAR = "the layer isn't a tar, or is damaged"


def read_member(chunks: Iterator[bytes], wanted: Callable[[str], bool], limit: int) -> bytes | None:
    """The first regular file of a layer whose name is wanted, or None; reads `chunks` no further than needed.

    `wanted` gets clean names: `/` between segments, no `./` or `/` in front. The layer may be gzip, zstd or plain.
    Raises InvalidManifest for a layer that can't be read, or a file of more than `limit` bytes. Before it blames the
    layer it reads `chunks` to the end, so that a verifying stream can say that the bytes were the wrong ones.
    """
    try:
        return _find(_Stream(decompressed(chunks)), wanted, limit)
    except InvalidManifest:
        for _ in chunks:
            pass
        raise


def _find(stream: _Stream, wanted: Callable[[str], bool], limit: int) -> bytes | None:
    for name, size, kind in _headers(stream):
        if kind in _REGULAR and wanted(name):
            if size > limit:
                raise InvalidManifest(f"{name} has {size} bytes, more than the limit of {limit}")
            return stream.take(size)
    return None


class _Stream:
    """Takes an exact number of bytes, or passes over them; holds one piece at a time."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._piece = b""
        self._at = 0

    @property
    def ended(self) -> bool:
        while self._at == len(self._piece):
            piece = next(self._pieces, None)
            if piece is None:
                return True
            self._piece, self._at = piece, 0
        return False

    def take(self, size: int) -> bytes:
        return b"".join(self._parts(size))

    def skip(self, size: int) -> None:
        for _ in self._parts(size):
            pass

    def _parts(self, size: int) -> Iterator[bytes]:
        while size > 0:
            if self.ended:
                raise InvalidManifest("the layer's tar is cut short")
            part = self._piece[self._at : self._at + size]
            self._at += len(part)
            size -= len(part)
            yield part


def _headers(stream: _Stream) -> Iterator[tuple[str, int, bytes]]:
    """(name, size of data, type) of each entry. The data is passed over when the next one is asked for."""
    path, data_size = b"", None
    while not stream.ended and any(block := stream.take(_BLOCK)):
        _check(block)
        kind, size = block[156:157], _number(block[124:136])
        if kind in (_PAX, _GNU_LONG_NAME):
            data = _extension(stream, size)
            if kind == _PAX:
                records = dict(_records(data))
                path = records.get(b"path", path)
                data_size = _decimal(records[b"size"]) if b"size" in records else data_size
            else:
                path = data.rstrip(b"\0")
            continue
        size = 0 if kind in _WITHOUT_DATA else size if data_size is None else data_size
        if kind == _GNU_SPARSE:
            _skip_sparse_map(stream, block)
        yield _clean(path or _name(block)), size, kind
        stream.skip(size + -size % _BLOCK)
        if kind not in _BETWEEN:
            path, data_size = b"", None


def _check(block: bytes) -> None:
    # The checksum counts its own field as spaces; some old writers summed signed bytes.
    field = block[148:156]
    total = sum(block) - sum(field) + 8 * ord(" ")
    negative = sum(256 for byte in block[:148] + block[156:] if byte > 127)
    if _number(field) not in (total, total - negative):
        raise InvalidManifest(_NOT_A_TAR)


def _number(field: bytes) -> int:
    """Octal text, or GNU's base-256 for what doesn't fit."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0")
    if not digits:
        return 0
    if digits.strip(b"01234567"):
        raise InvalidManifest(_NOT_A_TAR)
    return int(digits, 8)


def _decimal(text: bytes) -> int:
    if not text.isdigit() or len(text) > 20:
        raise InvalidManifest(_NOT_A_TAR)
    return int(text)


def _name(block: bytes) -> bytes:
    name = block[:100].partition(b"\0")[0]
    prefix = block[345:500].partition(b"\0")[0] if block[257:263] == b"ustar\0" else b""
    return b"/".join((prefix, name)) if prefix else name


def _extension(stream: _Stream, size: int) -> bytes:
    if size > _EXTENSION_LIMIT:
        raise InvalidManifest(f"the layer's tar has a name of {size} bytes")
    data = stream.take(size)
    stream.skip(-size % _BLOCK)
    return data


def _records(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """PAX records: `LENGTH key=value` and a line break, where LENGTH counts the whole record."""
    at = 0
    while at < len(data):
        length = _decimal(data[at : at + 20].partition(b" ")[0])
        record = data[at : at + length]
        key, equals, value = record.partition(b" ")[2].partition(b"=")
        if len(record) < length or not equals or not value.endswith(b"\n"):
            raise InvalidManifest(_NOT_A_TAR)
        yield key, value[:-1]
        at += length


def _skip_sparse_map(stream: _Stream, block: bytes) -> None:
    more = block[482]
    while more:
        more = stream.take(_BLOCK)[504]


def _clean(raw: bytes) -> str:
    """As a path from the layer's root. Layers built on Windows have backslashes between segments."""
    name = raw.decode("utf-8", "surrogateescape").replace("\\", "/")
    return posixpath.normpath(name).lstrip("/")
