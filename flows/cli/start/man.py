"""Manual pages in the language of man(7), from what help is made of."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import click

from flows.cli.click_ext import Verb, sections_of
from flows.cli.output import ExitCode
from oci import __version__


def page(context: click.Context) -> str:
    """Returns the page of one command, or of a group with the commands below it."""
    command, path = context.command, context.command_path
    summary, _, details = inspect.cleandoc(command.help or "").partition("\n\n")
    first = " ".join(summary.split())
    lines = [
        f'.TH {_quoted(path.replace(" ", "-").upper())} 1 "" {_quoted(f"transship {__version__}")}',
        ".SH NAME",
        f"{_escaped(path.replace(' ', '-'))} \\- {_escaped(first)}",
        ".SH SYNOPSIS",
        f".B {_escaped(path)}",
        _escaped(" ".join(command.collect_usage_pieces(context))),
    ]
    if details:
        lines += [".SH DESCRIPTION", *_paragraphs(details)]
    if isinstance(command, Verb):
        lines += [
            ".SH EXAMPLES",
            ".nf",
            *(_escaped(f"{path} {example}".rstrip()) for example in command.examples),
            ".fi",
        ]
    if isinstance(command, click.Group):
        lines.append(".SH COMMANDS")
        for name, line in command.lines():  # type: ignore[attr-defined]  # every group is a Tree
            lines += [".TP", f".B {_escaped(name)}", _escaped(line)]
    for title, records in sections_of(command, context, everything=True).items():
        if records:
            lines.append(f".SH {_quoted(title.upper())}")
            lines += [line for flag, text in records for line in (".TP", f".B {_escaped(flag)}", _escaped(text))]
    return "\n".join([*lines, *_exit_status(), *_see_also(context), ""])


def pages(context: click.Context) -> Iterator[tuple[str, str]]:
    """The name of each page's file and the page: of the command of `context`, and of all below it."""
    yield f"{context.command_path.replace(' ', '-')}.1", page(context)
    if isinstance(context.command, click.Group):
        for name in context.command.list_commands(context):
            below = context.command.get_command(context, name)
            if below is not None:
                yield from pages(click.Context(below, info_name=name, parent=context))


def _exit_status() -> Iterator[str]:
    yield ".SH EXIT STATUS"
    for code in ExitCode:
        yield from (".TP", f".B {code.value}", _escaped(code.meaning))


def _see_also(context: click.Context) -> Iterator[str]:
    root = context.find_root()
    names = [name for name, _ in root.command.lines()] if root is context else [""]  # type: ignore[attr-defined]
    named = [f"{root.info_name}-{name}" if name else str(root.info_name) for name in names]
    yield ".SH SEE ALSO"
    yield ", ".join(f"\\fB{_escaped(name)}\\fR(1)" for name in named)


def _paragraphs(text: str) -> Iterator[str]:
    for paragraph in text.split("\n\n"):
        yield ".PP"
        yield _escaped(" ".join(paragraph.split()))


def _quoted(text: str) -> str:
    return '"' + _escaped(text).replace('"', "\\(dq") + '"'


def _escaped(text: str) -> str:
    """As text of groff: no backslash is an escape, no hyphen a dash, and no line begins as a request does."""
    plain = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")
    return re.sub(r"^\.", r"\\&.", plain)
