"""Reading an archive in S3 by range."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

from oci.archive.s3 import S3, S3Object
from oci.archive.storage import READ_SIZE
from oci.cancel import CancelToken
from oci.errors import IntegrityError, Refused, Unavailable

FINGERPRINT = "transship-fingerprint"
"""Metadata key: of the plan that an object was written from, set by whoever proved every blob of it."""

_TRIES = 5


class S3Reader:
    """An object, the version that was there when it was opened: if it is replaced meanwhile, reading fails."""

    def __init__(self, location: str, s3: S3, *, cancel: CancelToken) -> None:
        self.location = location
        self.s3 = s3
        self._object = S3Object(location, s3)
        self._cancel = cancel
        head = self._object.ask("opening", "head_object")
        self.size: int = head["ContentLength"]
        self.etag: str = head.get("ETag", "")
        self.fingerprint: str = head.get("Metadata", {}).get(FINGERPRINT, "")

    def read(self, offset: int, length: int) -> Iterator[bytes]:
        """A stream that breaks off is continued where it broke."""
        end = offset + length
        tries = _TRIES
        while offset < end:
            try:
                for chunk in self._stream(offset, end):
                    offset += len(chunk)
                    tries = _TRIES
                    yield chunk
            except (Unavailable, IntegrityError):
                tries -= 1
                if not tries:
                    raise

    def close(self) -> None: ...

    def _stream(self, offset: int, end: int) -> Iterator[bytes]:
        self._cancel.check()
        match = {"IfMatch": self.etag} if self.etag else {}
        answer = self._object.ask("reading", "get_object", Range=f"bytes={offset}-{end - 1}", **match)
        with self.s3.mapped(self.location, "reading"), closing(answer["Body"]) as body:
            wanted = f"bytes {offset}-{end - 1}/{self.size}"
            if answer.get("ContentRange") != wanted:
                raise Refused(
                    f"asked for {wanted}, and got {answer.get('ContentRange') or 'the whole object'}",
                    side=self.s3.side,
                    store=self.location,
                    operation="reading",
                    hint="the store doesn't serve ranges, or the object was replaced",
                )
            for chunk in body.iter_chunks(READ_SIZE):
                self._cancel.check()
                offset += len(chunk)
                yield chunk
        if offset < end:
            raise IntegrityError(f"{self.s3.side} {self.location}: the stream ended at byte {offset} of {end}")
