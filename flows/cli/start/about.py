"""`transship help`, with manual pages, `transship completion` and `transship version`."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Iterator

import click

from flows.cli.click_ext import Command, Invocation, Verb, sections_of, verb
from flows.cli.output import IMGPKG, ExitCode, program_name
from flows.cli.start.complete import BASH
from oci import __version__

EQUALS = "0.43.0"
"""The imgpkg that the command is under the name imgpkg."""


@click.command(name="help", cls=Command)
@click.argument("words", nargs=-1)
@click.option("--man", is_flag=True, help="As a manual page: transship help --man copy | man -l -")
@click.option("--man-pages", default="", metavar="FOLDER", help="Write a manual page of every command into a folder.")
@click.pass_context
def show_help(context: click.Context, words: tuple[str, ...], man: bool, man_pages: str) -> None:
    """Explain a command."""
    output, topic = context.ensure_object(Invocation).output, context.find_root()
    for word in words:
        below = topic.command.get_command(topic, word) if isinstance(topic.command, click.Group) else None
        if below is None:
            raise click.UsageError(f"unknown help topic '{' '.join(words)}'")
        topic = click.Context(below, info_name=word, parent=topic)
    if man_pages:
        from oci.output import os_errors, write_output  # noqa: PLC0415 - `version` needs none of it

        with os_errors(store=man_pages, operation="writing manual pages", named=True):
            os.makedirs(man_pages, exist_ok=True)
            for name, page in _pages(topic):
                write_output(os.path.join(man_pages, name), page.encode())
    else:
        output.block(_page(topic) if man else f"{topic.get_help()}\n")
    output.finish(silently=True)


def _page(context: click.Context) -> str:
    """Returns the manual page (man(7)) of one command, or of a group with the commands below it."""
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
        paragraphs = [_escaped(" ".join(paragraph.split())) for paragraph in details.split("\n\n")]
        lines += [".SH DESCRIPTION", *(line for paragraph in paragraphs for line in (".PP", paragraph))]
    if isinstance(command, Verb):
        calls = [_escaped(f"{path} {example}".rstrip()) for example in command.examples]
        lines += [".SH EXAMPLES", ".nf", *calls, ".fi"]
    if isinstance(command, click.Group):
        lines.append(".SH COMMANDS")
        for name, line in command.lines():  # type: ignore[attr-defined]  # every group is a Tree
            lines += [".TP", f".B {_escaped(name)}", _escaped(line)]
    for title, records in sections_of(command, context, everything=True).items():
        if records:
            lines.append(f".SH {_quoted(title.upper())}")
            lines += [line for flag, text in records for line in (".TP", f".B {_escaped(flag)}", _escaped(text))]
    lines.append(".SH EXIT STATUS")
    for code in ExitCode:
        lines += [".TP", f".B {code.value}", _escaped(code.meaning)]
    root = context.find_root()
    names = [str(root.info_name)]
    if root is context:
        names = [f"{root.info_name}-{name}" for name, _ in command.lines()]  # type: ignore[attr-defined]
    lines += [".SH SEE ALSO", ", ".join(f"\\fB{_escaped(name)}\\fR(1)" for name in names), ""]
    return "\n".join(lines)


def _pages(context: click.Context) -> Iterator[tuple[str, str]]:
    """The name of each page's file and the page: of the command of `context`, and of all below it."""
    yield f"{context.command_path.replace(' ', '-')}.1", _page(context)
    if isinstance(context.command, click.Group):
        for name in context.command.list_commands(context):
            below = context.command.get_command(context, name)
            if below is not None:
                yield from _pages(click.Context(below, info_name=name, parent=context))


def _quoted(text: str) -> str:
    return '"' + _escaped(text).replace('"', "\\(dq") + '"'


def _escaped(text: str) -> str:
    """As text of groff: no backslash is an escape, no hyphen a dash, and no line begins as a request does."""
    plain = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")
    return re.sub(r"^\.", r"\\&.", plain)


SHELLS = ("bash", "zsh", "fish", "powershell")

_POWERSHELL = """Register-ArgumentCompleter -Native -CommandName {name} -ScriptBlock {{
  param($word, $command, $cursor)
  $env:{variable} = "bash_complete"
  $env:COMP_WORDS = $command.ToString()
  $env:COMP_CWORD = ($command.CommandElements.Count - [int]($word -ne ""))
  & {name} | ForEach-Object {{
    $value = ($_ -split ",", 2)[1]
    [System.Management.Automation.CompletionResult]::new($value, $value, "ParameterValue", $value)
  }}
  Remove-Item Env:{variable}, Env:COMP_WORDS, Env:COMP_CWORD
}}
"""


@click.command(name="completion", cls=Command)
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print a completion script for SHELL.

    For example: transship completion bash > /etc/bash_completion.d/transship
    """
    from click.shell_completion import get_completion_class  # noqa: PLC0415 - for this command alone

    root = context.find_root()
    name = root.info_name or "transship"
    variable = f"_{name.upper().replace('-', '_')}_COMPLETE"
    if shell == "powershell":
        script = _POWERSHELL.format(name=name, variable=variable)
    elif shell == "bash":
        script = BASH.format(name=name, variable=variable, function=f"_{name.replace('-', '_')}_completion")
    else:
        kind = get_completion_class(shell)
        if kind is None:
            raise click.UsageError(f"there is no completion for {shell}")
        script = kind(root.command, {}, name, variable).source()
    output = context.ensure_object(Invocation).output
    output.block(script)
    output.finish(silently=True)


@verb("version", "", "--json", "--quiet")
def version(invocation: Invocation) -> None:
    """Print the version."""
    version_line = f"transship version {__version__}"
    invocation.output.result(version=__version__)
    if program_name() == IMGPKG:
        invocation.output.block(f"imgpkg version {EQUALS}\n{version_line}, which does what this imgpkg does\n")
    else:
        invocation.output.block(f"{version_line}\n")
