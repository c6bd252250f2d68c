"""Reading blobs (distribution-spec, end-2): a broken read is continued where it broke, and never believed unhashed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack

from oci.descriptor import Descriptor
from oci.digest import Digest, verified
from oci.errors import NotFound, Refused, StoreError, Unavailable
from oci.reference import Repository
from oci.registry.http import target as targets
from oci.registry.http.answer import OpenAnswer
from oci.registry.http.pace import Attempts
from oci.registry.http.request import Request, Scope
from oci.registry.http.transport import Transport

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_PROGRESS = 1 << 20
"""Bytes after which a read counts as going well again."""


def blob_size(transport: Transport, name: Repository, digest: Digest) -> int | None:
    answer = transport.send(
        Request(
            method="HEAD",
            target=targets.blob(name, digest),
            kind="blob",
            scopes=(Scope(name.path, "pull"),),
            operation="looking for the blob",
            subject=f"{name}@{digest}",
            expect=frozenset({200, 404}),
        )
    )
    length = answer.headers.get("content-length", "")
    return int(length) if answer.status == 200 and length.isdigit() else None


def read_blob(
    transport: Transport, name: Repository, blob: Descriptor, offset: int, length: int | None
) -> Iterator[bytes]:
    """Streams bytes `offset` to `offset + length` of a blob, or to its end. The whole blob is verified."""
    end = blob.size if length is None else min(blob.size, offset + length)
    chunks = _continued(transport, name, blob, offset, end)
    if offset == 0 and end == blob.size:
        return verified(chunks, blob.digest, blob.size, f"{transport.side} {name}".strip())
    return chunks


def _continued(transport: Transport, name: Repository, blob: Descriptor, position: int, end: int) -> Iterator[bytes]:
    """Reads on after every break, with a closed range from where it broke, until there is no progress any more."""
    start, mark = position, position
    attempts = _attempts(transport)
    while position < end or (start == end == blob.size == 0):
        try:
            with _open(transport, name, blob, position, end) as chunks:
                for chunk in chunks:
                    position += len(chunk)
                    transport.meter.read(len(chunk))
                    yield chunk
                    if position - mark > _PROGRESS:
                        mark, attempts = position, _attempts(transport)
            if position >= end:
                return
            attempts.again(_ended(transport, name, blob, position, end))
        except Unavailable as error:
            attempts.again(error, error.retry_after)


def _ended(transport: Transport, name: Repository, blob: Descriptor, position: int, end: int) -> Unavailable:
    return Unavailable(
        f"the body ended after {position} of {end} bytes",
        side=transport.side,
        store=transport.registry,
        subject=f"{name}@{blob.digest}",
        operation="reading the blob",
    )


def _attempts(transport: Transport) -> Attempts:
    return Attempts(
        retries=transport.settings.retries,
        budget=transport.settings.retry_budget,
        meter=transport.meter,
        cancel=transport.cancel,
    )


class _Reading(ExitStack):
    """An open answer's bytes, cut to what was asked for; closes the answer when left."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        super().__init__()
        self._chunks = chunks

    def __enter__(self) -> Iterator[bytes]:  # type: ignore[override]
        return self._chunks


def _open(transport: Transport, name: Repository, blob: Descriptor, position: int, end: int) -> _Reading:
    whole = position == 0 and end == blob.size
    request = Request(
        method="GET",
        target=targets.blob(name, blob.digest),
        kind="blob",
        scopes=(Scope(name.path, "pull"),),
        operation="reading the blob",
        subject=f"{name}@{blob.digest}",
        expect=frozenset({200, 206}),
        headers={} if whole else {"Range": f"bytes={position}-{end - 1}"},
        # Retried by the caller, who knows how far it got; a first answer that fails is the transport's.
    )
    stack = ExitStack()
    try:
        answer = stack.enter_context(transport.open(request))
    except NotFound as error:
        answer = _foreign(transport, blob, request, stack, error)
    except StoreError:
        stack.close()
        raise
    reading = _Reading(_asked_for(answer, transport, request, position, end, whole=whole))
    reading.push(stack)
    return reading


def _foreign(
    transport: Transport, blob: Descriptor, request: Request, stack: ExitStack, missing: NotFound
) -> OpenAnswer:
    """A layer that the registry doesn't hold, from the addresses its descriptor gives (image-spec, `urls`)."""
    problem: StoreError = missing
    for url in blob.urls:
        try:
            return stack.enter_context(
                transport.open(
                    Request(
                        method="GET",
                        target=transport.foreign(url),
                        kind="foreign layer",
                        scopes=(),
                        operation="reading the non-distributable layer",
                        subject=request.subject,
                        expect=request.expect,
                        headers=request.headers,
                    )
                )
            )
        except StoreError as error:
            problem = error
    stack.close()
    raise problem


def _asked_for(
    answer: OpenAnswer, transport: Transport, request: Request, position: int, end: int, *, whole: bool
) -> Iterator[bytes]:
    """The bytes that were asked for out of whatever was answered. A 200 to a range starts at the beginning: the part
    before `position` is thrown away. A 206 must say that it is the range that was asked for."""
    skip = 0
    if answer.status == 206:
        found = _CONTENT_RANGE.fullmatch(answer.headers.get("content-range", "").strip())
        if found is None or int(found.group(1)) != position or int(found.group(2)) != end - 1:
            said = answer.headers.get("content-range", "no Content-Range")
            raise Refused(
                f"asked for bytes {position}-{end - 1}, got {said!r}",
                side=transport.side,
                store=transport.registry,
                subject=request.subject,
                operation=request.operation,
            )
    elif not whole:
        skip = position
    left = end - position
    for chunk in answer.chunks():
        piece = chunk[skip:] if skip else chunk
        skip = max(0, skip - len(chunk))
        if not whole:
            piece = piece[:left]
            left -= len(piece)
        if piece:
            yield piece
        if not whole and left == 0:
            return
