"""A login of a registry, as a value, and places where logins are looked for."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable, Collection, Hashable, Sequence
from typing import Protocol

import msgspec

from oci.errors import TransshipError
from oci.registry.http.origin import canonical_host


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
