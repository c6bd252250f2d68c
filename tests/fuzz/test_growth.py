"""Input of twice the length takes twice the steps, and a header of nothing but one sign no more than a moment."""

# ruff: noqa: E501 - a line is a document

from __future__ import annotations

import contextlib
import gc
import sys
import time
from types import FrameType
from typing import Any

import pytest

from tests.fuzz.parsers import PARSERS, Parser

ATOMS = (
    b"a", b"0", b" ", b"\n", b"\t", b"/", b":", b".", b"-", b"@", b"%", b"<", b">", b"<>", b"<a>;", b";", b",", b"=", b'"', b"\\", b'="', b'a="",', b"a=b,", b"; rel", b"[", b"{", b"[[]", b"a.", b"a/", b"- ", b"- a\n",
    b"# a\n", b"&a ", b"*a ", b'{"a":', b"'", b"\xff", b"\0",
)  # fmt: skip
LENGTH = 1 << 12
LONG = 60_000
"""As long as a header may be."""

SLOW = 0.5
"""Seconds of CPU below which nothing is said of growth."""


def steps(parser: Parser, data: bytes) -> int:
    """Lines of Python that it runs, and calls that it makes."""
    count = 0

    def line(frame: FrameType, event: str, arg: Any) -> Any:
        nonlocal count
        count += 1
        return line

    before = sys.gettrace()
    sys.settrace(line)
    try:
        with contextlib.suppress(Exception):
            parser.parse(data)
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize("name", PARSERS)
def test_steps_grow_as_the_input_does(name: str) -> None:
    parser = PARSERS[name]
    wrong = []
    for atom in ATOMS:
        one = steps(parser, atom * (LENGTH // len(atom)))
        two = steps(parser, atom * (2 * LENGTH // len(atom)))
        if two > 2.5 * one + 2000:
            wrong.append(f"{atom!r}: {one} steps, then {two}")
    assert wrong == []


@pytest.mark.parametrize("name", PARSERS)
def test_no_expression_is_quadratic(name: str) -> None:
    """What runs in C takes no step that could be counted, so the processor's time is: four times the input may take
    four times as long, and what takes eight times as long grows faster."""
    parser = PARSERS[name]
    wrong = []
    for atom in ATOMS:
        for before in (b"", parser.honest[0]):
            took = seconds(parser, before + atom * (LONG // len(atom)))
            if took > SLOW and took > 8 * seconds(parser, before + atom * (LONG // 4 // len(atom))):
                wrong.append(f"{atom!r}: {took:.1f} s")
    assert wrong == []


def seconds(parser: Parser, data: bytes) -> float:
    """Of the processor, the lesser of two runs, without collections of garbage: those of a long session of tests take
    half a second."""
    return min(_seconds(parser, data), _seconds(parser, data))


def _seconds(parser: Parser, data: bytes) -> float:
    gc.disable()
    try:
        began = time.thread_time()
        with contextlib.suppress(Exception):
            parser.parse(data)
        return time.thread_time() - began
    finally:
        gc.enable()
