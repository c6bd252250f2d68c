"""Logging in: Basic, and Bearer tokens fetched from the service that a registry names.

The first request of a run goes out without a login; the challenge in its answer says how this registry wants to be
spoken to. From then on every request carries what it needs from the start: no second 401 for another repository, and no
body ever sent twice for want of a token.

A challenge belongs to a repository, for registries behind one host may differ by path (Artifactory, Nexus); the first
that came is assumed for all others. A registry with anonymous access may hide what is private behind 404, 403 or a 401
without a challenge: then `/v2/` is asked, once, how it wants logins.
"""

from __future__ import annotations

import base64
import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol
from urllib.parse import urlencode

import msgspec

from oci.descriptor import parse_json
from oci.errors import Denied, Refused, StoreError, Unauthorized
from oci.meter import Meter
from oci.registry.credentials.chain import Credentials
from oci.registry.credentials.challenge import Challenge, parse_challenges, strongest
from oci.registry.credentials.credential import Credential
from oci.registry.http.address_policy import AddressPolicy
from oci.registry.http.answer import Answer
from oci.registry.http.origin import Origin, split_url
from oci.registry.http.request import Scope

CLIENT_ID = "transship"
SCOPES = 25
"""Repositories that one token is asked for: some 1,500 characters of a URL."""

LONGEST_LIFETIME = 24 * 3600.0
"""Seconds that a token is used at most, whatever its service says."""

REFUSALS = frozenset({401, 403, 404})
"""Answers that may mean: log in first."""

_DEFAULT_LIFETIME = 60.0
"""Seconds, where a token service doesn't say (distribution's token specification)."""

_ASSUMED = Challenge("basic")
"""For a registry that asks nobody to log in, not even at `/v2/`. go-containerregistry sends Basic there as well."""


class Token(msgspec.Struct, frozen=True):
    value: str
    scopes: frozenset[str]
    expires_at: float
    """On the monotonic clock."""

    def __repr__(self) -> str:
        return f"Token({sorted(self.scopes)})"


class TokenService(Protocol):
    """Sends one request to a token service, with the transport's retries, and gives its answer whatever it is."""

    def __call__(self, method: str, url: str, headers: Mapping[str, str], form: Mapping[str, str]) -> Answer: ...


class Authenticator:
    """The login of one side at one registry. `ask_base` sends `GET /v2/` without a login and gives the answer's
    headers, empty when the registry doesn't answer."""

    def __init__(
        self,
        registry: str,
        *,
        side: str,
        credentials: Credentials,
        guard: AddressPolicy,
        meter: Meter,
        service: TokenService,
        ask_base: Callable[[], Mapping[str, str]],
    ) -> None:
        self._registry = registry
        self._side = side
        self._credentials = credentials
        self._guard = guard
        self._meter = meter
        self._service = service
        self._ask_base = ask_base
        self._lock = threading.Lock()
        self._challenges: dict[str, Challenge] = {}
        self._first: Challenge | None = None
        self._base_lock = threading.Lock()
        self._base_asked = False
        self._tokens: list[Token] = []
        self._fetching: dict[frozenset[str], threading.Lock] = {}
        self._several = threading.Lock()
        self._pull_only: set[str] = set()
        self._identities: dict[str, str] = {}
        self._token_service: Origin | None = None
        self._expected: dict[str, None] = {}
        """Repositories that will be asked for soon, and have no token yet."""

    def expect(self, repository: str) -> None:
        """Says that a repository will be asked for soon: a token is fetched for several at once then (distribution's
        token specification allows several scopes), one by one where the service or the registry refuses that."""
        with self._lock:
            self._expected[repository] = None

    def authorization(self, scopes: Iterable[Scope]) -> str:
        """The Authorization header for a request, or empty. Fetches a token when none at hand covers the scopes."""
        needed = tuple(scopes)
        repository = needed[0].repository if needed else ""
        credential = self._credentials.find(self._registry, repository)
        challenge = self._challenges.get(repository) or self._first
        header, identity = "", "anonymous"
        if credential.registry_token:
            header, identity = f"Bearer {credential.registry_token}", credential.identity
        elif challenge is not None and challenge.scheme == "bearer":
            header, identity = f"Bearer {self._token(needed, credential, challenge).value}", credential.identity
        elif challenge is not None and _has_password(credential):
            header, identity = basic(credential.username, credential.password), credential.identity
        if self._identities.get(header) != identity:
            self._identities[header] = identity
            if header or len(self._identities) == 1:
                self._meter.identity(f"{self._side} {self._registry}".strip(), identity)
        return header

    def has_login(self, scopes: Iterable[Scope]) -> bool:
        """Is there a login for this registry, whether it was asked for or not?"""
        needed = tuple(scopes)
        credential = self._credentials.find(self._registry, needed[0].repository if needed else "")
        return not credential.is_anonymous

    def login_of(self, repository: str) -> str:
        """Name the login that a repository of this registry is asked with, in words."""
        return self._credentials.find(self._registry, repository).identity

    def identity(self, sent: str) -> str:
        """Who sent a request with this Authorization header, in words."""
        return self._identities.get(sent, "anonymous")

    def refused(self, status: int, headers: Mapping[str, str], scopes: Iterable[Scope], sent: str, again: bool) -> bool:
        """Takes in an answer with one of REFUSALS to a request with the Authorization header `sent`. True when the
        request is worth sending again, with what `authorization` gives now. `again` says that it was sent again
        already: a login that is refused twice stays refused."""
        needed = tuple(scopes)
        repository = needed[0].repository if needed else ""
        if sent:
            self._expected.pop(repository, None)  # a token for several didn't do: this repository gets one of its own
        credential = self._credentials.find(self._registry, repository)
        if credential.registry_token:
            return False
        if again:
            return status == 401 and self._drop_assumption(sent)
        challenge = strongest(parse_challenges(headers.get("www-authenticate", ""))) if status == 401 else None
        if challenge is None:
            if sent:
                return status == 401 and self._drop_assumption(sent)
            return not credential.is_anonymous and self._learn_from_base(credential)
        if challenge.scheme == "bearer":
            self._guard.check(challenge.realm, "the token realm")
            self._pin(challenge.realm)
        with self._lock:
            self._challenges[repository] = challenge
            if self._first is None or self._first is _ASSUMED:
                self._first = challenge
            self._tokens = [token for token in self._tokens if f"Bearer {token.value}" != sent]
        if sent and challenge.scheme == "basic" and self.authorization(needed) == sent:
            # The login is wrong, or it has ended in the meantime. A token service says so itself.
            self._credentials.renew(self._registry, repository, credential)
        return self.authorization(needed) != sent

    def _learn_from_base(self, credential: Credential) -> bool:
        """Asks `/v2/` how this registry wants logins. True when there is a way to log in that was not used yet."""
        with self._base_lock:
            if self._base_asked:
                return self._first is not None
            self._base_asked = True
            challenge = strongest(parse_challenges(self._ask_base().get("www-authenticate", "")))
            if challenge is not None and challenge.scheme == "bearer":
                self._guard.check(challenge.realm, "the token realm")
                self._pin(challenge.realm)
            if challenge is None and _has_password(credential):
                challenge = _ASSUMED
            self._first = self._first or challenge
            return self._first is not None

    def _drop_assumption(self, sent: str) -> bool:
        """A registry that never asked for a login, and answers 401 to one, is spoken to without."""
        with self._lock:
            if self._first is not _ASSUMED or not sent.startswith("Basic "):
                return False
            self._first = None
            return True

    def _pin(self, realm: str) -> None:
        """The registry's first challenge says where its token service is. A later one that names another place would
        send the login there, so it is refused."""
        origin = split_url(realm)[0]
        with self._lock:
            pinned = self._token_service = self._token_service or origin
        if origin != pinned:
            raise Refused(
                f"the registry names another token service than before: {origin} instead of {pinned}",
                side=self._side,
                store=self._registry,
                operation="logging in",
                hint="nothing was sent to it; find out who answers for this registry before you try again",
            )

    def _token(self, scopes: tuple[Scope, ...], credential: Credential, challenge: Challenge) -> Token:
        """A destination is asked for `pull,push` from the start: a repository that the first push creates can't be read
        with less (Quay, Docker Hub). Where the service refuses that, reading alone is asked for."""
        wider = self._side == "destination" and len(scopes) == 1 and scopes[0].actions == "pull"
        if wider and scopes[0].repository not in self._pull_only:
            try:
                return self._fetched((Scope(scopes[0].repository, "pull,push"),), credential, challenge)
            except (Unauthorized, Denied, Refused):
                self._pull_only.add(scopes[0].repository)
        return self._fetched(scopes, credential, challenge)

    def _fetched(self, scopes: tuple[Scope, ...], credential: Credential, challenge: Challenge) -> Token:
        """One fetch for all threads that want the same."""
        names = _granted(scopes, challenge.scopes)
        with self._lock:
            gate = self._fetching.setdefault(names, threading.Lock())
        with gate:
            token = self._at_hand(names) or self._fetched_for_several(names, scopes, credential, challenge)
            if token is None:
                token = self._fetch(names, credential, challenge, scopes[0].repository if scopes else "")
                self._keep(token)
            return token

    def _keep(self, token: Token) -> None:
        with self._lock:
            now = time.monotonic()
            self._tokens = [kept_token for kept_token in self._tokens if kept_token.expires_at > now]
            self._tokens.append(token)

    def _fetched_for_several(
        self, names: frozenset[str], scopes: tuple[Scope, ...], credential: Credential, challenge: Challenge
    ) -> Token | None:
        """A token for this repository and others that are expected, or None: where no other is, or where the service
        refuses to give one. Threads that come meanwhile wait for it, as theirs may be among the others."""
        if len(scopes) != 1:
            return None
        with self._several:
            token = self._at_hand(names)
            if token is not None or scopes[0].repository not in self._expected:
                return token
            with self._lock:
                others = [name for name in self._expected if name != scopes[0].repository][: SCOPES - 1]
            others = [name for name in others if self._credentials.find(self._registry, name) == credential]
            if not others:
                return None
            for name in (scopes[0].repository, *others):
                self._expected.pop(name, None)
            every = names | {str(Scope(name, scopes[0].actions)) for name in others}
            try:
                token = self._fetch(every, credential, challenge, scopes[0].repository)
            except (Unauthorized, Denied, Refused):
                self._expected.clear()
                return None
            self._keep(token)
            return token

    def _at_hand(self, scopes: frozenset[str]) -> Token | None:
        now = time.monotonic()
        with self._lock:
            for token in self._tokens:
                if token.expires_at > now and all(_covers(token.scopes, scope) for scope in scopes):
                    return token
        return None

    def _fetch(self, scopes: frozenset[str], credential: Credential, challenge: Challenge, repository: str) -> Token:
        started = time.monotonic()
        answer = self._ask(sorted(scopes), credential, challenge)
        if answer.status in (400, 401) and not credential.is_anonymous:
            renewed = self._credentials.renew(self._registry, repository, credential)
            if not renewed.same_secret(credential):
                credential = renewed
                answer = self._ask(sorted(scopes), credential, challenge)
        if answer.status != 200:
            raise Unauthorized(
                f"the token service {challenge.realm.partition('?')[0]} answered {answer.status} for "
                f"{credential.identity}",
                side=self._side,
                store=self._registry,
                operation="logging in",
                status=answer.status,
                hint="check the user name and the password or token",
            )
        try:
            value, lifetime = read_token(answer.body)
        except ValueError as error:
            raise self._unusable() from error
        # A margin, so that a token doesn't die on its way; relative, for some live only for a minute.
        return Token(value, scopes, started + max(lifetime * 0.9 - 1, lifetime * 0.5))

    def _ask(self, scopes: list[str], credential: Credential, challenge: Challenge) -> Answer:
        realm, service = challenge.realm.partition("#")[0], challenge.service
        if credential.identity_token:
            form = {
                "grant_type": "refresh_token",
                "service": service,
                "client_id": CLIENT_ID,
                "scope": " ".join(scopes),
                "refresh_token": credential.identity_token,
            }
            answer = self._service("POST", realm, {}, form)
            if answer.status not in (404, 405):
                return answer
        query = [("service", service)] if service else []
        query += [("scope", scope) for scope in scopes]
        headers = {}
        if credential.username:
            query.append(("account", credential.username))
            headers["Authorization"] = basic(credential.username, credential.password or credential.identity_token)
        separator = "&" if "?" in realm else "?"
        return self._service("GET", f"{realm}{separator}{urlencode(query)}", headers, {})

    def _unusable(self) -> StoreError:
        return Refused(
            "the token service answered something that is not a token",
            side=self._side,
            store=self._registry,
            operation="logging in",
        )


def _has_password(credential: Credential) -> bool:
    return bool(credential.username and (credential.password or not credential.identity_token))


def basic(username: str, password: str) -> str:
    return f"Basic {base64.b64encode(f'{username}:{password}'.encode()).decode()}"


def _granted(scopes: tuple[Scope, ...], offered: frozenset[str]) -> frozenset[str]:
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


def _covers(granted: frozenset[str], scope: str) -> bool:
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
