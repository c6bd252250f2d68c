"""All requests to one registry from one side: login, limits, retries, redirects, counting, and one place where foreign
exceptions become ours."""

from __future__ import annotations

import importlib.metadata
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import UTC, datetime
from urllib.parse import urljoin

import httpcore
import httpx
import msgspec

from oci.cancel import CancelToken
from oci.errors import Cancelled, RateLimited, Refused, StoreError, Unavailable
from oci.meter import Meter
from oci.registry.auth import REFUSALS, Authenticator
from oci.registry.credentials.chain import Credentials
from oci.registry.http.address_policy import Guard, host_of, is_loopback
from oci.registry.http.connections import NO_COOKIES, connected, speaks_no_tls
from oci.registry.http.errors import ERROR_LIMIT, Answer, Attempted, error_for, shown, tls_advice
from oci.registry.http.origin import origin_of, split_url
from oci.registry.http.pace import Limiter
from oci.registry.http.quota import remaining_pulls
from oci.registry.http.request import Request
from oci.registry.http.retry import Attempts, retry_after
from oci.registry.http.target import BASE, Target, absolute
from oci.registry.http.wire import FOREIGN_MAPPED, Wire, release
from oci.registry.settings import RegistrySettings

PAGE_LIMIT = 16 << 20
"""Bytes of a whole answer that isn't a manifest: a page of tags or referrers."""

_USER_AGENT = f"transship/{importlib.metadata.version('transship')}"
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_REDIRECT_LIMIT = 5
_log = logging.getLogger("transship.http")


class OpenAnswer:
    """An answer whose body hasn't been read yet."""

    def __init__(self, response: httpx.Response, url: str, chunks: Callable[[], Iterator[bytes]]) -> None:
        self.status = response.status_code
        self.headers = response.headers
        self.url = url
        self.chunks = chunks
        """The body as it comes over the wire, never decoded; raises Unavailable when it breaks off or stalls."""


class Transport:
    """Safe from any thread. `wire` is for tests: an httpx transport instead of real connections."""

    def __init__(
        self,
        registry: str,
        *,
        settings: RegistrySettings,
        credentials: Credentials,
        side: str,
        meter: Meter,
        cancel: CancelToken,
        wire: httpx.BaseTransport | None = None,
    ) -> None:
        self.registry = registry
        self.settings = settings
        self.side = side
        self.meter = meter
        self.cancel = cancel
        http_allowed = settings.insecure or is_loopback(host_of(registry))
        self.guard = Guard(
            registry, side=side, allow_private=settings.allow_private_redirects, http_allowed=http_allowed
        )
        pace = settings.requests_per_second
        self._limiter = Limiter(concurrency=settings.concurrency, per_second=pace, meter=meter, cancel=cancel)
        self._auth = Authenticator(
            registry,
            side=side,
            credentials=credentials,
            guard=self.guard,
            meter=meter,
            service=self._ask_token_service,
            ask_base=self._ask_base,
        )
        wire = wire or connected(registry, settings, side)
        self._client = httpx.Client(
            transport=wire,
            trust_env=False,
            cookies=NO_COOKIES,
            headers={"User-Agent": _USER_AGENT, "Accept-Encoding": "identity", "Accept": "*/*"},
        )
        if isinstance(wire, Wire):
            cancel.on_cancel(wire.cut)
        connect, read, write = settings.connect_timeout, settings.header_timeout, settings.idle_timeout
        self._timeouts = {"connect": connect, "read": read, "write": write, "pool": None}
        self._scheme = "" if http_allowed else "https"
        self._settled = threading.Event()
        self._first = threading.Lock()

    def send(self, request: Request) -> Answer:
        """Sends and reads the whole answer; a broken body is a failed attempt like any other."""
        limit = self.settings.manifest_limit if request.kind == "manifest" else PAGE_LIMIT
        attempts = self._attempts(request)
        while True:
            try:
                with self._exchange(request) as answer:
                    body = b"" if request.method == "HEAD" else _bounded(answer.chunks(), limit, request, self)
                    return Answer(answer.status, answer.headers, body, answer.url)
            except StoreError as error:
                attempts.again(error, self._asked_to_wait(error))

    @contextmanager
    def open(self, request: Request) -> Iterator[OpenAnswer]:
        """Sends and gives the answer while its body is still to come; retried only until then."""
        attempts = self._attempts(request)
        with ExitStack() as stack:
            while True:
                try:
                    answer = stack.enter_context(self._exchange(request))
                    break
                except StoreError as error:
                    attempts.again(error, self._asked_to_wait(error))
            yield answer

    def resolve(self, location: str, base: str) -> Target:
        """The target of a Location, judged by the guard. A registry behind a proxy that ends TLS often names itself
        with http: that isn't followed, TLS is kept."""
        target = self._judged(location, base, "a Location header")
        if self._scheme == "https" and target.origin == origin_of(self.registry, "http"):
            return msgspec.structs.replace(target, origin=origin_of(self.registry))
        return target

    def foreign(self, url: str) -> Target:
        """The target of an address that a descriptor gives (image-spec, `urls`), judged by the guard. A bundle chose
        it, so no login is sent there."""
        return msgspec.structs.replace(self._judged(url, "", "a layer's urls"), anonymous=True)

    def _judged(self, location: str, base: str, what: str) -> Target:
        try:
            url = urljoin(base, location)
        except ValueError:
            url = location  # which the guard refuses
        self.guard.check(url, what)
        return absolute(url)

    def close(self) -> None:
        self._client.close()

    def _attempts(self, request: Request) -> Attempts:
        replayable = request.retry and request.stream is None
        return Attempts(
            retries=self.settings.retries if replayable else 0,
            budget=self.settings.retry_budget,
            meter=self.meter,
            cancel=self.cancel,
        )

    def _asked_to_wait(self, error: StoreError) -> float | None:
        """A 429 is meant for everybody here: all threads pause, and this one has nothing left to wait by itself."""
        asked = error.retry_after
        if asked is not None and isinstance(error, RateLimited) and asked <= self.settings.retry_budget:
            self._limiter.pause(asked)
        return asked

    @contextmanager
    def _exchange(self, request: Request) -> Iterator[OpenAnswer]:
        """One attempt. The very first one to a registry goes alone: it finds out how to speak and log in there, so
        that the others don't all have to."""
        with ExitStack() as stack:
            gate: ExitStack | None = None
            if not self._settled.is_set():
                gate = stack.enter_context(ExitStack())
                gate.enter_context(self._first)
            stack.enter_context(self._limiter.slot(blob=request.is_large))
            response, url = self._logged_in(request, stack)
            self._settled.set()
            if gate is not None:
                gate.close()
            if response.status_code not in request.expect:
                raise self._unwanted(response, request, url)
            self._watch_quota(response)
            yield OpenAnswer(response, url, lambda: self._chunks(response, request, url))

    def _logged_in(self, request: Request, stack: ExitStack) -> tuple[httpx.Response, str]:
        """Answers one challenge, and not a second: a login that is refused stays refused. Only the registry itself may
        ask for our login (class of CVE-2020-15157)."""
        again = False
        while True:
            sent = "" if request.target.anonymous else self._auth.authorization(request.scopes)
            response, url = self._follow(request, sent, stack)
            status = response.status_code
            if status not in REFUSALS or request.target.anonymous or not request.scopes or not self._is_own(url):
                return response, url
            headers = response.headers
            if (request.stream and status != 401) or not self._auth.refused(
                status, headers, request.scopes, sent, again
            ):
                return response, url
            if request.stream is not None:
                error = self._unavailable("the login ran out while a body was being sent", request, url)
                error.status = 401
                raise error
            release(response, self.cancel)
            again = True

    def _ask_base(self) -> Mapping[str, str]:
        """The headers of `GET /v2/` without a login (distribution-spec, end-1); none when there is no answer."""
        request = Request(
            method="GET", target=BASE, kind="base", scopes=(), operation="logging in", subject="", expect=frozenset()
        )
        with suppress(StoreError), ExitStack() as stack:
            return self._follow(request, "", stack)[0].headers
        return {}

    def _follow(self, request: Request, authorization: str, stack: ExitStack) -> tuple[httpx.Response, str]:
        """Redirects of reads are followed, without credentials to another host."""
        url = self._absolute(request.target)
        for _ in range(_REDIRECT_LIMIT + 1):
            response, url = self._once(request, url, authorization if self._is_own(url) else "", stack)
            location = response.headers.get("location")
            moved = response.status_code in _REDIRECTS and location
            if not moved or not request.follow or request.method not in ("GET", "HEAD"):
                return response, url
            release(response, self.cancel)
            url = str(self._judged(location, url, "a redirect"))
        raise Refused(
            f"more than {_REDIRECT_LIMIT} redirects",
            side=self.side,
            store=self.registry,
            subject=request.subject,
            operation=request.operation,
        )

    def _absolute(self, target: Target) -> str:
        return str(target) if target.origin else f"{origin_of(self.registry, self._scheme or 'https')}{target.path}"

    def _is_own(self, url: str) -> bool:
        """Is this the registry itself: its scheme, its host and its port?"""
        return split_url(url)[0] == origin_of(self.registry, self._scheme or "https")

    def _once(self, request: Request, url: str, authorization: str, stack: ExitStack) -> tuple[httpx.Response, str]:
        """Sends once; where plain http is permitted and TLS isn't spoken, the scheme is settled here."""
        try:
            response = self._send(request, url, authorization)
        except Unavailable as error:
            if self._scheme or not url.startswith("https:") or not speaks_no_tls(error.__cause__):
                raise
            plain = f"http{url.removeprefix('https')}"
            response = self._send(request, plain, authorization)
            self._scheme, url = "http", plain
        self._scheme = self._scheme or "https"
        stack.callback(release, response, self.cancel)
        return response, url

    def _send(self, request: Request, url: str, authorization: str) -> httpx.Response:
        self.cancel.check()
        headers = dict(request.headers)
        if authorization:
            headers["Authorization"] = authorization
        if request.length is not None:
            headers["Content-Length"] = str(request.length)
        content = request.stream() if request.stream is not None else request.body or None
        started = time.monotonic()
        try:
            outgoing = self._client.build_request(
                request.method, url, headers=headers, content=content, extensions={"timeout": dict(self._timeouts)}
            )
            response = self._client.send(outgoing, stream=True)
        except FOREIGN_MAPPED as error:
            if not isinstance(error, httpcore.ConnectError | httpcore.ConnectTimeout):
                self.meter.request(self.registry, f"{request.method} {request.kind}")
            raise self._broken(error, request, url) from error
        self.meter.request(self.registry, f"{request.method} {request.kind}")
        outgoing.extensions["timeout"]["read"] = self.settings.idle_timeout
        if _log.isEnabledFor(logging.DEBUG):
            took = time.monotonic() - started
            _log.debug("%s %s -> %d in %.3f s", request.method, shown(url), response.status_code, took)
        return response

    def _chunks(self, response: httpx.Response, request: Request, url: str) -> Iterator[bytes]:
        """The body, undecoded. A body that only drips is as dead as one that stalls."""
        window, got = time.monotonic(), 0
        try:
            for chunk in response.iter_raw():
                self.cancel.check()
                yield chunk
                got += len(chunk)
                now = time.monotonic()
                if now - window > self.settings.idle_timeout:
                    if got < self.settings.minimum_rate * (now - window):
                        raise self._unavailable(f"only {got} bytes in {now - window:.0f} s", request, url)
                    window, got = now, 0
        except FOREIGN_MAPPED as error:
            raise self._broken(error, request, url) from error

    def _broken(self, error: Exception, request: Request, url: str) -> StoreError:
        """Ours for a foreign exception. What broke because the run is being cancelled is a cancellation."""
        if self.cancel.cancelled:
            raise Cancelled from error
        cause = str(error) or type(error).__name__
        if isinstance(error, httpcore.TimeoutException | httpx.TimeoutException):
            return self._unavailable(f"no answer in time ({type(error).__name__})", request, url)
        if "CERTIFICATE_VERIFY_FAILED" in cause:
            cause = f"its certificate isn't trusted: {cause}"
        found = self._unavailable(cause, request, url)
        advice = tls_advice(cause)
        if advice:
            found.hint, found.retryable = advice, False
        return found

    def _unavailable(self, cause: str, request: Request, url: str) -> Unavailable:
        return Unavailable(
            f"{request.method} {shown(url)}: {cause}",
            side=self.side,
            store=self.registry,
            subject=request.subject,
            operation=request.operation,
            hint="check that the registry can be reached from here",
        )

    def _unwanted(self, response: httpx.Response, request: Request, url: str) -> StoreError:
        body = b""
        if request.method != "HEAD":
            try:
                for chunk in self._chunks(response, request, url):
                    body += chunk
                    if len(body) > ERROR_LIMIT:
                        break
            except StoreError:
                body = b""  # docker-registry's 416 announces the blob's length: the status says enough
        attempted = Attempted(
            side=self.side,
            registry=self.registry,
            subject=request.subject,
            operation=request.operation,
            method=request.method,
            url=url,
            identity=self._auth.identity(response.request.headers.get("authorization", "")),
        )
        error = error_for(response.status_code, response.headers, body, attempted)
        error.retry_after = retry_after(response.headers, datetime.now(UTC))
        return error

    def _watch_quota(self, response: httpx.Response) -> None:
        left = remaining_pulls(response.headers)
        if left is not None and self.settings.quota_reserve and left.count <= self.settings.quota_reserve:
            raise RateLimited(
                f"{left.count} pulls are left of the quota, and {self.settings.quota_reserve} are to be kept",
                side=self.side,
                store=self.registry,
                retryable=False,
                hint=f"the quota's window is {left.window:.0f} s long: try again later, or log in",
            )

    def _ask_token_service(self, method: str, url: str, headers: Mapping[str, str], form: Mapping[str, str]) -> Answer:
        body = str(httpx.QueryParams(dict(form))).encode()
        request = Request(
            method=method,
            target=absolute(url),
            kind="token",
            scopes=(),
            operation="logging in",
            subject="",
            expect=frozenset({200, 400, 401, 403, 404, 405}),
            headers={**headers, **({"Content-Type": "application/x-www-form-urlencoded"} if form else {})},
            body=body if form else b"",
        )
        attempts = self._attempts(request)
        while True:
            try:
                with closing(self._send(request, url, headers.get("Authorization", ""))) as response:
                    if response.status_code not in request.expect:
                        raise self._unwanted(response, request, url)
                    content = _bounded(self._chunks(response, request, url), PAGE_LIMIT, request, self)
                    return Answer(response.status_code, response.headers, content, url)
            except StoreError as error:
                attempts.again(error, error.retry_after)


def _bounded(chunks: Iterator[bytes], limit: int, request: Request, transport: Transport) -> bytes:
    body = bytearray()
    for chunk in chunks:
        body += chunk
        if len(body) > limit:
            raise Refused(
                f"the answer is longer than {limit} bytes",
                side=transport.side,
                store=transport.registry,
                subject=request.subject,
                operation=request.operation,
                hint="raise the manifest limit of this registry if it is to be trusted",
            )
    return bytes(body)
