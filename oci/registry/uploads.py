"""Upload sessions (distribution-spec, "Pushing blobs"): a PUT for the whole blob, or chunks where something on the way
limits sizes, to go on where a broken PUT got to, and for a blob so large that a later run should be able to go on.

What goes on from the middle is read from the middle: only the registry has all bytes then, and it proves them when the
session is closed with the digest (end-6). Where it says DIGEST_INVALID, the blob is sent again from its beginning.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from oci.descriptor import Descriptor
from oci.digest import Chunk, is_other_digest
from oci.errors import Cancelled, NotFound, StoreError, TransshipError
from oci.registry import endpoints
from oci.registry.blobs import has_blob
from oci.registry.endpoints import (
    DELETE_UPLOAD,
    GET_UPLOAD,
    PATCH_UPLOAD,
    POST_UPLOAD,
    PUT_UPLOAD,
    Kind,
    RequestTarget,
    Scope,
)
from oci.registry.http.answer import Answer
from oci.registry.http.body import Memory, Parts, size_of
from oci.registry.http.origin import origin_of
from oci.registry.http.transport import Remote
from oci.registry.profiles import CHUNK
from oci.registry.state import KeptUpload
from oci.store import BlobReader

SMALL = 64 << 10
"""Bytes up to which a blob is sent from memory: the request can then be repeated by the transport."""

CUT = 1 << 20
"""A body of more bytes than this that is cut off twice is perhaps too big for something on the way (ACR: 20 MB)."""

LONG = 512 << 20
"""Bytes from which a blob goes in chunks unasked, so that it doesn't begin anew after a cut."""

STREAMED = 64 << 20
"""Bytes of a chunk where no size is asked for. Chunks larger than CHUNK are sent as they are read; smaller ones from
memory, once they are whole: docker-registry 2.8.2 loses a session that is cut inside of a chunk."""

CHUNK_LIMIT = 256 << 20
"""Bytes of a chunk, whatever `OCI-Chunk-Min-Length` asks for."""

CHUNK_MEMORY = 40 << 20
"""Bytes that all chunks in memory may take together: of 16 MiB there are two at a time, of 1 MiB forty."""

MEMORY = Memory(CHUNK_MEMORY)
"""Of this process, whatever the registries."""

_RANGE = re.compile(r"(?:bytes[ =])?0-(\d{1,18})")
_GONE = frozenset({404, 410})
_LOST = frozenset({"BLOB_UPLOAD_INVALID", "BLOB_UPLOAD_UNKNOWN", "SIZE_INVALID"})
_NOWHERE = RequestTarget("")
_OCTETS = {"Content-Type": "application/octet-stream"}


class UploadSession:
    """The upload of one blob: the session that it is sent in, as long as there is one, and what failures said."""

    def __init__(self, remote: Remote, blob: Descriptor, read: BlobReader) -> None:
        self.blob = blob
        self.read = read
        self._remote = remote
        self._name = remote.name
        self._transport = remote.transport
        self._learned = remote.learned
        self._location = _NOWHERE
        """Where to send."""
        self._offset = 0
        """Bytes that are there already."""
        self._minimum = 0
        """Bytes of the smallest chunk that the registry takes."""
        self._stored: KeptUpload | None = None
        """Where a later run finds it."""
        self._reached = self._cuts = self._gaps = 0
        self._is_interrupted = self._begun_anew = self._lost = False

    @property
    def is_open(self) -> bool:
        return self._location is not _NOWHERE

    def start(
        self, kind: Kind = POST_UPLOAD, *, body: bytes = b"", scopes: tuple[Scope, ...] = (), **query: Any
    ) -> Answer:
        """Starts an upload, perhaps with a mount or with the whole blob. The session is open after any answer but 201,
        which says that the blob is there: `confirm` looks whether it is the right one."""
        headers = _OCTETS if body else {}
        target = endpoints.uploads(self._name, **query)
        try:
            answer = self._send(kind, target, scopes=scopes, headers=headers, body=body, length=len(body))
        except NotFound as error:
            if kind.operation == POST_UPLOAD.operation:
                error.hint = "some registries need the repository to be created first: create it, or check its name"
            raise
        if answer.status != 201:
            self._location, self._offset = self._located(answer), 0
            self._minimum = min(size_of(answer.headers.get("oci-chunk-min-length", "")) or 0, CHUNK_LIMIT)
        return answer

    def confirm(self, answer: Answer) -> None:
        stored = answer.headers.get("docker-content-digest", "")
        if is_other_digest(stored, self.blob.digest):
            message = f"uploaded {self.blob.digest}, the registry made {stored} of it"
            raise self._remote.refused(PUT_UPLOAD, message, f"{self._name}@{self.blob.digest}")

    def resume(self) -> bool:
        """Goes on with the session that an earlier run left with a part of the blob. False where there is none, or
        where the registry doesn't have it any more."""
        self._stored = self._learned.state.kept_upload(str(self._name), self.blob.digest)
        if self._stored is None:
            return False
        address = self._stored.location
        try:
            self._location = RequestTarget(address) if address.startswith("/") else self._transport.resolve(address, "")
            self._find_offset()
        except StoreError:
            self._stored.release()
            self._location, self._stored = _NOWHERE, None
        if self.is_open:
            self._learned.note(f"the upload of {self.blob.digest} goes on after {self._offset} bytes")
        return self.is_open

    def send(self) -> None:
        """One PUT, then chunks; each failure that may pass is asked about before it is repeated."""
        self._attempts, self._reached = self._transport.attempts(), self._offset
        self._is_interrupted = self._stored is not None
        while True:
            size = self._body_size()
            try:
                if not self.is_open:
                    self.start()
                if size < self.blob.size or self._offset:
                    self._put_in_chunks(size)
                else:
                    self._put_whole()
            except StoreError as error:
                if error.side != self._transport.side or not self._may_pass(error, size):
                    self.cancel()
                    raise
                error.retryable = True
                try:
                    self._attempts.again(error, error.retry_after)
                    if self.is_open:
                        # A second gap at one place: what the registry says has arrived is off (`Range: 0-SIZE` among
                        # others).
                        is_off = error.status == 416 and self._gaps > 1
                        self._find_offset(anew=is_off or error.code == "DIGEST_INVALID")
                    # The blob may be there: a proxy gave up before the registry, or the answer was lost, and the
                    # session is over.
                    in_vain = error.status in _GONE or not error.status or error.status >= 500
                    may_be_there = not self.is_open and in_vain and self.blob.size > CUT
                    if may_be_there and has_blob(self._remote, self.blob.digest):
                        return
                except Cancelled:
                    self._leave()
                    raise
                except StoreError as last:
                    self.cancel() if last.status else self._leave()
                    raise
            except Cancelled:
                self._leave()
                raise
            except BaseException:
                self.cancel()
                raise
            else:
                self._close()
                return

    def cancel(self) -> None:
        """Best effort: a session that stays is purged by the registry some day."""
        location = self._location
        self._close()
        if location is _NOWHERE or self._learned.works(DELETE_UPLOAD) is False:
            return
        try:
            self._remote.send(DELETE_UPLOAD, location)
        except TransshipError as error:
            if isinstance(error, StoreError) and error.status in (403, 501):
                self._learned.decline(DELETE_UPLOAD)

    def _close(self) -> None:
        """The session is over: no later run finds it."""
        if self._stored is not None:
            self._stored.end()
        self._location, self._stored, self._offset, self._minimum = _NOWHERE, None, 0, 0

    def _leave(self) -> None:
        """Leaves a session with a part of a blob to the next run; any other is cancelled."""
        if self._stored is not None:
            self._stored.release()
        else:
            self.cancel()

    def _body_size(self) -> int:
        """Bytes of the bodies that a blob is sent in: all of it, unless chunks are asked for, or were learned to be
        needed."""
        size, learned = self.blob.size, self._learned.body_limit
        limit = self._transport.settings.chunk_size or learned
        if learned:
            limit = min(limit, learned)
        if self._learned.works(PATCH_UPLOAD) is False:
            return size
        if not limit:
            return min(STREAMED, size) if self._offset or size > LONG else size
        return min(size, max(limit, self._minimum))

    def _put_whole(self) -> None:
        size, is_small = self.blob.size, self.blob.size <= SMALL
        body: dict[str, Any] = (
            {"body": b"".join(self.read(0))} if is_small else {"stream": partial(self._counted, partial(self.read, 0))}
        )
        answer = self._finish(headers=_OCTETS, length=size, **body)
        if is_small:
            self._transport.meter.sent(size)
        self.confirm(answer)

    def _put_in_chunks(self, size: int) -> None:
        """From the session's offset to the end, then the PUT that closes it. What arrived is noted after each chunk. A
        registry that says it has less than was sent replaces chunks, instead of putting them together (GHCR)."""
        length, total = max(size, self._minimum), self.blob.size
        is_streamed = length > CHUNK
        buffered = 0 if is_streamed else min(length, total - self._offset)
        with MEMORY.reserved(buffered, self._transport.cancel), contextlib.closing(Parts(self.read)) as parts:
            while self._offset < total:
                self._transport.cancel.check()
                offset, count = self._offset, min(length, total - self._offset)
                body: dict[str, Any] = {}
                if is_streamed:
                    body["stream"] = partial(self._counted, partial(parts.at, offset, count))
                    body["length"] = count
                else:
                    body["body"] = parts.take(offset, count)
                headers = {**_OCTETS, "Content-Range": f"{offset}-{offset + count - 1}"}
                answer = self._send(PATCH_UPLOAD, self._location, headers=headers, **body)
                if not is_streamed:
                    self._transport.meter.sent(count)
                self._location = self._located(answer)
                arrived = _RANGE.match(answer.headers.get("range", ""))
                if arrived and offset and int(arrived.group(1)) < offset:
                    self._learned.refuse(PATCH_UPLOAD)
                    refusal = self._remote.refused(PATCH_UPLOAD, "a chunk replaced the one before", str(self._name))
                    refusal.retryable = True
                    raise refusal
                self._offset += count
                if self._stored is None:
                    self._stored = self._learned.state.kept_upload(str(self._name), self.blob.digest, make=True)
                if self._stored is not None:
                    self._stored.write(self._address(self._location))
        self.confirm(self._finish(length=0))

    def _find_offset(self, *, anew: bool = False) -> None:
        """Where an upload that broke got to, by the registry's own account. The session is over where it has to begin
        `anew`."""
        works = self._learned.works
        if anew or works(PATCH_UPLOAD) is False or works(GET_UPLOAD) is False:
            self.cancel()
            return
        try:
            answer = self._send(GET_UPLOAD, self._location)
        except StoreError as refusal:
            if self._stored is not None and not refusal.status:
                raise  # the registry may still have it
            if refusal.status in (405, 501):
                self._learned.refuse(GET_UPLOAD, refusal)
            self._close()
            return
        match = _RANGE.match(answer.headers.get("range", ""))
        offset = int(match.group(1)) + 1 if match and match.group(1) != "0" else 0
        if not 0 < offset <= self.blob.size:
            self.cancel()
            return
        if answer.headers.get("location"):
            self._location = self._located(answer)
        self._offset = offset

    def _may_pass(self, error: StoreError, size: int) -> bool:
        """Whether another attempt is worth it after `error` to a body of `size` bytes. What arrived since the last
        failure makes up for it."""
        learned = self._learned
        if self._offset > self._reached:
            self._reached, self._cuts, self._attempts = self._offset, 0, self._transport.attempts()
        # What a new attempt may get through: what is retryable anyway; a session that got lost (docker-registry 2.8.2
        # answers 404 BLOB_UPLOAD_INVALID after a cut); a gap; a proxy that wants smaller requests.
        passes = error.retryable or error.status in (413, 416) or error.code in _LOST
        self._gaps += error.status == 416
        if error.status == 413:
            learned.doubt(PATCH_UPLOAD)
            return learned.limit_body(size, "refused (413)")
        if not error.status and size > CUT:
            self._cuts += 1
            if self._cuts > 1:
                learned.doubt(PATCH_UPLOAD)
            return passes and (self._cuts < 2 or learned.limit_body(size, "cut off twice", sure=False))
        if error.code == "DIGEST_INVALID" and self._is_interrupted:
            self._is_interrupted = False  # perhaps the earlier run was given wrong bytes
            return True
        if error.status in _GONE and not self._lost and (self._offset > 0 or size == self.blob.size):
            self._lost = True  # the session, in whatever words: it was there a moment ago
            return True
        patched = size < self.blob.size or self._offset > 0
        is_refusal = error.status >= 400 and (not passes or (error.status >= 500 and not learned.body_limit))
        if patched and not self._begun_anew and is_refusal:
            # PATCH is refused (GAR), or each replaces the one before (GHCR, DIGEST_INVALID at the end).
            learned.refuse(PATCH_UPLOAD, error)
            self._begun_anew = True
            return True
        if error.code == "DIGEST_INVALID" and not self._begun_anew:
            self._begun_anew = True
            return True
        return passes

    def _finish(self, **more: Any) -> Answer:
        return self._send(PUT_UPLOAD, self._location.with_query(digest=self.blob.digest), **more)

    def _send(self, kind: Kind, target: RequestTarget, **more: Any) -> Answer:
        """Only the plain start of an upload is repeated by the transport: the rest of the ladder does it itself."""
        subject = f"{self._name}@{self.blob.digest}"
        return self._remote.send(kind, target, subject, retry=kind in (POST_UPLOAD, GET_UPLOAD), **more)

    def _address(self, location: RequestTarget) -> str:
        """A path where it is the registry's own: a later run finds out anew whether TLS is spoken there."""
        registry = self._transport.registry
        own_origins = (None, origin_of(registry), origin_of(registry, "http"))
        return location.path if location.origin in own_origins else str(location)

    def _located(self, answer: Answer) -> RequestTarget:
        location = answer.headers.get("location", "")
        if not location:
            raise self._remote.refused(POST_UPLOAD, "the registry started an upload and didn't say where")
        return self._transport.resolve(location, answer.url, str(self._name))

    def _counted(self, begun: Callable[[], Iterator[Chunk]]) -> Iterator[Chunk]:
        for chunk in begun():
            self._transport.cancel.check()
            yield chunk
            self._transport.meter.sent(len(chunk))
