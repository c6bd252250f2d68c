"""YAML documents as lock files need them: read from hostile bytes, every value with its path, and written exactly.

Reading takes one document of mappings, lists and scalars. What can hurt is refused: more than SIZE_LIMIT bytes, deep
nesting, many aliases, tags, duplicate keys. Writing gives the text imgpkg gives for the same values, byte for byte:
`---`, keys sorted, quotes only where a plain word would mean something else. Only the signs U+0085, U+2028, U+2029 and
U+FEFF are written otherwise, as escapes, because imgpkg's own form of them doesn't read back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml
from msgspec import Struct

from oci.bundle.composer import Composer
from oci.bundle.yamltext import meaning, needs_quotes, sort_key
from oci.errors import InvalidDocument, InvalidReference
from oci.reference import Reference

API_VERSION = "imgpkg.carvel.dev/v1alpha1"

SIZE_LIMIT = 16 << 20
VALUE_LIMIT = 1_000_000
"""Bytes a document may have, and values in it: room for 100,000 images."""

ALIAS_LIMIT = 1_000
"""Aliases (`*name`) a document may use; the tools that write locks use none."""

_DUMPER: Any = getattr(yaml, "CDumper", yaml.Dumper)
_LINE_WIDTH = 80
_PINNED = "write REGISTRY/REPOSITORY@sha256:..."
_MERGE = "<<"
_ESCAPED = "\x85\u2028\u2029\ufeff"


class NonText(Struct, frozen=True):
    """A plain scalar that means a number or a timestamp: nothing that a lock holds."""

    text: str
    meaning: str


class YamlNode(Struct, frozen=True):
    """A value of a document and where it stands: `where` is the file, `path` such as `images[3].image`."""

    value: Any
    where: str
    path: str = ""

    def error(self, problem: str, *, hint: str = "") -> InvalidDocument:
        return InvalidDocument(": ".join(part for part in (self.where, self.path, problem) if part), hint=hint)

    def fields(self, *names: str, strict: bool = True) -> dict[str, YamlNode]:
        """Returns a node for each known key, holding None where it is absent. `strict` refuses any other key."""
        entries = self._mapping()
        unknown = [key for key in entries if key not in names]
        if strict and unknown:
            raise self._child(unknown[0]).error("unknown key", hint=f"known here: {', '.join(names)}")
        return {key: self._child(key) for key in names}

    def texts(self) -> dict[str, str]:
        """Returns a mapping of text to text; `null` and an absent one are empty."""
        return {} if self.value is None else {key: self._child(key).text() for key in self._mapping()}

    def items(self) -> list[YamlNode]:
        """Returns the nodes of a list; `null` and an absent one are empty."""
        if not isinstance(self.value, list | None):
            raise self.error(f"expected a list, got {_shown(self.value)}")
        return [YamlNode(item, self.where, f"{self.path}[{number}]") for number, item in enumerate(self.value or ())]

    def text(self) -> str:
        """Text; `null` and an absent one are empty. A bare number, or a bare word such as `yes`, isn't text."""
        if not isinstance(self.value, str | None):
            hint = "put it in quotes" if isinstance(self.value, NonText | bool) else ""
            raise self.error(f"expected text, got {_shown(self.value)}", hint=hint)
        return self.value or ""

    def flag(self) -> bool:
        """Returns true or false; `null` and an absent one are false."""
        if not isinstance(self.value, bool | None):
            raise self.error(f"expected true or false, got {_shown(self.value)}")
        return bool(self.value)

    def reference(self) -> Reference:
        """Returns a digest reference, canonicalised."""
        if not self.text():
            raise self.error("expected a digest reference, got nothing", hint=_PINNED)
        try:
            reference = Reference.parse(self.text())
        except InvalidReference as error:
            raise self.error(error.message, hint=error.hint) from error
        if reference.digest is None:
            raise self.error(f"expected a digest reference, got {_shown(self.value)}", hint=_PINNED)
        return reference

    def _mapping(self) -> dict[str, Any]:
        if not isinstance(self.value, dict):
            raise self.error(f"expected a mapping, got {_shown(self.value)}")
        return self.value

    def _child(self, key: str) -> YamlNode:
        return YamlNode(self._mapping().get(key), self.where, f"{self.path}.{key}" if self.path else key)


def check_header(fields: Mapping[str, YamlNode], kind: str) -> None:
    """Raises InvalidDocument unless `apiVersion` and `kind` are the known ones."""
    for key, expected in (("apiVersion", API_VERSION), ("kind", kind)):
        if fields[key].text() != expected:
            raise fields[key].error(f"expected {expected}, got {_shown(fields[key].value)}")


def pinned(reference: Reference) -> str:
    """Returns the canonical text. Raises InvalidDocument for a tag or a layout folder, which no reader of locks
    knows."""
    if reference.digest is None or not reference.repository.registry:
        raise InvalidDocument(f"{reference} can't stand in a lock", hint=_PINNED)
    return str(reference)


def parse(data: str | bytes, where: str) -> YamlNode:
    """Reads the one document in `data`. Raises InvalidDocument, naming `where` and the line."""
    return YamlNode(_Values(where).compose(data, SIZE_LIMIT), where)


class _Values(Composer[Any]):
    """Makes plain values. A lock has no merge keys, and few aliases or none."""

    def __init__(self, where: str) -> None:
        super().__init__(where)
        self._aliases = 0
        self._values = 0

    def place(self, line: int) -> str:
        return f"{self.where}: line {line}"

    def count(self, event: Any) -> None:
        self._values += 1
        if self._values > VALUE_LIMIT:
            raise self.error(event, f"more than {VALUE_LIMIT} values")

    def scalar(self, event: Any) -> Any:
        return _scalar(event)

    def sequence(self, event: Any, items: list[Any]) -> Any:
        del event
        return items

    def mapping(self, event: Any, pairs: list[tuple[str, int, Any]]) -> Any:
        del event
        return {key: value for key, _, value in pairs}

    def key(self, event: Any, depth: int) -> str:
        key = self.value(event, depth)
        if key == _MERGE and event.implicit[0]:
            raise self.error(event, "a merge key; merging isn't done")
        if not isinstance(key, str):
            raise self.error(event, f"expected a key that is text, got {_shown(key)}")
        return key

    def alias(self, event: Any) -> Any:
        self._aliases += 1
        if self._aliases > ALIAS_LIMIT:
            raise self.error(event, f"more than {ALIAS_LIMIT} aliases")
        return super().alias(event)


def _scalar(event: Any) -> Any:
    # `implicit[0]` is set for a scalar that is plain and untagged: only there a word can mean something but itself.
    means = meaning(event.value) if event.implicit[0] else "text"
    if means == "text":
        return event.value
    return {"null": None, "true": True, "false": False}.get(means, NonText(event.value, means))


def _shown(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, NonText):
        return f"the {value.meaning} {value.text[:60]}"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return repr(value[:60])
    return "a list" if isinstance(value, list) else "a mapping"


def render(value: Mapping[str, Any]) -> str:
    """Returns the document of mappings, sequences, text, booleans and None; its inverse is `parse`."""
    text: str = yaml.emit(
        _document(value), Dumper=_DUMPER, allow_unicode=True, width=_LINE_WIDTH, indent=2, line_break="\n"
    )
    # The library marks the end of the document when some text inside kept its trailing line breaks; imgpkg doesn't.
    return "---\n" + (text[: -len("...\n")] if text.endswith("\n...\n") else text)


def _document(value: Any) -> Iterator[yaml.Event]:
    yield yaml.StreamStartEvent()
    yield yaml.DocumentStartEvent(explicit=False)
    yield from _events(value)
    yield yaml.DocumentEndEvent(explicit=False)
    yield yaml.StreamEndEvent()


def _events(value: Any) -> Iterator[yaml.Event]:
    if isinstance(value, Mapping):
        yield yaml.MappingStartEvent(None, None, implicit=True, flow_style=False)
        for key in sorted(value, key=sort_key):
            yield _text_event(key, quoted=key == _MERGE)
            yield from _events(value[key])
        yield yaml.MappingEndEvent()
    elif isinstance(value, Sequence) and not isinstance(value, str):
        yield yaml.SequenceStartEvent(None, None, implicit=True, flow_style=False)
        for item in value:
            yield from _events(item)
        yield yaml.SequenceEndEvent()
    elif isinstance(value, str):
        yield _text_event(value)
    else:
        word = {None: "null", True: "true", False: "false"}[value]
        yield yaml.ScalarEvent(None, None, (True, True), word)


def _text_event(text: str, *, quoted: bool = False) -> yaml.Event:
    style = None
    if quoted or any(sign in text for sign in _ESCAPED):
        style = '"'
    elif "\n" in text:
        style = "|"
    elif needs_quotes(text):
        style = '"'
    return yaml.ScalarEvent(None, None, (True, True), text, style=style)
