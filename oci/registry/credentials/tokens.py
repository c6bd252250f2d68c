"""Tokens of a registry's token service: which scopes one is asked for, what the service answers, and those at hand. No
I/O."""

from __future__ import annotations

import base64
import math
import threading
import time
from collections.abc import Collection

import msgspec

from oci.descriptor import parse_json
from oci.registry.http.request import Scope

LONGEST_LIFETIME = 24 * 3600.0
"""Seconds that a token is used at most, whatever its service says."""

_REMEMBERED = 500
"""Authorization headers that are remembered: where each request needs a token of its own, there are many."""

_DEFAULT_LIFETIME = 60.0
"""Seconds, where a token service doesn't say (distribution's token specification)."""


class Token(msgspec.Struct):
    value: str
    scopes: frozenset[str]
    expires_at: float
    """On the monotonic clock."""

    uses: int = 1
    """Requests that it was taken for."""

    @property
    def header(self) -> str:
        return f"Bearer {self.value}"

    def __repr__(self) -> str:
        return f"Token({sorted(self.scopes)})"


class Sent(msgspec.Struct):
    """An Authorization header: who it names, in words, when it was first sent, and how many requests it was good for,
    by the actions that they needed."""

    identity: str
    since: float
    accepted: dict[str, int] = {}

    @property
    def uses(self) -> int:
        return sum(self.accepted.values())


class Tokens:
    """The tokens of one side at one registry, and the Authorization headers that were sent there. Safe from any
    thread. Some token services give tokens that are good for one request, or for a few: that shows when tokens end
    before their time, and from then on each is taken for no more requests than that."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tokens: list[Token] = []
        self._sent: dict[str, Sent] = {}
        self._ended: tuple[Sent, ...] = ()
        """The last two that ended before their time."""

    @property
    def uses(self) -> int:
        """Requests that a token is good for; 0 as long as no two ended before their time, which one may by chance."""
        return max(sent.uses for sent in self._ended) if len(self._ended) > 1 else 0

    def at_hand(self, scopes: Collection[str]) -> Token | None:
        """A token that covers the scopes, taken for one more request."""
        now = time.monotonic()
        with self._lock:
            uses = self.uses
            if uses:
                self._tokens = [token for token in self._tokens if token.uses < uses]
            for token in self._tokens:
                if token.expires_at > now and all(covers(token.scopes, scope) for scope in scopes):
                    token.uses += 1
                    return token
        return None

    def keep(self, token: Token) -> None:
        with self._lock:
            now = time.monotonic()
            self._tokens = [kept_token for kept_token in self._tokens if kept_token.expires_at > now]
            self._tokens.append(token)

    def drop(self, header: str) -> None:
        """Takes out a token that was refused. One that was good before, and whose time hasn't come, ended early."""
        with self._lock:
            token = next((token for token in self._tokens if token.header == header), None)
            if token is None:
                return
            self._tokens.remove(token)
            sent = self._sent.get(header)
            if sent is not None and sent.accepted and token.expires_at > time.monotonic():
                self._ended = (*self._ended[-1:], sent)

    def sent(self, header: str) -> Sent | None:
        """What is known of a header; None when it wasn't sent, or long ago."""
        return self._sent.get(header)

    def send(self, header: str, identity: str) -> bool:
        """Notes that a header is sent. True when that is news."""
        record = self._sent.get(header)
        if record is not None and record.identity == identity:
            return False
        with self._lock:
            self._sent[header] = Sent(identity, time.monotonic() if record is None else record.since)
            if len(self._sent) > _REMEMBERED:
                del self._sent[next(iter(self._sent))]
        return True


def basic(username: str, password: str) -> str:
    return f"Basic {base64.b64encode(f'{username}:{password}'.encode()).decode()}"


def scopes_to_ask(scopes: tuple[Scope, ...], offered: frozenset[str]) -> frozenset[str]:
    """The scopes to ask for. A registry may name a repository otherwise than its path (Artifactory, a proxy with path
    rules), or have scopes of its own (`aws` at ECR Public): its words are taken, but never for more actions than the
    request needs, and for another repository only when the one name ends with the other."""
    granted = set(map(str, scopes))
    for scope in offered:
        kind, _, named_scope = scope.partition(":")
        name, _, actions = named_scope.rpartition(":")
        if not named_scope:
            granted.add(scope)
        for needed in scopes:
            if kind != "repository" or not needed.repository:
                continue
            if name == needed.repository:
                # Old registries have no action of its own for a delete (distribution before 2.7).
                granted |= {scope} if actions == "*" and "delete" in needed.actions else set()
                continue
            if name.endswith(f"/{needed.repository}") or needed.repository.endswith(f"/{name}"):
                allowed = set(needed.actions.split(",")) & set(actions.split(","))
                granted |= {f"repository:{name}:{','.join(sorted(allowed))}"} if allowed else set()
    return frozenset(granted)


def covers(granted: frozenset[str], scope: str) -> bool:
    """Is `repository:a/b:pull` among the granted, perhaps as `repository:a/b:pull,push`?"""
    if scope in granted:
        return True
    name, _, actions = scope.rpartition(":")
    needed = set(actions.split(","))
    return any(
        name == other.rpartition(":")[0] and needed <= set(other.rpartition(":")[2].split(",")) for other in granted
    )


def read_token(data: bytes) -> tuple[str, float]:
    """Returns the token that a service answered with, and its lifetime in seconds. Raises ValueError."""
    try:
        body = parse_json(data)
        value = body.get("token") or body.get("access_token")
        lifetime = float(body.get("expires_in") or _DEFAULT_LIFETIME)
    except (TypeError, AttributeError, OverflowError) as error:
        raise ValueError("it is no answer of a token service") from error
    if not isinstance(value, str) or not value or not value.isascii() or not value.isprintable():
        raise ValueError("it has no token that a header could hold")
    if not math.isfinite(lifetime):
        raise ValueError("its token lives for ever")
    return value, min(lifetime if lifetime > 0 else _DEFAULT_LIFETIME, LONGEST_LIFETIME)
