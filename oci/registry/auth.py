"""Logging in: Basic, and Bearer tokens fetched from the service that a registry names.

The first request of a run goes out without a login; the challenge in its answer says how this registry wants to be
spoken to. From then on every request carries what it needs from the start: no second 401 for another repository, and no
body ever sent twice for want of a token.

A challenge belongs to a repository, for registries behind one host may differ by path (Artifactory, Nexus); the first
that came is assumed for all others. A registry with anonymous access may hide what is private behind 404, 403 or a 401
without a challenge: then `/v2/` is asked, once, how it wants logins.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Hashable, Mapping
from typing import Any, Protocol, TypeVar

from oci.errors import Denied, Refused, StoreError, Unauthorized
from oci.meter import Meter
from oci.registry.credentials.credential import (
    NO_POST,
    Challenge,
    Credential,
    Credentials,
    Exchange,
    basic,
    parse_challenges,
    scopes_to_ask,
    strongest,
)
from oci.registry.credentials.tokens import SCOPES, Succession, Token, Tokens, read_token
from oci.registry.endpoints import RequestTarget, Scope
from oci.registry.http.answer import Answer
from oci.registry.http.origin import Origin, canonical_host
from oci.registry.profiles import Learned

REFUSALS = frozenset({401, 403, 404})
"""Answers that may mean: log in first."""

LONG = 600.0
"""Seconds after which a login that is denied may have ended: ECR answers 403 then."""

_REFUSED = (Unauthorized, Denied, Refused)
_WRONG_SCOPE = "insufficient_scope"
"""RFC 6750, 3.1: the token is good, and not for this."""

_NONE = Challenge("none")
"""For a repository that the token service of another one knows nothing of, and that hasn't asked for anything yet."""

_ASSUMED = Challenge("basic")
"""For a registry that never asks for a login, not even at `/v2/`. go-containerregistry sends Basic there as well."""


E = TypeVar("E", bound=StoreError)


class Wire(Protocol):
    """How one side speaks to one registry and to its token service: see Transport."""

    registry: str
    side: str
    meter: Meter
    learned: Learned

    def realm(self, realm: str) -> RequestTarget: ...
    def ask_base(self) -> Mapping[str, str]: ...
    def ask_token_service(
        self, method: str, url: str, headers: Mapping[str, str], form: Mapping[str, str]
    ) -> Answer: ...
    def error(self, kind: type[E], message: str, **more: Any) -> E: ...


class Authenticator:
    """The login of one side at one registry."""

    def __init__(self, transport: Wire, credentials: Credentials) -> None:
        self._transport = transport
        self._registry = transport.registry
        self._side = transport.side
        self._credentials = credentials
        self._lock = threading.Lock()
        self._challenges: dict[str, Challenge] = {}
        self._first: Challenge | None = None
        self._base_lock = threading.Lock()
        self._base_asked = False
        self._tokens = Tokens()
        self._successions: dict[Hashable, Succession] = {}
        self._fetching: dict[frozenset[str], threading.Lock] = {}
        self._several = threading.Lock()
        self._pull_only: set[str] = set()
        self._token_service: Origin | None = None
        self._expected: dict[str, None] = {}
        """Repositories that will be asked for soon, and have no token yet."""

    def expect(self, repository: str) -> None:
        """Says that a repository will be asked for soon: a token is fetched for several at once then (distribution's
        token specification allows several scopes), one by one where the service or the registry refuses that."""
        with self._lock:
            self._expected[repository] = None

    def authorization(self, scopes: tuple[Scope, ...]) -> str:
        """The Authorization header for a request, or empty. Fetches a token when none at hand covers the scopes."""
        repository = scopes[0].repository
        credential = self.credential(repository)
        challenge = self._challenges.get(repository) or self._first
        header, identity, token = "", "anonymous", None
        if credential.registry_token:
            header, identity = f"Bearer {credential.registry_token}", credential.identity
        elif challenge is not None and challenge.scheme == "bearer":
            try:
                token = self._token(scopes, Exchange(challenge, credential))
                header, identity = f"Bearer {token.value}", credential.identity
            except _REFUSED:
                if repository in self._challenges:
                    raise
                self._challenges[repository] = _NONE  # the challenge was another repository's: this one says its own
        elif challenge is not None and challenge is not _NONE and credential.has_password:
            header, identity = basic(credential.username, credential.password), credential.identity
        if self._tokens.send(header, identity, token) and (header or challenge is None):
            self._transport.meter.identity(str(self._transport), identity)
        return header

    def credential(self, repository: str) -> Credential:
        """The login for a repository of this registry, whether it was asked for or not."""
        return self._credentials.find(self._registry, repository)

    def identity(self, sent: str) -> str:
        """Who sent a request with this Authorization header, in words."""
        record = self._tokens.sent.get(sent)
        return record.identity if record is not None else "anonymous"

    def accepted(self, scopes: tuple[Scope, ...], sent: str, started: float) -> None:
        """Takes in that the Authorization header `sent` was good for a request that began at a moment of the monotonic
        clock."""
        record = self._tokens.sent.get(sent)
        if record is None or record.grant is None:
            return
        succession = record.grant.succession
        succession.accept(record.grant, scopes[0], started)
        learned = self._transport.learned
        if succession.verdict not in (None, learned.ends_older):
            learned.learn_ends_older(not learned.ends_older)

    def refused(
        self, status: int, headers: Mapping[str, str], scopes: tuple[Scope, ...], sent: str, *, again: bool
    ) -> str | None:
        """Takes in an answer with one of REFUSALS to a request with the Authorization header `sent`. Gives the header
        to send the request with once more, or None. `again` says that it was sent again already: a login that is
        refused twice stays refused, unless other requests have used up or ended its token in the meantime."""
        record = self._tokens.sent.get(sent)
        token = record.grant if record is not None and status == 401 else None
        wrong_scope = _WRONG_SCOPE in headers.get("www-authenticate", "")
        if token is not None and not wrong_scope:
            token.succession.refuse(token, scopes[0])
        if again:
            ended = status == 401 and self._drop_assumption(sent)
            if token is not None and self._has_ended_early(token, scopes[0], wrong_scope=wrong_scope):
                self._tokens.drop(sent, scopes[0])
                ended = True
            other = self.authorization(scopes) if ended else sent
        else:
            other = self._other_login(status, headers, scopes, sent)
        return other if other != sent else None

    def _other_login(self, status: int, headers: Mapping[str, str], scopes: tuple[Scope, ...], sent: str) -> str:
        """The Authorization header to use from now on; `sent` where there is no other."""
        repository = scopes[0].repository
        if sent:
            self._expected.pop(repository, None)  # a token for several didn't do: this repository gets one of its own
        credential = self.credential(repository)
        if credential.registry_token:
            return sent
        offers = parse_challenges(headers.get("www-authenticate", "")) if status == 401 else []
        challenge = strongest(offers)
        if challenge is None:
            if sent:
                ended = self._has_ended(status, scopes[0], sent, credential)
            else:
                ended = not credential.is_anonymous and self._learn_from_base(credential)
            return self.authorization(scopes) if ended else sent
        challenge = self._permitted(challenge)
        self._set(scopes[0], challenge, sent)
        if sent and challenge.scheme == "basic" and self.authorization(scopes) == sent:
            # The login is wrong, or it has ended in the meantime. A token service says so itself.
            self._credentials.renew(self._registry, repository, credential)
        try:
            return self.authorization(scopes)
        except _REFUSED:
            plain = next((offer for offer in offers if offer.scheme == "basic"), None)
            if plain is None or challenge is plain or not credential.has_password:
                raise
            self._set(scopes[0], plain, sent)  # the other way that it offers (Artifactory)
            return self.authorization(scopes)

    def _set(self, scope: Scope, challenge: Challenge, sent: str) -> None:
        """Answers a challenge from now on. What was sent is of no more use."""
        with self._lock:
            if self._first is None or self._first in (_ASSUMED, self._challenges.get(scope.repository)):
                self._first = challenge
            self._challenges[scope.repository] = challenge
        self._tokens.drop(sent, scope)

    def _has_ended_early(self, token: Token, scope: Scope, *, wrong_scope: bool) -> bool:
        """Whether a token that was refused was good for other requests of this kind, or may have ended because another
        was given: what is refused with the newest, and was never granted, is refused."""
        succession = token.succession
        if succession.alone:
            return scope in token.good_for or not succession.denies(token, scope)
        if not wrong_scope and succession.may_have_ended(token):
            if token.was_never_good:
                succession.alone = True
            return True
        if any(other.actions == scope.actions for other in token.good_for):
            return True
        return not wrong_scope and not succession.denies(token, scope)

    def _permitted(self, challenge: Challenge) -> Challenge:
        """A challenge whose token service may be asked. The registry's first one says where that is: a later one that
        names another place would send the login there, so it is refused. Raises Refused."""
        if challenge.scheme != "bearer":
            return challenge
        realm = self._transport.realm(challenge.realm)
        with self._lock:
            pinned = self._token_service = self._token_service or realm.origin
        if realm.origin != pinned:
            raise self._transport.error(
                Refused,
                f"the registry names another token service than before: {realm.origin} instead of {pinned}",
                operation="logging in",
                hint="nothing was sent to it; find out who answers for this registry before you try again",
            )
        return Challenge(challenge.scheme, {**challenge.parameters, "realm": str(realm)})

    def _has_ended(self, status: int, scope: Scope, sent: str, credential: Credential) -> bool:
        """Whether a 401 without a challenge, or a 403 to what was sent for long, means that another login is needed."""
        if status == 401 and self._drop_assumption(sent):
            return True
        record = self._tokens.sent.get(sent)
        if status == 404 or (status == 403 and record is not None and time.monotonic() - record.since < LONG):
            return False
        self._tokens.drop(sent, scope)
        if sent.startswith("Basic "):
            self._credentials.renew(self._registry, scope.repository, credential)
        return True

    def _learn_from_base(self, credential: Credential) -> bool:
        """Asks `/v2/` how this registry wants logins. True when there is a way to log in that was not used yet."""
        with self._base_lock:
            if self._base_asked:
                return self._first is not None
            self._base_asked = True
            challenge = strongest(parse_challenges(self._transport.ask_base().get("www-authenticate", "")))
            if challenge is not None:
                challenge = self._permitted(challenge)
            if challenge is None and credential.has_password:
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

    def _token(self, scopes: tuple[Scope, ...], exchange: Exchange) -> Token:
        """A destination is asked for `pull,push` from the start: a repository that the first push creates can't be read
        with less (Quay, Docker Hub). Where the service refuses that, reading alone is asked for."""
        repository = scopes[0].repository
        wider = self._side == "destination" and len(scopes) == 1 and scopes[0].actions == "pull"
        if wider and repository not in self._pull_only:
            try:
                return self._fetched((Scope(repository, "pull,push"),), exchange)
            except _REFUSED:
                self._pull_only.add(repository)
        return self._fetched(scopes, exchange)

    def _fetched(self, scopes: tuple[Scope, ...], exchange: Exchange) -> Token:
        """One fetch for all threads that want the same."""
        names, repository = scopes_to_ask(scopes, exchange.challenge.scopes), scopes[0].repository
        succession = self._succession(exchange)
        if succession.alone:
            return self._only_token(succession, names, repository, exchange)
        with self._lock:
            gate = self._fetching.setdefault(names, threading.Lock())
        with gate if self._tokens.uses != 1 else contextlib.nullcontext():
            token = self._tokens.at_hand(names)
            if token is None and len(scopes) == 1:
                token = self._fetched_for_several(names, scopes[0], exchange)
            return token or self._tokens.keep(self._fetch(names, exchange, repository))

    def _only_token(self, succession: Succession, names: frozenset[str], repository: str, exchange: Exchange) -> Token:
        """The one token that all threads, sides and repositories share, fetched anew where it lacks a scope. Where the
        service refuses several scopes at once, there is one token after the other."""
        if self._expected:
            with self._lock:
                expected, self._expected = self._expected, {}
            actions = "pull,push" if self._side == "destination" else "pull"
            same_login = [name for name in expected if self.credential(name) == exchange.credential]
            succession.want([str(Scope(name, actions)) for name in same_login])
        succession.want(names)
        token = succession.at_hand(names)
        if token is not None:
            return token
        with succession.fetching:
            succession.wait_for_use()
            token = succession.at_hand(names)
            if token is not None:
                return token
            every = succession.union(names)
            if every != names:
                with contextlib.suppress(*_REFUSED):
                    return self._fetch(every, exchange, repository)
            try:
                token = self._fetch(names, exchange, repository)
            except _REFUSED:
                succession.forget(names)
                raise
            if every != names:
                succession.mixes = False
            return token

    def _succession(self, exchange: Exchange) -> Succession:
        challenge, credential = exchange.challenge, exchange.credential
        secrets = (credential.username, credential.password, credential.identity_token)
        key = (canonical_host(self._registry), challenge.realm, challenge.service, *secrets)
        succession = self._successions.get(key)
        if succession is None:
            succession = self._successions[key] = Succession.of(key)
            if self._transport.learned.ends_older and succession.verdict is None:
                succession.know()
        return succession

    def _fetched_for_several(self, names: frozenset[str], scope: Scope, exchange: Exchange) -> Token | None:
        """A token for this repository and others that are expected, or None: where no other is, or where the service
        refuses to give one. Threads that come meanwhile wait for it, as theirs may be among the others."""
        with self._several:
            token = self._tokens.at_hand(names)
            if token is not None or scope.repository not in self._expected:
                return token
            with self._lock:
                others = [name for name in self._expected if name != scope.repository][: SCOPES - 1]
            others = [name for name in others if self.credential(name) == exchange.credential]
            if not others:
                return None
            for name in (scope.repository, *others):
                self._expected.pop(name, None)
            every = names | {str(Scope(name, scope.actions)) for name in others}
            try:
                return self._tokens.keep(self._fetch(every, exchange, scope.repository))
            except _REFUSED:
                self._expected.clear()
                return None

    def _fetch(self, scopes: frozenset[str], exchange: Exchange, repository: str) -> Token:
        with self._succession(exchange).asking(scopes) as token:
            answer = self._ask(scopes, exchange)
            credential = exchange.credential
            if answer.status in (400, 401) and not credential.is_anonymous:
                renewed = self._credentials.renew(self._registry, repository, credential)
                if not renewed.same_secret(credential):
                    credential = renewed
                    answer = self._ask(scopes, Exchange(exchange.challenge, renewed))
            if answer.status != 200:
                service = exchange.challenge.realm.partition("?")[0]
                message = f"the token service {service} answered {answer.status} for {credential.identity}"
                hint = "check the user name and the password or token"
                raise self._transport.error(
                    Unauthorized, message, operation="logging in", status=answer.status, hint=hint
                )
            try:
                token.value, lifetime = read_token(answer.body)
            except ValueError as error:
                message = "the token service answered something that is not a token"
                raise self._transport.error(Refused, message, operation="logging in") from error
            # A margin, so that a token doesn't die on its way; relative, for some live only for a minute.
            token.expires_at = token.asked_at + max(lifetime * 0.9 - 1, lifetime * 0.5)
            token.succession.give(token)
            return token

    def _ask(self, scopes: frozenset[str], exchange: Exchange) -> Answer:
        for request in exchange.requests(scopes):
            answer = self._transport.ask_token_service(*request)
            if answer.status not in NO_POST:
                break
        return answer

    def close(self) -> None:
        """Forgets all tokens: what is shared with other sides and sessions ends with the last of them."""
        self._tokens = Tokens()
        self._successions = {}
