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

import msgspec

from oci.descriptor import Descriptor
from oci.digest import Chunk, is_other_digest
from oci.errors import Cancelled, NotFound, StoreError, TransshipError
from oci.registry import endpoints
from oci.registry.blobs import has_blob
from oci.registry.endpoints import DELETE_UPLOAD, GET_UPLOAD, PATCH_UPLOAD, POST_UPLOAD, PUT_UPLOAD, Kind
from oci.registry.http.answer import Answer
from oci.registry.http.body import Memory, Parts
from oci.registry.http.origin import origin_of
from oci.registry.http.request import Request, Scope, Target
from oci.registry.http.transport import Remote
from oci.registry.profiles import CHUNK
from oci.registry.state import KeptUpload
from oci.store import BlobOutcome, BlobReader

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
_OCTETS = {"Content-Type": "application/octet-stream"}


class Session(msgspec.Struct):
    """An upload session: where to send, how much is there already, the smallest chunk the registry takes, and the
    place where a later run finds it."""

    location: Target
    offset: int = 0
    minimum: int = 0
    stored: KeptUpload | None = None

    def forget(self) -> None:
        """No later run finds it."""
        if self.stored is not None:
            self.stored.end()
            self.stored = None


class Sessions:
    """The upload sessions of a repository."""

    def __init__(self, remote: Remote) -> None:
        self._remote = remote
        self._name = remote.name
        self._transport = remote.transport
        self._learned = remote.learned

    def start(self, blob: Descriptor) -> Session:
        return self.opened(self.ask(POST_UPLOAD, blob))

    def interrupted(self, blob: Descriptor) -> Session | None:
        """The session that an earlier run left with a part of the blob, where the registry still has it."""
        kept_upload = self._learned.state.kept_upload(str(self._name), blob.digest)
        if kept_upload is None:
            return None
        address = kept_upload.location
        try:
            location = Target(address) if address.startswith("/") else self._transport.resolve(address, "")
            session = self._where(Session(location, stored=kept_upload), blob)
        except StoreError:
            kept_upload.release()
            return None
        if session is None:
            kept_upload.end()
        else:
            self._learned.note(f"the upload of {blob.digest} goes on after {session.offset} bytes")
        return session

    def send(self, blob: Descriptor, read: BlobReader, session: Session) -> BlobOutcome:
        """One PUT, then chunks; each failure that may pass is asked about before it is repeated."""
        current: Session | None = session
        course = _Course(self._remote, session)
        while True:
            size = self._body_size(blob, current)
            try:
                if current is None:
                    current = self.start(blob)
                if size < blob.size or current.offset:
                    self._put_in_chunks(blob, read, current, size)
                else:
                    self._put_whole(blob, read, current)
            except StoreError as error:
                if error.side != self._transport.side or not course.may_pass(error, blob, size, current):
                    self.cancel(current)
                    raise
                error.retryable = True
                try:
                    course.attempts.again(error, error.retry_after)
                    current = self._where(current, blob, anew=course.begins_anew)
                    # The blob may be there: a proxy gave up before the registry, or the answer was lost, and the
                    # session is over.
                    in_vain = error.status in _GONE or not error.status or error.status >= 500
                    if current is None and in_vain and blob.size > CUT and has_blob(self._remote, blob.digest):
                        return BlobOutcome.WRITTEN
                except Cancelled:
                    self._leave(current)
                    raise
                except StoreError as last:
                    self.cancel(current) if last.status else self._leave(current)
                    raise
            except Cancelled:
                self._leave(current)
                raise
            except BaseException:
                self.cancel(current)
                raise
            else:
                current.forget()
                return BlobOutcome.WRITTEN

    def _body_size(self, blob: Descriptor, session: Session | None) -> int:
        """Bytes of the bodies that a blob is sent in: all of it, unless chunks are asked for, or were learned to be
        needed."""
        learned = self._learned.body_limit
        limit = self._transport.settings.chunk_size or learned
        if learned:
            limit = min(limit, learned)
        if self._learned.works(PATCH_UPLOAD) is False:
            return blob.size
        if not limit:
            goes_on = session is not None and session.offset > 0
            return min(STREAMED, blob.size) if goes_on or blob.size > LONG else blob.size
        return min(blob.size, max(limit, session.minimum if session is not None else 0))

    def _put_whole(self, blob: Descriptor, read: BlobReader, session: Session) -> None:
        is_small = blob.size <= SMALL
        body = {"body": b"".join(read(0))} if is_small else {"stream": partial(self._counted, partial(read, 0))}
        answer = self._transport.send(self._close(session, blob, headers=_OCTETS, length=blob.size, **body))
        if is_small:
            self._transport.meter.sent(blob.size)
        self.confirm(answer, blob)

    def _put_in_chunks(self, blob: Descriptor, read: BlobReader, session: Session, size: int) -> None:
        """From the session's offset to the end, then the PUT that closes it. What arrived is noted after each chunk. A
        registry that says it has less than was sent replaces chunks, instead of putting them together (GHCR)."""
        length = max(size, session.minimum)
        is_streamed = length > CHUNK
        buffered = 0 if is_streamed else min(length, blob.size - session.offset)
        with MEMORY.reserved(buffered, self._transport.cancel), contextlib.closing(Parts(read)) as parts:
            while session.offset < blob.size:
                self._transport.cancel.check()
                end = min(session.offset + length, blob.size) - 1
                count = end + 1 - session.offset
                body: dict[str, Any] = {}
                if is_streamed:
                    body["stream"] = partial(self._counted, partial(parts.at, session.offset, count))
                    body["length"] = count
                else:
                    body["body"] = parts.take(session.offset, count)
                headers = {**_OCTETS, "Content-Range": f"{session.offset}-{end}"}
                answer = self._transport.send(
                    self._request(PATCH_UPLOAD, session.location, blob, headers=headers, **body)
                )
                if not is_streamed:
                    self._transport.meter.sent(count)
                session.location = self._location(answer)
                arrived = _RANGE.match(answer.headers.get("range", ""))
                if arrived and session.offset and int(arrived.group(1)) < session.offset:
                    self._learned.refuse(PATCH_UPLOAD)
                    refusal = self._remote.refused(PATCH_UPLOAD, "a chunk replaced the one before", str(self._name))
                    refusal.retryable = True
                    raise refusal
                session.offset = end + 1
                if session.stored is None:
                    session.stored = self._learned.state.kept_upload(str(self._name), blob.digest, make=True)
                if session.stored is not None:
                    session.stored.write(self._address(session.location))
        self.confirm(self._transport.send(self._close(session, blob, length=0)), blob)

    def _close(self, session: Session, blob: Descriptor, **more: Any) -> Request:
        return self._request(PUT_UPLOAD, session.location.with_query(digest=blob.digest), blob, **more)

    def _where(self, session: Session | None, blob: Descriptor, *, anew: bool = False) -> Session | None:
        """Where an upload that broke got to, by the registry's own account; None when it has to begin `anew`."""
        if session is None:
            return None
        works = self._learned.works
        if anew or works(PATCH_UPLOAD) is False or works(GET_UPLOAD) is False:
            self.cancel(session)
            return None
        try:
            answer = self._transport.send(self._request(GET_UPLOAD, session.location, blob))
        except StoreError as refusal:
            if session.stored is not None and not refusal.status:
                raise  # the registry may still have it
            if refusal.status in (405, 501):
                self._learned.refuse(GET_UPLOAD, refusal)
            session.forget()
            return None
        match = _RANGE.match(answer.headers.get("range", ""))
        offset = int(match.group(1)) + 1 if match and match.group(1) != "0" else 0
        if not 0 < offset <= blob.size:
            self.cancel(session)
            return None
        if answer.headers.get("location"):
            session.location = self._location(answer)
        session.offset = offset
        return session

    def cancel(self, session: Session | None) -> None:
        """Best effort: a session that stays is purged by the registry some day."""
        if session is None:
            return
        session.forget()
        if self._learned.works(DELETE_UPLOAD) is False:
            return
        try:
            self._transport.send(DELETE_UPLOAD.request(session.location, self._name.path, str(self._name)))
        except TransshipError as error:
            if isinstance(error, StoreError) and error.status in (403, 501):
                self._learned.decline(DELETE_UPLOAD)

    def _leave(self, session: Session | None) -> None:
        """Leaves a session with a part of a blob to the next run; any other is cancelled."""
        if session is not None and session.stored is not None:
            session.stored.release()
        else:
            self.cancel(session)

    def ask(
        self, kind: Kind, blob: Descriptor, *, body: bytes = b"", scopes: tuple[Scope, ...] = (), **query: Any
    ) -> Answer:
        """Starts an upload, perhaps with a mount or with the whole blob."""
        more: dict[str, Any] = {"scopes": scopes} if scopes else {}
        headers = _OCTETS if body else {}
        target = endpoints.uploads(self._name, **query)
        request = self._request(kind, target, blob, headers=headers, body=body, length=len(body), **more)
        try:
            return self._transport.send(request)
        except NotFound as error:
            if request.operation == POST_UPLOAD.operation:
                error.hint = "some registries need the repository to be created first: create it, or check its name"
            raise

    def _request(self, kind: Kind, target: Target, blob: Descriptor, **more: Any) -> Request:
        """Only the plain start of an upload is repeated by the transport: the rest of the ladder does it itself."""
        subject = f"{self._name}@{blob.digest}"
        return kind.request(target, self._name.path, subject, retry=kind in (POST_UPLOAD, GET_UPLOAD), **more)

    def opened(self, answer: Answer) -> Session:
        minimum = answer.headers.get("oci-chunk-min-length", "")
        is_number = minimum.isascii() and minimum.isdigit() and len(minimum) <= 18
        return Session(self._location(answer), minimum=min(int(minimum), CHUNK_LIMIT) if is_number else 0)

    def _address(self, location: Target) -> str:
        """A path where it is the registry's own: a later run finds out anew whether TLS is spoken there."""
        registry = self._transport.registry
        own_origins = (None, origin_of(registry), origin_of(registry, "http"))
        return location.path if location.origin in own_origins else str(location)

    def _location(self, answer: Answer) -> Target:
        location = answer.headers.get("location", "")
        if not location:
            raise self._remote.refused(POST_UPLOAD, "the registry started an upload and didn't say where")
        return self._transport.resolve(location, answer.url, str(self._name))

    def confirm(self, answer: Answer, blob: Descriptor) -> None:
        stored = answer.headers.get("docker-content-digest", "")
        if is_other_digest(stored, blob.digest):
            message = f"uploaded {blob.digest}, the registry made {stored} of it"
            raise self._remote.refused(PUT_UPLOAD, message, f"{self._name}@{blob.digest}")

    def _counted(self, begun: Callable[[], Iterator[Chunk]]) -> Iterator[Chunk]:
        for chunk in begun():
            self._transport.cancel.check()
            yield chunk
            self._transport.meter.sent(len(chunk))


class _Course:
    """What the failures of one blob's upload say of the registry."""

    def __init__(self, remote: Remote, session: Session) -> None:
        self.attempts = remote.transport.attempts()
        self._remote = remote
        self._reached = session.offset
        self._is_interrupted = session.stored is not None
        self._cuts = 0
        self._begun_anew = False
        self._lost = False
        self._gaps = 0
        self.begins_anew = False
        """Whether what is in the session is of no use."""

    def may_pass(self, error: StoreError, blob: Descriptor, size: int, session: Session | None) -> bool:
        """Whether another attempt is worth it after `error` to a body of `size` bytes. What arrived since the last
        failure makes up for it."""
        learned = self._remote.learned
        offset = session.offset if session is not None else 0
        if offset > self._reached:
            self._reached, self._cuts, self.attempts = offset, 0, self._remote.transport.attempts()
        # What a new attempt may get through: what is retryable anyway; a session that got lost (docker-registry 2.8.2
        # answers 404 BLOB_UPLOAD_INVALID after a cut); a gap; a proxy that wants smaller requests.
        passes = error.retryable or error.status in (413, 416) or error.code in _LOST
        self._gaps += error.status == 416
        # A second gap at one place: what the registry says has arrived is off (`Range: 0-SIZE` among others).
        self.begins_anew = error.code == "DIGEST_INVALID" or (error.status == 416 and self._gaps > 1)
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
        if error.status in _GONE and not self._lost and (offset > 0 or size == blob.size):
            self._lost = True  # the session, in whatever words: it was there a moment ago
            return True
        patched = size < blob.size or offset > 0
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
