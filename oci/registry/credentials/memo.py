"""Logins that were fetched, each once, until they expire or a registry refuses them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable

import msgspec

from oci.registry.credentials.credential import Credential

RENEWAL_PAUSE = 30.0
"""Seconds between two renewals of a login: a registry that refuses a fresh login too isn't asked for ever."""


class _Entry(msgspec.Struct):
    lock: threading.Lock
    credential: Credential | None = None
    fetched: bool = False
    renewed_at: float = -RENEWAL_PAUSE


class Memo:
    """Keeps what was fetched until it expires. Threads that want the same wait for a single fetch."""

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
                    entry.credential = fetch()
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
