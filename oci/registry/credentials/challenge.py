"""Reading `WWW-Authenticate` (RFC 9110, 11.3 and 11.6.1; distribution's token specification). No I/O."""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

LIMIT = 32 << 10
"""Characters of a header that are read."""

_SEPARATORS = re.compile(r"[\s,]*")
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(r'\s*=\s*(?:"((?:[^"\\]|\\.)*)(?:"|$)|([^\s,"=][^\s,"]*))', re.DOTALL)
_TOKEN68 = re.compile(r"[ \t]+[A-Za-z0-9\-._~+/]+=*(?=\s*(?:,|$))")
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


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
    text = text[:LIMIT]
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
