"""A part that is too big to be held, read from its places whenever it is sent."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator

from oci.errors import TransshipError

ReadPart = Callable[[], Iterator[bytes]]
"""Gives all the bytes of a part, anew every time. Those it gives first are proven as they pass."""


class SourceFailed(BaseException):
    """Reading failed, not sending: as an Exception, boto3 would take it for a broken connection and send again."""

    def __init__(self, error: TransshipError) -> None:
        super().__init__(error)
        self.error = error


class PartBody:
    """What boto3 sends: a file that is read from its places again whenever it is rewound, for a signature or because
    sending failed. `crc32` is that of the bytes read since."""

    def __init__(self, read: ReadPart, size: int) -> None:
        self._read = read
        self._size = size
        self.seek(0)

    def __len__(self) -> int:
        return self._size

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int) -> None:
        """To the beginning: nobody asks for anything else."""
        if offset:
            raise ValueError("a part is sent from its beginning")
        self._at = 0
        self._chunks = self._read()
        self._left = memoryview(b"")
        self.crc32 = 0

    def read(self, size: int = -1) -> bytes:
        try:
            while not self._left and (chunk := next(self._chunks, None)) is not None:
                self._left = memoryview(chunk)
        except TransshipError as error:
            raise SourceFailed(error) from error
        taken = bytes(self._left if size < 0 else self._left[:size])
        self._left = self._left[len(taken) :]
        self._at += len(taken)
        self.crc32 = zlib.crc32(taken, self.crc32)
        return taken
