"""Answers: whole, or open while the body is still to come."""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Self

import msgspec

from oci.cancel import CancelToken
from oci.digest import Chunk
from oci.errors import StoreError
from oci.registry.http.body import Headers, Response, WireError
from oci.registry.http.errors import Failures
from oci.registry.http.pace import COUNTED, Pace
from oci.registry.http.request import Request
from oci.registry.options import RegistryOptions

if TYPE_CHECKING:
    from oci.registry.http.http2 import Http2Response

SHORT = 64 << 10
"""Bytes of a body that are cheaper to read than a connection is to make."""

_DECODED_AT_A_TIME = 1 << 20
"""Bytes that a compressed body is unpacked to in a step: what a few bytes unpack to has no bound (zlib)."""


class Answer(msgspec.Struct, frozen=True):
    """A whole answer, body included. `url` is where it came from, redirects followed."""

    status: int
    headers: Headers
    body: bytes
    url: str


class OpenAnswer:
    """An answer whose body hasn't been read yet. Use as a context manager: leaving it gives the connection and the
    slot back."""

    def __init__(
        self,
        request: Request,
        *,
        settings: RegistryOptions,
        cancel: CancelToken,
        failures: Failures,
        pace: Pace | None,
    ) -> None:
        self._request = request
        self._settings = settings
        self._cancel = cancel
        self._failures = failures
        self._pace = pace
        self._started = pace.start(request.family, large=request.is_large) if pace is not None else 0.0
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
            self._response.release(drain=0 if self._cancel.cancelled else SHORT)
            self._response = None

    def chunks(self) -> Iterator[Chunk]:
        """The body as it comes over the wire, never decoded; raises Unavailable when it breaks off or stalls."""
        settings = self._settings
        if self._response is None:
            return
        try:
            for chunk in self._response.chunks(settings.idle_timeout, settings.minimum_rate):
                self._cancel.check()
                self._received += len(chunk)
                yield chunk
        except WireError as error:
            raise self._failures.broken(error, self._request, self.url) from error

    def plain_chunks(self, size: int) -> Iterator[Chunk]:
        """Yield the body decoded where a proxy compressed it unasked. A body of `size` bytes, as long as the blob
        itself, is taken as it is: object stores label a compressed layer with the coding that the layer has."""
        decoder = _decoder(self.headers.get("content-encoding", ""))
        if decoder is None or self.headers.get("content-length", "") == str(size):
            yield from self.chunks()
            return
        for chunk in self.chunks():
            pending: Chunk = chunk
            while pending:
                try:
                    plain = decoder.decompress(pending, _DECODED_AT_A_TIME)
                except zlib.error as error:
                    raise self._failures.refused(
                        f"the body is not what its coding says: {error}", self._request
                    ) from error
                pending = decoder.unconsumed_tail
                if plain:
                    yield plain

    @property
    def started(self) -> float:
        """When the slot was taken, for Pace.slow_down."""
        return self._started

    def read(self, limit: int) -> bytes:
        """The whole body, decoded where a registry compressed it unasked. Raises Refused beyond `limit` bytes."""
        body = bytearray()
        for chunk in self.chunks():
            body += chunk
            if len(body) > limit:
                raise self._too_long(limit)
        coding = self.headers.get("content-encoding", "")
        return bytes(body) if coding in ("", "identity") else self._decoded(bytes(body), coding, limit)

    def _decoded(self, body: bytes, coding: str, limit: int) -> bytes:
        """Undoes gzip and deflate, which some proxies apply although only `identity` is accepted. Another coding is
        perhaps none: the content says whether it can be used."""
        decoder = _decoder(coding)
        if decoder is None:
            return body
        try:
            plain = decoder.decompress(body, limit + 1)
        except zlib.error:
            return body  # a proxy that decoded the body, and left the header
        if len(plain) > limit:
            raise self._too_long(limit)
        return plain

    def _too_long(self, limit: int) -> StoreError:
        return self._failures.refused(
            f"the answer is longer than {limit} bytes",
            self._request,
            hint="raise the manifest limit of this registry if it is to be trusted",
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.drop()
        seconds: float | None = None
        if self._answered is not None and error is None:
            seconds = self._answered - self._started
            if self._request.is_large:
                size = self._received + (self._request.length or 0)
                seconds = (time.monotonic() - self._started) / (1 + size / COUNTED)
        if self._pace is not None:
            self._pace.finish(self._request.family, large=self._request.is_large, seconds=seconds)
            self._pace = None


def _decoder(coding: str) -> zlib._Decompress | None:
    """Return what undoes a Content-Encoding, None for identity and for a coding that is not known here."""
    coding = coding.lower()
    if coding not in ("gzip", "x-gzip", "deflate"):
        return None
    return zlib.decompressobj(47 if "gzip" in coding else 15)
