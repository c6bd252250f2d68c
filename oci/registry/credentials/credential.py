"""Who we are at a registry: credentials, and the chain of places where they are looked for."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Credential:
    """One of: a user with a password, an identity token (an OAuth2 refresh token), a registry token (a Bearer token
    that is sent as it is); or nothing, for anonymous. `origin` says in words where it was found."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)
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


ANONYMOUS = Credential()


class CredentialSource(Protocol):
    """One place where credentials are found."""

    def find(self, registry: str, repository: str) -> Credential | None:
        """The credential for a repository (a path without the host), or None when this place has nothing to say.
        ANONYMOUS ends the search: no other place is asked."""


class Credentials:
    """The places in order; the first that says something decides. Each answer is kept until it expires."""

    def __init__(self, sources: Sequence[CredentialSource]) -> None:
        self._sources = tuple(sources)
        self._lock = threading.Lock()
        self._found: dict[tuple[str, str], Credential] = {}

    def find(self, registry: str, repository: str) -> Credential:
        """ANONYMOUS when no place knows the registry."""
        key = (registry, repository)
        with self._lock:
            known = self._found.get(key)
            if known is not None and not 0 < known.expires_at < time.time():
                return known
            found = next(
                (one for source in self._sources if (one := source.find(registry, repository)) is not None), ANONYMOUS
            )
            self._found[key] = found
            return found


@dataclass(frozen=True, slots=True)
class Fixed:
    """One credential for every registry: what flags and IMGPKG_USERNAME mean."""

    credential: Credential

    def find(self, registry: str, repository: str) -> Credential | None:
        del registry, repository
        return self.credential
