"""A YAML file as plain values, each with the line it stands on: so that whatever is wrong with one can be said as
`mirrors.yaml:12`.

Anchors, aliases and merge keys (`<<`) are followed, keys `x-...` are left out wherever they stand. What can hurt is
refused: a big file, deep nesting, more values than a configuration has even after aliases are followed, tags, and a key
that comes twice.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from oci.documents.composer import DEPTH_LIMIT, Composer, line_of
from oci.documents.yamltext import meaning
from oci.errors import InvalidDocument

SIZE_LIMIT = 4 << 20
VALUE_LIMIT = 200_000
"""Bytes the file may have, and values in it once every alias stands for what it means: room for some 10,000 mirrors."""

Path: TypeAlias = tuple[str | int, ...]

_MERGE = "<<"
_EXTENSION = re.compile(r"x-[A-Za-z0-9_-]+")
"""A registry's host may begin with `x-` as well, but has a dot or a colon in it."""


@dataclass(slots=True)
class _Node:
    """A value as it was written: `value` is text, a list of nodes, or a list of (key, node) pairs; `line` that of its
    beginning, and for the value of a key that of the key."""

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


def read(data: bytes, where: str, *, names: Collection[Path] = ()) -> Located:
    """Raises InvalidDocument, naming `where` and the line. `names` are the paths of mappings whose keys are names, so
    that none of them is left out; `*` stands for any key."""
    node = _Nodes(where).compose(data, SIZE_LIMIT)
    if node is None:
        return Located(where, None)
    plain = _Plain(where, names)
    return Located(where, plain.of(node, (), 0), plain.lines)


class _Nodes(Composer[_Node]):
    """Makes nodes with their lines; an alias is a reference to the node that it stands for."""

    def scalar(self, event: Any) -> _Node:
        return _Node(line_of(event), _scalar(event))

    def sequence(self, event: Any, items: list[_Node]) -> _Node:
        return _Node(line_of(event), items)

    def mapping(self, event: Any, pairs: list[tuple[str, int, _Node]]) -> _Node:
        return _Node(line_of(event), pairs, is_mapping=True)


class _Plain:
    """Plain values out of nodes. Here an alias is followed, so here the values are counted."""

    def __init__(self, where: str, names: Collection[Path] = ()) -> None:
        self.lines: dict[Path, int] = {}
        self._where = where
        self._names = names
        self._values = 0

    def of(self, node: _Node, path: Path, depth: int) -> Any:
        self._values += 1
        if self._values > VALUE_LIMIT:
            raise self._error(node, f"more than {VALUE_LIMIT} values once aliases are followed")
        if depth > DEPTH_LIMIT:
            raise self._error(node, f"nested more than {DEPTH_LIMIT} deep once aliases are followed")
        self.lines.setdefault(path, node.line)
        if node.is_mapping:
            return self._mapping(node, path, depth + 1)
        if isinstance(node.value, list):
            return [self.of(item, (*path, number), depth + 1) for number, item in enumerate(node.value)]
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
            values[key] = self.of(child, (*path, key), depth)
        return values

    def _entries(self, node: _Node, depth: int) -> Iterator[tuple[str, int, _Node]]:
        """Own keys first, then those that are merged in: of two with one name the first counts."""
        if depth > DEPTH_LIMIT:
            raise self._error(node, f"nested more than {DEPTH_LIMIT} deep once aliases are followed")
        yield from (entry for entry in node.value if entry[0] != _MERGE)
        for key, line, child in node.value:
            if key != _MERGE:
                continue
            for source in child.value if isinstance(child.value, list) and not child.is_mapping else [child]:
                self._values += 1
                if not source.is_mapping or self._values > VALUE_LIMIT:
                    raise InvalidDocument(f"{self._where}:{line}: expected a mapping, or a list of them, behind <<")
                yield from self._entries(source, depth + 1)

    def _error(self, node: _Node, problem: str) -> InvalidDocument:
        return InvalidDocument(f"{self._where}:{node.line}: {problem}")


def _scalar(event: Any) -> Any:
    """Text where the word isn't plain; else what YAML takes it for. A date stays text."""
    text: str = event.value
    means = meaning(text) if event.implicit[0] else "text"
    if means == "number":
        digits = text.replace("_", "")
        return int(digits) if re.fullmatch(r"[-+]?[0-9]+", digits) else _float(digits)
    return {"null": None, "true": True, "false": False}.get(means, text)


def _float(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
