"""Writing blobs: a ladder that is climbed down step by step (distribution-spec, "Pushing blobs").

    it is there, or can be mounted      one POST                       nothing is sent
    one PUT for the whole blob          POST, PUT                      what nearly every registry takes
    chunks                              POST, PATCH..., PUT            where a proxy limits sizes, or to go on
                                                                       where a broken PUT got to

A source that breaks, or gives a wrong byte, ends the upload: its session is cancelled and its error goes up unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from oci.descriptor import Descriptor
from oci.errors import Denied, NotFound, Refused, StoreError, TransshipError, Unauthorized, Unavailable
from oci.reference import Repository
from oci.registry.blobs import blob_size
from oci.registry.capabilities import Capabilities
from oci.registry.http import target as targets
from oci.registry.http.answer import Answer
from oci.registry.http.pace import Attempts
from oci.registry.http.request import Request, Scope
from oci.registry.http.target import Target
from oci.registry.http.transport import Transport
from oci.store import BlobOutcome, BlobReader

SMALL = 64 << 10
"""Bytes up to which a blob is sent from memory: the request can then be repeated by the transport."""

CHUNK = 16 << 20
"""Bytes of a chunk, unless a setting or the registry says otherwise."""

MOUNT_TRIES = 2
_RANGE = re.compile(r"(?:bytes=)?0-(\d+)")
_OCTETS = {"Content-Type": "application/octet-stream"}


@dataclass(slots=True)
class _Session:
    """An upload session: where to send, how much is there already, and the smallest chunk the registry takes."""

    location: Target
    offset: int = 0
    minimum: int = 0


@dataclass(frozen=True, slots=True)
class Uploader:
    """Uploads into one repository."""

    transport: Transport
    name: Repository
    capabilities: Capabilities

    def put(self, blob: Descriptor, read: BlobReader, *, mount_from: Sequence[Repository], fresh: bool) -> BlobOutcome:
        """See Destination.put_blob."""
        if blob.size <= SMALL:
            read = _remembered(read)
        begun = self._begin(blob, read, mount_from=mount_from, fresh=fresh)
        outcome = begun if isinstance(begun, BlobOutcome) else self._send(blob, read, begun)
        if outcome is BlobOutcome.WRITTEN and self.capabilities.self_mount is None and not fresh:
            self._learn_self_mount(blob)
        self.transport.meter.blob(outcome.value, blob.size)
        return outcome

    def _begin(
        self, blob: Descriptor, read: BlobReader, *, mount_from: Sequence[Repository], fresh: bool
    ) -> BlobOutcome | _Session:
        """The first step: there, mounted, or a session to send it to, in as few requests as this registry allows."""
        others = [one for one in dict.fromkeys(mount_from) if one != self.name]
        if self.name in mount_from or not fresh:
            known = self._there_or_session(blob)
            if isinstance(known, BlobOutcome) or (known is not None and not others):
                return known
            if known is not None:
                self._cancel(known)
        for other in others[:MOUNT_TRIES]:
            mounted = self._mount(blob, other)
            if mounted is not None:
                return mounted
        if blob.size <= SMALL and self.capabilities.may_try_single_post():
            return self._single_post(blob, read)
        return self._session(self._post(blob, targets.uploads(self.name), {202}))

    def _there_or_session(self, blob: Descriptor) -> BlobOutcome | _Session | None:
        """Existence and upload start in one request, where a mount from the repository itself is understood so."""
        if self.capabilities.self_mount is not False:
            try:
                answer = self._post(blob, self._self_mount(blob), {201, 202})
            except (Refused, NotFound, Denied):
                self.capabilities.self_mount = False
            else:
                if answer.status == 201:
                    self.capabilities.self_mount = True
                    return BlobOutcome.SKIPPED
                if self.capabilities.self_mount or blob_size(self.transport, self.name, blob.digest) is None:
                    return self._session(answer)
                # It is there, yet the mount said nothing of it: this registry has to be asked.
                self.capabilities.self_mount = False
                self._cancel(self._session(answer))
                return BlobOutcome.SKIPPED
        there = blob_size(self.transport, self.name, blob.digest)
        return BlobOutcome.SKIPPED if there is not None else None

    def _learn_self_mount(self, blob: Descriptor) -> None:
        """Asks for a blob that is certainly there, once in a registry: only a 201 tells that 202 means absent."""
        try:
            answer = self._post(blob, self._self_mount(blob), {201, 202}, retry=False)
        except StoreError:
            self.capabilities.self_mount = False
            return
        self.capabilities.self_mount = answer.status == 201
        if answer.status == 202:
            self._cancel(self._session(answer))

    def _self_mount(self, blob: Descriptor) -> Target:
        return targets.uploads(self.name, mount=blob.digest, source=self.name)

    def _mount(self, blob: Descriptor, other: Repository) -> BlobOutcome | _Session | None:
        """201: mounted. 202: it wasn't, and here is a session. Anything else, a refusal among it, is a reason to
        upload, never to fail (imgpkg issue 495)."""
        scopes = (Scope(self.name.path, "pull,push"), Scope(other.path, "pull"))
        try:
            target = targets.uploads(self.name, mount=blob.digest, source=other)
            answer = self._post(blob, target, {201, 202}, scopes=scopes, retry=False)
        except (Refused, NotFound, Denied, Unauthorized, Unavailable):
            return None
        return BlobOutcome.MOUNTED if answer.status == 201 else self._session(answer)

    def _single_post(self, blob: Descriptor, read: BlobReader) -> BlobOutcome | _Session:
        """The whole blob in the POST; a registry that doesn't know that answers with a session."""
        data = b"".join(read(0))
        answer = self._post(blob, targets.uploads(self.name, digest=blob.digest), {201, 202}, body=data)
        self.capabilities.single_post = answer.status == 201
        if answer.status == 201:
            self.transport.meter.sent(blob.size)
            self._confirm(answer, blob)
            return BlobOutcome.WRITTEN
        return self._session(answer)

    def _send(self, blob: Descriptor, read: BlobReader, session: _Session) -> BlobOutcome:
        """One PUT, then chunks; each failure that may pass is asked about before it is repeated."""
        settings = self.transport.settings
        attempts = Attempts(
            retries=settings.retries,
            budget=settings.retry_budget,
            meter=self.transport.meter,
            cancel=self.transport.cancel,
        )
        chunked = 0 < settings.chunk_size < blob.size
        current: _Session | None = session
        while True:
            try:
                if current is None:
                    current = self._session(self._post(blob, targets.uploads(self.name), {202}))
                if chunked or current.offset:
                    self._put_in_chunks(blob, read, current)
                else:
                    self._put_whole(blob, read, current)
            except StoreError as error:
                if error.side != self.transport.side or not _may_pass(error):
                    self._give_up(current)
                    raise
                chunked = chunked or error.status == 413
                error.retryable = True
                try:
                    attempts.again(error, error.retry_after)
                except TransshipError:
                    self._give_up(current)
                    raise
                current = self._where(current, blob)
            except BaseException:
                self._give_up(current)
                raise
            else:
                return BlobOutcome.WRITTEN

    def _put_whole(self, blob: Descriptor, read: BlobReader, session: _Session) -> None:
        small = blob.size <= SMALL
        request = self._request(
            "PUT",
            session.location.with_query(digest=blob.digest),
            blob,
            {201, 204},
            headers=_OCTETS,
            body=b"".join(read(0)) if small else b"",
            stream=None if small else (lambda: self._counted(read(0))),
            length=blob.size,
            retry=False,
        )
        answer = self.transport.send(request)
        if small:
            self.transport.meter.sent(blob.size)
        self._confirm(answer, blob)

    def _put_in_chunks(self, blob: Descriptor, read: BlobReader, session: _Session) -> None:
        """From the session's offset to the end, then the PUT that closes it. One chunk is in memory at a time."""
        size = max(self.transport.settings.chunk_size or CHUNK, session.minimum)
        for chunk in _chunks_of(read(session.offset), size):
            self.transport.cancel.check()
            end = session.offset + len(chunk) - 1
            answer = self.transport.send(
                self._request(
                    "PATCH",
                    session.location,
                    blob,
                    {202, 204},
                    headers={**_OCTETS, "Content-Range": f"{session.offset}-{end}"},
                    body=chunk,
                    retry=False,
                )
            )
            self.transport.meter.sent(len(chunk))
            session.location = self._location(answer)
            session.offset = end + 1
        answer = self.transport.send(
            self._request(
                "PUT", session.location.with_query(digest=blob.digest), blob, {201, 204}, length=0, retry=False
            )
        )
        self._confirm(answer, blob)

    def _where(self, session: _Session | None, blob: Descriptor) -> _Session | None:
        """Where a broken upload got to, by the registry's own account; None when it has to begin anew."""
        if session is None:
            return None
        try:
            answer = self.transport.send(
                self._request("GET", session.location, blob, {200, 204}, operation="asking how far the upload got")
            )
        except StoreError:
            return None
        found = _RANGE.match(answer.headers.get("range", ""))
        offset = int(found.group(1)) + 1 if found and found.group(1) != "0" else 0
        if not 0 < offset < blob.size:
            self._give_up(session)
            return None
        location = answer.headers.get("location")
        session.location = self.transport.resolve(location, answer.url) if location else session.location
        session.offset = offset
        return session

    def _give_up(self, session: _Session | None) -> None:
        if session is not None:
            self._cancel(session)

    def _cancel(self, session: _Session) -> None:
        """Best effort: a session that stays is purged by the registry some day."""
        try:
            self.transport.send(
                Request(
                    method="DELETE",
                    target=session.location,
                    kind="upload",
                    scopes=(Scope(self.name.path, "pull,push"),),
                    operation="cancelling the upload",
                    subject=str(self.name),
                    expect=frozenset({200, 202, 204, 400, 404, 405}),
                    retry=False,
                )
            )
        except TransshipError:
            return

    def _post(
        self,
        blob: Descriptor,
        target: Target,
        expect: set[int],
        *,
        scopes: tuple[Scope, ...] = (),
        body: bytes = b"",
        retry: bool = True,
    ) -> Answer:
        request = self._request(
            "POST",
            target,
            blob,
            expect,
            headers=_OCTETS if body else {},
            body=body,
            length=len(body),
            operation="starting the upload",
            scopes=scopes,
            retry=retry,
        )
        try:
            return self.transport.send(request)
        except NotFound as error:
            error.hint = "some registries need the repository to be created first: create it, or check its name"
            raise

    def _request(
        self,
        method: str,
        target: Target,
        blob: Descriptor,
        expect: set[int],
        *,
        scopes: tuple[Scope, ...] = (),
        operation: str = "uploading the blob",
        **more: object,
    ) -> Request:
        fields: dict[str, object] = {
            "method": method,
            "target": target,
            "kind": "upload",
            "scopes": scopes or (Scope(self.name.path, "pull,push"),),
            "operation": operation,
            "subject": f"{self.name}@{blob.digest}",
            "expect": frozenset(expect),
            **more,
        }
        return Request(**fields)  # type: ignore[arg-type]

    def _session(self, answer: Answer) -> _Session:
        minimum = answer.headers.get("oci-chunk-min-length", "")
        return _Session(self._location(answer), minimum=int(minimum) if minimum.isdigit() else 0)

    def _location(self, answer: Answer) -> Target:
        location = answer.headers.get("location", "")
        if not location:
            raise Refused(
                "the registry started an upload and didn't say where",
                side=self.transport.side,
                store=self.transport.registry,
                subject=str(self.name),
                operation="starting the upload",
            )
        return self.transport.resolve(location, answer.url)

    def _confirm(self, answer: Answer, blob: Descriptor) -> None:
        said = answer.headers.get("docker-content-digest", "")
        if said and said != blob.digest and said.partition(":")[0] == blob.digest.partition(":")[0]:
            raise Refused(
                f"uploaded {blob.digest}, the registry made {said} of it",
                side=self.transport.side,
                store=self.transport.registry,
                subject=f"{self.name}@{blob.digest}",
                operation="uploading the blob",
            )

    def _counted(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            self.transport.cancel.check()
            yield chunk
            self.transport.meter.sent(len(chunk))


def _may_pass(error: StoreError) -> bool:
    """What a new attempt may get through: what is retryable anyway; a session that got lost (docker-registry 2.8.2
    answers 404 BLOB_UPLOAD_INVALID after a cut); a gap; a proxy that wants smaller requests."""
    return (
        error.retryable
        or error.status in (413, 416)
        or error.code in ("BLOB_UPLOAD_INVALID", "BLOB_UPLOAD_UNKNOWN", "SIZE_INVALID")
    )


def _chunks_of(stream: Iterator[bytes], size: int) -> Iterator[bytes]:
    """Pieces of `size` bytes; the last may be shorter."""
    held = bytearray()
    for piece in stream:
        held += piece
        while len(held) >= size:
            yield bytes(held[:size])
            del held[:size]
    if held:
        yield bytes(held)


def _remembered(read: BlobReader) -> BlobReader:
    """Reads a small blob once, however often it is sent."""
    held: list[bytes] = []

    def again(offset: int) -> Iterator[bytes]:
        if not held:
            held.append(b"".join(read(0)))
        return iter((held[0][offset:],))

    return again
