"""What registries answer, and which of our errors it is (distribution-spec, "Error Codes")."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http
import re
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar
from urllib.parse import quote

from oci.descriptor import parse_json
from oci.errors import (
    Cancelled,
    CancelToken,
    Denied,
    NotFound,
    RateLimited,
    Refused,
    StoreError,
    Unauthorized,
    Unavailable,
)
from oci.registry.endpoints import Request
from oci.registry.http.body import WireError
from oci.registry.http.origin import Origin, Proxy
from oci.registry.http.pace import RETRIED_CODES, RETRIED_STATUSES, SLOW_DOWN_CODES, retry_after
from oci.registry.options import RegistryOptions

E = TypeVar("E", bound=StoreError)

ERROR_LIMIT = 64 << 10
"""Bytes of an error's body that are read."""

_SHORTEST_SECRET = 4
"""Characters of a password that is taken out of a text: less would take out half of it."""

PROXY_LOGIN = "the proxy wants a login: HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT (HTTP_PROXY for plain http)"
_USER = re.compile(r"//[^/@\s]*@")
_EXCERPT = 200
_HINTS = {
    404: "check the name, and that this identity may read it",
    407: PROXY_LOGIN,
    413: "something between here and the registry limits the size of requests: set a chunk size",
}


_SECRET_FIELD = re.compile(r"authori[sz]ation|cookie|token|secret|key|signature|credential|password", re.IGNORECASE)
_QUERY = re.compile(r"\?[^\s\">,]+")
_KEY = secrets.token_bytes(16)
_QUOTA = re.compile(r"\s*(\d{1,12})\s*(?:;\s*w=(\d{1,12}))?")


def remaining_pulls(headers: Mapping[str, str]) -> tuple[int, float] | None:
    """What Docker Hub says of its quota, `ratelimit-remaining: 76;w=21600`: pulls, and the length of the window in
    seconds. None where the registry says nothing of a quota."""
    match = _QUOTA.match(headers.get("ratelimit-remaining", ""))
    return (int(match.group(1)), float(match.group(2) or 0)) if match else None


class Peer:
    """A registry as one side speaks to it, and the errors of that: all of them say where and at what, and none carries
    a query."""

    def __init__(self, side: str, registry: str, settings: RegistryOptions, cancel: CancelToken) -> None:
        self.side = side
        self.registry = registry
        self.settings = settings
        self.cancel = cancel

    def __str__(self) -> str:
        return f"{self.side} {self.registry}".strip()

    def error(self, kind: type[E], message: str, subject: str = "", operation: str = "", **more: Any) -> E:
        """Makes an error that names this side and registry. The other methods here make those of single causes."""
        return kind(message, side=self.side, store=self.registry, subject=subject, operation=operation, **more)

    def broken(self, error: WireError, request: Request, url: str) -> StoreError:
        """For a connection that failed. What broke because the run is being cancelled is a cancellation."""
        if self.cancel.cancelled:
            raise Cancelled from error
        cause = str(error)
        if error.timed_out:
            cause = f"no answer in time ({cause})"
        if "CERTIFICATE_VERIFY_FAILED" in cause:
            cause = f"its certificate isn't trusted: {cause}"
        advice = _tls_advice(cause)
        return self._of(
            Unavailable,
            f"{request.kind.method} {shown(url)}: {cause}",
            request,
            retryable=not error.lasting and not advice,
            hint=advice or error.hint or "check that the registry can be reached from here",
        )

    def refused(self, message: str, request: Request, *, hint: str = "") -> StoreError:
        """For an answer that can't be worked with."""
        return self._of(Refused, message, request, hint=hint)

    def unwanted(
        self, status: int, headers: Mapping[str, str], body: bytes, request: Request, *, url: str, identity: str
    ) -> StoreError:
        """For a status that the request didn't expect. `identity` says in words who asked. A 429 of a quota that is
        used up for longer than the budget (Docker Hub) isn't to be tried again."""
        code, message = _explained(body, headers.get("content-type", ""))
        if code:
            detail = f"{code}: {message} ({status})" if message else f"{code} ({status})"
        else:
            phrase = next((known_status.phrase for known_status in http.HTTPStatus if known_status == status), "")
            detail = f"unexpected status code {status} {phrase}".rstrip() + (f": {message}" if message else "")
        problem = self._of(
            _kind(status, code),
            f"{request.kind.method} {shown(url)}: {detail}",
            request,
            status=status,
            code=code,
            retryable=status in RETRIED_STATUSES or code in RETRIED_CODES,
            hint=_hint(status, identity, self.registry),
        )
        problem.retry_after = retry_after(headers, datetime.now(UTC))
        pulls, window = remaining_pulls(headers) or (1, 0.0)
        if status == 429 and problem.retry_after is None and not pulls and window > self.settings.retry_budget:
            problem.retryable, problem.retry_after = False, window
            problem.hint = f"the quota is used up, and its window is {window:.0f} s long: log in, or wait"
        return problem

    def check_quota(self, headers: Mapping[str, str]) -> None:
        """Raises RateLimited where no more pulls are left than are to be kept."""
        quota, reserve = remaining_pulls(headers), self.settings.quota_reserve
        if quota is not None and reserve and quota[0] <= reserve:
            raise self.error(
                RateLimited,
                f"{quota[0]} pulls are left of the quota, and {reserve} are to be kept",
                retryable=False,
                hint=f"the quota's window is {quota[1]:.0f} s long: try again later, or log in",
            )

    def _of(self, kind: type[StoreError], message: str, request: Request, **more: Any) -> StoreError:
        return self.error(kind, message, request.subject, request.kind.operation, **more)


def at_proxy(proxy: Proxy, origin: Origin, why: str, *, status: int = 0, timed_out: bool = False) -> WireError:
    """For what fails on the way to `origin` at a proxy, which is nothing that the registry did: its answer with a
    `status`, or that it can't be reached."""
    if status:
        hint = f"the proxy can't reach {origin.authority}, or doesn't permit it: ask who runs it, or use NO_PROXY"
        return WireError(
            f"the proxy {proxy.origin} answers {status}",
            connecting=True,
            hint=PROXY_LOGIN if status == 407 else hint,
            lasting=300 <= status < 500 and status not in (408, 425, 429),
        )
    hint = f"check that the proxy can be reached from here, or name {origin.host} in NO_PROXY"
    return WireError(f"the proxy {proxy.origin}: {why}", timed_out=timed_out, connecting=True, hint=hint)


def shown(url: str) -> str:
    """A URL without its query, which may carry a signature."""
    return url.partition("?")[0]


def shown_fields(fields: Mapping[str, str], mark: str) -> str:
    """Header fields, each on a line of its own. In place of a secret is a fingerprint, which tells in one run whether
    two are the same and nothing else; URLs have no queries and no logins."""
    lines = []
    for name, value in fields.items():
        text = _USER.sub("//...@", _QUERY.sub("?...", _printable(value)))
        if _SECRET_FIELD.search(name):
            scheme = value.partition(" ")[0] if name.lower().endswith("authorization") else ""
            mark_of_it = hashlib.blake2b(value.encode(), key=_KEY, digest_size=4).hexdigest()
            text = f"{scheme} (fingerprint {mark_of_it})".lstrip()
        lines.append(f"\n  {mark} {name}: {text}")
    return "".join(lines)


def without_login(body: bytes, authorization: str) -> bytes:
    """The body of an error without the login that was sent: some gateways show what they were asked."""
    scheme, _, token = authorization.partition(" ")
    parts = [token]
    if scheme == "Basic":
        with contextlib.suppress(ValueError):
            password = base64.b64decode(token).partition(b":")[2].decode()
            parts += [password, quote(password, safe="")]
    for secret in parts:
        if len(secret) >= _SHORTEST_SECRET:
            body = body.replace(secret.encode(), b"***")
    return body


def _kind(status: int, code: str) -> type[StoreError]:
    if status == 429 or code in SLOW_DOWN_CODES:
        return RateLimited
    if status >= 500 or status in (408, 425):
        return Unavailable
    return {401: Unauthorized, 403: Denied, 404: NotFound}.get(status, Refused)


def _hint(status: int, who: str, registry: str) -> str:
    if status not in (401, 403):
        return _HINTS.get(status, "")
    if who == "anonymous":
        hint = "this was asked as anonymous: log in to the registry, or give credentials for it"
    elif status == 401:
        hint = f"this was asked as {who}: check that password or token, and that this is the login that was meant"
    else:
        hint = f"this was asked as {who}, who may not do it here"
    from oci.registry.credentials.keychains import advice  # noqa: PLC0415 - for a login that was refused

    keychain = advice(registry)
    return f"{hint}; {keychain}" if keychain else hint


def _tls_advice(cause: str) -> str:
    """What to do about a failed TLS handshake, which trying again won't mend; empty for any other failure."""
    if "CERTIFICATE_VERIFY_FAILED" in cause:
        return "name the registry's CA file (--registry-ca-cert-path), or check the host name"
    if "WRONG_VERSION_NUMBER" in cause:
        return "if it has no TLS, plain http has to be permitted: --registry-insecure, `insecure` in a form"
    return ""


def _explained(body: bytes, content_type: str) -> tuple[str, str]:
    """Code and message of the first error in an OCI error document, in AWS's or in Google's form of one, or an excerpt
    of whatever came instead."""
    try:
        document = parse_json(body)
        if isinstance(document.get("__type"), str):  # ECR, before a request reaches its registry
            return _printable(document["__type"].rpartition("#")[2]), _printable(str(document.get("message", "")))
        if isinstance(document.get("error"), dict):  # Google's APIs
            document = {"errors": [{**document["error"], "code": document["error"].get("status")}]}
        first: dict[str, Any] = document["errors"][0]
        code, message = first.get("code", ""), first.get("message", "")
        if isinstance(code, str) and isinstance(message, str):
            return _printable(code), _printable(message)
    except (ValueError, AttributeError, IndexError, TypeError, KeyError):
        pass
    text = body.decode(errors="replace")
    if "html" in content_type or text.lstrip().startswith("<"):
        text = _without_markup(text)
    return "", _printable(text)


def _without_markup(text: str) -> str:
    """In one pass for each: an expression over a page of nothing but `<` takes the square of its length."""
    for name in ("script", "style"):
        lower, parts, at = text.lower(), [], 0
        while (start := lower.find(f"<{name}", at)) >= 0 and (end := lower.find(f"</{name}", start)) >= 0:
            parts.append(text[at:start])
            at = end
        text = "".join((*parts, text[at:]))
    return re.sub(r"<[^<>]*>", " ", text)


def _printable(text: str) -> str:
    """One short line: a registry's text goes to a terminal."""
    line = " ".join("".join(character if character.isprintable() else " " for character in text).split())
    return line if len(line) <= _EXCERPT else f"{line[:_EXCERPT]}…"
