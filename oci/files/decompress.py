"""Layers as the tar they hold: gzip, zstd and plain are told apart by their first bytes, not by their media type.

A layer of 4.5 MB can stand for 1 GiB of zeros, or for more than any disk has. What comes out is bounded in bytes, and
in bytes for each byte that went in.
"""

from __future__ import annotations

import zlib
from collections.abc import Generator, Iterable, Iterator
from itertools import chain
from typing import Any

from oci.digest import Chunk
from oci.errors import InvalidManifest
from oci.options import Options, option
from oci.units import show_size

_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_ZSTD_SKIPPABLE = b"\x2a\x4d\x18"
_PIECE = 256 << 10
"""Bytes given out at once, however much a few compressed bytes stand for."""

_FIRST_SLICE = 512
_LARGEST_SLICE = 64 << 10
_LONGEST_HEAD = 16
"""Bytes that a step of zstd's framing looks at, at most."""

_ZSTD_WINDOW = 128 << 20
_RATIO_COUNTS_FROM = 64 << 20
"""Unpacked bytes that any layer may have: a file of zeros compresses to a thousandth, and small ones do no harm."""


class UnpackLimits(Options):
    """How much may come out of layers that are unpacked."""

    max_unpacked_size: int = option(
        100 << 30,
        "Bytes that the layers of one image may have when they are unpacked.",
        title="Largest unpacked size",
        unit="bytes",
        ge=1,
        group="advanced",
    )
    max_unpacked_ratio: int = option(
        100,
        "Bytes that may come out of a layer for each byte that it has, as soon as that makes more than 64 MiB.",
        title="Largest ratio of unpacking",
        ge=1,
        le=1_000_000,
        group="advanced",
    )


DEFAULT_LIMITS = UnpackLimits()


def decompressed(chunks: Iterable[Chunk], limits: UnpackLimits = DEFAULT_LIMITS) -> Iterator[bytes]:
    """Yields the bytes inside, in pieces of bounded size. Raises InvalidManifest when they are damaged, cut short, or
    more than the limits allow."""
    bytes_read = size = 0

    def counted() -> Iterator[bytes]:
        nonlocal bytes_read
        for chunk in chunks:
            bytes_read += len(chunk)
            yield bytes(chunk)

    source = counted()
    head = b""
    while len(head) < len(_ZSTD) and (chunk := next(source, None)) is not None:
        head += chunk
    pieces: Iterator[bytes] = chain((head,), source)
    if head.startswith(_GZIP):
        pieces = _gunzip(pieces)
    elif head.startswith(_ZSTD) or head[1:4] == _ZSTD_SKIPPABLE:
        pieces = _unzstd(pieces)
    for piece in pieces:
        size += len(piece)
        if size > limits.max_unpacked_size:
            raise too_large(limits)
        if size > _RATIO_COUNTS_FROM and size > limits.max_unpacked_ratio * bytes_read:
            raise InvalidManifest(
                f"{show_size(bytes_read)} of the layer unpack to more than {show_size(size)}, which is over "
                f"{limits.max_unpacked_ratio} times as much",
                hint="raise --max-unpacked-ratio if the layer is to be trusted",
            )
        yield piece


def too_large(limits: UnpackLimits) -> InvalidManifest:
    return InvalidManifest(
        f"decompressed, the layers have more than the {limits.max_unpacked_size} bytes that are allowed",
        hint="raise --max-unpacked-size if they are to be trusted",
    )


def _gunzip(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Zlib hands back what it didn't use as a copy. Slices that start small for each member and double keep the copies
    as short as what is used: any number of members, however small, takes time in proportion to their bytes."""
    member = zlib.decompressobj(wbits=31)
    width = _FIRST_SLICE
    for chunk in chunks:
        view = memoryview(chunk)
        at = 0
        while at < len(view):
            if member.eof:
                # Another member may follow; zeros pad some tapes and registries' files.
                padding = _leading_zeros(view, at)
                at += padding
                if at == len(view):
                    break
                member, width = zlib.decompressobj(wbits=31), _FIRST_SLICE
            data = view[at : at + width]
            try:
                piece = member.decompress(data, _PIECE)
            except zlib.error as error:
                raise InvalidManifest("the layer's gzip data is damaged") from error
            if piece:
                yield piece
            at += len(data) - len(member.unused_data) - len(member.unconsumed_tail)
            width = min(2 * width, _LARGEST_SLICE)
    if not member.eof:
        raise InvalidManifest("the layer's gzip data is cut short")


def _leading_zeros(view: memoryview, at: int) -> int:
    count = 0
    while at + count < len(view):
        data = bytes(view[at + count : at + count + _LARGEST_SLICE])
        zeros = len(data) - len(data.lstrip(b"\0"))
        count += zeros
        if zeros < len(data):
            break
    return count


def _unzstd(chunks: Iterator[bytes]) -> Iterator[bytes]:
    import zstandard  # noqa: PLC0415 - takes longer to import than most commands run, and few layers need it

    file: Any = _ZstdInput(chunks)
    decoder = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
    try:
        with decoder.stream_reader(file, read_across_frames=True, closefd=False) as reader:
            while piece := reader.read(_PIECE):
                yield piece
    except zstandard.ZstdError as error:
        raise InvalidManifest("the layer's zstd data is damaged") from error
    if file.is_cut:
        raise InvalidManifest("the layer's zstd data is cut short")


class _ZstdInput:
    """The one method of a file that the zstd reader calls. The reader takes data that are cut short for the end, so
    frames and blocks are followed here (RFC 8878, 3.1)."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._unread = memoryview(b"")
        self._steps = self._follow()
        self._missing = next(self._steps)
        """Bytes until the next step; 0 or more are passed over."""
        self._head = b""
        self.is_cut = False

    def read(self, size: int) -> bytes:
        while not self._unread:
            chunk = next(self._chunks, None)
            if chunk is None:
                return b""
            self._unread = memoryview(chunk)
        data, self._unread = bytes(self._unread[:size]), self._unread[size:]
        self._pass(data)
        return data

    def _pass(self, data: bytes) -> None:
        at = 0
        while at < len(data):
            piece = data[at : at + self._missing]
            at += len(piece)
            self._missing -= len(piece)
            self._head = (self._head + piece)[-_LONGEST_HEAD:]
            while not self._missing:
                self._missing = self._steps.send(self._head)
                self._head = b""

    def _follow(self) -> Generator[int, bytes, None]:
        """Asks for so many bytes at a time, and gets the last of them."""
        while True:
            self.is_cut = False
            head = yield 1
            self.is_cut = True
            head += yield 3
            if head[1:4] == _ZSTD_SKIPPABLE:
                yield int.from_bytes((yield 4), "little")
                continue
            flags = (yield 1)[0]
            single, checksum = flags >> 5 & 1, flags >> 2 & 1
            yield (not single) + (0, 1, 2, 4)[flags & 3] + (single, 2, 4, 8)[flags >> 6]
            last = 0
            while not last:
                block = int.from_bytes((yield 3), "little")
                last = block & 1
                yield 1 if block >> 1 & 3 == 1 else block >> 3
            yield 4 * checksum
