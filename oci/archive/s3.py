"""An object in S3, or in what calls itself S3: the client, and errors of boto3 as ours.

Facts about other stores that shape the callers of this module: Ceph 16 ignores the conditions of
CompleteMultipartUpload and answers it without an ETag; SeaweedFS lists uploads unsorted; an upload that is gone is
NoSuchUpload for some and NoSuchKey for others; some know no checksums but MD5; some refuse checksum trailers, so none
is ever sent.
"""

from __future__ import annotations

import re
import socket
import ssl
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.credentials import AssumeRoleCredentialFetcher, DeferredRefreshableCredentials
from botocore.exceptions import BotoCoreError, ClientError, InvalidRegionError, NoCredentialsError
from botocore.session import Session as BotocoreSession

from oci.archive.options import S3Options
from oci.digest import READ_SIZE
from oci.errors import (
    CancelToken,
    Denied,
    IntegrityError,
    InvalidInput,
    NotFound,
    RateLimited,
    Refused,
    StoreError,
    TransshipError,
    Unauthorized,
    Unavailable,
)
from oci.meter import Meter
from oci.output import check_no_pipe
from oci.reference import bucket_and_key
from oci.registry.http.http1 import shut_down

FINGERPRINT = "transship-fingerprint"
"""Metadata key: of the plan that an object was written from, set by the program that proved every blob of it."""

_ROLE_SESSION = "transship"
_TRIES = 5

_UNAUTHORIZED = frozenset(
    {"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "401", "TokenRefreshRequired"}
)
_CREDENTIALS = "check the access key, or name a profile; boto3 looks into AWS_* variables and ~/.aws"
_HINTS: dict[str, tuple[type[StoreError], str]] = {
    "NoSuchBucket": (NotFound, "make the bucket first, or check its name and the endpoint"),
    "NoSuchKey": (NotFound, "check the key"),
    "NoSuchUpload": (NotFound, "the upload was completed or given up: run it again"),
    "404": (NotFound, "check the bucket, the key and the endpoint"),
    "AccessDenied": (Denied, "check what this identity may do in the bucket"),
    "403": (Denied, "check the credentials, and that this identity has s3:ListBucket: S3 says the same without it"),
    "SlowDown": (RateLimited, "lower the concurrency"),
    "TooManyRequests": (RateLimited, "lower the concurrency"),
    "PreconditionFailed": (Refused, "another run has written this object meanwhile: look at what is there"),
    "ConditionalRequestConflict": (Refused, "another run is writing this object: look at what is there"),
    "412": (Refused, "the object was replaced while it was in use"),
    "MissingContentLength": (Refused, "the store refuses checksum trailers: use --s3-checksums when_required"),
    "411": (Refused, "the store refuses checksum trailers: use --s3-checksums when_required"),
    "NotImplemented": (Refused, "the store doesn't know a header: try --s3-checksums when_required"),
    "501": (Refused, "the store doesn't know a header: try --s3-checksums when_required"),
    "EntityTooSmall": (Refused, "choose bigger parts"),
    "PermanentRedirect": (Refused, "the bucket is in another region: give --s3-region"),
    "AuthorizationHeaderMalformed": (Refused, "the bucket is in another region: give --s3-region"),
}
_PASSES = frozenset({"InternalError", "ServiceUnavailable", "RequestTimeout", "500", "502", "503", "504", "BadDigest"})
_UNREACHABLE = ("Timeout", "Connection", "Endpoint", "HTTPClient", "Proxy", "IncompleteRead", "ResponseStreaming")

_ENDPOINTS = {
    "UploadPart": "part",
    "UploadPartCopy": "part copy",
    "CreateMultipartUpload": "upload",
    "CompleteMultipartUpload": "upload",
    "AbortMultipartUpload": "upload",
    "ListParts": "parts",
    "ListMultipartUploads": "uploads",
}

_PROGRESS = 1 << 20
"""Bytes after which a read counts as going well again: a stream that ends after a thousand bytes each time doesn't."""

_RETRIED = re.compile(r"attempt=([2-9]|1\d)")


class S3:
    """One client for all threads. A thread that waits for the store is woken when the run is cancelled."""

    def __init__(
        self, settings: S3Options, *, side: str, meter: Meter | None = None, cancel: CancelToken | None = None
    ) -> None:
        self.settings = settings
        self.side = side
        self.cancel = cancel or CancelToken()
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._lock = threading.Lock()
        with self.mapped(settings.address or "S3", "connecting"):
            try:
                session = _session(settings)
                self.client = _client(session, settings)
            except ValueError as error:  # boto3 finds settings that can't be used
                url = f"give a URL such as https://s3.example, not {settings.address!r}"
                hint = "correct --s3-region" if isinstance(error, InvalidRegionError) else url
                raise InvalidInput(str(error), hint=hint) from error
            _watch(self.client, self._opened)
            self.client.meta.events.register("before-send.s3", lambda **_: self.cancel.check())
            self.cancel.on_cancel(self._cut)
            if meter is not None:
                self._count(meter)
                host = urlsplit(self.client.meta.endpoint_url).netloc
                keys = None if settings.role else session.get_credentials()
                identity = f"access key {keys.access_key} ({settings.origin or keys.method})" if keys else "anonymous"
                meter.identity(f"{side} {host}".strip(), f"role {settings.role}" if settings.role else identity)

    @contextmanager
    def mapped(self, location: str, operation: str) -> Iterator[None]:
        """Errors of boto3 as ours."""
        try:
            yield
        except Exception as error:
            self.cancel.check()  # its sockets were shut down
            if isinstance(error, TransshipError):
                raise
            where: Any = {"side": self.side, "store": location, "operation": operation}
            if isinstance(error, ClientError | BotoCoreError):
                # The code decides (`NoSuchKey`, or a status where a HEAD has no text): the classes belong to boto3.
                answer: Mapping[str, Any] = (
                    getattr(error, "response", None) or {}
                )  # nothing where there is no connection
                code = str(answer.get("Error", {}).get("Code", ""))
                status = int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
                kind, hint = _kind(code, status, type(error).__name__)
                text = str(answer.get("Error", {}).get("Message", "")) or _plain(error)
                raise kind(text, **where, status=status, code=code, hint=hint) from error
            # boto3 follows a redirect of a store for ever, and lets its parsers' errors through.
            message = f"the store answered something that can't be worked with ({type(error).__name__})"
            raise Refused(message, **where) from error

    def _opened(self, sock: socket.socket) -> None:
        with self._lock:
            self._sockets.add(sock)
        self.cancel.check()

    def _cut(self) -> None:
        with self._lock:
            sockets = list(self._sockets)
        for sock in sockets:
            shut_down(sock)

    def _count(self, meter: Meter) -> None:
        """Counts every request that is sent, retries included."""

        def before_send(request: Any, event_name: str, **_: object) -> None:
            endpoint = _ENDPOINTS.get(event_name.rpartition(".")[2], "object")
            meter.request(urlsplit(request.url).netloc, f"{request.method} {endpoint}")
            if _RETRIED.search(str(request.headers.get("amz-sdk-request", b""))):
                meter.retry()

        self.client.meta.events.register("before-send.s3", before_send)


class S3Object:
    """One object by its name, and what is asked about it: `call` is a method of boto3's client."""

    def __init__(self, location: str, s3: S3) -> None:
        self.location = location
        self.s3 = s3
        bucket, key = bucket_and_key(location)
        self.name: Mapping[str, str] = {"Bucket": bucket, "Key": key}

    def beside(self, suffix: str) -> S3Object:
        return S3Object(self.location + suffix, self.s3)

    def ask(self, operation: str, call: str, **arguments: Any) -> Any:
        with self.s3.mapped(self.location, operation):
            return getattr(self.s3.client, call)(**self.name, **arguments)

    def pages(self, operation: str, call: str, **arguments: Any) -> Iterator[dict[str, Any]]:
        with self.s3.mapped(self.location, operation):
            yield from self.s3.client.get_paginator(call).paginate(**arguments)

    def head(self, operation: str) -> dict[str, Any] | None:
        """Returns None when there is no such object; a bucket that isn't there answers the same to a HEAD."""
        try:
            return dict(self.ask(operation, "head_object"))
        except NotFound:
            return None


class S3Reader:
    """An object, the version that was there when it was opened: if it is replaced meanwhile, reading fails."""

    def __init__(self, location: str, s3: S3) -> None:
        self.location = location
        self.s3 = s3
        self._object = S3Object(location, s3)
        head = self._object.ask("opening", "head_object")
        self.size: int = head["ContentLength"]
        self.etag: str = head.get("ETag", "")
        self.fingerprint: str = head.get("Metadata", {}).get(FINGERPRINT, "")

    def read(self, offset: int, length: int) -> Iterator[bytes]:
        """A stream that breaks off is continued where it broke, until it goes no further."""
        end = offset + length
        tries, mark = _TRIES, offset
        while offset < end:
            try:
                for chunk in self._stream(offset, end):
                    offset += len(chunk)
                    if offset - mark >= _PROGRESS:
                        tries, mark = _TRIES, offset
                    yield chunk
            except (Unavailable, IntegrityError):
                tries -= 1
                if not tries:
                    raise

    def check_unchanged(self) -> None:
        """Every read asks for the version that was opened, and fails for another."""

    def close(self) -> None: ...

    def _stream(self, offset: int, end: int) -> Iterator[bytes]:
        self.s3.cancel.check()
        match = {"IfMatch": self.etag} if self.etag else {}
        answer = self._object.ask("reading", "get_object", Range=f"bytes={offset}-{end - 1}", **match)
        with self.s3.mapped(self.location, "reading"), closing(answer["Body"]) as body:
            expected = f"bytes {offset}-{end - 1}/{self.size}"
            if answer.get("ContentRange") != expected:
                raise Refused(
                    f"asked for {expected}, and got {answer.get('ContentRange') or 'the whole object'}",
                    side=self.s3.side,
                    store=self.location,
                    operation="reading",
                    hint="the store doesn't serve ranges, or the object was replaced",
                )
            for chunk in body.iter_chunks(READ_SIZE):
                self.s3.cancel.check()
                offset += len(chunk)
                yield chunk
        if offset < end:
            raise IntegrityError(f"{self.s3.side} {self.location}: the stream ended at byte {offset} of {end}")


def _watch(client: Any, opened: Callable[[socket.socket], None]) -> None:
    """Has `opened` called with each socket. botocore makes its connections of the classes in this dict, and has no
    hook."""

    def watched(connection: Any) -> type:
        def connect(self: Any) -> None:
            connection.connect(self)
            opened(self.sock)

        return type(connection.__name__, (connection,), {"connect": connect})

    pools = client._endpoint.http_session._pool_classes_by_scheme  # noqa: SLF001
    for scheme, pool in pools.items():
        pools[scheme] = type(pool.__name__, (pool,), {"ConnectionCls": watched(pool.ConnectionCls)})


def _client(session: boto3.Session, settings: S3Options) -> Any:
    if settings.ca_file:
        # botocore reads it after the connection is made, and speaks of the endpoint when it can't.
        try:
            check_no_pipe(settings.ca_file)
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=settings.ca_file)
        except OSError as error:
            message = f"{settings.ca_file} can't be used as a CA file: {error}"
            raise InvalidInput(message, hint="name a readable PEM file") from error
    secure = not settings.address.startswith("http://")
    style: Any = {"addressing_style": "path"} if settings.path_style else {}
    return session.client(
        "s3",
        endpoint_url=settings.endpoint or None,
        verify=(settings.ca_file or None) if settings.verify_tls else False,
        config=Config(
            retries={"mode": "standard", "max_attempts": settings.tries},
            max_pool_connections=settings.connections,
            # Every part has a checksum of its own; over TLS there is no need to sign its bytes as well.
            s3=style | {"payload_signing_enabled": not secure},
            connect_timeout=min(10.0, settings.timeout),
            read_timeout=settings.timeout,
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
        region_name=session.region_name or "us-east-1",
    )


def _session(settings: S3Options) -> boto3.Session:
    session = boto3.Session(
        profile_name=settings.profile or None,
        region_name=settings.region or None,
        aws_access_key_id=settings.access_key or None,
        aws_secret_access_key=settings.secret_key or None,
        aws_session_token=settings.session_token or None,
    )
    if not settings.role:
        return session
    base = session.get_credentials()
    if base is None:
        raise NoCredentialsError
    fetcher = AssumeRoleCredentialFetcher(
        client_creator=session.client,
        source_credentials=base,
        role_arn=settings.role,
        extra_args={"RoleSessionName": _ROLE_SESSION},
    )
    assumed: Any = BotocoreSession(profile=settings.profile or None)
    # A long upload outlives the hour that a role's keys last: these are fetched again in time.
    assumed._credentials = DeferredRefreshableCredentials(fetcher.fetch_credentials, "assume-role")  # noqa: SLF001 - botocore's own way to give a session credentials
    return boto3.Session(botocore_session=assumed, region_name=session.region_name)


def _kind(code: str, status: int, name: str) -> tuple[type[StoreError], str]:
    if code in _UNAUTHORIZED or "Credentials" in name or name == "ProfileNotFound":
        return Unauthorized, _CREDENTIALS
    if code in _HINTS:
        return _HINTS[code]
    if code in _PASSES or status >= 500:
        return Unavailable, "run it again; what is stored stays"
    if name == "SSLError":
        return Refused, "name the authority that vouches for it (--s3-ca-cert-path), or check http or https"
    if not code and any(part in name for part in _UNREACHABLE):
        return Unavailable, "check the endpoint, and that this machine reaches it"
    return Refused, "look up the code in the store's documentation" if code else ""


def _plain(error: Exception) -> str:
    """boto3 puts whole URLs into its sentences; query strings stay out of ours."""
    if type(error).__name__ == "ReadTimeoutError":
        return "it stopped answering"
    return " ".join(word.partition("?")[0] for word in str(error).split())
