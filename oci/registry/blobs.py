"""Reading blobs (distribution-spec, end-2): a broken read is continued where it broke, and never believed unhashed."""

from __future__ import annotations

import hashlib
import re
import threading
import zlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from itertools import islice
from typing import Any

import msgspec

from oci.descriptor import Descriptor
from oci.digest import Chunk, Digest, hex_of, verified
from oci.errors import Denied, NotFound, RateLimited, StoreError, Unauthorized, Unavailable
from oci.meter import PartThreads
from oci.registry import endpoints
from oci.registry.endpoints import GET_BLOB, GET_FIRST_BYTE, GET_RANGE, HEAD_BLOB, Kind, Request
from oci.registry.http.answer import Answer, OpenAnswer, codings_of, undone
from oci.registry.http.body import size_of
from oci.registry.http.pace import RETRIED_STATUSES
from oci.registry.http.transport import Remote, Transport

_FOREIGN_LAYER = Kind("GET", "foreign layer", "", "reading the non-distributable layer", GET_BLOB.expect)
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
PART = 4 << 20
"""Bytes of a range, where a blob is read over several connections."""

_BUSY = (RETRIED_STATUSES | {0}) - {500}
"""No answer (0), or one that says nothing about what was asked for. A 500 may be what a range is answered with."""

_USED_UP = frozenset({401, 403, 404})
"""What storage answers to a signed URL that has ended."""

_PROGRESS = 1 << 20
"""Bytes after which a read counts as going well again."""


def has_blob(remote: Remote, digest: Digest) -> bool:
    """Whether a repository has a blob. A destination that denies the question has nothing yet that this login may see:
    the upload itself decides."""
    answer, refusal = _head(remote, digest)
    return answer.status == 200 if answer is not None else _first_byte(remote, digest, refusal) is not None


def blob_size(remote: Remote, digest: Digest) -> int | None:
    """The size in bytes, None when there is no such blob. Where HEAD is refused, or has no length, GET is asked: some
    registries redirect a HEAD to a URL that is signed for GET alone."""
    answer, refusal = _head(remote, digest)
    if answer is not None:
        if answer.status == 404:
            return None
        size = size_of(answer.headers.get("content-length", ""))
        if size and answer.headers.get("content-encoding", "identity") == "identity":
            return size  # 0 is what proxies write that have seen no body
    return _first_byte(remote, digest, refusal)


def _head(remote: Remote, digest: Digest) -> tuple[Answer | None, StoreError | None]:
    """The answer to a HEAD, or its refusal; neither where it isn't asked any more."""
    if remote.learned.works(HEAD_BLOB) is False:
        return None, None
    try:
        return remote.transport.send(_request(remote, HEAD_BLOB, digest)), None
    except RateLimited:
        raise
    except StoreError as error:
        remote.check_answered(error)
        return None, error


def _first_byte(remote: Remote, digest: Digest, refusal: StoreError | None) -> int | None:
    """The size that the answer to a GET states; the body is counted where it states none. `refusal` is the answer to a
    HEAD before. Where a range is refused, or answered without the whole length, all of the blob is asked for."""
    refused_range: StoreError | None = None
    for ranged in (True, False) if remote.learned.works(GET_RANGE) is not False else (False,):
        headers = {"Range": "bytes=0-0"} if ranged else {}
        request = _request(remote, GET_FIRST_BYTE, digest, headers=headers, retry=not ranged)
        try:
            with remote.transport.open(request) as answer:
                if answer.status == 404:
                    return None
                size = _stated(answer, digest)
        except RateLimited:
            raise
        except StoreError as error:
            if ranged and error.status:
                refused_range = error
                continue
            if ranged:
                remote.check_answered(error)
                continue
            if isinstance(error, Denied | Unauthorized) and remote.transport.side == "destination":
                return None
            raise
        if refusal is not None:
            remote.learned.refuse(HEAD_BLOB, refusal)
        if refused_range is not None and size:  # an empty blob has no first byte (416)
            remote.learned.refuse(GET_RANGE, refused_range)
        if size is not None:
            return size
    return None


def _stated(answer: OpenAnswer, digest: Digest) -> int | None:
    """The size of a blob by the answer to a GET; None where only a part of it came, and no word of the whole."""
    if answer.status == 206:
        total = _CONTENT_RANGE.fullmatch(answer.headers.get("content-range", "").strip())
        return size_of(total.group(3)) if total is not None else None
    size = size_of(answer.headers.get("content-length", ""))
    if not codings_of(answer.headers):
        return size if size is not None else sum(map(len, answer.chunks()))
    # Compressed on the way, or labelled with the coding that the blob has by itself: the digest tells.
    as_sent, plain = hashlib.new(digest.partition(":")[0]), 0

    def hashed() -> Iterator[Chunk]:
        nonlocal size
        size = 0
        for chunk in answer.chunks():
            as_sent.update(chunk)
            size += len(chunk)
            yield chunk

    chunks = hashed()
    with suppress(zlib.error):
        plain = sum(map(len, undone(chunks, codings_of(answer.headers))))
    sum(map(len, chunks))
    return size if as_sent.hexdigest() == hex_of(digest) or not plain else plain


def _request(remote: Remote, kind: Kind, digest: Digest, **more: Any) -> Request:
    return remote.request(kind, endpoints.blob(remote.name, digest), f"{remote.name}@{digest}", **more)


def read_blob(remote: Remote, blob: Descriptor, offset: int = 0, length: int | None = None) -> Iterator[Chunk]:
    """Streams bytes `offset` to `offset + length` of a blob, or to its end. The whole blob is verified."""
    end = blob.size if length is None else min(blob.size, offset + length)
    together = remote.transport.settings.parallel_reads
    if together > 1 and end - offset > PART and not blob.urls and remote.learned.works(GET_RANGE) is not False:
        chunks = _in_parts(remote, blob, offset, end, together)
    else:
        chunks = _continued(remote, blob, offset, end)
    if offset == 0 and end == blob.size:
        return verified(chunks, blob.digest, blob.size, f"{remote.transport.side} {remote.name}".strip())
    return chunks


def _in_parts(remote: Remote, blob: Descriptor, position: int, end: int, together: int) -> Iterator[Chunk]:
    """Reads ranges over several connections, and gives their bytes in order; `together` parts are in memory. The answer
    to the first range says whether the registry knows ranges: where it doesn't, that answer has the whole blob."""
    first = min(position + PART, end)
    headers = {"Range": f"bytes={position}-{first - 1}"}
    request = _request(remote, GET_RANGE, blob.digest, headers=headers, retry=True)
    stop = threading.Event()
    waiting: deque[Future[bytearray]] = deque()
    begun = False
    with PartThreads(together, thread_name_prefix="part") as threads:
        try:
            starts = iter(range(first, end, PART))
            # What breaks off is read on, and what the plain read is answered is the error.
            with suppress(StoreError), remote.transport.open(request) as answer:
                if answer.status == 206:
                    remote.learned.confirm(GET_RANGE)
                    for chunk in _asked_for(answer, remote, request, blob, range(position, first)):
                        for start in islice(starts, together - 1 - len(waiting)):
                            waiting.append(threads.submit(_part, remote, blob, start, min(start + PART, end), stop))
                        remote.transport.meter.read(len(chunk))
                        position, begun = position + len(chunk), True
                        yield chunk
                else:
                    remote.learned.refuse(GET_RANGE)
            yield from _continued(remote, blob, position, first if begun else end)
            while waiting:
                data = waiting.popleft().result()
                for start in islice(starts, 1):
                    waiting.append(threads.submit(_part, remote, blob, start, min(start + PART, end), stop))
                yield memoryview(data)
        finally:
            stop.set()
            for part in waiting:
                part.cancel()


def _part(remote: Remote, blob: Descriptor, position: int, end: int, stop: threading.Event) -> bytearray:
    data = bytearray()
    for chunk in _continued(remote, blob, position, end):
        if stop.is_set():
            break
        data += chunk
    return data


def _continued(remote: Remote, blob: Descriptor, position: int, end: int) -> Iterator[Chunk]:
    """Reads on after every break, with a closed range from where it broke, until there is no progress any more."""
    start, mark = position, position
    attempts, renewed = remote.transport.attempts(), False
    while position < end or (start == end == blob.size == 0):
        try:
            with _open(remote, blob, position, end, renewed) as chunks:
                for chunk in chunks:
                    position += len(chunk)
                    remote.transport.meter.read(len(chunk))
                    yield chunk
                    if position - mark > _PROGRESS:
                        mark, attempts = position, remote.transport.attempts()
            if position >= end:
                return
            message, subject = f"the body ended after {position} of {end} bytes", f"{remote.name}@{blob.digest}"
            attempts.again(remote.transport.error(Unavailable, message, subject, GET_BLOB.operation))
        except Unavailable as error:
            attempts.again(error, error.retry_after)
        except StoreError as error:
            if not error.redirected or renewed:
                raise
            renewed = True  # a signed URL may be used up, or have run out: the registry gives a new one


@contextmanager
def _open(remote: Remote, blob: Descriptor, position: int, end: int, renewed: bool) -> Iterator[Iterator[Chunk]]:
    """Retried by the caller, who knows how far it got; a first answer that fails is the transport's. Where a range is
    refused, also by the storage that a `renewed` signed URL leads to, the whole blob is read and what isn't wanted is
    dropped."""
    whole = position == 0 and end == blob.size
    ranged = not whole and remote.learned.works(GET_RANGE) is not False
    headers = {"Range": f"bytes={position}-{end - 1}"} if ranged else {}
    request = _request(remote, GET_RANGE if ranged else GET_BLOB, blob.digest, headers=headers, retry=True)
    try:
        try:
            answer = remote.transport.open(request)
        except StoreError as refusal:
            used_up = refusal.redirected and not renewed and refusal.status in _USED_UP
            if not ranged or refusal.status in _BUSY or used_up:
                raise
            request = _request(remote, GET_BLOB, blob.digest)
            answer = remote.transport.open(request)
            remote.learned.refuse(GET_RANGE, refusal)
    except NotFound as error:
        answer = _foreign(remote.transport, blob, request, error)
    with answer:
        yield _asked_for(answer, remote, request, blob, range(position, end))


def _foreign(transport: Transport, blob: Descriptor, request: Request, missing: NotFound) -> OpenAnswer:
    """A layer that the registry doesn't hold, from the addresses its descriptor gives (image-spec, `urls`)."""
    problem: StoreError = missing
    for url in blob.urls:
        try:
            elsewhere = msgspec.structs.replace(
                request, kind=_FOREIGN_LAYER, target=transport.resolve(url, "", pointer="a layer's urls"), scopes=()
            )
            return transport.open(elsewhere)
        except StoreError as error:
            problem = error
    raise problem


def _asked_for(
    answer: OpenAnswer, remote: Remote, request: Request, blob: Descriptor, requested: range
) -> Iterator[Chunk]:
    """Cut the wanted bytes out of whatever was answered. A 200 to a range starts at the beginning: the part before is
    thrown away. A 206 must say that it is the range that was asked for; else the whole blob is read from then on."""
    position, end, size = requested.start, requested.stop, blob.size
    whole = position == 0 and end == size
    skip = 0
    if answer.status == 206:
        match = _CONTENT_RANGE.fullmatch(answer.headers.get("content-range", "").strip())
        expected = [(str(position), str(end - 1), total) for total in (str(size), "*")]
        if match is None or match.groups() not in expected:
            content_range = answer.headers.get("content-range", "no Content-Range")
            message = f"asked for bytes {position}-{end - 1}, got {content_range!r}"
            remote.learned.refuse(GET_RANGE)  # the next attempt reads the whole blob
            raise remote.transport.error(Unavailable, message, request.subject, "")
    elif not whole:
        skip = position
    remaining = end - position
    for chunk in answer.chunks() if answer.status == 206 else answer.plain_chunks(size, blob.media_type):
        piece = chunk[skip:] if skip else chunk
        skip = max(0, skip - len(chunk))
        if not whole:
            piece = piece[:remaining]
            remaining -= len(piece)
        if piece:
            yield piece
        if not whole and remaining == 0:
            return
