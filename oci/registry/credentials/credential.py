"""A login of a registry, as a value, and the logins that were fetched, each once."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable, Hashable

import msgspec

from oci.errors import TransshipError


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
    def identity(self) -> str:
        """`user bob (docker config)`, `token (IMGPKG_TOKEN)`, `anonymous`: never the secret."""
        if self.is_anonymous:
            return "anonymous"
        named = self.username and not self.identity_token and not self.registry_token
        who = f"user {self.username}" if named else "token"
        return f"{who} ({self.origin})" if self.origin else who

    def same_secret(self, other: Credential) -> bool:
        """True when both show the same thing to a registry."""
        return (self.username, self.password, self.identity_token, self.registry_token) == (
            other.username,
            other.password,
            other.identity_token,
            other.registry_token,
        )

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
