"""Answers: whole, or open while the body is still to come."""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import chain
from typing import TYPE_CHECKING, Self

import msgspec

from oci.digest import Chunk
from oci.errors import StoreError
from oci.manifest import RAISE_LIMIT
from oci.registry.endpoints import Request
from oci.registry.http.body import Headers, Response, WireError
from oci.registry.http.errors import Peer
from oci.registry.http.pace import COUNTED, Pace

if TYPE_CHECKING:
    from oci.registry.http.http2 import Http2Response

SHORT = 64 << 10
"""Bytes of a body that are cheaper to read than a connection is to make."""

_DECODED_AT_A_TIME = 1 << 20
"""Bytes that a compressed body is unpacked to in a step: what a few bytes unpack to has no bound (zlib)."""

_MEMBERS = 1000
"""Members of a gzip body that are read (RFC 1952, 2.2): what follows each of them is copied."""

_CODINGS = frozenset({"gzip", "x-gzip", "deflate"})
_PLAIN = frozenset({"", "identity"})
_MAGIC = {"gzip": b"\x1f\x8b", "zstd": b"\x28\xb5\x2f\xfd"}
"""How the bytes of a layer begin that is compressed itself, by the end of its media type."""


class Answer(msgspec.Struct, frozen=True):
    """A whole answer, body included. `url` is where it came from, redirects followed."""

    status: int
    headers: Headers
    body: bytes
    url: str


class OpenAnswer:
    """An answer whose body hasn't been read yet. Use as a context manager: leaving it gives the connection and the
    slot back."""

    def __init__(self, request: Request, peer: Peer, pace: Pace | None) -> None:
        self._request = request
        self._peer = peer
        self._pace = pace
        self.started = pace.start(request.kind.family, large=request.is_large) if pace is not None else 0.0
        """When the slot was taken, for Pace.slow_down."""
        self._answered: float | None = None
        self._received = 0
        self._response: Response | Http2Response | None = None
        self.url = ""
        self.status = 0
        self.headers = Headers()

    def take(self, response: Response | Http2Response, url: str) -> None:
        self._response, self.url = response, url
        self.status, self.headers = response.status, response.headers
        self._answered = time.monotonic()

    def drop(self) -> None:
        """Ends the answer before another one is taken."""
        if self._response is not None:
            self._response.release(drain=0 if self._peer.cancel.cancelled else SHORT)
            self._response = None

    def chunks(self) -> Iterator[Chunk]:
        """The body as it comes over the wire, never decoded; raises Unavailable when it breaks off or stalls."""
        settings, cancel = self._peer.settings, self._peer.cancel
        if self._response is None:
            return
        try:
            for chunk in self._response.chunks(settings.idle_timeout, settings.minimum_rate):
                cancel.check()
                self._received += len(chunk)
                yield chunk
        except WireError as error:
            raise self._peer.broken(error, self._request, self.url) from error

    def plain_chunks(self, size: int, media_type: str = "") -> Iterator[Chunk]:
        """Yield the body decoded where a proxy compressed it unasked. A body of `size` bytes, as long as the blob
        itself, is taken as it is: object stores label a compressed layer with the coding that the layer has. Where no
        length is given, the beginning tells: a layer that is compressed by its media type is so, once decoded."""
        codings = codings_of(self.headers)
        chunks = self.chunks()
        if codings and self.headers.get("content-length", "") != str(size):
            first = next(chunks, b"")
            magic = next((magic for end, magic in _MAGIC.items() if media_type.endswith(end)), b"")
            begins = b""
            with suppress(zlib.error):
                begins = bytes(next(undone([first], codings), b"")[:8])
            chunks = chain((first,), chunks)
            if begins.startswith(magic) and (begins or not size):
                chunks = undone(chunks, codings)
        try:
            yield from chunks
        except zlib.error as error:
            raise self._peer.refused(f"the body is not what its coding says: {error}", self._request) from error

    def read(self, limit: int) -> bytes:
        """The whole body, decoded where a registry compressed it unasked. Raises Refused beyond `limit` bytes."""
        body = bytearray()
        for chunk in self.chunks():
            body += chunk
            if len(body) > limit:
                raise self._too_long(limit)
        return self._decoded(bytes(body), limit)

    def excerpt(self, limit: int) -> bytes:
        """The beginning of an error's body, decoded. Nothing where it breaks off: docker-registry's 416 announces the
        blob's length, and the status says enough."""
        body = bytearray()
        try:
            for chunk in self.chunks():
                body += chunk
                if len(body) > limit:
                    break
            return self._decoded(bytes(body), limit * 16)
        except StoreError:
            return b""

    def _decoded(self, body: bytes, limit: int) -> bytes:
        """Undoes gzip and deflate, which some proxies apply although only `identity` is accepted. Another coding is
        perhaps none: the content says whether it can be used."""
        codings = codings_of(self.headers)
        if not codings:
            return body
        plain = bytearray()
        try:
            for piece in undone([body], codings):
                plain += piece
                if len(plain) > limit:
                    raise self._too_long(limit)
        except zlib.error:
            return body  # a proxy that decoded the body, and left the header
        return bytes(plain)

    def _too_long(self, limit: int) -> StoreError:
        is_manifest = self._request.kind.resource == "manifest"
        hint = RAISE_LIMIT if is_manifest else "no setting raises this: the registry is broken"
        return self._peer.refused(f"the answer is longer than {limit} bytes", self._request, hint=hint)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        self.drop()
        seconds: float | None = None
        if self._answered is not None and kind is None:
            seconds = self._answered - self.started
            if self._request.is_large:
                size = self._received + (self._request.length or 0)
                seconds = (time.monotonic() - self.started) / (1 + size / COUNTED)
        if self._pace is not None:
            self._pace.finish(self._request.kind.family, large=self._request.is_large, seconds=seconds)
            self._pace = None


def codings_of(headers: Headers) -> tuple[str, ...]:
    """Return the codings of a body in the order in which they were applied (RFC 9110, 8.4); none where one of them is
    not known here."""
    text = headers.get("content-encoding", "")
    codings = tuple(name for part in text.lower().split(",") if (name := part.strip()) not in _PLAIN) if text else ()
    return codings if _CODINGS.issuperset(codings) else ()


def undone(chunks: Iterable[Chunk], codings: tuple[str, ...]) -> Iterator[Chunk]:
    """Yield a body without its codings. Raise zlib.error where it doesn't have them."""
    for coding in reversed(codings):
        chunks = _inflated(chunks, coding)
    return iter(chunks)


def _inflated(chunks: Iterable[Chunk], coding: str) -> Iterator[Chunk]:
    """Undo one coding. `deflate` comes with zlib's frame and without it (RFC 9110, 8.4.1.2)."""
    is_gzip = coding != "deflate"
    decoder, begun, members = zlib.decompressobj(47 if is_gzip else 15), False, 1
    for chunk in chunks:
        pending: Chunk = chunk
        while pending:
            try:
                plain = decoder.decompress(pending, _DECODED_AT_A_TIME)
            except zlib.error:
                if is_gzip or begun:
                    raise
                decoder, begun = zlib.decompressobj(-15), True
                continue
            begun = True
            if plain:
                yield plain
            pending = decoder.unconsumed_tail
            if decoder.eof:
                pending = decoder.unused_data
                if not is_gzip or (pending and not pending.startswith(b"\x1f")):
                    return  # what follows is padding, as for gzip itself
                members += 1
                if members > _MEMBERS:
                    raise zlib.error(f"more than {_MEMBERS} gzip members")
                decoder = zlib.decompressobj(31)
