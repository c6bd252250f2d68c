"""One YAML document out of hostile bytes: the composer that readers of locks and of mirrors.yaml specialize; and a
document out of values. Importing PyYAML takes a seventh of the start of a copy: `document` does it when it has to.

It works on the parser's events, which come before any object that could blow up. It refuses tags, deep nesting, a
second document, an alias without an anchor, and a key that comes twice.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

import yaml

from oci.documents.yamltext import NonText, meaning, needs_quotes, shown, sort_key
from oci.errors import InvalidDocument

T = TypeVar("T")

DEPTH_LIMIT = 32
VALUE_LIMIT = 1_000_000
"""Values that a lock may have: room for 100,000 images."""

ALIAS_LIMIT = 1_000
"""Aliases (`*name`) a lock may use; the tools that write locks use none."""

_LOADER: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
_DUMPER: Any = getattr(yaml, "CDumper", yaml.Dumper)
_LINE_WIDTH = 80
_MERGE = "<<"
_ESCAPED = "\x85\u2028\u2029\ufeff"
_PLAIN_TAGS = (None, "!", *(f"tag:yaml.org,2002:{kind}" for kind in ("str", "map", "seq")))


class Composer(ABC, Generic[T]):
    """Makes a T of each value. A subclass says what a scalar, a list and a mapping become, and which keys it takes."""

    def __init__(self, where: str) -> None:
        self.where = where
        self._events: Iterator[Any] = iter(())
        self._anchors: dict[str, T] = {}

    def compose(self, data: str | bytes, size_limit: int) -> T | None:
        """Returns the value of the document, None when there is no document. Raises InvalidDocument, which names the
        place."""
        if len(data) > size_limit:
            raise InvalidDocument(f"{self.where}: more than {size_limit} bytes")
        self._events = yaml.parse(data, Loader=_LOADER)
        try:
            return self._document()
        except (yaml.YAMLError, UnicodeError) as error:
            mark = getattr(error, "problem_mark", None)
            place = self.place(mark.line + 1) if mark else self.where
            problem = getattr(error, "problem", None) or getattr(error, "reason", "")
            raise InvalidDocument(f"{place}: not YAML: {problem}") from error

    def place(self, line: int) -> str:
        """How an error names a line, which is counted from 1."""
        return f"{self.where}:{line}"

    def error(self, event: Any, problem: str) -> InvalidDocument:
        return InvalidDocument(f"{self.place(line_of(event))}: {problem}")

    def count(self, event: Any) -> None:
        """Is called for each value that isn't an alias, before the value is read."""

    @abstractmethod
    def scalar(self, event: Any) -> T: ...

    @abstractmethod
    def sequence(self, event: Any, items: list[T]) -> T: ...

    @abstractmethod
    def mapping(self, event: Any, pairs: list[tuple[str, int, T]]) -> T:
        """`pairs` are keys with their lines and values."""

    def key(self, event: Any, depth: int) -> str:
        del depth
        if not isinstance(event, yaml.ScalarEvent):
            raise self.error(event, "expected a key that is text")
        return str(event.value)

    def alias(self, event: Any) -> T:
        if event.anchor not in self._anchors:
            raise self.error(event, f"the alias {event.anchor[:60]!r} stands for nothing")
        return self._anchors[event.anchor]

    def value(self, event: Any, depth: int) -> T:
        if isinstance(event, yaml.AliasEvent):
            return self.alias(event)
        self.count(event)
        if event.tag not in _PLAIN_TAGS:
            raise self.error(event, f"tag {event.tag[:60]!r}; tags aren't read")
        if depth > DEPTH_LIMIT:
            raise self.error(event, f"nested more than {DEPTH_LIMIT} deep")
        if isinstance(event, yaml.ScalarEvent):
            node = self.scalar(event)
        elif isinstance(event, yaml.SequenceStartEvent):
            node = self.sequence(event, [self.value(item, depth + 1) for item in self._until(yaml.SequenceEndEvent)])
        else:
            node = self.mapping(event, self._pairs(depth + 1))
        if event.anchor:
            self._anchors[event.anchor] = node
        return node

    def _document(self) -> T | None:
        next(self._events)
        if isinstance(next(self._events), yaml.StreamEndEvent):
            return None
        node = self.value(next(self._events), 0)
        next(self._events)
        after = next(self._events)
        if not isinstance(after, yaml.StreamEndEvent):
            raise self.error(after, "a second document; expected one")
        return node

    def _pairs(self, depth: int) -> list[tuple[str, int, T]]:
        pairs: list[tuple[str, int, T]] = []
        keys: set[str] = set()
        for event in self._until(yaml.MappingEndEvent):
            key = self.key(event, depth)
            if key in keys:
                raise self.error(event, f"the key {key[:60]!r} comes twice")
            keys.add(key)
            pairs.append((key, line_of(event), self.value(next(self._events), depth)))
        return pairs

    def _until(self, end: type[Any]) -> Iterator[Any]:
        while not isinstance(event := next(self._events), end):
            yield event


def line_of(event: Any) -> int:
    line: int = event.start_mark.line
    return line + 1


class Values(Composer[Any]):
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
            raise self.error(event, f"expected a key that is text, got {shown(key)}")
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


def emitted(value: Mapping[str, Any]) -> str:
    """Returns the document of mappings, sequences, text, booleans and None."""
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
