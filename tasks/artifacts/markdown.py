"""Markdown that artifacts are made of.

Text from registries, tags, labels and error messages is escaped: it must not become a link, an image or a table cell. A
digest in full is wider than the column of the newer UI, which neither breaks nor scrolls it: sentences, code spans and
tables have short ones, and what a person may want to copy stands in a block (`in_full`), which scrolls.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime

from oci.options import Options, fields_of

_LINE = 100
"""Characters of a line in a block that doesn't wrap by itself."""

_ADDRESS = re.compile(r":/(?=/)|www(?=\.)|@(?=[\w-]+\.)", re.IGNORECASE)  # GitHub Flavored Markdown, 6.9 "Autolinks"
_ESCAPES = str.maketrans({sign: f"\\{sign}" for sign in "\\`*_[]<>|~&"})


def text(value: object) -> str:
    """Escapes one line of plain text. The newer UI makes links of addresses, of mail too, also where a character is an
    entity: a space without width stands in them."""
    return _ADDRESS.sub("\\g<0>\u200b", with_short_digests(_one_line(value)).translate(_ESCAPES))


def code(value: object) -> str:
    """Shows one line in a code span, where nothing but the backtick and the end of a table cell has a meaning."""
    safe = with_short_digests(_one_line(value)).replace("`", "'").replace("|", "\\|")
    return f"`{safe}`" if safe else ""


NO_BREAK = "\u00a0"


def when(moment: datetime | None) -> str:
    """Shows a time in UTC, or nothing. A hyphen and a plain space are where the UI breaks a cell: this has two lines at
    the most, and a cell that is never broken would push the table out of its column."""
    if moment is None:
        return ""
    return " ".join(part.replace(" ", NO_BREAK) for part in f"{moment.astimezone(UTC):%d %b %Y|%H:%M UTC}".split("|"))


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Returns the lines of a table. Cells are Markdown: text from outside goes through `text` or `code` first."""
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return [*lines, ""]


def facts(title: str, subject: str, rows: Mapping[str, str]) -> list[str]:
    """Returns a table of two columns; rows without a value are left out."""
    return table((title, subject), ((name, value) for name, value in rows.items() if value))


def page(title: str, *parts: Iterable[str]) -> str:
    """`title` is plain text; the parts are lines of Markdown."""
    return "\n".join([f"## {text(title)}", "", *(line for part in parts for line in part)]) + "\n"


_FLAG = re.compile(r"`[^`]*`|(?<![\w-])(--[a-z][a-z0-9-]+)(?!,? \(?`)( [A-Z]+\b)?")


def in_forms(value: str) -> str:
    """Returns a text with fields of forms in place of the command's flags and their FILE or PATH. What is in backquotes
    is a command, or the field of the flag before it. A flag that no form has, or forms under several titles, stays."""
    if "--" not in value:
        return value
    titles: dict[str, set[str]] = {}
    for options in _declared(Options):
        for field in fields_of(options):
            titles.setdefault(field.flag, set()).add(field.title)
    fields = {flag: names.pop() for flag, names in titles.items() if len(names) == 1}
    return _FLAG.sub(lambda match: f'the field "{fields[match[1]]}"' if match[1] in fields else match[0], value)


def _declared(options: type[Options]) -> Iterator[type[Options]]:
    for group in options.__subclasses__():
        if group.__module__.startswith(("oci.", "flows.")):
            yield group
        yield from _declared(group)


_DIGEST = re.compile(r"(sha256:[0-9a-f]{12})[0-9a-f]{52}")


def with_short_digests(value: str) -> str:
    return _DIGEST.sub(r"\1…", value)


def _one_line(value: object) -> str:
    return "".join(sign if sign.isprintable() else " " for sign in str(value))


def in_full(*texts: str) -> list[str]:
    """Returns the lines of a block with each text as it is. Spaces are where a long one is wrapped; no digest is."""
    lines = []
    for whole in filter(None, texts):
        lines += textwrap.wrap(
            _one_line(whole).replace("`", "'"),
            _LINE,
            break_long_words=False,
            break_on_hyphens=False,
            subsequent_indent="    ",
        )
    return ["```", *lines, "```", ""] if lines else []
