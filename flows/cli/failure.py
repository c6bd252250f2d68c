"""Errors as a person reads them, as a program reads them, and as an exit code."""

from __future__ import annotations

import re
from typing import Any

from oci.errors import Incomplete, StoreError, TransshipError

DONE = 0
FAILED = 1
USAGE = 2
PARTLY = 3
DRIFT = 4

_SHOWN_FAILURES = 20


def exit_code(error: TransshipError) -> int:
    """PARTLY when images failed and others are in place."""
    return PARTLY if isinstance(error, Incomplete) and error.some_done else FAILED


def laid_out(program: str, error: TransshipError) -> str:
    """`imgpkg: Error: …`, cut into lines as imgpkg does; the hint, and what failed, on lines of their own."""
    message, hint = _without_hint(error)
    lines = [f"{program}: Error: {indented(message)}"]
    if isinstance(error, Incomplete):
        lines.extend(f"  - {indented(str(failure), 2)}" for failure in error.failures[:_SHOWN_FAILURES])
        if len(error.failures) > _SHOWN_FAILURES:
            lines.append(f"  - and {len(error.failures) - _SHOWN_FAILURES} more: --report FILE lists them all")
    if hint:
        lines.append(f"Hint: {hint}")
    return "\n".join(lines)


def indented(message: str, level: int = 0) -> str:
    """Cut at every `: ` that a capital letter follows, outside of brackets; each part two more spaces in."""
    parts = [""]
    depth = 0
    for position, letter in enumerate(message):
        depth += (letter == "[") - (letter == "]" and depth > 0)
        parts[-1] += letter
        if depth == 0 and message[position - 1 : position + 1] == ": " and re.match("[A-Z]", message[position + 1 :]):
            parts[-1] = parts[-1].rstrip()
            parts.append("")
    return "\n".join(f"{' ' * 2 * (number + level) if number else ''}{part}" for number, part in enumerate(parts))


def as_object(error: TransshipError) -> dict[str, Any]:
    message, hint = _without_hint(error)
    found: dict[str, Any] = {
        "Message": message,
        "Hint": hint,
        "Kind": type(error).__name__,
        "Retryable": error.retryable,
    }
    if isinstance(error, StoreError):
        found |= {"Side": error.side, "Store": error.store, "Subject": error.subject, "Code": error.code}
    if isinstance(error, Incomplete):
        found["Failures"] = [as_object(failure) for failure in error.failures]
    return found


def _without_hint(error: TransshipError) -> tuple[str, str]:
    text = str(error)
    tail = f" (hint: {error.hint})" if error.hint else ""
    return text.removesuffix(tail) if tail else text, error.hint
