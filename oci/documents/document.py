"""YAML documents as lock files need them: read from hostile bytes, every value with its path, and written exactly.

Reading takes one document of mappings, lists and scalars. What can hurt is refused: more than SIZE_LIMIT bytes, deep
nesting, many aliases, tags, duplicate keys. Writing gives the text imgpkg gives for the same values, byte for byte:
`---`, keys sorted, quotes only where a plain word would mean something else. Only the signs U+0085, U+2028, U+2029 and
U+FEFF are written otherwise, as escapes, because imgpkg's own form of them doesn't read back.

The dialect is the one Go programs of the Carvel family read and write (go-yaml v2): YAML 1.1 without base-60 numbers,
which are quoted all the same. One table of words serves reading and writing, so that what is written reads back as it
was.
"""

from __future__ import annotations

import calendar
import math
import re
from collections.abc import Mapping
from functools import cmp_to_key
from typing import Any, TypeAlias

from msgspec import Struct

from oci.errors import InvalidDocument, InvalidReference
from oci.reference import Reference

API_VERSION = "imgpkg.carvel.dev/v1alpha1"

SIZE_LIMIT = 16 << 20
"""Bytes a document may have: room for 100,000 images."""

_PINNED = "write REGISTRY/REPOSITORY@sha256:..."
_PLAIN_LIMIT = 1 << 20
"""Bytes of a document that is worth a look whether it is a plain one."""

_PLAIN_LINE = re.compile(r"( {0,8})(- )?([A-Za-z][\w./-]*):(?: ([A-Za-z0-9](?:[\w./@:+-]*[\w])?))?", re.ASCII)


class YamlNode(Struct, frozen=True):
    """A value of a document and where it stands: `where` is the file, `path` such as `images[3].image`."""

    value: Any
    where: str
    path: str = ""

    def error(self, problem: str, *, hint: str = "", sentence: str = "") -> InvalidDocument:
        """`sentence` is what imgpkg calls the problem."""
        where = ": ".join(part for part in (self.where, self.path, problem) if part)
        return InvalidDocument(where, hint=hint, sentence=sentence)

    def fields(self, *names: str, strict: bool = True) -> dict[str, YamlNode]:
        """Returns a node for each known key, holding None where it is absent. `strict` refuses any other key."""
        entries = self._mapping()
        unknown = [key for key in entries if key not in names]
        if strict and unknown:
            raise self._child(unknown[0]).error(
                "unknown key",
                hint=f"known here: {', '.join(names)}",
                sentence=f'error unmarshaling JSON: while decoding JSON: json: unknown field "{unknown[0]}"',
            )
        return {key: self._child(key) for key in names}

    def texts(self) -> dict[str, str]:
        """Returns a mapping of text to text; `null` and an absent one are empty."""
        return {} if self.value is None else {key: self._child(key).text() for key in self._mapping()}

    def items(self) -> list[YamlNode]:
        """Returns the nodes of a list; `null` and an absent one are empty."""
        if not isinstance(self.value, list | None):
            raise self.error(f"expected a list, got {shown(self.value)}")
        return [YamlNode(item, self.where, f"{self.path}[{number}]") for number, item in enumerate(self.value or ())]

    def text(self) -> str:
        """Text; `null` and an absent one are empty. A bare number, or a bare word such as `yes`, isn't text."""
        if not isinstance(self.value, str | None):
            hint = "put it in quotes" if isinstance(self.value, NonText | bool) else ""
            raise self.error(f"expected text, got {shown(self.value)}", hint=hint)
        return self.value or ""

    def flag(self) -> bool:
        """Returns true or false; `null` and an absent one are false."""
        if not isinstance(self.value, bool | None):
            raise self.error(f"expected true or false, got {shown(self.value)}")
        return bool(self.value)

    def reference(self) -> Reference:
        """Returns a digest reference, canonicalised."""
        sentence = f"Expected ref to be in digest form, got '{self.text()}'"
        if not self.text():
            raise self.error("expected a digest reference, got nothing", hint=_PINNED, sentence=sentence)
        try:
            reference = Reference.parse(self.text())
        except InvalidReference as error:
            raise self.error(error.message, hint=error.hint, sentence=sentence) from error
        if reference.digest is None:
            raise self.error(f"expected a digest reference, got {shown(self.value)}", hint=_PINNED, sentence=sentence)
        return reference

    def _mapping(self) -> dict[str, Any]:
        if not isinstance(self.value, dict):
            raise self.error(f"expected a mapping, got {shown(self.value)}")
        return self.value

    def _child(self, key: str) -> YamlNode:
        return YamlNode(self._mapping().get(key), self.where, f"{self.path}.{key}" if self.path else key)


def unknown_header(key: str, expected: str) -> str:
    """Returns imgpkg's sentence for another `apiVersion` or `kind` than the expected one."""
    return f"Validating {key}: Unknown {'version' if key == 'apiVersion' else key} (known: {expected})"


def check_header(fields: Mapping[str, YamlNode], kind: str) -> None:
    """Raises InvalidDocument unless `apiVersion` and `kind` are the known ones."""
    for key, expected in (("apiVersion", API_VERSION), ("kind", kind)):
        if fields[key].text() != expected:
            raise fields[key].error(
                f"expected {expected}, got {shown(fields[key].value)}",
                sentence=unknown_header(key, expected),
            )


def pinned(reference: Reference) -> str:
    """Returns the canonical text. Raises InvalidDocument for a tag or a layout folder, which no reader of locks
    knows."""
    if reference.digest is None or not reference.repository.registry:
        raise InvalidDocument(f"{reference} can't stand in a lock", hint=_PINNED)
    return str(reference)


def parse(data: str | bytes, where: str) -> YamlNode:
    """Reads the one document in `data`. Raises InvalidDocument, naming `where` and the line."""
    plain = _plain(data)
    if plain is not None:
        return YamlNode(plain, where)
    from oci.documents.composer import Composer  # noqa: PLC0415 - PyYAML, for what isn't plain

    return YamlNode(Composer(where).compose(data, SIZE_LIMIT), where)


def render(value: Mapping[str, Any]) -> str:
    """Returns the document of mappings, sequences, text, booleans and None; its inverse is `parse`."""
    from oci.documents.composer import emitted  # noqa: PLC0415 - PyYAML, which a copy has no need of

    return emitted(value)


_Line: TypeAlias = tuple[int, bool, str, str | None]
"""Columns before the key, whether a dash stands before it, the key, and the word behind it."""


class _NotPlainError(Exception):
    """What a document has is for a parser of all YAML."""


def _plain(data: str | bytes) -> dict[str, Any] | None:
    """Reads what imgpkg, kbld and this program write: mappings in block style, lists of them, and plain words that mean
    text. None for any other document: a parser of all YAML reads it, or says in which line it is wrong."""
    if len(data) > _PLAIN_LIMIT:
        return None
    try:
        text = data if isinstance(data, str) else data.decode("ascii")
        lines = [_line(line) for line in text.removeprefix("---\n").removesuffix("\n").split("\n")]
        mapping, after = _mapping(lines, 0, 0)
    except (_NotPlainError, UnicodeDecodeError):
        return None
    return mapping if after == len(lines) else None


def _line(line: str) -> _Line:
    match = _PLAIN_LINE.fullmatch(line)
    if match is None:
        raise _NotPlainError
    spaces, dash, key, word = match.groups()
    if meaning(key) != "text" or (word is not None and meaning(word) != "text"):
        raise _NotPlainError
    return len(spaces), dash is not None, key, word


def _mapping(lines: list[_Line], at: int, column: int) -> tuple[dict[str, Any], int]:
    """The mapping whose keys stand in `column`, from line `at`, and the line after it."""
    mapping: dict[str, Any] = {}
    while at < len(lines) and lines[at][:2] == (column, False):
        _, _, key, word = lines[at]
        if key in mapping:
            raise _NotPlainError
        at += 1
        if word is not None:
            mapping[key] = word
            continue
        if at == len(lines):
            raise _NotPlainError
        below, is_item, _, _ = lines[at]
        if is_item and below >= column:
            mapping[key], at = _items(lines, at, below)
        elif not is_item and below > column:
            mapping[key], at = _mapping(lines, at, below)
        else:
            raise _NotPlainError
    return mapping, at


def _items(lines: list[_Line], at: int, column: int) -> tuple[list[Any], int]:
    items: list[Any] = []
    while at < len(lines) and lines[at][:2] == (column, True):
        lines[at] = (column + 2, False, *lines[at][2:])
        item, at = _mapping(lines, at, column + 2)
        items.append(item)
    return items, at


# What a plain word means, and how keys are sorted.

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
