"""One YAML document out of hostile bytes: the composer that readers of locks and of mirrors.yaml specialize.

It works on the parser's events, which come before any object that could blow up. It refuses tags, deep nesting, a
second document, an alias without an anchor, and a key that comes twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Generic, TypeVar

import yaml

from oci.errors import InvalidDocument

T = TypeVar("T")

DEPTH_LIMIT = 32
_LOADER: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
_PLAIN_TAGS = (None, "!", *(f"tag:yaml.org,2002:{kind}" for kind in ("str", "map", "seq")))


class Composer(Generic[T]):
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

    def scalar(self, event: Any) -> T:
        raise NotImplementedError

    def sequence(self, event: Any, items: list[T]) -> T:
        raise NotImplementedError

    def mapping(self, event: Any, pairs: list[tuple[str, int, T]]) -> T:
        """`pairs` are keys with their lines and values."""
        raise NotImplementedError

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
