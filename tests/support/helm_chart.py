"""Renders a chart as `helm template` does, for the part of Go's templates that ours uses: if, else, with, define,
include, pipelines. Whatever it doesn't know is an error, so that a chart never passes by being misread."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

_ACTION = re.compile(r"(\s*)\{\{(-?)\s*(.*?)\s*(-?)\}\}", re.DOTALL)

Node = tuple[str, str, list[Any], list[Any]]
"""Kind, words, the nodes inside, and those of `else`."""


class Chart:
    def __init__(self, folder: Path, values: Mapping[str, Any], release: str = "mirrors") -> None:
        chart = yaml.safe_load((folder / "Chart.yaml").read_text())
        defaults = yaml.safe_load((folder / "values.yaml").read_text())
        self.values = merged(defaults, values)
        self.top = {
            "Values": self.values,
            "Release": {"Name": release, "Service": "Helm"},
            "Chart": {"AppVersion": chart["appVersion"]},
        }
        self._defined: dict[str, list[Any]] = {}
        self._files = {path.name: parse(path.read_text()) for path in sorted((folder / "templates").iterdir())}
        for nodes in self._files.values():
            self._defined |= {json.loads(words): inside for kind, words, inside, _ in nodes if kind == "define"}

    def objects(self) -> list[dict[str, Any]]:
        """All objects of the rendered files."""
        texts = [self._render(nodes, self.top) for name, nodes in self._files.items() if name.endswith(".yaml")]
        return [body for text in texts for body in yaml.safe_load_all(text) if body]

    def _render(self, nodes: list[Any], dot: Any) -> str:
        return "".join(self._node(node, dot) for node in nodes)

    def _node(self, node: Node, dot: Any) -> str:
        kind, words, inside, otherwise = node
        if kind == "text":
            return words
        if kind == "define":
            return ""
        if kind == "value":
            value = self._pipeline(words, dot)
            return "" if value is None else str(value)
        value = self._pipeline(words, dot)
        if not value:
            return self._render(otherwise, dot)
        return self._render(inside, value if kind == "with" else dot)

    def _pipeline(self, text: str, dot: Any) -> Any:
        value: list[Any] = []
        for part in re.split(r"\s\|\s", text):
            value = [self._call(part, dot, value)]
        return value[0]

    def _call(self, text: str, dot: Any, last: list[Any]) -> Any:
        name, *words = shlex.split(text, posix=False)
        if name.startswith((".", '"')):
            assert not words, text
            return self._term(name, dot)
        arguments = [*(self._term(word, dot) for word in words), *last]
        match name:
            case "toYaml":
                return yaml.safe_dump(arguments[0], default_flow_style=False, sort_keys=True).rstrip("\n")
            case "nindent":
                margin = "\n" + " " * int(arguments[0])
                return margin + str(arguments[1]).replace("\n", margin)
            case "quote":
                return json.dumps(str(arguments[0]))
            case "default":
                return arguments[1] or arguments[0]
            case "eq":
                return arguments[0] == arguments[1]
            case "include":
                return self._render(self._defined[arguments[0]], arguments[1])
            case "sha256sum":
                return hashlib.sha256(str(arguments[0]).encode()).hexdigest()
        raise AssertionError(f"a function that isn't known: {text}")

    def _term(self, word: str, dot: Any) -> Any:
        if word.startswith('"'):
            return json.loads(word)
        if word.isdigit():
            return int(word)
        assert word.startswith("."), word
        value = dot
        for key in filter(None, word.split(".")):
            assert key in value, f"{word} isn't among the values"
            value = value[key]
        return value


def parse(text: str) -> list[Any]:
    stack: list[tuple[str, str, list[Any], list[Any], bool]] = [("", "", [], [], False)]
    position = 0

    def add(node: Node) -> None:
        _, _, inside, otherwise, in_else = stack[-1]
        (otherwise if in_else else inside).append(node)

    trim = False
    for match in _ACTION.finditer(text):
        before = text[position : match.start()] + ("" if match[2] else match[1])
        add(("text", before.lstrip() if trim else before, [], []))
        keyword, _, words = match[3].partition(" ")
        if keyword in ("if", "with", "define"):
            stack.append((keyword, words, [], [], False))
        elif keyword == "else":
            assert not words
            kind, condition, inside, otherwise, _ = stack.pop()
            stack.append((kind, condition, inside, otherwise, True))
        elif keyword == "end":
            kind, condition, inside, otherwise, _ = stack.pop()
            add((kind, condition, inside, otherwise))
        else:
            add(("value", match[3], [], []))
        position, trim = match.end(), bool(match[4])
    assert len(stack) == 1, "an if, a with or a define isn't ended"
    rest = text[position:]
    add(("text", rest.lstrip() if trim else rest, [], []))
    return stack[0][2]


def merged(base: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(base)
    for key, value in more.items():
        both = isinstance(value, Mapping) and isinstance(found.get(key), Mapping)
        found[key] = merged(found[key], value) if both else value
    return found
