"""Upload sessions (distribution-spec, "Pushing blobs"): a PUT for the whole blob, or chunks where something on the way
limits sizes, or to go on where a broken PUT got to."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from oci.descriptor import Descriptor
from oci.digest import Chunk
from oci.errors import NotFound, StoreError, TransshipError
from oci.registry.endpoints import DELETE_UPLOAD, GET_UPLOAD, PATCH_UPLOAD, POST_UPLOAD, PUT_UPLOAD, Kind
from oci.registry.http import target as targets
from oci.registry.http.answer import Answer
from oci.registry.http.request import Request, Scope
from oci.registry.http.target import Target
from oci.registry.profiles import CHUNK, Learned, Remote
from oci.store import BlobOutcome, BlobReader

SMALL = 64 << 10
"""Bytes up to which a blob is sent from memory: the request can then be repeated by the transport."""

CUT = 1 << 20
"""A body of more bytes than this that is cut off twice is perhaps too big for something on the way (ACR: 20 MB)."""

CHUNK_LIMIT = 256 << 20
"""Bytes of a chunk in memory, whatever `OCI-Chunk-Min-Length` asks for."""

REDIRECTS = 5
_RANGE = re.compile(r"(?:bytes=)?0-(\d{1,18})")
_OCTETS = {"Content-Type": "application/octet-stream"}


class Session(msgspec.Struct):
    """An upload session: where to send, how much is there already, and the smallest chunk the registry takes."""

    location: Target
    offset: int = 0
    minimum: int = 0


class Sessions:
    """The upload sessions of a repository."""

    def __init__(self, remote: Remote) -> None:
        self._remote = remote
        self._name = remote.name

    def start(self, blob: Descriptor) -> Session:
        return self.opened(self.ask(POST_UPLOAD, blob))

    def send(self, blob: Descriptor, read: BlobReader, session: Session) -> BlobOutcome:
        """One PUT, then chunks; each failure that may pass is asked about before it is repeated."""
        learned = self._remote.learned
        attempts = self._remote.attempts()
        current: Session | None = session
        cuts, begun_anew = 0, False
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
                if error.side != self._remote.transport.side:
                    self.cancel(current)
                    raise
                patched = size < blob.size or (current is not None and current.offset > 0)
                passes = _may_pass(error)
                if error.status == 413:
                    passes = learned.limit_body(size, "refused (413)")
                elif not error.status and size > CUT:
                    cuts += 1
                    passes = passes and (cuts < 2 or learned.limit_body(size, "cut off twice"))
                elif patched and not begun_anew and _is_refusal(error, passes, learned):
                    # PATCH is refused (GAR), or each replaces the one before (GHCR, DIGEST_INVALID at the end).
                    learned.refuse(PATCH_UPLOAD, error)
                    passes = begun_anew = True
                elif error.code == "DIGEST_INVALID" and not begun_anew:
                    passes = begun_anew = True
                if not passes:
                    self.cancel(current)
                    raise
                error.retryable = True
                try:
                    attempts.again(error, error.retry_after)
                except TransshipError:
                    self.cancel(current)
                    raise
                current = self._where(current, blob)
            except BaseException:
                self.cancel(current)
                raise
            else:
                return BlobOutcome.WRITTEN

    def _body_size(self, blob: Descriptor, session: Session | None) -> int:
        """Bytes of the bodies that a blob is sent in: all of it, unless chunks are asked for, or were learned to be
        needed."""
        limit = self._remote.transport.settings.chunk_size or self._remote.learned.body_limit
        learned = self._remote.learned.body_limit
        if learned:
            limit = min(limit, learned)
        if not limit or self._remote.learned.works(PATCH_UPLOAD) is False:
            return min(CHUNK, blob.size) if session is not None and session.offset else blob.size
        return min(blob.size, max(limit, session.minimum if session is not None else 0))

    def _put_whole(self, blob: Descriptor, read: BlobReader, session: Session) -> None:
        small = blob.size <= SMALL
        body: dict[str, Any] = {"body": b"".join(read(0))} if small else {"stream": lambda: self._counted(read(0))}
        answer = self._sent(self._close(session, blob, headers=_OCTETS, length=blob.size, **body))
        if small:
            self._remote.transport.meter.sent(blob.size)
        self.confirm(answer, blob)

    def _put_in_chunks(self, blob: Descriptor, read: BlobReader, session: Session, size: int) -> None:
        """From the session's offset to the end, then the PUT that closes it. One chunk is in memory at a time."""
        for chunk in _chunks_of(read(session.offset), max(size, session.minimum)):
            self._remote.transport.cancel.check()
            end = session.offset + len(chunk) - 1
            headers = {**_OCTETS, "Content-Range": f"{session.offset}-{end}"}
            answer = self._sent(self._request(PATCH_UPLOAD, session.location, blob, headers=headers, body=chunk))
            self._remote.transport.meter.sent(len(chunk))
            session.location = self._location(answer)
            session.offset = end + 1
        self.confirm(self._sent(self._close(session, blob, length=0)), blob)

    def _close(self, session: Session, blob: Descriptor, **more: Any) -> Request:
        return self._request(PUT_UPLOAD, session.location.with_query(digest=blob.digest), blob, **more)

    def _where(self, session: Session | None, blob: Descriptor) -> Session | None:
        """Where a broken upload got to, by the registry's own account; None when it has to begin anew."""
        if session is None:
            return None
        if self._remote.learned.works(PATCH_UPLOAD) is False or self._remote.learned.works(GET_UPLOAD) is False:
            self.cancel(session)
            return None
        try:
            answer = self._remote.transport.send(self._request(GET_UPLOAD, session.location, blob))
        except StoreError as error:
            if error.status in (405, 501):
                self._remote.learned.refuse(GET_UPLOAD, error)
            return None
        found = _RANGE.match(answer.headers.get("range", ""))
        offset = int(found.group(1)) + 1 if found and found.group(1) != "0" else 0
        if not 0 < offset < blob.size:
            self.cancel(session)
            return None
        location = answer.headers.get("location")
        session.location = self._remote.transport.resolve(location, answer.url) if location else session.location
        session.offset = offset
        return session

    def cancel(self, session: Session | None) -> None:
        """Best effort: a session that stays is purged by the registry some day."""
        if session is None or self._remote.learned.works(DELETE_UPLOAD) is False:
            return
        try:
            self._remote.transport.send(DELETE_UPLOAD.request(session.location, self._name.path, str(self._name)))
        except TransshipError as error:
            if isinstance(error, StoreError) and error.status in (403, 501):
                self._remote.learned.decline(DELETE_UPLOAD)

    def ask(self, kind: Kind, blob: Descriptor, **query: Any) -> Answer:
        """Starts an upload in a way of its own: with a mount, or with the whole blob."""
        return self._sent(self._post(kind, blob, **query))

    def _sent(self, request: Request) -> Answer:
        """Sends, and follows a redirect with the body (RFC 9110, 15.4.8). A missing repository gets a hint."""
        for _ in range(REDIRECTS):
            try:
                answer = self._remote.transport.send(request)
            except NotFound as error:
                if request.operation == POST_UPLOAD.operation:
                    error.hint = "some registries need the repository to be created first: create it, or check its name"
                raise
            location = answer.headers.get("location", "")
            if answer.status not in (307, 308) or not location:
                return answer
            request = msgspec.structs.replace(request, target=self._remote.transport.resolve(location, answer.url))
        raise self._remote.refused(POST_UPLOAD, f"more than {REDIRECTS} redirects", request.subject)

    def _post(
        self, kind: Kind, blob: Descriptor, *, body: bytes = b"", scopes: tuple[Scope, ...] = (), **query: Any
    ) -> Request:
        more: dict[str, Any] = {"scopes": scopes} if scopes else {}
        headers = _OCTETS if body else {}
        target = targets.uploads(self._name, **query)
        return self._request(kind, target, blob, headers=headers, body=body, length=len(body), **more)

    def _request(self, kind: Kind, target: Target, blob: Descriptor, **more: Any) -> Request:
        """Only the plain start of an upload is repeated by the transport: the rest of the ladder does it itself."""
        subject = f"{self._name}@{blob.digest}"
        return kind.request(target, self._name.path, subject, retry=kind in (POST_UPLOAD, GET_UPLOAD), **more)

    def opened(self, answer: Answer) -> Session:
        minimum = answer.headers.get("oci-chunk-min-length", "")
        is_number = minimum.isascii() and minimum.isdigit() and len(minimum) <= 18
        return Session(self._location(answer), minimum=min(int(minimum), CHUNK_LIMIT) if is_number else 0)

    def _location(self, answer: Answer) -> Target:
        location = answer.headers.get("location", "")
        if not location:
            raise self._remote.refused(POST_UPLOAD, "the registry started an upload and didn't say where")
        return self._remote.transport.resolve(location, answer.url)

    def confirm(self, answer: Answer, blob: Descriptor) -> None:
        said = answer.headers.get("docker-content-digest", "")
        if said and said != blob.digest and said.partition(":")[0] == blob.digest.partition(":")[0]:
            message = f"uploaded {blob.digest}, the registry made {said} of it"
            raise self._remote.refused(PUT_UPLOAD, message, f"{self._name}@{blob.digest}")

    def _counted(self, chunks: Iterator[Chunk]) -> Iterator[Chunk]:
        for chunk in chunks:
            self._remote.transport.cancel.check()
            yield chunk
            self._remote.transport.meter.sent(len(chunk))


def _may_pass(error: StoreError) -> bool:
    """What a new attempt may get through: what is retryable anyway; a session that got lost (docker-registry 2.8.2
    answers 404 BLOB_UPLOAD_INVALID after a cut); a gap; a proxy that wants smaller requests."""
    return (
        error.retryable
        or error.status in (413, 416)
        or error.code in ("BLOB_UPLOAD_INVALID", "BLOB_UPLOAD_UNKNOWN", "SIZE_INVALID")
    )


def _is_refusal(error: StoreError, passes: bool, learned: Learned) -> bool:
    """Whether an answer to chunks means that the registry can't put them together, so that one PUT is worth a try."""
    return error.status >= 400 and (not passes or (error.status >= 500 and not learned.body_limit))


def _chunks_of(stream: Iterator[Chunk], size: int) -> Iterator[Chunk]:
    """Pieces of `size` bytes; the last may be shorter."""
    held = bytearray()
    for piece in stream:
        held += piece
        while len(held) >= size:
            yield bytes(held[:size])
            del held[:size]
    if held:
        yield bytes(held)
