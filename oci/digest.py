"""Digests (image-spec, descriptor.md#digests) and the one reader that proves them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Generator, Iterator
from typing import NewType, TypeAlias

from oci.errors import IntegrityError, InvalidReference

Chunk: TypeAlias = bytes | memoryview
"""A piece of a blob. What a registry sends comes as views of memory that is used again once nothing refers to it."""
READ_SIZE = 1 << 20
"""Bytes of a file or an object to read at a time."""

Digest = NewType("Digest", str)
"""`sha256:<64 hex>` or `sha512:<128 hex>`, lower case; made by `parse_digest` or `digest_of` only."""

PATTERN = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")


def parse_digest(text: object) -> Digest:
    """Raises InvalidReference for anything but a lower-case sha256 or sha512 digest."""
    if not isinstance(text, str) or not PATTERN.fullmatch(text):
        raise InvalidReference(
            f"{str(text)[:100]!r} is not a digest",
            hint="write sha256: followed by 64 lower-case hexadecimal characters",
        )
    return Digest(text)


def is_digest(text: str) -> bool:
    return PATTERN.fullmatch(text) is not None


def is_other_digest(text: str, digest: Digest) -> bool:
    """Whether a header says that the registry has something else than what was sent. What is no digest, or one by
    another algorithm, says nothing."""
    return is_digest(text) and text != digest and text.partition(":")[0] == digest.partition(":")[0]


def digest_of(data: bytes) -> Digest:
    return Digest(f"sha256:{hashlib.sha256(data).hexdigest()}")


def hex_of(digest: Digest) -> str:
    return digest.partition(":")[2]


class Verifier:
    """Takes the bytes of one blob in order and says, at the end, whether they are the ones that were promised. With
    `in_file` they come out of a file, where they are the same at the next read."""

    def __init__(self, digest: Digest, size: int, name: str = "", *, in_file: bool = False) -> None:
        self.digest = digest
        self.size = size
        self.bytes_read = 0
        self._name = name or digest
        self._in_file = in_file
        self._hash = hashlib.new(digest.partition(":")[0])

    def update(self, chunk: bytes | memoryview) -> None:
        """Raises IntegrityError as soon as there are more bytes than promised."""
        self.bytes_read += len(chunk)
        if self.bytes_read > self.size:
            raise self._wrong(f"got more than the {self.size} bytes that {self.digest} has")
        self._hash.update(chunk)

    def finish(self) -> None:
        """Raises IntegrityError when bytes are missing or the digest is another."""
        if self.bytes_read != self.size:
            raise self._wrong(f"got {self.bytes_read} of the {self.size} bytes that {self.digest} has")
        algorithm = self.digest.partition(":")[0]
        actual = f"{algorithm}:{self._hash.hexdigest()}"
        if actual != self.digest:
            raise self._wrong(f"expected {self.digest} but the bytes have {actual}")

    def _wrong(self, problem: str) -> IntegrityError:
        return IntegrityError(f"{self._name}: {problem}", in_file=self._in_file)


def end_read(chunks: Iterator[Chunk]) -> None:
    """Ends a read that is given up before its last chunk. What it has open is closed now: the traceback of an error
    would keep it open until memory is collected."""
    if isinstance(chunks, Generator):
        chunks.close()


def verified(
    chunks: Iterator[Chunk],
    digest: Digest,
    size: int,
    name: str = "",
    tick: Callable[[int], None] | None = None,
    *,
    in_file: bool = False,
) -> Iterator[Chunk]:
    """Passes `chunks` on while hashing them; the last chunk is passed on only when the whole is proven.

    So a consumer that saw the end of the stream saw good bytes, and one that got an IntegrityError never got all of
    them. `tick` gets the length of each chunk. `in_file` is that of Verifier.
    """
    verifier = Verifier(digest, size, name, in_file=in_file)
    last: Chunk = b""
    try:
        for chunk in chunks:
            verifier.update(chunk)
            if tick is not None:
                tick(len(chunk))
            if last:
                yield last
            last = chunk
        verifier.finish()
    finally:
        end_read(chunks)
    if last:
        yield last
