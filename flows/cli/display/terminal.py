"""A few lines at the bottom of a terminal that are drawn anew several times a second; lines of the product go above."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TextIO

from flows.cli.output import visible

_SECONDS = 0.2
_UP_AND_CLEAR = "\x1b[{rows}F\x1b[J"
_SYNCHRONIZED = ("\x1b[?2026h", "\x1b[?2026l")
"""Escape sequences around one drawing, which the terminal then shows as a whole (mode 2026); others ignore them."""


class Screen:
    """Draws lines, each cut to the width, and takes them away again. Safe from any thread.

    A terminal that gets narrower breaks lines that are on it: how many rows they take is counted with the width of now,
    not with that of the time when they were drawn, so that nothing of them is left behind.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.RLock()
        self._drawn: list[int] = []
        """The lengths of the lines that are on the screen."""

    @property
    def size(self) -> tuple[int, int]:
        """Columns and rows."""
        with suppress(OSError, ValueError):
            columns, rows = os.get_terminal_size(self._stream.fileno())
            if columns and rows:
                return columns, rows
        return 80, 24

    def draw(self, lines: Sequence[str]) -> None:
        columns, rows = self.size
        fitting = [line[: columns - 1] for line in lines[: max(1, rows - 2)]]
        with self._lock:
            text = "".join(f"{line}\n" for line in fitting)
            self._write(_SYNCHRONIZED[0] + self._erasing() + text + _SYNCHRONIZED[1])
            self._drawn = [len(line) for line in fitting]

    def erase(self) -> None:
        with self._lock:
            self._write(self._erasing())
            self._drawn = []

    @contextmanager
    def cleared(self) -> Iterator[None]:
        """While the block writes something else to the terminal."""
        with self._lock:
            self.erase()
            yield

    def _erasing(self) -> str:
        columns, _ = self.size
        rows = sum(max(1, -(-length // columns)) for length in self._drawn)
        return _UP_AND_CLEAR.format(rows=rows) if rows else ""

    def _write(self, text: str) -> None:
        if text:
            self._stream.write(text)
            self._stream.flush()


class Above:
    """Standard output, whose lines go above what is drawn. A line that isn't ended yet waits for its end."""

    def __init__(self, stream: TextIO, screen: Screen) -> None:
        self._stream = stream
        self._screen = screen
        self._line = ""

    def write(self, text: str) -> int:
        whole, newline, self._line = (self._line + text).rpartition("\n")
        if newline:
            with self._screen.cleared():
                self._stream.write(whole + newline)
                self._stream.flush()
        return len(text)

    def flush(self) -> None:
        """Does nothing: whole lines are written at once."""

    def end(self) -> None:
        self._stream.write(self._line)
        self._line = ""

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


def draw_until(lines: Callable[[int], Sequence[str]], stop: threading.Event) -> None:
    """Draws what `lines` gives for a width, on standard error, until the event is set; then nothing of it is left."""
    screen = Screen(sys.stderr)
    before = sys.stdout
    above = Above(before, screen) if before.isatty() else None
    if above is not None:
        sys.stdout = above  # what a print needs of it
    try:
        while not stop.wait(_SECONDS):
            screen.draw([visible(line) for line in lines(screen.size[0])])
    finally:
        screen.erase()
        if above is not None:
            sys.stdout = before
            above.end()
