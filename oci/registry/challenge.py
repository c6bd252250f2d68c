"""Reading `WWW-Authenticate` (RFC 9110, 11.6.1; distribution's token specification). No I/O."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

_PARAMETER = re.compile(r'\s*,?\s*([A-Za-z0-9_\-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')
_SCHEME = re.compile(r"\s*,?\s*([A-Za-z]+)(?:\s+|$)")


@dataclass(frozen=True, slots=True)
class Challenge:
    """`scheme` is `basic` or `bearer`."""

    scheme: str
    parameters: Mapping[str, str] = field(default_factory=dict)

    @property
    def realm(self) -> str:
        return self.parameters.get("realm", "")

    @property
    def scopes(self) -> frozenset[str]:
        """Several scopes come in one parameter, space separated. docker-registry names the actions of a scope in any
        order; sorted, the same scope is one."""
        return frozenset(map(_sorted, self.parameters.get("scope", "").split()))


def _sorted(scope: str) -> str:
    subject, colon, actions = scope.rpartition(":")
    return f"{subject}{colon}{','.join(sorted(actions.split(',')))}"


def parse_challenges(text: str) -> list[Challenge]:
    """The challenges that we know how to answer, in the order given; parameters of unknown schemes are skipped."""
    found: list[Challenge] = []
    position = 0
    while position < len(text):
        scheme = _SCHEME.match(text, position)
        if scheme is None:
            break
        position = scheme.end()
        parameters: dict[str, str] = {}
        while (parameter := _PARAMETER.match(text, position)) is not None:
            quoted = parameter.group(2)
            value = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else parameter.group(3)
            parameters[parameter.group(1).lower()] = value
            position = parameter.end()
        found.append(Challenge(scheme.group(1).lower(), parameters))
    return [one for one in found if one.scheme in ("basic", "bearer")]
