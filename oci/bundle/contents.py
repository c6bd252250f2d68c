"""Reading one small file out of a layer, without unpacking it and without trusting it."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator

from oci.errors import InvalidManifest
from oci.files.decompress import decompressed
from oci.files.members import REGULAR, Members


def read_member(chunks: Iterator[bytes], wanted: Callable[[str], bool], limit: int) -> bytes | None:
    """The first regular file of a layer whose name is wanted, or None; reads `chunks` no further than needed.

    `wanted` gets clean names: `/` between segments, no `./` or `/` in front. The layer may be gzip, zstd or plain.
    Raises InvalidManifest for a layer that can't be read, or a file of more than `limit` bytes. Before it blames the
    layer it reads `chunks` to the end, so that a verifying stream can say that the bytes were the wrong ones.
    """
    try:
        return _find(Members(decompressed(chunks)), wanted, limit)
    except InvalidManifest:
        for _ in chunks:
            pass
        raise


def _find(members: Members, wanted: Callable[[str], bool], limit: int) -> bytes | None:
    for member in members:
        name = _clean(member.name)
        if member.kind == REGULAR and wanted(name):
            if member.size > limit:
                raise InvalidManifest(f"{name} has {member.size} bytes, more than the limit of {limit}")
            return b"".join(members.data())
    return None


def _clean(raw: bytes) -> str:
    """As a path from the layer's root. Layers built on Windows have backslashes between segments."""
    name = raw.decode("utf-8", "surrogateescape").replace("\\", "/")
    return posixpath.normpath(name).lstrip("/")
