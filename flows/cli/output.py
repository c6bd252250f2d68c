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
import logging
import os
import re
import sys
from collections.abc import Sequence
from enum import IntEnum
from typing import Any, Self

import click

from oci.errors import (
    FETCHING,
    Incomplete,
    InvalidConfig,
    InvalidDocument,
    InvalidInput,
    InvalidManifest,
    NotFound,
    NotTrusted,
    StoreError,
    TransshipError,
)
from oci.units import counted

IMGPKG = "imgpkg"

_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180e\u200b-\u200f"
    "\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb\U000110bd\U000110cd\U00013430-\U0001343f"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e007f]"
)
"""Control characters except tab and line feed; marks that change the direction of text; characters without a glyph."""


_AT_MARGIN = re.compile(r"\n(?=\S)")


def visible(text: str) -> str:
    """Returns the text as a terminal may have it. Characters in a tag, a label, an annotation, a header or a file's
    name that would move the cursor, colour or hide something are escaped as Python does it."""
    return _UNSEEN.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


class VisibleFormatter(logging.Formatter):
    """Of logs on a terminal. Only a record begins at the margin: a line break in a text of a stranger makes none."""

    def format(self, record: logging.LogRecord) -> str:
        return _AT_MARGIN.sub("\n  ", visible(super().format(record)))


def log_to_stderr(logger: logging.Logger, *, debug: bool) -> None:
    """Shows the log of a service on standard error: all that `logger` has, and warnings of all else."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(VisibleFormatter("%(asctime)s %(levelname)-7s %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logger.setLevel(logging.DEBUG if debug else logging.INFO)


def program_name() -> str:
    """`imgpkg` when called so, through a link; else `transship`."""
    return IMGPKG if os.path.basename(sys.argv[0]) == IMGPKG else "transship"


class Output:
    def __init__(self, *, tty: bool | None = None) -> None:
        self.tty = sys.stdout.isatty() if tty is None else tty
        self.color = True
        self.json = self.debug = self.yes = self.quiet = False
        self.columns: tuple[str, ...] = ()
        self._lines: list[str] = []
        """As they were printed, nearly all with a newline at the end: imgpkg's document keeps that."""
        self._blocks: list[str] = []
        self._tables: list[dict[str, Any]] = []
        self._apart = False
        self._result: dict[str, Any] | None = None

    def set(self, name: str, value: bool) -> None:
        """A flag of the command line. `--tty=false` leaves it to what standard output is."""
        setattr(self, name, value or sys.stdout.isatty() if name == "tty" else value)

    def line(self, text: str, end: str = "\n") -> None:
        self._lines.append(text + end)
        if self.tty and not self.json:
            print(visible(text), end=end, flush=True)

    def block(self, text: str) -> None:
        """The product, as it is."""
        self._blocks.append(text)
        if not self.json:
            sys.stdout.write(visible(text))
            sys.stdout.flush()

    def check_columns(self, *headers: Sequence[str]) -> None:
        """Raises click.UsageError when --column names one that no table to come has; before anything is asked."""
        keys = [keyified(name) for header in headers for name in header]
        unknown = [name for name in map(keyified, self.columns) if name not in keys]
        if unknown:
            raise click.UsageError(f"unknown column {unknown[0]!r}: there are {', '.join(dict.fromkeys(keys))}")

    def table(self, title: str, header: Sequence[str], rows: Sequence[Sequence[object]], footer: str = "") -> None:
        """Columns stay in their order, whatever that of --column is. Left out when it names none of them. Numbers are
        numbers in JSON."""
        requested = [keyified(name) for name in self.columns]
        chosen = [place for place, name in enumerate(header) if not requested or keyified(name) in requested]
        if not chosen:
            return
        cells = [[row[position] for position in chosen] for row in rows]
        names = [header[position] for position in chosen]
        self._tables.append(
            {
                "Content": title.lower(),
                "Header": {keyified(name): name for name in sorted(names)},
                "Rows": [dict(sorted(zip(map(keyified, names), row, strict=True))) for row in cells],
                "Notes": None,
            }
        )
        if self.json:
            return
        texts = [[visible(str(cell)).replace("\n", r"\n").replace("\t", r"\t") for cell in row] for row in cells]
        if self.tty:
            shown = [names, *([cell or "-" for cell in row] for row in texts)]
            widths = [max(len(cell) for cell in column) for column in zip(*shown, strict=True)]
            print(f"{title}\n")
            for row in shown:
                aligned = (cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=False))
                print("".join(f"{cell}  " for cell in (*aligned, row[-1])))
            print(f"\n{footer or counted(len(rows), title.lower().removesuffix('s'))}")
        else:
            for row in texts:
                print("".join(f"{cell or '-'}\t" for cell in row))
        sys.stdout.flush()

    def warn(self, text: str, *, among_lines: bool = False) -> None:
        """Prints a warning on standard error, once. `among_lines`: on a terminal and with --tty, on standard output as
        imgpkg does, where its scripts look for it."""
        line = f"Warning: {text}"
        if f"{line}\n" in self._lines:
            return  # each side of a copy would say it
        self._lines.append(f"{line}\n")
        print(visible(line), file=sys.stdout if among_lines and self.tty and not self.json else sys.stderr, flush=True)

    def error(self, text: str) -> None:
        """Always visible, whatever the flags; on a terminal apart from what came before."""
        self._set_apart()
        text = visible(text)
        colored = self.color and sys.stderr.isatty() and not os.environ.get("NO_COLOR")
        print(click.style(text, fg="red") if colored else text, file=sys.stderr, flush=True)

    def summary(self, text: str) -> None:
        """What a success did: a line on a terminal, and in a pipe one on standard error."""
        if self.tty or self.json:
            self.line(text)
        elif not self.quiet:
            print(visible(text), file=sys.stderr, flush=True)

    def result(self, **fields: Any) -> None:
        """What the command did, for programs: the `Result` of the document, whose fields the book lists. A command
        gives it before it fails, too, when there is something to tell."""
        self._result = fields

    def report(self, path: str, fields: dict[str, Any]) -> None:
        """Gives the result, and writes it to the file at `path` where there is a path."""
        self.result(**fields)
        if path:
            from oci.output import write_json  # noqa: PLC0415 - few commands write a report

            write_json(path, fields)

    def finish(self, failure: dict[str, Any] | None = None, *, succeeded: bool = True, silently: bool = False) -> None:
        """Ends the command: `Succeeded` for people, the document for programs. A check that found something did not
        fail, and did not succeed. `silently` is for text that a shell or a pager takes."""
        if failure is None and succeeded and not (silently and not self.json):
            self._set_apart()
            self.line("Succeeded", end="" if self.json else "\n")
        if self.json:
            document: dict[str, Any] = {
                "Tables": self._tables or None,
                "Blocks": self._blocks or None,
                "Lines": self._lines or None,
            }
            if self._result is not None and program_name() != IMGPKG:
                document["Result"] = self._result
            if failure is not None:
                document["Error"] = failure
            sys.stdout.write(json.dumps(document, indent=4))
            sys.stdout.flush()

    def _set_apart(self) -> None:
        """A blank line, or the end of a line that has none: that is why nothing is between `Pushed` and `Succeeded`."""
        if self.tty and not self.json and not self._apart and (self._lines or self._blocks or self._tables):
            print(flush=True)
        self._apart = True


def keyified(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "_", name.lower())


class ExitCode(IntEnum):
    """How a command ended, the same for every command. The book's page is made of this table."""

    DONE = 0, "done; for a check: nothing differs", ""
    FAILED = 1, "failed", "the error's hint is a next step"
    USAGE = (
        2,
        "wrong usage: flags, references or named files that can't be used, a mistake in a file that a person writes",
        "correct what the message names; `--help` of the command",
    )
    PARTLY = (
        3,
        "some failed; the others are in place, and no incomplete set has a name; or a policy refused images",
        "run the same again; for a refused image, `policy check`",
    )
    DRIFT = (
        4,
        "drift: `mirror check` or `receipt verify` found a destination that differs",
        "`mirror run`, or the same copy again",
    )
    INTERRUPTED = 130, "interrupted with Ctrl-C; what was copied stays", "run the same again"
    TERMINATED = 143, "ended by SIGTERM; what was copied stays", "run the same again"

    meaning: str
    next_step: str

    def __new__(cls, value: int, meaning: str, next_step: str) -> Self:
        code = int.__new__(cls, value)
        code._value_ = value
        code.meaning, code.next_step = meaning, next_step
        return code


_SHOWN_FAILURES = 20


def exit_code(error: TransshipError) -> ExitCode:
    """PARTLY when images failed and others are in place, or a policy of signatures refused images. What a person gave
    is wrong usage, also when it is a file of settings; a manifest that a store gave, and a lock that a tool wrote, is
    not."""
    failures = error.failures if isinstance(error, Incomplete) else (error,)
    some_done = isinstance(error, Incomplete) and error.some_done
    if some_done or any(isinstance(failure, NotTrusted) for failure in failures):
        return ExitCode.PARTLY
    made_by_tools = isinstance(error, InvalidManifest | InvalidDocument) and not isinstance(error, InvalidConfig)
    return ExitCode.USAGE if isinstance(error, InvalidInput) and not made_by_tools else ExitCode.FAILED


def laid_out(program: str, error: TransshipError) -> str:
    """`imgpkg: Error: …`, cut into lines as imgpkg does; the hint, and what failed, on lines of their own."""
    message, hint = _without_hint(error)
    lines = [f"{program}: Error: {indented(message)}"]
    if isinstance(error, StoreError) and error.operation == FETCHING:
        lines = [f"{program}: Error: {indented(f'Fetching image: {error.message}')}"]
        lines.append(f"Asked: {' '.join(part for part in (error.side, error.store) if part)}, for {error.subject}")
    elif error.sentence:
        lines = [f"{program}: Error: {indented(error.sentence)}", f"Cause: {message}"]
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
    for match in re.finditer(r"[\[\]]|(?<!\(hint): (?=[A-Z])", message):
        mark = match.group()
        depth += (mark == "[") - (mark == "]" and depth > 0)
        if mark == ": " and depth == 0:
            parts.append(message[begin : match.end()].rstrip())
            begin = match.end()
    parts.append(message[begin:])
    return "\n".join(f"{' ' * 2 * (number + level) if number else ''}{part}" for number, part in enumerate(parts))


def as_object(error: TransshipError) -> dict[str, Any]:
    message, hint = _without_hint(error)
    body: dict[str, Any] = {
        "Message": message,
        "Hint": hint,
        "Kind": type(error).__name__,
        "Retryable": error.retryable,
    }
    if isinstance(error, StoreError):
        body |= {"Side": error.side, "Store": error.store, "Subject": error.subject, "Code": error.code}
    if isinstance(error, Incomplete):
        body["Failures"] = [as_object(failure) for failure in error.failures]
    return body


def _without_hint(error: TransshipError) -> tuple[str, str]:
    """Message and hint. A tag that isn't there is looked for among those that are."""
    text, hint = str(error), error.hint
    message = text.removesuffix(f" (hint: {hint})") if hint else text
    if isinstance(error, NotFound) and error.operation == FETCHING and "@" not in error.subject:
        repository, _, tag = error.subject.rpartition(":")
        if tag and "/" not in tag:
            hint = "; ".join(filter(None, (hint, f"`transship tag list -i {repository}` says what there is")))
    return message, hint
