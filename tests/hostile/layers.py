"""Layers: names that lead out of the folder, entries of every kind, damage, bombs."""

# ruff: noqa: E501 - a case is a line

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import struct
import tarfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import zstandard

from oci.errors import InvalidManifest, TransshipError
from tests.hostile.case import ACCEPTED, Case

ESCAPES = (
    "../out", "../../etc/out", "a/../../out", "a/b/../../../out", "..", "../", "a/..", "a/../..", "./../out", ".//../out",
    "a/./../../out", "a\\..\\..\\out", "/../out", "//../../out", "a//../..//../out",
)  # fmt: skip
ABSOLUTE = ("/out", "//out", "///a//out", "/./out", "./out", "././out", "a//out", "a/./out")
BROKEN_NAMES = ("C:\\out", "nul", "a b", "\u202eout", "ü/ö", "a\nb", "a\x1b[2Jb", "-rf", "~root", "$HOME", "x" * 100)
KINDS: Mapping[str, bytes] = {
    "a hard link": tarfile.LNKTYPE,
    "a symbolic link": tarfile.SYMTYPE,
    "a character device": tarfile.CHRTYPE,
    "a block device": tarfile.BLKTYPE,
    "a pipe": tarfile.FIFOTYPE,
}
TARGETS = ("/etc/passwd", "../../../etc/passwd", ".", "", "out", "/proc/self/mem")


def entry(
    name: str, data: bytes = b"", *, kind: bytes = tarfile.REGTYPE, target: str = "", mode: int = 0o644
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname, info.mode = len(data), kind, target, mode
    return info, data


def tar_of(*entries: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form) as archive:
        for info, data in entries:
            archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def header(
    name: bytes = b"a",
    size: bytes = b"00000000000\0",
    kind: bytes = b"0",
    *,
    sound: bool = True,
    magic: bytes = b"ustar\x0000",
) -> bytes:
    """A header by hand, with fields that tarfile wouldn't write."""
    raw = bytearray(512)
    raw[: len(name)] = name
    raw[100:108] = b"0000644\0"
    raw[124 : 124 + len(size)] = size
    raw[136:148] = b"00000000000\0"
    raw[156:157] = kind
    raw[257 : 257 + len(magic)] = magic
    raw[148:156] = b" " * 8
    total = sum(raw) if sound else 1
    raw[148:156] = b"%06o\0 " % total
    return bytes(raw)


def pax(record: bytes, *, kind: bytes = b"x") -> bytes:
    """A pax header with any record, before a file."""
    padded = record + bytes(-len(record) % 512)
    return header(b"pax", b"%011o\0" % len(record), kind) + padded + header() + bytes(1024)


def bomb(size: int) -> bytes:
    """A file of zeros, a thousandth of its size."""
    info, _ = entry("zeros", b"")
    info.size = size
    packer = zstandard.ZstdCompressor(level=1).compressobj()
    pieces = [packer.compress(info.tobuf(tarfile.GNU_FORMAT))]
    block = bytes(1 << 20)
    pieces += [packer.compress(block) for _ in range(size >> 20)]
    return b"".join([*pieces, packer.flush()])


GOOD = tar_of(entry("a", b"1" * 3000), entry("b/c", b"2"))
PACKED = gzip.compress(GOOD, mtime=0)
ZSTD = zstandard.ZstdCompressor().compress(GOOD)


def damaged(data: bytes, at: int, value: int) -> bytes:
    return data[:at] + bytes([value]) + data[at + 1 :]


def _raw() -> Iterator[tuple[str, Callable[[], bytes], type[TransshipError] | None]]:
    """Headers and compression."""
    yield from (
        ("nothing", lambda: b"", None),
        ("zeros", lambda: bytes(1024), None),
        ("one block of zeros", lambda: bytes(512), None),
        ("one byte", lambda: b"\x00", InvalidManifest),
        ("text", lambda: b"this is no tar\n" * 100, InvalidManifest),
        ("HTML", lambda: b"<html>" + b" " * 2000, InvalidManifest),
        ("a wrong checksum", lambda: header(sound=False) + bytes(1024), InvalidManifest),
        ("a size below zero", lambda: header(size=b"-0000000001\0") + bytes(1024), InvalidManifest),
        ("a size of letters", lambda: header(size=b"abcdefghijk\0") + bytes(1024), InvalidManifest),
        ("a size of 8 GiB and no data", lambda: header(size=b"77777777777\0") + bytes(1024), InvalidManifest),
        ("a size in base 256 of 2^63", lambda: header(size=b"\x80\0\0\0\x7f" + b"\xff" * 7) + bytes(1024), InvalidManifest),
        ("a negative size in base 256", lambda: header(size=b"\xff" * 12) + bytes(1024), InvalidManifest),
        ("an entry of no known kind", lambda: header(kind=b"Z") + bytes(1024), InvalidManifest),
        ("a sparse file", lambda: header(kind=b"S") + bytes(1024), InvalidManifest),
        ("a volume label", lambda: header(kind=b"V") + bytes(1024), InvalidManifest),
        ("a name of nothing", lambda: header(name=b"") + bytes(1024), InvalidManifest),
        ("a long name that is missing", lambda: header(size=b"00000001000\0", kind=b"L") + bytes(1024), None),
        ("a long name of 64 MiB", lambda: header(size=b"00400000000\0", kind=b"L") + bytes(1024), InvalidManifest),
        ("a pax header of 64 MiB", lambda: header(size=b"00400000000\0", kind=b"x") + bytes(1024), InvalidManifest),
        ("a pax record without a length", lambda: pax(b"path=out\n"), InvalidManifest),
        ("a pax record longer than its header", lambda: pax(b"99 path=out\n"), InvalidManifest),
        ("a pax record of length 0", lambda: pax(b"0 path=out\n"), InvalidManifest),
        ("a pax record of 5,000 digits", lambda: pax(b"9" * 5000 + b" path=out\n"), InvalidManifest),
        ("a pax path that leads out", lambda: pax(b"15 path=../out\n"), InvalidManifest),
        ("a pax path with a zero byte", lambda: pax(b"12 path=a\0b\n"), InvalidManifest),
        ("a pax size that is no number", lambda: pax(b"12 size=abc\n"), InvalidManifest),
        ("a pax size below zero", lambda: pax(b"11 size=-1\n"), InvalidManifest),
        ("a global pax path that leads out", lambda: pax(b"15 path=../out\n", kind=b"g"), None),
        ("cut in a header", lambda: GOOD[:300], InvalidManifest),
        ("cut in a file", lambda: GOOD[:2000], InvalidManifest),
        ("cut before the end", lambda: GOOD[:4096], InvalidManifest),
        ("gzip, cut", lambda: PACKED[:-20], InvalidManifest),
        ("gzip, only its magic", lambda: b"\x1f\x8b", InvalidManifest),
        ("gzip with a wrong checksum", lambda: damaged(PACKED, len(PACKED) - 8, 1), InvalidManifest),
        ("gzip with a wrong length", lambda: damaged(PACKED, len(PACKED) - 1, 9), InvalidManifest),
        ("gzip with an unknown method", lambda: damaged(PACKED, 2, 7), InvalidManifest),
        ("gzip with a name that never ends", lambda: b"\x1f\x8b\x08\x08" + b"\0" * 6 + b"x" * 100_000, InvalidManifest),
        ("gzip and garbage behind it", lambda: PACKED + b"garbage", None),
        ("gzip and zeros behind it", lambda: PACKED + bytes(100), None),
        ("gzip in a thousand members", lambda: b"".join(gzip.compress(GOOD[at : at + 11], 1) for at in range(0, len(GOOD), 11)), None),
        ("gzip of gzip", lambda: gzip.compress(PACKED, mtime=0), InvalidManifest),
        ("zstd, cut", lambda: ZSTD[:-5], InvalidManifest),
        ("zstd, only its magic", lambda: ZSTD[:4], InvalidManifest),
        ("zstd with a window of 2 GiB", lambda: b"\x28\xb5\x2f\xfd\x00\xa8" + b"\x01\x00\x00", InvalidManifest),
        ("zstd of zstd", lambda: zstandard.ZstdCompressor().compress(ZSTD), InvalidManifest),
        ("zstd behind a frame to skip", lambda: b"\x50\x2a\x4d\x18" + struct.pack("<I", 4) + b"skip" + ZSTD, None),
        ("bzip2", lambda: bz2.compress(GOOD), InvalidManifest),
        ("xz", lambda: lzma.compress(GOOD), InvalidManifest),
        ("a zip file", lambda: b"PK\x03\x04" + bytes(600), InvalidManifest),
        ("a bomb of 1 GiB", lambda: bomb(1 << 30), InvalidManifest),
        ("a bomb in gzip", lambda: gzip.compress(tar_of(entry("zeros", bytes(96 << 20))), 9, mtime=0), InvalidManifest),
    )  # fmt: skip


def cases() -> Iterator[Case[bytes]]:
    for name in ESCAPES:
        yield Case(f"a file {name!r}", partial(tar_of, entry(name, b"x")), InvalidManifest)
    for name in ABSOLUTE:
        yield Case(f"a file {name!r}", partial(tar_of, entry(name, b"x")), ACCEPTED)
    for name in BROKEN_NAMES:
        yield Case(f"a file {name!r}", partial(tar_of, entry(name, b"x")), ACCEPTED)
    for what, kind in KINDS.items():
        yield Case(
            f"{what} and a file of its name",
            partial(tar_of, entry("out", kind=kind, target="/etc"), entry("out", b"x")),
            ACCEPTED,
        )
    for target in TARGETS:
        link = entry("out", kind=tarfile.SYMTYPE, target=target)
        yield Case(f"a file behind a link to {target!r}", partial(tar_of, link, entry("out/in", b"x")), ACCEPTED)
        hard = entry("in", kind=tarfile.LNKTYPE, target=target)
        yield Case(f"a hard link to {target!r}, written to", partial(tar_of, hard, entry("in", b"x")), ACCEPTED)
    for name in (".wh...", ".wh..", ".wh.", "a/.wh...", ".wh..wh..opq/../../out"):
        yield Case(f"a deletion {name!r}", partial(tar_of, entry(name)), InvalidManifest)
    for mode in (0o4755, 0o2755, 0o1777, 0o0, 0o7777):
        yield Case(f"mode {mode:o}", partial(tar_of, entry("a", b"x", mode=mode)), ACCEPTED)
    yield Case("10,000 levels", lambda: tar_of(entry("a/" * 10_000 + "b", b"x")), InvalidManifest)
    yield Case("a name of 5,000 letters", lambda: tar_of(entry("n" * 5000, b"x")), InvalidManifest)
    yield Case("a file where a folder is", lambda: tar_of(entry("a/b", b"x"), entry("a", b"y")), ACCEPTED)
    yield Case("a folder where a file is", lambda: tar_of(entry("a", b"y"), entry("a/b", b"x")), ACCEPTED)
    yield Case("one name a thousand times", lambda: tar_of(*[entry("a", b"x")] * 1000), ACCEPTED)
    for name, make, expected in _raw():
        yield Case(name, make, expected)
