"""YAML documents as lock files need them: read from hostile bytes, every value with its path, and written exactly.

Reading takes one document of mappings, lists and scalars. What can hurt is refused: more than SIZE_LIMIT bytes, deep
nesting, many aliases, tags, duplicate keys. Writing gives the text imgpkg gives for the same values, byte for byte:
`---`, keys sorted, quotes only where a plain word would mean something else. Only the signs U+0085, U+2028, U+2029 and
U+FEFF are written otherwise, as escapes, because imgpkg's own form of them doesn't read back.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeAlias

from msgspec import Struct

from oci.documents.yamltext import NonText, meaning, shown
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
