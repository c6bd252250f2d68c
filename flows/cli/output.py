"""What a command prints. Three kinds, as imgpkg has them: lines (for people), blocks (the product) and tables.

| kind   | pipe                 | terminal or --tty | --json      |
|--------|----------------------|-------------------|-------------|
| lines  | left out             | printed           | in `Lines`  |
| blocks | printed              | printed           | in `Blocks` |
| tables | tab separated        | aligned           | in `Tables` |

Standard output carries only the product. Warnings, errors and the one summary line of a command in a pipe go to
standard error.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import click

from oci.errors import Incomplete, StoreError, TransshipError
from oci.units import counted


def _on_terminal() -> bool:
    return sys.stdout.isatty()


@dataclass(slots=True)
class Output:
    tty: bool = field(default_factory=_on_terminal)
    color: bool = True
    json: bool = False
    debug: bool = False
    yes: bool = False
    quiet: bool = False
    columns: tuple[str, ...] = ()
    _lines: list[str] = field(default_factory=list)
    """As they were printed, nearly all with a newline at the end: imgpkg's document keeps that."""
    _blocks: list[str] = field(default_factory=list)
    _tables: list[dict[str, Any]] = field(default_factory=list)
    _apart: bool = False

    def set(self, name: str, value: bool) -> None:
        """A flag of the command line. `--tty=false` leaves it to what standard output is."""
        setattr(self, name, value or _on_terminal() if name == "tty" else value)

    def line(self, text: str, end: str = "\n") -> None:
        self._lines.append(text + end)
        if self.tty and not self.json:
            print(text, end=end, flush=True)

    def block(self, text: str) -> None:
        """The product, exactly as it is."""
        self._blocks.append(text)
        if not self.json:
            sys.stdout.write(text)
            sys.stdout.flush()

    def check_columns(self, *headers: Sequence[str]) -> None:
        """Raises click.UsageError when --column names one that no table to come has; before anything is asked."""
        keys = [keyified(name) for header in headers for name in header]
        unknown = [name for name in map(keyified, self.columns) if name not in keys]
        if unknown:
            raise click.UsageError(f"unknown column {unknown[0]!r}: there are {', '.join(dict.fromkeys(keys))}")

    def table(self, title: str, header: Sequence[str], rows: Sequence[Sequence[str]], footer: str = "") -> None:
        """Columns stay in their order, whatever that of --column is. Left out when it names none of them."""
        wanted = [keyified(name) for name in self.columns]
        chosen = [place for place, name in enumerate(header) if not wanted or keyified(name) in wanted]
        if not chosen:
            return
        kept = [[row[position] for position in chosen] for row in rows]
        names = [header[position] for position in chosen]
        self._tables.append(
            {
                "Content": title.lower(),
                "Header": {keyified(name): name for name in sorted(names)},
                "Rows": [dict(sorted(zip(map(keyified, names), row, strict=True))) for row in kept],
                "Notes": None,
            }
        )
        if self.json:
            return
        if self.tty:
            self._aligned(title, names, kept)
            print(f"\n{footer or counted(len(rows), title.lower().removesuffix('s'))}")
        else:
            for row in kept:
                print("".join(f"{cell or '-'}\t" for cell in row))
        sys.stdout.flush()

    def warn(self, text: str, *, among_lines: bool = False) -> None:
        """Prints a warning on standard error, once. `among_lines`: on a terminal and with --tty, on standard output as
        imgpkg does, where its scripts look for it."""
        line = f"Warning: {text}"
        if f"{line}\n" in self._lines:
            return  # each side of a copy would say it
        self._lines.append(f"{line}\n")
        print(line, file=sys.stdout if among_lines and self.tty and not self.json else sys.stderr, flush=True)

    def error(self, text: str) -> None:
        """Always visible, whatever the flags; on a terminal apart from what came before."""
        self._set_apart()
        colored = self.color and sys.stderr.isatty() and not os.environ.get("NO_COLOR")
        print(click.style(text, fg="red") if colored else text, file=sys.stderr, flush=True)

    def summary(self, text: str) -> None:
        """What a success did: a line on a terminal, and in a pipe one on standard error."""
        if self.tty or self.json:
            self.line(text)
        elif not self.quiet:
            print(text, file=sys.stderr, flush=True)

    def finish(self, failure: dict[str, Any] | None = None) -> None:
        """Ends the command: `Succeeded` for people, the document for programs."""
        if failure is None:
            self._set_apart()
            self.line("Succeeded", end="" if self.json else "\n")
        if self.json:
            document: dict[str, Any] = {
                "Tables": self._tables or None,
                "Blocks": self._blocks or None,
                "Lines": self._lines or None,
            }
            if failure is not None:
                document["Error"] = failure
            sys.stdout.write(json.dumps(document, indent=4))
            sys.stdout.flush()

    def _set_apart(self) -> None:
        """A blank line, or the end of a line that has none: that is why nothing is between `Pushed` and `Succeeded`."""
        if self.tty and not self.json and not self._apart and (self._lines or self._blocks or self._tables):
            print(flush=True)
        self._apart = True

    def _aligned(self, title: str, names: list[str], rows: list[list[str]]) -> None:
        shown = [names, *([cell or "-" for cell in row] for row in rows)]
        widths = [max(len(cell) for cell in column) for column in zip(*shown, strict=True)]
        print(f"{title}\n")
        for row in shown:
            cells = (cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=False))
            print("".join(f"{cell}  " for cell in (*cells, row[-1])))


def keyified(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "_", name.lower())


DONE = 0
FAILED = 1
USAGE = 2
PARTLY = 3
DRIFT = 4

_SHOWN_FAILURES = 20


def exit_code(error: TransshipError) -> int:
    """PARTLY when images failed and others are in place."""
    return PARTLY if isinstance(error, Incomplete) and error.some_done else FAILED


def laid_out(program: str, error: TransshipError) -> str:
    """`imgpkg: Error: …`, cut into lines as imgpkg does; the hint, and what failed, on lines of their own."""
    message, hint = _without_hint(error)
    lines = [f"{program}: Error: {indented(message)}"]
    if isinstance(error, Incomplete):
        lines.extend(f"  - {indented(str(failure), 2)}" for failure in error.failures[:_SHOWN_FAILURES])
        if len(error.failures) > _SHOWN_FAILURES:
            lines.append(f"  - and {len(error.failures) - _SHOWN_FAILURES} more: --report FILE lists them all")
    if hint:
        lines.append(f"Hint: {hint}")
    return "\n".join(lines)


def indented(message: str, level: int = 0) -> str:
    """Cut at every `: ` that a capital letter follows, outside of brackets; each part two more spaces in.
    imgpkg's `(hint: ...)` isn't cut."""
    parts = []
    begin = depth = 0
    for found in re.finditer(r"[\[\]]|(?<!\(hint): (?=[A-Z])", message):
        mark = found.group()
        depth += (mark == "[") - (mark == "]" and depth > 0)
        if mark == ": " and depth == 0:
            parts.append(message[begin : found.end()].rstrip())
            begin = found.end()
    parts.append(message[begin:])
    return "\n".join(f"{' ' * 2 * (number + level) if number else ''}{part}" for number, part in enumerate(parts))


def as_object(error: TransshipError) -> dict[str, Any]:
    message, hint = _without_hint(error)
    found: dict[str, Any] = {
        "Message": message,
        "Hint": hint,
        "Kind": type(error).__name__,
        "Retryable": error.retryable,
    }
    if isinstance(error, StoreError):
        found |= {"Side": error.side, "Store": error.store, "Subject": error.subject, "Code": error.code}
    if isinstance(error, Incomplete):
        found["Failures"] = [as_object(failure) for failure in error.failures]
    return found


def _without_hint(error: TransshipError) -> tuple[str, str]:
    text = str(error)
    tail = f" (hint: {error.hint})" if error.hint else ""
    return text.removesuffix(tail) if tail else text, error.hint
