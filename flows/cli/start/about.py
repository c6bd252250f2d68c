"""`transship help`, `transship completion` and `transship version`."""

from __future__ import annotations

import os

import click

from flows.cli.click_ext import Invocation, Verb, everywhere
from flows.cli.output import IMGPKG, program_name
from flows.cli.start.complete import BASH
from oci import __version__

EQUALS = "0.43.0"
"""The imgpkg that the command is under the name imgpkg."""


@click.command(name="help")
@click.argument("words", nargs=-1)
@click.option("--man", is_flag=True, help="As a manual page: transship help --man copy | man -l -")
@click.option("--man-pages", default="", metavar="FOLDER", help="Write a manual page of every command into a folder.")
@everywhere
@click.pass_context
def show_help(context: click.Context, words: tuple[str, ...], man: bool, man_pages: str) -> None:
    """Explain a command."""
    output, topic = context.ensure_object(Invocation).output, context.find_root()
    for word in words:
        below = topic.command.get_command(topic, word) if isinstance(topic.command, click.Group) else None
        if below is None:
            raise click.UsageError(f"unknown help topic '{' '.join(words)}'")
        topic = click.Context(below, info_name=word, parent=topic)
    if man or man_pages:
        from flows.cli.start import man as manual  # noqa: PLC0415 - help itself needs it not

        if man_pages:
            from oci.output import os_errors, write_output  # noqa: PLC0415 - `version` needs none of it

            with os_errors(store=man_pages, operation="writing manual pages", named=True):
                os.makedirs(man_pages, exist_ok=True)
                for name, page in manual.pages(topic):
                    write_output(os.path.join(man_pages, name), page.encode())
        else:
            output.block(manual.page(topic))
    else:
        output.block(f"{topic.get_help()}\n")
    output.finish(silently=True)


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


@click.command(name="completion")
@click.argument("shell", type=click.Choice(SHELLS))
@everywhere
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


@click.command(cls=Verb, examples=("", "--json", "--quiet"))
@everywhere
@click.pass_obj
def version(invocation: Invocation) -> None:
    """Print the version."""
    version_line = f"transship version {__version__}"
    invocation.output.result(version=__version__)
    if program_name() == IMGPKG:
        invocation.output.block(f"imgpkg version {EQUALS}\n{version_line}, which does what this imgpkg does\n")
    else:
        invocation.output.block(f"{version_line}\n")
