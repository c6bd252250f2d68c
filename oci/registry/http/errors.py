"""What registries answer, and which of our errors it is (distribution-spec, "Error Codes")."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from oci.errors import Denied, NotFound, RateLimited, Refused, StoreError, Unauthorized, Unavailable
from oci.registry.credentials.keychains import advice
from oci.registry.http.retry import worth_retrying

ERROR_LIMIT = 64 << 10
"""Bytes of an error's body that are read."""

_EXCERPT = 200
_HINTS = {
    404: "check the name, and that this identity may read it",
    413: "something between here and the registry limits the size of requests: set a chunk size",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer, body included."""

    status: int
    headers: httpx.Headers
    body: bytes
    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempted:
    """What an error has to say about the request: all of it safe to show, queries left out."""

    side: str
    registry: str
    subject: str
    operation: str
    method: str
    url: str
    identity: str = ""
    """Who asked, in words."""


def shown(url: str) -> str:
    """A URL without its query, which may carry a signature."""
    return url.partition("?")[0]


def error_for(status: int, headers: Mapping[str, str], body: bytes, attempted: Attempted) -> StoreError:
    """The error that an unwanted answer means."""
    code, said = _explained(body, headers.get("content-type", ""))
    lead = f"{attempted.method} {shown(attempted.url)}"
    if code:
        detail = f"{code}: {said} ({status})" if said else f"{code} ({status})"
    else:
        detail = f"{status} {said or httpx.codes.get_reason_phrase(status)}"
    kind: type[StoreError]
    if status == 401:
        kind = Unauthorized
    elif status == 403:
        kind = Denied
    elif status == 404:
        kind = NotFound
    elif status == 429 or code == "TOOMANYREQUESTS":
        kind = RateLimited
    elif status >= 500 or status in (408, 425):
        kind = Unavailable
    else:
        kind = Refused
    return kind(
        f"{lead}: {detail}",
        side=attempted.side,
        store=attempted.registry,
        subject=attempted.subject,
        operation=attempted.operation,
        status=status,
        code=code,
        retryable=worth_retrying(status, code),
        hint=_hint(status, attempted),
    )


def _hint(status: int, attempted: Attempted) -> str:
    if status not in (401, 403):
        return _HINTS.get(status, "")
    who = attempted.identity or "anonymous"
    if who == "anonymous":
        hint = "this was asked as anonymous: log in to the registry, or give credentials for it"
    elif status == 401:
        hint = f"this was asked as {who}: check that password or token, and that this is the login that was meant"
    else:
        hint = f"this was asked as {who}, who may not do it here"
    keychain = advice(attempted.registry)
    return f"{hint}; {keychain}" if keychain else hint


def tls_advice(cause: str) -> str:
    """What to do about a failed TLS handshake, which trying again won't mend; empty for any other failure."""
    if "CERTIFICATE_VERIFY_FAILED" in cause:
        return "name the registry's CA file (--registry-ca-cert-path), or check the host name"
    if "WRONG_VERSION_NUMBER" in cause:
        return "if it has no TLS, plain http has to be permitted: --registry-insecure, `insecure` in a form"
    return ""


def _explained(body: bytes, content_type: str) -> tuple[str, str]:
    """Code and message of the first error in an OCI error document, or an excerpt of whatever came instead."""
    try:
        errors = json.loads(body).get("errors")
        first: dict[str, Any] = errors[0]
        code, message = first.get("code", ""), first.get("message", "")
        if isinstance(code, str) and isinstance(message, str):
            return _printable(code), _printable(message)
    except (ValueError, AttributeError, IndexError, TypeError, KeyError, RecursionError):
        pass
    text = body.decode(errors="replace")
    if "html" in content_type or text.lstrip().startswith("<"):
        text = re.sub(r"<(script|style).*?</\1>|<[^>]*>", " ", text, flags=re.DOTALL | re.IGNORECASE)
    return "", _printable(text)


def _printable(text: str) -> str:
    """One short line: a registry's text goes to a terminal."""
    line = " ".join("".join(one if one.isprintable() else " " for one in text).split())
    return line if len(line) <= _EXCERPT else f"{line[:_EXCERPT]}…"
