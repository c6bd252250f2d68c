"""What a policy asks of words that a stranger has written: the predicates of attestations, and the names in
certificates. Values, lists of values and regular expressions; no code."""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Any

import msgspec
from msgspec import Struct

Text = Annotated[str, msgspec.Meta(min_length=1, max_length=1000)]


class Condition(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A statement that the predicate of an attestation must make. `field` is a path of keys with dots between them, and
    numbers for the items of lists. Exactly one of the others is given: a value, several, or a regular expression (RE2)
    for the whole text."""

    field: Text
    equals: Any = None
    is_in: tuple[Any, ...] = msgspec.field(default=(), name="in")
    matches: str = ""

    def __post_init__(self) -> None:
        choices = (self.equals is not None, bool(self.is_in), bool(self.matches))
        if sum(choices) != 1:
            raise ValueError(f"{self.field}: give one of equals, in and matches")
        if self.matches:
            expression(self.matches)

    def holds(self, predicate: Any) -> bool:
        value = predicate
        for part in self.field.split("."):
            if isinstance(value, dict):
                value = value.get(part)
            elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
                value = value[int(part)]
            else:
                return False
        if self.matches:
            return isinstance(value, str) and matches_whole(self.matches, value)
        values = self.is_in or (self.equals,)
        return any(type(value) is type(candidate) and value == candidate for candidate in values)

    def __str__(self) -> str:
        if self.matches:
            return f"{self.field} matches {self.matches}"
        return f"{self.field} in {list(self.is_in)}" if self.is_in else f"{self.field} = {self.equals!r}"


class CertificateIdentity(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who a certificate of Fulcio must have been issued to: the issuer of the identity and its subject, each exactly or
    as a regular expression (RE2) for the whole text."""

    issuer: str = ""
    issuer_matches: str = ""
    subject: str = ""
    subject_matches: str = ""

    def __post_init__(self) -> None:
        for name in ("issuer", "subject"):
            exact, pattern = getattr(self, name), getattr(self, f"{name}_matches")
            if bool(exact) == bool(pattern):
                raise ValueError(f"keyless: give one of {name} and {name}_matches")
            if pattern:
                expression(pattern)

    def admits(self, issuer: str, subject: str) -> bool:
        return _same(self.issuer, self.issuer_matches, issuer) and _same(self.subject, self.subject_matches, subject)

    def __str__(self) -> str:
        return f"{self.subject or self.subject_matches} of {self.issuer or self.issuer_matches}"


def matches_whole(pattern: str, text: str) -> bool:
    return expression(pattern).fullmatch(text) is not None


@lru_cache(maxsize=256)
def expression(pattern: str) -> Any:
    """RE2: what it meets is a stranger's text. Raises ValueError."""
    import re2  # noqa: PLC0415 - only for conditions that have an expression

    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        raise ValueError(f"{pattern!r} is no regular expression") from error


def _same(exact: str, pattern: str, text: str) -> bool:
    return text == exact if exact else matches_whole(pattern, text)
