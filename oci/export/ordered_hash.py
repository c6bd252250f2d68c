"""Hashing blobs in order while their pieces arrive in any order."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from typing import TypeVar

from msgspec import Struct, field

from oci.digest import Digest, Verifier
from oci.errors import Cancelled, IntegrityError, InvalidInput, TransshipError
from oci.export.tar_plan import Piece

T = TypeVar("T", bound=bytes | memoryview)


class Chains(Struct):
    """One hash for each blob that is cut. A piece waits until those before it are hashed: a caller begins
    pieces in order, so that it never waits for one that hasn't begun."""

    _verifiers: dict[Digest, Verifier] = field(default_factory=dict)
    _hashed: dict[Digest, int] = field(default_factory=dict)
    """Bytes of each blob up to the end of a piece. What the verifier has seen says less: it counts a chunk before that
    is hashed."""
    _turn: threading.Condition = field(default_factory=threading.Condition)
    _broken: dict[Digest, TransshipError | Cancelled] = field(default_factory=dict)
    _over: TransshipError | Cancelled | None = None

    def update(self, piece: Piece, chunks: Iterable[bytes | memoryview]) -> None:
        """Raises IntegrityError when the blob ends here and isn't what was promised, or the error given to
        `break_off`."""
        deque(self.passing(piece, chunks), maxlen=0)

    def passing(self, piece: Piece, chunks: Iterable[T]) -> Iterator[T]:
        """Does the same, and hands the bytes on. They are taken when the piece's turn has come."""
        verifier = self._verifier(piece)
        with self._turn:
            self._turn.wait_for(lambda: self._why_not(verifier) or self._hashed[verifier.digest] == piece.blob_offset)
            broken = self._why_not(verifier)
            if broken is not None:
                raise broken
        for chunk in chunks:
            verifier.update(chunk)
            yield chunk
        end = piece.blob_offset + piece.length
        if verifier.bytes_read != end:
            raise IntegrityError(f"{verifier.digest}: got {verifier.bytes_read} bytes where {end} were to be")
        with self._turn:
            self._hashed[verifier.digest] = end
            self._turn.notify_all()
        if end == verifier.size:
            verifier.finish()

    def break_off(self, error: TransshipError | Cancelled, digests: Iterable[Digest] | None = None) -> None:
        """Ends the waiting for these blobs, or for all of them."""
        with self._turn:
            if digests is None:
                self._over = self._over or error
            else:
                self._broken.update(dict.fromkeys(digests, error))
            self._turn.notify_all()

    def _why_not(self, verifier: Verifier) -> TransshipError | Cancelled | None:
        return self._over or self._broken.get(verifier.digest)

    def _verifier(self, piece: Piece) -> Verifier:
        content = piece.member.content if piece.member else None
        if content is None or content.digest is None:
            raise InvalidInput("only a blob has a digest to be proven")
        with self._turn:
            self._hashed.setdefault(content.digest, 0)
            return self._verifiers.setdefault(content.digest, Verifier(content.digest, content.size))
