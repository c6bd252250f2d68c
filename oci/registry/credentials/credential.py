"""The two halves of logging in (RFC 9110, 11.3 and 11.4): the challenge of a registry (`WWW-Authenticate`, 11.6.1), and
the login that answers it, with the places where logins are looked for."""

from __future__ import annotations

import base64
import copy
import re
import threading
import time
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from typing import Protocol
from urllib.parse import urlencode

import msgspec

from oci.errors import TransshipError
from oci.registry.endpoints import Scope
from oci.registry.http.origin import canonical_host

NO_POST = frozenset({400, 401, 404, 405, 501})
"""Of token services that take no refresh token by POST: ACR, Artifactory, Google, older ones. GET is asked then."""

CLIENT_ID = "transship"

CHALLENGE_LIMIT = 32 << 10
"""Characters of a `WWW-Authenticate` that are read."""

_SEPARATORS = re.compile(r"[\s,]*")
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(r'\s*=\s*(?:"((?:[^"\\]|\\.)*)(?:"|$)|([^\s,"=][^\s,"]*))', re.DOTALL)
_TOKEN68 = re.compile(r"[ \t]+[A-Za-z0-9\-._~+/]+=*(?=\s*(?:,|$))")
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


class Credential(msgspec.Struct, frozen=True):
    """A user with a password, an identity token (an OAuth2 refresh token) or a registry token (a Bearer token that is
    sent as it is); without any of them, anonymous. `origin` names the place that it comes from, in words."""

    username: str = ""
    password: str = ""
    identity_token: str = ""
    registry_token: str = ""
    origin: str = ""
    expires_at: float = 0.0
    """Seconds since the epoch; 0 for never."""

    @property
    def is_anonymous(self) -> bool:
        return not (self.username or self.password or self.identity_token or self.registry_token)

    @property
    def has_password(self) -> bool:
        return bool(self.username and (self.password or not self.identity_token))

    @property
    def identity(self) -> str:
        """`user bob (docker config)`, `token (IMGPKG_TOKEN)`, `anonymous`: never the secret."""
        if self.is_anonymous:
            return "anonymous"
        named = self.username and not self.identity_token and not self.registry_token
        who = f"user {self.username}" if named else "token"
        return f"{who} ({self.origin})" if self.origin else who

    def same_secret(self, other: Credential) -> bool:
        """True when both show the same thing to a registry."""
        return msgspec.structs.astuple(self)[:4] == msgspec.structs.astuple(other)[:4]

    def __repr__(self) -> str:
        return f"Credential({self.identity})"


ANONYMOUS = Credential()


RENEWAL_PAUSE = 30.0
"""Seconds between two renewals of a login: a registry that refuses a fresh login too isn't asked for ever."""


class _Entry(msgspec.Struct):
    lock: threading.Lock
    credential: Credential | None = None
    fetched: bool = False
    renewed_at: float = -RENEWAL_PAUSE
    error: TransshipError | None = None
    failed_at: float = 0.0


class Memo:
    """Keeps what was fetched until it expires. Threads that want the same wait for a single fetch. What failed isn't
    tried again for a moment: a helper that hangs would hang once for each repository."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: dict[Hashable, _Entry] = {}

    def get(self, key: Hashable, fetch: Callable[[], Credential | None]) -> Credential | None:
        entry = self._entries.get(key)
        if entry is None:
            with self._lock:
                entry = self._entries.setdefault(key, _Entry(threading.Lock()))
        if not _is_valid(entry):
            with entry.lock:
                if not _is_valid(entry):
                    if entry.error is not None and time.monotonic() - entry.failed_at < RENEWAL_PAUSE:
                        raise copy.copy(entry.error)
                    entry.error = None
                    try:
                        entry.credential = fetch()
                    except TransshipError as error:
                        entry.error, entry.failed_at = copy.copy(error), time.monotonic()
                        raise
                    entry.fetched = True
        return entry.credential

    def forget(self, key: Hashable, refused: Credential) -> None:
        """Drops what was fetched, unless it has been replaced since, or was dropped a moment ago."""
        entry = self._entries.get(key)
        if entry is None:
            return
        with entry.lock:
            current, now = entry.credential, time.monotonic()
            if current is not None and current.same_secret(refused) and now - entry.renewed_at >= RENEWAL_PAUSE:
                entry.fetched, entry.renewed_at = False, now


def _is_valid(entry: _Entry) -> bool:
    return entry.fetched and (entry.credential is None or not 0 < entry.credential.expires_at < time.time())


class CredentialSource(Protocol):
    """A place where logins are kept."""

    def find(self, registry: str, repository: str) -> Credential | None:
        """The login for a repository (a path without the host), or None when this place has none.
        ANONYMOUS ends the search: no other place is asked."""


class Credentials:
    """Asks the places in order; the first that has a login decides. Safe from any thread: while a login of a registry
    is fetched, other threads that want a login of that registry wait for it; nothing else waits."""

    def __init__(self, sources: Sequence[CredentialSource]) -> None:
        self._sources = tuple(sources)
        self._logins = Memo()

    def find(self, registry: str, repository: str) -> Credential:
        """ANONYMOUS when no place has a login. Raises InvalidInput, Unauthorized."""

        def search() -> Credential | None:
            credentials = (source.find(registry, repository) for source in self._sources)
            return next((credential for credential in credentials if credential is not None), None)

        return self._logins.get((registry, repository), search) or ANONYMOUS

    def named(self, hosts: Collection[str]) -> Credentials:
        """The same places, where a login without a host of its own is for `hosts` alone (see `default_credentials`)."""
        return Credentials(
            [source.named(hosts) if isinstance(source, Credentials | Fixed) else source for source in self._sources]
        )

    def renew(self, registry: str, repository: str, refused: Credential) -> Credential:
        """The login after the registry refused `refused`: places that can make a new one are asked again."""
        current = self.find(registry, repository)
        if not current.same_secret(refused):
            return current
        for source in self._sources:
            renew = getattr(source, "renew", None)
            if renew is not None:
                renew(registry, repository, refused)
        self._logins.forget((registry, repository), refused)
        return self.find(registry, repository)


class Fixed:
    """A login for the registries in `hosts`, or for every registry when that is None."""

    def __init__(self, credential: Credential, hosts: Collection[str] | None = None) -> None:
        self.credential = credential
        self._hosts = None if hosts is None else frozenset(map(canonical_host, hosts))

    def named(self, hosts: Collection[str]) -> Fixed:
        return Fixed(self.credential, hosts)

    def find(self, registry: str, repository: str) -> Credential | None:
        del repository
        return self.credential if self._hosts is None or canonical_host(registry) in self._hosts else None


def basic(username: str, password: str) -> str:
    return f"Basic {base64.b64encode(f'{username}:{password}'.encode()).decode()}"


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


class Exchange(msgspec.Struct, frozen=True):
    """A challenge that names a token service, and the login that answers it there."""

    challenge: Challenge
    credential: Credential

    def requests(self, scopes: frozenset[str]) -> Iterator[tuple[str, str, dict[str, str], dict[str, str]]]:
        """Yields method, URL, headers and form of the requests that ask the service for a token: a POST where there is
        a refresh token, and the GET that is sent without one, or where the answer to the POST is one of NO_POST."""
        credential, service, names = self.credential, self.challenge.service, sorted(scopes)
        realm = self.challenge.realm.partition("#")[0]
        if credential.identity_token:
            form = {
                "grant_type": "refresh_token",
                "service": service,
                "client_id": CLIENT_ID,
                "scope": " ".join(names),
                "refresh_token": credential.identity_token,
            }
            yield "POST", realm, {}, form
        query = [("service", service)] if service else []
        query += [("scope", scope) for scope in names]
        headers = {}
        username = credential.username or ("<token>" if credential.identity_token else "")
        if username:
            query.append(("account", username))
            headers["Authorization"] = basic(username, credential.password or credential.identity_token)
        separator = "&" if "?" in realm else "?"
        yield "GET", f"{realm}{separator}{urlencode(query)}", headers, {}
