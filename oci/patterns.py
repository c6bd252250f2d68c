"""Regular expressions that users write and that meet names of strangers: tags of a registry.

RE2 matches in time that is linear in the name, so that no expression can hang a run; it has no look-around and no
backreferences (https://github.com/google/re2/wiki/Syntax).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Protocol, cast

import re2


class Pattern(Protocol):
    def fullmatch(self, text: str) -> object | None: ...


@lru_cache(maxsize=4096)
def compile_pattern(text: str) -> Pattern:
    """Raises ValueError for what isn't a regular expression, or needs more than RE2 has."""
    options = re2.Options()
    options.log_errors = False
    try:
        return cast(Pattern, re2.compile(text, options))
    except (re2.error, UnicodeError) as error:
        reason = error.args[0].decode(errors="replace") if isinstance(error.args[0], bytes) else str(error)
        raise ValueError(f"{text!r} is no regular expression: {reason}") from error


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether one of the patterns matches the name from end to end."""
    return any(compile_pattern(pattern).fullmatch(name) is not None for pattern in patterns)
