"""Tar headers as Go's archive/tar writes them for imgpkg: the same files give the same bytes on every machine.

Owner, group and times are never recorded; a directory's name has no trailing slash. An entry that fits is written as
USTAR; a name that doesn't, or 8 GiB and more, goes into a PAX extended header (POSIX.1-2001, "pax Interchange Format").
"""

from __future__ import annotations

import posixpath

from oci.errors import InvalidInput

BLOCK = 512
FILE = b"0"
DIRECTORY = b"5"
END = bytes(2 * BLOCK)
"""Ends an archive. Nothing pads it to 10 KiB."""

_PAX_HEADER = b"x"
_NAME = 100
_PREFIX = 155
_SIZE_LIMIT = 1 << 33
_MODE_LIMIT = 1 << 12
_DEVICE = (329, 337)


def header(name: str, *, mode: int, size: int, typeflag: bytes = FILE) -> bytes:
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
    return b"".join(
        (
            _block(_ascii(extended)[:_NAME].rstrip(b"/"), 0, len(data), _PAX_HEADER),
            data,
            padding(len(data)),
            _block(_short(_ascii(raw)), mode, size if size < _SIZE_LIMIT else 0, typeflag),
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
    if not raw or b"\0" in raw or (typeflag == FILE and raw.endswith(b"/")):
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
    if typeflag != _PAX_HEADER:
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


def _short(name: bytes) -> bytes:
    """Old readers take a file for a directory when its name ends in a slash, so the cut must not leave one there."""
    return name if len(name) <= _NAME else name[:_NAME].rstrip(b"/")


def _ascii(raw: bytes) -> bytes:
    """For readers that don't know PAX: what is left of the name without the rest of Unicode."""
    return bytes(sign for sign in raw if sign < 0x80)
