"""All requests to one registry from one side, and the one place where foreign exceptions become ours.

From the outside in: `send` and `open` make attempts; an attempt waits for its turn (`pace`), sends with the login
(`login`), answers one challenge, follows redirects and speaks HTTP (`connections`).
"""

from __future__ import annotations

import contextlib
import logging
import re
import ssl
import threading
import time
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlencode, urljoin

from oci import __version__
from oci.digest import end_read
from oci.errors import CancelToken, InvalidReference, Refused, StoreError
from oci.meter import Meter
from oci.reference import Repository
from oci.registry.auth import REFUSALS, Authenticator
from oci.registry.credentials.credential import Credentials
from oci.registry.endpoints import BASE, Kind, Request, RequestTarget, Scope
from oci.registry.http.address_policy import AddressPolicy, is_loopback
from oci.registry.http.answer import SHORT, Answer, OpenAnswer
from oci.registry.http.body import Response, WireError
from oci.registry.http.connections import Connections
from oci.registry.http.errors import ERROR_LIMIT, Peer, shown, shown_fields, without_login
from oci.registry.http.origin import Origin, origin_of, split_url
from oci.registry.http.pace import Attempts, Pace, TokenBucket, is_slow_down
from oci.registry.options import RegistryOptions
from oci.registry.profiles import Learned
from oci.registry.state import State

if TYPE_CHECKING:
    from oci.registry.http.http2 import Http2Response

T = TypeVar("T")

PAGE_LIMIT = 16 << 20
"""Bytes of a whole answer that isn't a manifest: a page of tags or referrers."""

_USER_AGENT = f"transship/{__version__}"
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_WITH_BODY = frozenset({307, 308})
"""Redirects that keep the method and the body (RFC 9110, 15.4.8 and 15.4.9): those of a write."""

_ORDINARY = re.compile(r"(?:/[\w~-][\w.~-]*)+/?(?:\?[\w.~%=&:+/-]*)?", re.ASCII)
"""A path, perhaps with a query, in which nothing is relative, encoded or to be encoded."""

_REDIRECT_LIMIT = 10
_LOGINS = 50
"""Times that a request is sent with a login: as many threads may share a token that is good for a single request."""

_GET_BASE = Kind("GET", "base", "end-1", "logging in", frozenset())
_FROM_TOKEN_SERVICES = frozenset({200, 400, 401, 403, 404, 405, 501})
_log = logging.getLogger("transship.http")


class Transport(Peer):
    """Safe from any thread."""

    def __init__(
        self,
        registry: str,
        *,
        settings: RegistryOptions,
        credentials: Credentials,
        side: str,
        meter: Meter,
        cancel: CancelToken,
        state: State,
        named: Collection[str] | None = None,
    ) -> None:
        """`named` are the hosts that the user named, see AddressPolicy; None where that isn't known."""
        super().__init__(side, registry, settings, cancel)
        self.meter = meter
        self.learned = learned = Learned(registry, meter, settings.profile, state if settings.state else None)
        self.policy = AddressPolicy(self, named)
        self.pace = Pace(
            ceiling=settings.concurrency, meter=meter, cancel=cancel, caps=learned.profile.caps, learned=learned.rates
        )
        self._allowed = TokenBucket.of(f"requests {origin_of(registry).authority}", settings.requests_per_second)
        self.login = Authenticator(self, credentials)
        self._connections = Connections(self, self.policy)
        cancel.on_cancel(self._connections.cut)
        self._origin = origin_of(registry)
        """Of the registry itself: https, until it turned out that only http is spoken where that is permitted."""
        self._scheme_known = not self.policy.http_allowed
        self._settled = threading.Event()
        self._first = threading.Lock()
        self._fields = {"User-Agent": _USER_AGENT, "Accept-Encoding": "identity", "Accept": "*/*"}

    def send(self, request: Request) -> Answer:
        """Sends and reads the whole answer; a broken body is a failed attempt like any other."""
        limit = self.settings.manifest_limit if request.kind.resource == "manifest" else PAGE_LIMIT

        def whole() -> Answer:
            with self._attempt(request) as answer:
                body = b"" if request.kind.method == "HEAD" else answer.read(limit)
                return Answer(answer.status, answer.headers, body, answer.url)

        return self._retried(request, whole)

    def open(self, request: Request) -> OpenAnswer:
        """Sends and gives the answer while its body is still to come; retried only until then."""
        return self._retried(request, lambda: self._attempt(request))

    def resolve(self, location: str, base: str, subject: str = "", pointer: str = "a Location header") -> RequestTarget:
        """The target of a Location, or of an address that a descriptor gives (image-spec, `urls`), judged by the
        address policy; `subject` is for its errors."""
        try:
            return self._judged(location, base, pointer)
        except StoreError as error:
            error.subject = subject
            raise

    def attempts(self, *, retry: bool = True) -> Attempts:
        """The attempts of a call; without `retry` it waits out slow-downs alone."""
        retries = self.settings.retries if retry else 0
        return Attempts(retries=retries, budget=self.settings.retry_budget, meter=self.meter, cancel=self.cancel)

    def close(self) -> None:
        self._connections.close()
        self.login.close()

    def _retried(self, request: Request, attempt: Callable[[], T]) -> T:
        """Makes attempts until one succeeds, or no more are worth it. A body that streams is sent again by the caller,
        who knows how; every other request waits out a slow-down, also when it is to be tried only once."""
        attempts: Attempts | None = None
        while True:
            try:
                return attempt()
            except StoreError as error:
                if request.stream is not None:
                    raise
                attempts = attempts or self.attempts(retry=request.retry)
                attempts.again(error, error.retry_after)

    def _attempt(self, request: Request) -> OpenAnswer:
        """One attempt. The very first one to a registry goes alone: it learns how to speak and log in there, so that
        the others don't all have to."""
        if not self._settled.is_set():
            with self._first:
                if not self._settled.is_set():
                    return self._checked(request)
        return self._checked(request)

    def _checked(self, request: Request) -> OpenAnswer:
        answer = OpenAnswer(request, self, self.pace)
        try:
            sent = self._logged_in(answer, request)
            self._settled.set()
            self._check(answer, request, sent)
        except BaseException as error:
            answer.__exit__(type(error), error, error.__traceback__)
            if isinstance(error, StoreError) and (error.side, error.store) == (self.side, self.registry):
                # What a body that is read elsewhere raises isn't about this registry.
                error.subject = error.subject or request.subject  # of a redirect, a realm: what was asked for
                self._slow_down(error, request, answer.started)
            raise
        return answer

    def _slow_down(self, error: StoreError, request: Request, started: float) -> None:
        """A 429 is meant for all threads that send such requests. A pause beyond the budget ends the work here."""
        requested_wait = error.retry_after
        used_up = error.status == 429 and not error.retryable and requested_wait is not None
        if not is_slow_down(error) and not used_up:
            return
        if requested_wait is not None and requested_wait > self.settings.retry_budget:
            self.pace.end(error, requested_wait)
        else:
            self.pace.slow_down(request.kind.family, started, requested_wait, everything=error.status == 503)

    def _logged_in(self, answer: OpenAnswer, request: Request) -> str:
        """Sends with the login, and answers a challenge. Only the registry itself may ask for our login (class of
        CVE-2020-15157). Gives the Authorization sent last."""
        sent = self.login.authorization(request.scopes) if request.scopes else ""
        for tries in range(_LOGINS):
            is_own = self._follow(answer, request, sent)
            status = answer.status
            if is_own and not self._settled.is_set():
                self.learned.recognise(answer.headers)
            if not is_own or not request.scopes:
                break
            if status not in REFUSALS or (request.stream is not None and status != 401):
                break
            other = self.login.refused(status, answer.headers, request.scopes, sent, again=tries > 0)
            if other is None:
                break
            answer.drop()
            sent = other
        return sent

    def ask_base(self) -> Mapping[str, str]:
        """The headers of `GET /v2/` without a login (distribution-spec, end-1); none when there is no answer."""
        request = Request(kind=_GET_BASE, target=BASE)
        with contextlib.suppress(StoreError):
            response, _ = self._exchange(request, self._origin, BASE.path, "")
            response.release(drain=SHORT)
            return response.headers
        return {}

    def realm(self, realm: str) -> RequestTarget:
        """The target of a realm, which is absolute, or a path of the registry's own."""
        is_path = realm.startswith("/") and not realm.startswith("//")
        return self._judged(realm, f"{self._origin}/" if is_path else "", "the token realm")

    def _follow(self, answer: OpenAnswer, request: Request, authorization: str) -> bool:
        """Sends, and follows redirects: a write with its body, and without the login to another origin, nor back from
        there: it was another's choice where to. Gives whether the answer is the registry's own."""
        if not self._scheme_known:
            self._find_scheme(request)
        origin, path = request.target.origin or self._origin, request.target.path
        redirects = _REDIRECTS if request.kind.method in ("GET", "HEAD") else _WITH_BODY
        is_own = True
        for _ in range(_REDIRECT_LIMIT + 1):
            is_own = is_own and origin == self._origin
            started = time.monotonic()
            response, url = self._exchange(request, origin, path, authorization if is_own else "")
            answer.take(response, url)
            if is_own and authorization and response.status != 401 and response.status < 500:
                self.login.accepted(request.scopes, authorization, started)
            location = response.headers.get("location")
            if not location or response.status not in redirects:
                return is_own
            target = self._judged(location, url, "a redirect")
            if request.stays and target.origin != origin:
                return is_own
            answer.drop()
            origin, path = target.origin or origin, target.path
        raise self.refused(f"more than {_REDIRECT_LIMIT} redirects", request)

    def _exchange(
        self, request: Request, origin: Origin, path: str, authorization: str
    ) -> tuple[Response | Http2Response, str]:
        """One request on the wire and its answer. What is asked once more with a login, or redirected within the
        registry, is two."""
        self.cancel.wait(self._allowed.take(1) if origin == self._origin else 0.0)
        url, method = f"{origin}{path}", request.kind.method
        fields = {**self._fields, **request.headers}
        if authorization:
            fields["Authorization"] = authorization
        length = len(request.body) if request.stream is None else request.length
        if length is not None and (length or method in ("POST", "PUT", "PATCH")):
            fields["Content-Length"] = str(length)
        started = time.monotonic()
        stream = request.stream() if request.stream is not None else None
        try:
            response = self._connections.exchange(
                origin,
                method,
                path,
                fields,
                body=request.body,
                stream=stream,
                length=length,
                repeatable=stream is None and (request.retry or method in ("GET", "HEAD")),
            )
        except WireError as error:
            if not error.connecting:
                self.meter.request(self.registry, str(request.kind))
            raise self.broken(error, request, url) from error
        finally:
            if stream is not None:
                end_read(stream)
        self.meter.request(self.registry, str(request.kind))
        if _log.isEnabledFor(logging.DEBUG):
            took = time.monotonic() - started
            sent, came = shown_fields(fields, ">"), shown_fields(response.headers, "<")
            _log.debug("%s %s -> %d in %.3f s%s%s", method, shown(url), response.status, took, sent, came)
        return response, url

    def _find_scheme(self, request: Request) -> None:
        """Finds out whether TLS is spoken where plain http is permitted. TLS is tried first, and a certificate that
        isn't trusted is no reason to do without."""
        try:
            self._connections.probe(self._origin)
        except WireError as error:
            if not self._may_be_plain(error, request):
                raise self.broken(error, request, f"{self._origin}/") from error
            self._origin = origin_of(self.registry, "http")
        self._scheme_known = True

    def _may_be_plain(self, error: WireError, request: Request) -> bool:
        """Was it a server that answers TLS with something else, or none at the port of TLS? With a login in hand, only
        an answer in plain http counts away from this machine: whoever can cut a connection could ask for it."""
        cause = error.__cause__
        text = str(cause).upper()
        if error.hint or isinstance(cause, TimeoutError) or "CERTIFICATE" in text:  # a hint: it was the proxy
            return False
        spoken = isinstance(cause, ssl.SSLError) and any(
            sign in text for sign in ("WRONG_VERSION", "RECORD", "HTTP_REQUEST")
        )
        repository = request.scopes[0].repository if request.scopes else ""
        if is_loopback(self._origin.host) or self.login.credential(repository).is_anonymous:
            return spoken or isinstance(cause, ConnectionError | ssl.SSLError)
        return spoken and self._connections.proxy_for(self._origin) is None

    def _judged(self, location: str, base: str, pointer: str) -> RequestTarget:
        """The target that `location` names, relative to `base`, once the address policy agrees. A target on the
        registry's own origin needs no judgement: it was connected to. Behind a proxy that ends TLS a registry often
        names itself with http: that isn't followed, TLS is kept. One that speaks no TLS may name itself with https."""
        own_prefix = f"{self._origin}/"
        path = location.removeprefix(own_prefix[:-1])
        if base.startswith(own_prefix) and path.startswith("/") and _ORDINARY.fullmatch(path):
            return RequestTarget(path, self._origin)
        try:
            origin, path = split_url(urljoin(base, location))
        except (InvalidReference, ValueError) as error:
            raise self.policy.refused(f"{pointer} points to something that is no web address") from error
        if origin == origin_of(self.registry, origin.scheme):
            origin = self._origin
        self.policy.check(origin, pointer)
        return RequestTarget(path, origin)

    def _check(self, answer: OpenAnswer, request: Request, sent: str) -> None:
        """Raises the error that an unexpected status means, and RateLimited where the quota has to be spared."""
        if answer.status in request.kind.expect or answer.status in request.kind.absent:
            if "ratelimit-remaining" in answer.headers:
                self.check_quota(answer.headers)
            return
        body = answer.excerpt(ERROR_LIMIT) if request.kind.method != "HEAD" else b""
        body, identity = without_login(body, sent), self.login.identity(sent)
        error = self.unwanted(answer.status, answer.headers, body, request, url=answer.url, identity=identity)
        error.redirected = not answer.url.endswith(request.target.path)
        raise error

    def ask_token_service(self, method: str, url: str, headers: Mapping[str, str], form: Mapping[str, str]) -> Answer:
        """Sends one request to a token service. Its challenges are never answered; redirects are followed to the
        service itself alone, as the login goes with them."""
        origin, path = split_url(url)
        request = Request(
            kind=Kind(method, "token", "", "logging in", _FROM_TOKEN_SERVICES),
            target=RequestTarget(path, origin),
            headers={**headers, **({"Content-Type": "application/x-www-form-urlencoded"} if form else {})},
            body=urlencode(form).encode() if form else b"",
            stays=True,
        )

        def whole() -> Answer:
            answer = OpenAnswer(request, self, None)
            try:
                self._follow(answer, request, "")
                self._check(answer, request, request.headers.get("Authorization", ""))
                return Answer(answer.status, answer.headers, answer.read(PAGE_LIMIT), answer.url)
            finally:
                answer.drop()

        return self._retried(request, whole)


class Remote:
    """A repository at a registry: how it is reached, and what was learned about the registry."""

    def __init__(self, transport: Transport, name: Repository) -> None:
        self.transport = transport
        self.name = name
        self.learned = transport.learned

    def request(self, kind: Kind, target: RequestTarget, subject: str = "", **more: Any) -> Request:
        """A kind with a plain way isn't repeated after a failure: the plain way is, if that fails too."""
        scopes = more.pop("scopes", None) or (Scope(self.name.path, kind.actions, kind.apart),)
        retry = more.pop("retry", not kind.plain_way)
        return Request(kind=kind, target=target, scopes=scopes, subject=subject or str(self.name), retry=retry, **more)

    def send(self, kind: Kind, target: RequestTarget, subject: str = "", **more: Any) -> Answer:
        return self.transport.send(self.request(kind, target, subject, **more))

    def check_answered(self, error: StoreError) -> None:
        """Raises `error` when the registry didn't answer at all and nothing is to be tried again."""
        if not error.status and not self.transport.settings.retries:
            raise error

    def refused(self, kind: Kind, message: str, subject: str = "") -> Refused:
        """Makes the error for an answer that can't be used."""
        return self.transport.error(Refused, message, subject or str(self.name), kind.operation)
