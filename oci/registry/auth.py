"""Logging in: Basic, and Bearer tokens fetched from the service that a registry names.

The first request of a run goes out without credentials; the challenge in its answer says how this registry wants to
be spoken to. From then on every request carries what it needs from the start: no second 401 for another repository,
and no body ever sent twice for want of a token.
"""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import httpx

from oci.errors import Refused, StoreError, Unauthorized
from oci.meter import Meter
from oci.registry.challenge import Challenge, parse_challenges
from oci.registry.credentials.chain import Credentials
from oci.registry.credentials.credential import Credential
from oci.registry.http.address_policy import Guard
from oci.registry.http.errors import Answer
from oci.registry.http.origin import Origin, split_url

CLIENT_ID = "transship"
_DEFAULT_LIFETIME = 60.0
"""Seconds, where a token service doesn't say (distribution's token specification)."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What a request needs to be allowed to do. `actions` is `pull`, `pull,push` or `pull,push,delete`; an empty
    repository means the registry's catalog."""

    repository: str
    actions: str

    def __str__(self) -> str:
        return f"repository:{self.repository}:{self.actions}" if self.repository else "registry:catalog:*"


@dataclass(frozen=True, slots=True)
class Token:
    value: str = field(repr=False)
    scopes: frozenset[str]
    expires_at: float
    """On the monotonic clock."""


class TokenService(Protocol):
    """Sends one request to a token service, with the transport's retries, and gives its answer whatever it is."""

    def __call__(self, method: str, url: str, headers: Mapping[str, str], form: Mapping[str, str]) -> Answer: ...


class Authenticator:
    """The login of one side at one registry."""

    def __init__(
        self, registry: str, *, side: str, credentials: Credentials, guard: Guard, meter: Meter, service: TokenService
    ) -> None:
        self._registry = registry
        self._side = side
        self._credentials = credentials
        self._guard = guard
        self._meter = meter
        self._service = service
        self._lock = threading.Lock()
        self._challenge: Challenge | None = None
        self._tokens: list[Token] = []
        self._fetching: dict[frozenset[str], threading.Lock] = {}
        self._named = False
        self._token_service: Origin | None = None

    def authorization(self, scopes: Iterable[Scope]) -> str:
        """The Authorization header for a request, or empty. Fetches a token when none at hand covers the scopes."""
        wanted = tuple(scopes)
        credential = self._credential(wanted)
        if credential.registry_token:
            return f"Bearer {credential.registry_token}"
        challenge = self._challenge
        if challenge is None:
            return ""
        if challenge.scheme == "basic":
            return "" if credential.is_anonymous else basic(credential.username, credential.password)
        return f"Bearer {self._token(frozenset(map(str, wanted)), credential, challenge).value}"

    def identity(self, scopes: Iterable[Scope]) -> str:
        """Who sends a request, in words."""
        return self._credential(tuple(scopes)).identity

    def challenged(self, headers: Mapping[str, str], scopes: Iterable[Scope], sent: str) -> bool:
        """Takes in the challenge of a 401. True when the request is worth sending again, which it is when we have
        something else to show than what was `sent`."""
        wanted = tuple(scopes)
        credential = self._credential(wanted)
        offered = parse_challenges(headers.get("www-authenticate", ""))
        if not offered or credential.registry_token:
            return False
        bearer = [one for one in offered if one.scheme == "bearer"]
        challenge = (bearer or offered)[0]
        if challenge.scheme == "bearer":
            self._guard.check(challenge.realm, "the token realm")
            self._pin(challenge.realm)
            self._forget(sent)
        with self._lock:
            self._challenge = challenge
        if challenge.scheme == "basic":
            return not sent and not credential.is_anonymous
        merged = frozenset(map(str, wanted)) | challenge.scopes
        return self._token(merged, credential, challenge).value != sent.removeprefix("Bearer ")

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

    def _credential(self, scopes: tuple[Scope, ...]) -> Credential:
        found = self._credentials.find(self._registry, scopes[0].repository if scopes else "")
        if not self._named or not found.is_anonymous:
            self._named = True
            self._meter.identity(f"{self._side} {self._registry}".strip(), found.identity)
        return found

    def _forget(self, sent: str) -> None:
        with self._lock:
            self._tokens = [token for token in self._tokens if f"Bearer {token.value}" != sent]

    def _token(self, scopes: frozenset[str], credential: Credential, challenge: Challenge) -> Token:
        """One fetch for all threads that want the same."""
        with self._lock:
            gate = self._fetching.setdefault(scopes, threading.Lock())
        with gate:
            known = self._known(scopes)
            if known is not None:
                return known
            token = self._fetch(scopes, credential, challenge)
            with self._lock:
                self._tokens = [one for one in self._tokens if one.expires_at > time.monotonic()]
                self._tokens.append(token)
            return token

    def _known(self, scopes: frozenset[str]) -> Token | None:
        now = time.monotonic()
        with self._lock:
            for token in self._tokens:
                if token.expires_at > now and all(_covers(token.scopes, scope) for scope in scopes):
                    return token
        return None

    def _fetch(self, scopes: frozenset[str], credential: Credential, challenge: Challenge) -> Token:
        started = time.monotonic()
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
            body = json.loads(answer.body)
            value = body.get("token") or body.get("access_token")
            lifetime = float(body.get("expires_in") or _DEFAULT_LIFETIME)
        except (ValueError, TypeError, AttributeError) as error:
            raise self._unusable() from error
        if not isinstance(value, str) or not value or not value.isascii() or not value.isprintable():
            raise self._unusable()
        # A margin, so that a token doesn't die on its way; relative, for some live only for a minute.
        return Token(value, scopes, started + lifetime * 0.9 - 1)

    def _ask(self, scopes: list[str], credential: Credential, challenge: Challenge) -> Answer:
        realm, service = challenge.realm, challenge.parameters.get("service", "")
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
        query = httpx.QueryParams([("service", service)] if service else [])
        for scope in scopes:
            query = query.add("scope", scope)
        headers = {}
        if credential.username:
            query = query.add("account", credential.username)
            headers["Authorization"] = basic(credential.username, credential.password or credential.identity_token)
        separator = "&" if "?" in realm else "?"
        return self._service("GET", f"{realm}{separator}{query}", headers, {})

    def _unusable(self) -> StoreError:
        return Refused(
            "the token service answered something that is no token",
            side=self._side,
            store=self._registry,
            operation="logging in",
        )


def basic(username: str, password: str) -> str:
    return f"Basic {base64.b64encode(f'{username}:{password}'.encode()).decode()}"


def _covers(granted: frozenset[str], wanted: str) -> bool:
    """Is `repository:a/b:pull` among the granted, perhaps as `repository:a/b:pull,push`?"""
    if wanted in granted:
        return True
    name, _, actions = wanted.rpartition(":")
    needed = set(actions.split(","))
    return any(
        name == other.rpartition(":")[0] and needed <= set(other.rpartition(":")[2].split(",")) for other in granted
    )
