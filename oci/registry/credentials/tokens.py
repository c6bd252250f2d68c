"""Tokens of a registry's token service (distribution's token specification): what it answers, which are at hand, and in
which order a login was given them: most live side by side, and some services end the older ones whenever they give
another, of any repository or of the same."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Collection, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import ClassVar
from weakref import WeakValueDictionary

import msgspec

from oci.descriptor import parse_json
from oci.registry.endpoints import Scope

LONGEST_LIFETIME = 24 * 3600.0
"""Seconds that a token is used at most, whatever its service says."""

_HEADERS = 500
"""Authorization headers that are remembered: where each request needs a token of its own, there are many."""

_DEFAULT_LIFETIME = 60.0
"""Seconds, where a token service doesn't say (distribution's token specification)."""

SCOPES = 25
"""Repositories that one token is asked for: some 1,500 characters of a URL."""

TURN = 3.0
"""Times as long as it took to fetch a token, it has to be good for a request before another takes its place."""

LONGEST_TURN = 1.0
"""Seconds, at the most."""

PATIENCE = 4
"""Fresh tokens that may be refused in a row for what earlier ones were good for: another process may end them."""

_REMEMBERED = 100
"""Tokens that are looked at when another one is given."""

_STRIKES = 2
"""Tokens that ended when another was given, before there is only one at a time: one may by chance."""

ANY, SAME_REPOSITORY, SAME_SCOPE, NONE = range(4)
"""How alike another token has to be to a token that it ends: of the same login, for a repository of it, for a scope of
it (repository and actions); none ends it where tokens live side by side."""


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


class Token(msgspec.Struct, eq=False):
    """A token that is asked for, and has a value once it is given. All times are on the monotonic clock."""

    scopes: frozenset[str]
    succession: Succession
    asked_at: float
    given_at: float = math.inf
    value: str = ""
    expires_at: float = 0.0
    uses: int = 1
    """Requests that it was taken for."""

    accepted: int = 0
    """Requests that it was good for, as far as their answers are here."""

    refusals: int = 0
    good_for: set[Scope] = msgspec.field(default_factory=set)
    newer_at: list[float] = msgspec.field(default_factory=lambda: [math.inf] * (NONE + 1))
    """When a token that was asked for after this one was given was there, by how alike it is at least."""

    is_only: bool = False
    """Was it given when there was one token at a time?"""

    has_ended: bool = False
    """Was it refused, not used up, when it may have ended because another was given?"""

    @property
    def was_never_good(self) -> bool:
        """Whether each request that it was taken for was refused: no request can have used it up."""
        return not self.accepted and self.refusals >= self.uses

    def serves(self, scopes: Collection[str]) -> bool:
        """Whether it lives, and covers all of the scopes."""
        return self.expires_at > time.monotonic() and all(covers(self.scopes, scope) for scope in scopes)

    def likeness(self, other: Token) -> int:
        """How alike both are: SAME_SCOPE, SAME_REPOSITORY (`repository:a/b` of `repository:a/b:pull`) or ANY."""
        scopes, others = {*map(_split, self.scopes)}, {*map(_split, other.scopes)}
        if not scopes.isdisjoint(others):
            return SAME_SCOPE
        return ANY if dict(scopes).keys().isdisjoint(dict(others)) else SAME_REPOSITORY

    def __repr__(self) -> str:
        return f"Token({sorted(self.scopes)})"


class Succession:
    """Safe from any thread. All sides and sessions of this process share it: a service that ends older tokens doesn't
    ask whose they were.

    A token that is refused before its time ended either by a newer one, or it was good for so many requests, or it is
    refused for what was asked with it. Only the first is mended by one token for all, so that is tried when tokens that
    no request has used up are refused, and proven when the only token is good for what was refused.
    """

    _shared: ClassVar[WeakValueDictionary[Hashable, Succession]] = WeakValueDictionary()
    _sharing = threading.Lock()

    def __init__(self) -> None:
        self.alone = False
        """Is one token at a time used, for all repositories?"""
        self.verdict: bool | None = None
        """Does a new token end the older ones? None as long as it isn't known."""
        self.current: Token | None = None
        """The only token, as long as it is good."""
        self.fetching = threading.Lock()
        """Held by the thread that fetches the only token."""
        self._lock = threading.RLock()
        self._used = threading.Condition()
        self._latest: tuple[Token, ...] = ()
        self._scopes: dict[str, frozenset[str]] = {}
        """Actions by what they are for; what was wanted last is at the end."""
        self.mixes = True
        """False where the service refuses several scopes at once (GitLab): tokens take turns."""
        self._good_for: set[Scope] = set()
        """What tokens were good for."""
        self._refused: dict[Scope, set[str]] = {}
        """Tokens that were refused for it since one was good for it, though none may have ended them."""
        self._ends = ANY
        """How alike a newer token has to be to end an older one: less than that, and the older one was good for a
        request that began after the newer one was given."""
        self._most = 0
        """Requests that a token was good for."""
        self._strikes: list[int] = []
        """Of tokens that ended when another was given: how alike the other is."""
        self._missed: set[Scope] = set()
        """What was refused with tokens that may have ended when another was given."""

    @classmethod
    def of(cls, key: Hashable) -> Succession:
        """Returns the one of a login at a token service."""
        with cls._sharing:
            return cls._shared.setdefault(key, cls())

    def know(self) -> None:
        """Takes over from an earlier run that there is one token at a time."""
        self.alone = self.verdict = True

    @contextmanager
    def asking(self, scopes: frozenset[str]) -> Iterator[Token]:
        """While the block runs, the service is asked for a token: older ones may have ended before it is here."""
        token = Token(scopes, self, time.monotonic())
        with self._lock:
            self._latest = (*self._latest[-_REMEMBERED:], token)
        try:
            yield token
        finally:
            if token.given_at == math.inf:
                with self._lock:
                    self._latest = tuple(other for other in self._latest if other is not token)

    def give(self, token: Token) -> None:
        """Takes in that the service gave a token."""
        now = time.monotonic()
        with self._lock:
            for other in () if self._ends == NONE else self._latest:
                if other.value != token.value and other.given_at <= token.asked_at:
                    for likeness in range(other.likeness(token) + 1):
                        other.newer_at[likeness] = min(other.newer_at[likeness], now)
            self.want(token.scopes)
            token.given_at, token.is_only = now, self.alone
            self.current = token if self.alone and not self._others_since(token) else None

    def _others_since(self, token: Token) -> list[Token]:
        """Tokens that were given since it was asked for, or are asked for now: of two that are fetched at the same
        time, either may be the newer."""
        return [other for other in self._latest if other.given_at > token.asked_at and other.value != token.value]

    def may_have_ended(self, token: Token) -> bool:
        """Whether a token may have ended because another was given since, or is being given."""
        return self._likest_since(token) >= self._ends

    def _likest_since(self, token: Token) -> int:
        """How alike the most similar of the tokens is that were given since; -1 where there is none."""
        others = () if self._ends == NONE else self._others_since(token)
        return max(map(token.likeness, others), default=-1)

    def accept(self, token: Token, scope: Scope, started: float) -> None:
        """Takes in that a token was good for a request that began at a moment of the monotonic clock."""
        token.good_for.add(scope)
        if token.accepted:
            token.accepted += 1
        else:
            with self._used:
                token.accepted = 1
                self._used.notify_all()
        self._most = max(self._most, token.accepted)
        if token.newer_at[self._ends] < started and not self.verdict:
            with self._lock:
                while token.newer_at[self._ends] < started:
                    self._ends += 1
                self._strikes = [likeness for likeness in self._strikes if likeness >= self._ends]
                self.alone = len(self._strikes) >= _STRIKES
        self._good_for.add(scope)
        self._refused.pop(scope, None)
        if self.alone and not self.verdict and token is self.current and scope in self._missed:
            self.verdict = True

    def refuse(self, token: Token, scope: Scope) -> None:
        """Takes in that a token was refused."""
        with self._lock:
            token.refusals += 1
            is_used_up = not token.was_never_good and (token.is_only or token.uses > self._most)
            likeness = -1 if token.has_ended or is_used_up else self._likest_since(token)
            if likeness >= self._ends:
                token.has_ended = True
                self._missed.add(scope)
                self._strikes.append(likeness)
                self.alone = self.alone or len(self._strikes) >= _STRIKES

    def end_by_itself(self, ended: Sequence[Token]) -> None:
        """Takes in the last tokens that ended although no other was given. Where this run has seen that a new one ends
        the older ones, another process does. Else it is how they are: twice while that is tried, or twice after so many
        requests where an earlier run has seen it."""
        if not self.alone or len(ended) < 2 or not all(token.is_only for token in ended):
            return
        is_seen = self.verdict and self._missed
        if not is_seen and (not self.verdict or ended[0].accepted == ended[1].accepted):
            with self._lock:
                self.alone = self.verdict = False
                self._strikes.clear()
                self._missed.clear()

    def denies(self, token: Token, scope: Scope) -> bool:
        """Whether a token is refused for what none was ever good for, or the last ones were not good for; and
        remembers that. A token that is being fetched may have ended the only one. Where no token has ended when another
        was given, the first refusal of a fresh token is the last."""
        if not (self.alone or self._missed):
            return True
        with self.fetching if self.alone else nullcontext():
            if (token is self.current or not self.alone) and not self.may_have_ended(token):
                self._refused.setdefault(scope, set()).add(token.value)
            refusals = len(self._refused.get(scope, ()))
            return refusals > (PATIENCE if scope in self._good_for else 0)

    def drop(self, token: Token) -> None:
        with self._lock:
            if token is self.current:
                self.current = None

    def want(self, scopes: Iterable[str]) -> None:
        """Says which scopes the only token has to cover from now on, beside those that were given before there was one
        token at a time: each further one ends what is in use."""
        with self._lock:
            for subject, actions in map(_split, scopes):
                if actions:
                    self._scopes[subject] = self._scopes.pop(subject, frozenset()) | actions

    def forget(self, scopes: Iterable[str]) -> None:
        """The service refuses these scopes, also when they are asked for alone."""
        with self._lock:
            self.mixes = True
            for scope in scopes:
                self._scopes.pop(scope.rpartition(":")[0], None)

    def union(self, scopes: frozenset[str]) -> frozenset[str]:
        """The scopes to ask for: the given, and those that were wanted last."""
        if not self.mixes:
            return scopes
        with self._lock:
            last = list(self._scopes.items())[-SCOPES:]
        union = frozenset(f"{subject}:{','.join(sorted(actions))}" for subject, actions in last)
        return union | {scope for scope in scopes if not covers(union, scope)}

    def at_hand(self, scopes: Collection[str]) -> Token | None:
        """The only token, where it covers the scopes."""
        token = self.current
        return token if token is not None and token.serves(scopes) else None

    def wait_for_use(self) -> None:
        """Waits until the only token was good for a request, or for a moment: tokens that end each other before any
        request comes through would get nowhere."""
        token = self.current
        if token is not None:
            turn = min(LONGEST_TURN, TURN * (token.given_at - token.asked_at))
            with self._used:
                self._used.wait_for(lambda: token.accepted or token is not self.current, turn)


def _split(scope: str) -> tuple[str, frozenset[str]]:
    """What a scope is for, and its actions, which are named in any order; `aws` at ECR Public has none."""
    subject, _, actions = scope.rpartition(":")
    return (subject, frozenset(actions.split(","))) if subject else (scope, frozenset())


def covers(granted: frozenset[str], scope: str) -> bool:
    """Is `repository:a/b:pull` among the granted, perhaps as `repository:a/b:pull,push`?"""
    if scope in granted:
        return True
    name, _, actions = scope.rpartition(":")
    needed = set(actions.split(","))
    return any(
        name == other.rpartition(":")[0] and needed <= set(other.rpartition(":")[2].split(",")) for other in granted
    )


class Sent(msgspec.Struct):
    """An Authorization header: who it names, in words, when it was first sent, and the token in it, if it has one that
    a token service gave."""

    identity: str
    since: float
    grant: Token | None = None


class Tokens:
    """The tokens of one side at one registry, and the Authorization headers that were sent there. Safe from any
    thread. Some token services give tokens that are good for one request, or for a few: that shows when tokens end
    before their time, and from then on each is taken for no more requests than that."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tokens: list[Token] = []
        self.sent: dict[str, Sent] = {}
        """By Authorization header, those of late."""
        self._ended: tuple[Token, ...] = ()
        """The last two that ended before their time."""

    @property
    def uses(self) -> int:
        """Requests that a token is good for; 0 as long as no two ended before their time, which one may by chance."""
        return max(token.accepted for token in self._ended) if len(self._ended) > 1 else 0

    def at_hand(self, scopes: Collection[str]) -> Token | None:
        """A token that covers the scopes, taken for one more request."""
        with self._lock:
            uses = self.uses
            if uses:
                self._tokens = [token for token in self._tokens if token.uses < uses]
            # The newest: others may have ended when it was given.
            token = next((token for token in reversed(self._tokens) if token.serves(scopes)), None)
            if token is not None:
                token.uses += 1
            return token

    def keep(self, token: Token) -> Token:
        with self._lock:
            now = time.monotonic()
            self._tokens = [*(other for other in self._tokens if other.expires_at > now), token]
        return token

    def drop(self, header: str, scope: Scope) -> None:
        """Takes out a token that was refused. One that was good before, and whose time hasn't come, ended early; unless
        it was the only one, and is refused for one repository alone, or was ended by another that was given."""
        with self._lock:
            sent = self.sent.get(header)
            token = sent.grant if sent is not None else None
            if token is None or not (token in self._tokens or token is token.succession.current):
                return
            self._tokens = [other for other in self._tokens if other is not token]
            succession = token.succession
            succession.drop(token)
            was_good = token.accepted > 0
            if succession.alone:
                was_good = scope in token.good_for and not succession.may_have_ended(token)
            if was_good and token.expires_at > time.monotonic():
                self._ended = (*self._ended[-1:], token)
                succession.end_by_itself(self._ended)

    def send(self, header: str, identity: str, token: Token | None) -> bool:
        """Notes that a header is sent. True when that is news."""
        record = self.sent.get(header)
        if record is not None and record.identity == identity:
            record.grant = token
            return False
        with self._lock:
            self.sent[header] = Sent(identity, time.monotonic() if record is None else record.since, token)
            if len(self.sent) > _HEADERS:
                del self.sent[next(iter(self.sent))]
        return True
