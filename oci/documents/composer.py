"""YAML out of hostile bytes: plain values for locks, values with the line they stand on for `mirrors.yaml`; and a
document out of values. Importing PyYAML takes a seventh of the start of a copy: a lock does it when it has to.

The composer works on the parser's events, which come before any object that could blow up. It refuses tags, deep
nesting, a second document, an alias without an anchor, and a key that comes twice.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, TypeAlias

import yaml

from oci.documents.yamltext import NonText, meaning, needs_quotes, shown, sort_key
from oci.errors import InvalidDocument

DEPTH_LIMIT = 32
VALUE_LIMIT = 1_000_000
"""Values that a lock may have: room for 100,000 images."""

ALIAS_LIMIT = 1_000
"""Aliases (`*name`) a lock may use; the tools that write locks use none."""

FILE_LIMIT = 4 << 20
FILE_VALUE_LIMIT = 200_000
"""Bytes that a file with lines may have, and values once every alias stands for what it means: some 10,000 mirrors."""

Path: TypeAlias = tuple[str | int, ...]

_LOADER: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
_DUMPER: Any = getattr(yaml, "CDumper", yaml.Dumper)
_LINE_WIDTH = 80
_MERGE = "<<"
_ESCAPED = "\x85\u2028\u2029\ufeff"
_PLAIN_TAGS = (None, "!", *(f"tag:yaml.org,2002:{kind}" for kind in ("str", "map", "seq")))
_CONSTANTS = {"null": None, "true": True, "false": False}
_EXTENSION = re.compile(r"x-[A-Za-z0-9_-]+")
"""A registry's host may begin with `x-` as well, but has a dot or a colon in it."""


class Composer:
    """Makes plain values of one document. A lock has no merge keys, and few aliases or none."""

    value_limit: float = VALUE_LIMIT
    alias_limit: float = ALIAS_LIMIT

    def __init__(self, where: str) -> None:
        self.where = where
        self._events: Iterator[Any] = iter(())
        self._anchors: dict[str, Any] = {}
        self._aliases = 0
        self._values = 0

    def compose(self, data: str | bytes, size_limit: int) -> Any:
        """Returns the value of the document, None when there is no document. Raises InvalidDocument, which names the
        place."""
        if len(data) > size_limit:
            raise InvalidDocument(f"{self.where}: more than {size_limit} bytes")
        self._events = yaml.parse(data, Loader=_LOADER)
        try:
            next(self._events)
            if isinstance(next(self._events), yaml.StreamEndEvent):
                return None
            value = self.value(next(self._events), 0)
            next(self._events)
            after = next(self._events)
        except (yaml.YAMLError, UnicodeError) as error:
            mark = getattr(error, "problem_mark", None)
            place = self.place(mark.line + 1) if mark else self.where
            problem = getattr(error, "problem", None) or getattr(error, "reason", "")
            raise InvalidDocument(f"{place}: not YAML: {problem}") from error
        if not isinstance(after, yaml.StreamEndEvent):
            raise self.error(after, "a second document; expected one")
        return value

    def place(self, line: int) -> str:
        """How an error names a line, which is counted from 1."""
        return f"{self.where}: line {line}"

    def error(self, event: Any, problem: str) -> InvalidDocument:
        return self.error_at(_line_of(event), problem)

    def error_at(self, line: int, problem: str) -> InvalidDocument:
        return InvalidDocument(f"{self.place(line)}: {problem}")

    def make(self, event: Any, content: Any) -> Any:
        """Makes a value of the items of a list, of a mapping's keys with their lines and values, or of a scalar."""
        if isinstance(event, yaml.MappingStartEvent):
            return {key: value for key, _, value in content}
        if not isinstance(event, yaml.ScalarEvent):
            return content
        means = _meaning(event)
        return event.value if means == "text" else _CONSTANTS.get(means, NonText(event.value, means))

    def key(self, event: Any, depth: int) -> str:
        key = self.value(event, depth)
        if key == _MERGE and (isinstance(event, yaml.AliasEvent) or event.implicit[0]):
            raise self.error(event, "a merge key; merging isn't done")
        if not isinstance(key, str):
            raise self.error(event, f"expected a key that is text, got {shown(key)}")
        return key

    def alias(self, event: Any) -> Any:
        self._aliases += 1
        if self._aliases > self.alias_limit:
            raise self.error(event, f"more than {ALIAS_LIMIT} aliases")
        if event.anchor not in self._anchors:
            raise self.error(event, f"the alias {event.anchor[:60]!r} stands for nothing")
        return self._anchors[event.anchor]

    def value(self, event: Any, depth: int) -> Any:
        if isinstance(event, yaml.AliasEvent):
            return self.alias(event)
        self._values += 1
        if self._values > self.value_limit:
            raise self.error(event, f"more than {VALUE_LIMIT} values")
        if event.tag not in _PLAIN_TAGS:
            raise self.error(event, f"tag {event.tag[:60]!r}; tags aren't read")
        if depth > DEPTH_LIMIT:
            raise self.error(event, f"nested more than {DEPTH_LIMIT} deep")
        content: Any = None
        if isinstance(event, yaml.SequenceStartEvent):
            content = [self.value(item, depth + 1) for item in self._until(yaml.SequenceEndEvent)]
        elif isinstance(event, yaml.MappingStartEvent):
            content = self._pairs(depth + 1)
        value = self.make(event, content)
        if event.anchor:
            self._anchors[event.anchor] = value
        return value

    def _pairs(self, depth: int) -> list[tuple[str, int, Any]]:
        pairs: list[tuple[str, int, Any]] = []
        keys: set[str] = set()
        for event in self._until(yaml.MappingEndEvent):
            key = self.key(event, depth)
            if key in keys:
                raise self.error(event, f"the key {key[:60]!r} comes twice")
            keys.add(key)
            pairs.append((key, _line_of(event), self.value(next(self._events), depth)))
        return pairs

    def _until(self, end: type[Any]) -> Iterator[Any]:
        while not isinstance(event := next(self._events), end):
            yield event


def _line_of(event: Any) -> int:
    line: int = event.start_mark.line
    return line + 1


def _meaning(event: Any) -> str:
    # `implicit[0]` is set for a scalar that is plain and untagged: only there a word can mean something but itself.
    return meaning(event.value) if event.implicit[0] else "text"


# With lines.


@dataclass(slots=True)
class _Node:
    """A value as it was written: `value` is a scalar, a list of nodes, or a list of (key, line, node); `line` that of
    its beginning."""

    line: int
    value: Any
    is_mapping: bool = False


@dataclass(frozen=True, slots=True)
class Located:
    """`value` is what the file means; `lines` has the line of each path in it, `(mirrors, 2, name)`."""

    where: str
    value: Any
    lines: dict[Path, int] = field(default_factory=dict)

    def at(self, path: Path) -> str:
        """`mirrors.yaml:12`, the line of the path or of the nearest that the file has above it."""
        for length in range(len(path), -1, -1):
            line = self.lines.get(path[:length])
            if line is not None:
                return f"{self.where}:{line}"
        return self.where


def read_located(data: bytes, where: str, *, names: Collection[Path] = ()) -> Located:
    """Reads a file whose anchors, aliases and merge keys (`<<`) are followed, and whose keys `x-...` are left out
    wherever they stand. `names` are the paths of mappings whose keys are names, so that none of them is left out; `*`
    stands for any key. Raises InvalidDocument, naming `where` and the line."""
    nodes = _Nodes(where, names)
    node = nodes.compose(data, FILE_LIMIT)
    return Located(where, None if node is None else nodes.plain(node, (), 0), nodes.lines)


class _Nodes(Composer):
    """Makes nodes with their lines; an alias is a reference to the node that it stands for. `plain` follows it, and
    counts the values."""

    value_limit = alias_limit = math.inf

    def __init__(self, where: str, names: Collection[Path]) -> None:
        super().__init__(where)
        self.lines: dict[Path, int] = {}
        self._names = names
        self._followed = 0

    def place(self, line: int) -> str:
        return f"{self.where}:{line}"

    def make(self, event: Any, content: Any) -> _Node:
        if isinstance(event, yaml.ScalarEvent):
            return _Node(_line_of(event), _number_or_word(event))
        return _Node(_line_of(event), content, isinstance(event, yaml.MappingStartEvent))

    def key(self, event: Any, depth: int) -> str:
        del depth
        if not isinstance(event, yaml.ScalarEvent):
            raise self.error(event, "expected a key that is text")
        return str(event.value)

    def plain(self, node: _Node, path: Path, depth: int) -> Any:
        """Returns the plain value of a node, and records the line of each path in it."""
        self._followed += 1
        if self._followed > FILE_VALUE_LIMIT:
            raise self.error_at(node.line, f"more than {FILE_VALUE_LIMIT} values once aliases are followed")
        self._check_depth(node, depth)
        self.lines.setdefault(path, node.line)
        if node.is_mapping:
            return self._mapping(node, path, depth + 1)
        if isinstance(node.value, list):
            return [self.plain(item, (*path, number), depth + 1) for number, item in enumerate(node.value)]
        return node.value

    def _mapping(self, node: _Node, path: Path, depth: int) -> dict[str, Any]:
        values: dict[str, Any] = {}
        has_names = any(
            len(names) == len(path) and all(part in ("*", step) for part, step in zip(names, path, strict=True))
            for names in self._names
        )
        for key, line, child in self._entries(node, depth):
            if key in values or (_EXTENSION.fullmatch(key) and not has_names):
                continue
            self.lines[(*path, key)] = line
            values[key] = self.plain(child, (*path, key), depth)
        return values

    def _entries(self, node: _Node, depth: int) -> Iterator[tuple[str, int, _Node]]:
        """Own keys first, then those that are merged in: of two with one name the first counts."""
        self._check_depth(node, depth)
        yield from (entry for entry in node.value if entry[0] != _MERGE)
        for key, line, child in node.value:
            if key != _MERGE:
                continue
            for source in child.value if isinstance(child.value, list) and not child.is_mapping else [child]:
                self._followed += 1
                if not source.is_mapping or self._followed > FILE_VALUE_LIMIT:
                    raise self.error_at(line, "expected a mapping, or a list of them, behind <<")
                yield from self._entries(source, depth + 1)

    def _check_depth(self, node: _Node, depth: int) -> None:
        if depth > DEPTH_LIMIT:
            raise self.error_at(node.line, f"nested more than {DEPTH_LIMIT} deep once aliases are followed")


def _number_or_word(event: Any) -> Any:
    """Text where the word isn't plain; else what YAML takes it for. A date stays text."""
    text, means = event.value, _meaning(event)
    if means != "number":
        return _CONSTANTS.get(means, text)
    digits = text.replace("_", "")
    try:
        return int(digits) if re.fullmatch(r"[-+]?[0-9]+", digits) else float(digits)
    except ValueError:
        return digits


# Writing.


def emitted(value: Mapping[str, Any]) -> str:
    """Returns the document of mappings, sequences, text, booleans and None."""
    events = chain(
        (yaml.StreamStartEvent(), yaml.DocumentStartEvent(explicit=False)),
        _events(value),
        (yaml.DocumentEndEvent(explicit=False), yaml.StreamEndEvent()),
    )
    text: str = yaml.emit(events, Dumper=_DUMPER, allow_unicode=True, width=_LINE_WIDTH, indent=2, line_break="\n")
    # The library marks the end of the document when some text inside kept its trailing line breaks; imgpkg doesn't.
    return "---\n" + (text[: -len("...\n")] if text.endswith("\n...\n") else text)


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
