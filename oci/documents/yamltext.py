"""How a scalar reads in the YAML dialect of lock files: which plain words mean text, and how mapping keys are sorted.

The dialect is the one Go programs of the Carvel family read and write (go-yaml v2): YAML 1.1 without base-60 numbers,
which are quoted all the same. One table serves reading and writing, so that what is written reads back as it was.
"""

from __future__ import annotations

import calendar
import math
import re
from functools import cmp_to_key
from typing import Any

from msgspec import Struct

_WORDS = {
    **dict.fromkeys(["y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"], "true"),
    **dict.fromkeys(["n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"], "false"),
    **dict.fromkeys(["", "~", "null", "Null", "NULL"], "null"),
    **dict.fromkeys([".nan", ".NaN", ".NAN"], "number"),
    **dict.fromkeys((sign + word for sign in ("", "+", "-") for word in (".inf", ".Inf", ".INF")), "number"),
}
_INTEGER = re.compile(r"[-+]?(0[xX][0-9a-fA-F]+|0[bB][01]+|0[oO]?[0-7]+|0|[1-9][0-9]*)")
_LONGEST_INTEGER = 128
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_DIGITS = "0123456789"
_BASE_60 = re.compile(r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?")
_DATE = re.compile(
    r"([0-9]{4})-([0-9]{1,2})-([0-9]{1,2})"
    r"([Tt ]([0-9]{1,2}):([0-9]{1,2}):([0-9]{1,2})([.,][0-9]+)?(Z|[-+][0-9]{2}:[0-9]{2})?)?"
)


def meaning(text: str) -> str:
    """Returns what a plain `text` means: `text`, `true`, `false`, `null`, `number` or `timestamp`."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] in "+-.0123456789":
        if _is_timestamp(text):
            return "timestamp"
        if _is_number(text):
            return "number"
    return "text"


def needs_quotes(text: str) -> bool:
    """Says whether `text` would be taken for something else when written plain, here or by another YAML 1.1 reader."""
    return meaning(text) != "text" or _BASE_60.fullmatch(text) is not None


def _is_number(text: str) -> bool:
    """Returns a 64-bit integer in any notation, or a decimal number that fits a double; beyond both it is text."""
    plain = text if text[0] == "." else text.replace("_", "")
    if len(plain) <= _LONGEST_INTEGER and _INTEGER.fullmatch(plain):
        # `017` as Python wants it: `0o17`.
        value = int(re.sub(r"^([-+]?)0([0-7]+)$", r"\g<1>0o\2", plain), 0)
        if -(1 << 63) <= value < (1 << 63) or (value < (1 << 64) and plain[0] not in "+-"):
            return True
    return _FLOAT.fullmatch(plain) is not None and not math.isinf(float(plain))


def _is_timestamp(text: str) -> bool:
    match = _DATE.fullmatch(text)
    if not match:
        return False
    year, month, day = (int(number) for number in match.group(1, 2, 3))
    if not 1 <= month <= 12 or not 1 <= day <= calendar.monthrange(year, month)[1]:
        return False
    if not match[4]:
        return True
    hour, minute, second = (int(number) for number in match.group(5, 6, 7))
    zoned = bool(match[9])
    return hour < 24 and minute < 60 and second < 60 and zoned == (match[4][0] != " ")


def _compare(left: str, right: str) -> int:
    for at, (sign, other) in enumerate(zip(left, right, strict=False)):
        if sign == other:
            continue
        if sign.isalpha() and other.isalpha():
            return -1 if sign < other else 1
        if sign.isalpha() or other.isalpha():
            return -1 if other.isalpha() else 1
        # A zero behind other digits is no leading zero: without a digit before it, 105 and 15 would both end in 5.
        inside = "0" in (sign, other) and left[:at][len(left[:at].rstrip(_DIGITS)) :].strip("0") != ""
        mine, theirs = (_number(name, at, "1" if inside else "") for name in (left, right))
        return -1 if (*mine, sign) < (*theirs, other) else 1
    return len(left) - len(right)


def _number(name: str, at: int, lead: str) -> tuple[int, int]:
    """Returns the value of the digits from `at` on, and how many there are."""
    run = name[at : len(name) - len(name[at:].lstrip(_DIGITS))]
    # go-yaml counts in 64 bits and lets them overflow; the last 64 digits decide what is left then.
    value = int(f"{lead}{run}"[-64:] or "0") % (1 << 64)
    return value - (1 << 64) if value >> 63 else value, len(run)


sort_key = cmp_to_key(_compare)
"""Orders mapping keys as they are written: runs of digits by their number, other signs before letters."""


class NonText(Struct, frozen=True):
    """A plain scalar that means a number or a timestamp: nothing that a lock holds."""

    text: str
    meaning: str


def shown(value: Any) -> str:
    """Says in an error what a value is."""
    if value is None:
        return "nothing"
    if isinstance(value, NonText):
        return f"the {value.meaning} {value.text[:60]}"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return repr(value[:60])
    return "a list" if isinstance(value, list) else "a mapping"
