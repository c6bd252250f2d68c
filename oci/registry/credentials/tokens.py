"""Tokens of a registry's token service: the challenge that names it (`WWW-Authenticate`; RFC 9110, 11.3 and 11.6.1;
distribution's token specification), which scopes one is asked for and how, what the service answers, and those at
hand."""

from __future__ import annotations

import base64
import math
import re
import threading
import time
from collections.abc import Collection, Mapping
from typing import Protocol
from urllib.parse import urlencode

import msgspec

from oci.descriptor import parse_json
from oci.registry.credentials.credential import Credential
from oci.registry.credentials.succession import Token, covers
from oci.registry.endpoints import Scope
from oci.registry.http.answer import Answer

CHALLENGE_LIMIT = 32 << 10
"""Characters of a `WWW-Authenticate` that are read."""

_SEPARATORS = re.compile(r"[\s,]*")
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(r'\s*=\s*(?:"((?:[^"\\]|\\.)*)(?:"|$)|([^\s,"=][^\s,"]*))', re.DOTALL)
_TOKEN68 = re.compile(r"[ \t]+[A-Za-z0-9\-._~+/]+=*(?=\s*(?:,|$))")
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)

CLIENT_ID = "transship"

LONGEST_LIFETIME = 24 * 3600.0
"""Seconds that a token is used at most, whatever its service says."""

_REMEMBERED = 500
"""Authorization headers that are remembered: where each request needs a token of its own, there are many."""

_DEFAULT_LIFETIME = 60.0
"""Seconds, where a token service doesn't say (distribution's token specification)."""

_NO_POST = frozenset({400, 401, 404, 405, 501})
"""Of token services that take no refresh token by POST: ACR, Artifactory, Google, older ones. GET is asked then."""


class Challenge(msgspec.Struct, frozen=True):
    """`scheme` is `basic` or `bearer`; names of parameters are in lower case."""

    scheme: str
    parameters: Mapping[str, str] = {}

    @property
    def realm(self) -> str:
        return self.parameters.get("realm", "")

    @property
    def service(self) -> str:
        return self.parameters.get("service", "")

    @property
    def scopes(self) -> frozenset[str]:
        """Several scopes come in one parameter, space separated. docker-registry names the actions of a scope in any
        order; sorted, the same scope is one."""
        return frozenset(map(_sorted, self.parameters.get("scope", "").split()))


def _sorted(scope: str) -> str:
    subject, colon, actions = scope.rpartition(":")
    return f"{subject}{colon}{','.join(sorted(actions.split(',')))}"


def parse_challenges(text: str) -> list[Challenge]:
    """The challenges of all headers, joined by commas, that we can answer, in the order given. A challenge of any other
    scheme is skipped as a whole, with its token68 or its parameters. Values may be quoted or not, and an unquoted one
    may have characters that belong in quotes (a URL, as some registries write it)."""
    challenges: list[tuple[str, dict[str, str]]] = []
    text = text[:CHALLENGE_LIMIT]
    position = _end(_SEPARATORS, text, 0)
    while position < len(text):
        token = _TOKEN.match(text, position)
        if token is None:
            position = _end(_SEPARATORS, text, position + 1)
            continue
        value = _VALUE.match(text, token.end())
        if value is not None:
            if challenges:
                quoted = value.group(1)
                plain = _ESCAPED.sub(r"\1", quoted) if quoted is not None else value.group(2)
                challenges[-1][1].setdefault(token.group().lower(), plain)
            position = value.end()
        else:
            challenges.append((token.group().lower(), {}))
            position = _end(_TOKEN68, text, token.end())
        position = _end(_SEPARATORS, text, position)
    return [Challenge(scheme, parameters) for scheme, parameters in challenges if scheme in ("basic", "bearer")]


def strongest(challenges: list[Challenge]) -> Challenge | None:
    """Bearer, when it names its token service, before Basic; None when there is neither."""
    bearer = next((offer for offer in challenges if offer.scheme == "bearer" and offer.realm), None)
    return bearer or next((offer for offer in challenges if offer.scheme == "basic"), None)


def _end(pattern: re.Pattern[str], text: str, position: int) -> int:
    match = pattern.match(text, position)
    return match.end() if match is not None else position


class TokenService(Protocol):
    """Sends one request to a token service, with the transport's retries, and gives its answer whatever it is."""

    def __call__(self, method: str, url: str, headers: Mapping[str, str], form: Mapping[str, str]) -> Answer: ...


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

    def keep(self, token: Token) -> Token:
        with self._lock:
            now = time.monotonic()
            self._tokens = [kept_token for kept_token in self._tokens if kept_token.expires_at > now]
            self._tokens.append(token)
        return token

    def drop(self, header: str, scope: Scope) -> None:
        """Takes out a token that was refused. One that was good before, and whose time hasn't come, ended early; unless
        it was the only one, and is refused for one repository alone, or was ended by another that was given."""
        with self._lock:
            sent = self.sent.get(header)
            token = sent.grant if sent is not None else None
            if token is None or not (token in self._tokens or token is token.succession.current):
                return
            self._tokens = [kept_token for kept_token in self._tokens if kept_token is not token]
            succession = token.succession
            succession.drop(token)
            was_good = token.accepted > 0
            if succession.alone:
                was_good = scope in token.good_for and not succession.may_have_ended(token)
            if not was_good or token.expires_at <= time.monotonic():
                return
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
            if len(self.sent) > _REMEMBERED:
                del self.sent[next(iter(self.sent))]
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


def ask(service: TokenService, scopes: frozenset[str], credential: Credential, challenge: Challenge) -> Answer:
    """Asks a token service for a token, by POST where there is a refresh token, and gives its answer."""
    realm, names = challenge.realm.partition("#")[0], sorted(scopes)
    if credential.identity_token:
        form = {
            "grant_type": "refresh_token",
            "service": challenge.service,
            "client_id": CLIENT_ID,
            "scope": " ".join(names),
            "refresh_token": credential.identity_token,
        }
        answer = service("POST", realm, {}, form)
        if answer.status not in _NO_POST:
            return answer
    query = [("service", challenge.service)] if challenge.service else []
    query += [("scope", scope) for scope in names]
    headers = {}
    username = credential.username or ("<token>" if credential.identity_token else "")
    if username:
        query.append(("account", username))
        headers["Authorization"] = basic(username, credential.password or credential.identity_token)
    separator = "&" if "?" in realm else "?"
    return service("GET", f"{realm}{separator}{urlencode(query)}", headers, {})


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
