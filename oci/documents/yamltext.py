"""The YAML dialect of lock files: which plain words mean text, how mapping keys are sorted; and the documents that have
plain words only, which are read here, because importing PyYAML takes a seventh of the start of a copy.

The dialect is the one Go programs of the Carvel family read and write (go-yaml v2): YAML 1.1 without base-60 numbers,
which are quoted all the same. One table serves reading and writing, so that what is written reads back as it was.
"""

from __future__ import annotations

import calendar
import math
import re
from functools import cmp_to_key
from typing import Any, TypeAlias

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


_PLAIN_LIMIT = 1 << 20
"""Bytes of a document that is worth a look whether it is a plain one."""

_PLAIN_LINE = re.compile(r"( {0,8})(- )?([A-Za-z][\w./-]*):(?: ([A-Za-z0-9](?:[\w./@:+-]*[\w])?))?", re.ASCII)

_Line: TypeAlias = tuple[int, bool, str, str | None]
"""Columns before the key, whether a dash stands before it, the key, and the word behind it."""


class _NotPlainError(Exception):
    """What a document has is for a parser of all YAML."""


def plain_document(data: str | bytes) -> dict[str, Any] | None:
    """Reads what imgpkg, kbld and this program write: mappings in block style, lists of them, and plain words that mean
    text. None for any other document: a parser of all YAML reads it, or says in which line it is wrong."""
    if len(data) > _PLAIN_LIMIT:
        return None
    try:
        text = data if isinstance(data, str) else data.decode("ascii")
        lines = [_line(line) for line in text.removeprefix("---\n").removesuffix("\n").split("\n")]
        value, after = _block(lines, 0)
    except (_NotPlainError, UnicodeDecodeError):
        return None
    return value if isinstance(value, dict) and lines[0][0] == 0 and after == len(lines) else None


def _line(line: str) -> _Line:
    match = _PLAIN_LINE.fullmatch(line)
    if match is None:
        raise _NotPlainError
    spaces, dash, key, word = match.groups()
    if meaning(key) != "text" or (word is not None and meaning(word) != "text"):
        raise _NotPlainError
    return len(spaces), dash is not None, key, word


def _block(lines: list[_Line], at: int) -> tuple[dict[str, Any] | list[Any], int]:
    """The list or mapping whose first line is `at`, and the line after it."""
    column, is_list, _, _ = lines[at]
    items: list[Any] = []
    while is_list and at < len(lines) and lines[at][:2] == (column, True):
        lines[at] = (column + 2, False, *lines[at][2:])
        item, at = _block(lines, at)
        items.append(item)
    if is_list:
        return items, at
    mapping: dict[str, Any] = {}
    while at < len(lines) and lines[at][:2] == (column, False):
        _, _, key, word = lines[at]
        if key in mapping:
            raise _NotPlainError
        at += 1
        if word is not None:
            mapping[key] = word
            continue
        if at == len(lines) or lines[at][0] < column + (not lines[at][1]):
            raise _NotPlainError
        mapping[key], at = _block(lines, at)
    return mapping, at
