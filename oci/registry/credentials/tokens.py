"""Tokens of a registry's token service: which scopes one is asked for, and what the service answers. No I/O."""

from __future__ import annotations

import base64
import math

import msgspec

from oci.descriptor import parse_json
from oci.registry.http.request import Scope

LONGEST_LIFETIME = 24 * 3600.0
"""Seconds that a token is used at most, whatever its service says."""

_DEFAULT_LIFETIME = 60.0
"""Seconds, where a token service doesn't say (distribution's token specification)."""


class Token(msgspec.Struct, frozen=True):
    value: str
    scopes: frozenset[str]
    expires_at: float
    """On the monotonic clock."""

    def __repr__(self) -> str:
        return f"Token({sorted(self.scopes)})"


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


def covers(granted: frozenset[str], scope: str) -> bool:
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
