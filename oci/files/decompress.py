"""Layers as the tar they hold: gzip, zstd and plain are told apart by their first bytes, not by their media type."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

from oci.errors import InvalidManifest

_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_ZSTD_SKIPPABLE = b"\x2a\x4d\x18"
_PIECE = 256 << 10
"""Bytes given out at once, however much a few compressed bytes stand for."""

_ZSTD_WINDOW = 128 << 20


def decompressed(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The bytes inside, in pieces of bounded size. Raises InvalidManifest when they are damaged or cut short."""
    source = iter(chunks)
    head = b""
    while len(head) < len(_ZSTD) and (chunk := next(source, None)) is not None:
        head += chunk
    whole = chain((head,), source)
    if head.startswith(_GZIP):
        return _gunzip(whole)
    if head.startswith(_ZSTD) or head[1:4] == _ZSTD_SKIPPABLE:
        return _unzstd(whole)
    return whole


def _gunzip(chunks: Iterator[bytes]) -> Iterator[bytes]:
    member = zlib.decompressobj(wbits=31)
    for chunk in chunks:
        data = chunk
        while data:
            if member.eof:
                # Another member may follow; zeros pad some tapes and registries' files.
                data = data.lstrip(b"\0")
                if not data:
                    break
                member = zlib.decompressobj(wbits=31)
            try:
                piece = member.decompress(data, _PIECE)
            except zlib.error as error:
                raise InvalidManifest("the layer's gzip data is damaged") from error
            if piece:
                yield piece
            data = member.unused_data or member.unconsumed_tail
    if not member.eof:
        raise InvalidManifest("the layer's gzip data is cut short")


def _unzstd(chunks: Iterator[bytes]) -> Iterator[bytes]:
    import zstandard  # noqa: PLC0415 - takes longer to import than most commands run, and few layers need it

    file: Any = _File(chunks)
    decoder = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
    try:
        with decoder.stream_reader(file, read_across_frames=True, closefd=False) as reader:
            while piece := reader.read(_PIECE):
                yield piece
    except zstandard.ZstdError as error:
        raise InvalidManifest("the layer's zstd data is damaged") from error


class _File:
    """The one method of a file that the zstd reader calls."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""

    def read(self, size: int) -> bytes:
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return b""
            self._rest = chunk
        given, self._rest = self._rest[:size], self._rest[size:]
        return given
