"""`transship completion SHELL`"""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from flows.cli.verb import everywhere

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
    root = context.find_root()
    name = root.info_name or "transship"
    variable = f"_{name.upper().replace('-', '_')}_COMPLETE"
    if shell == "powershell":
        script = _POWERSHELL.format(name=name, variable=variable)
    else:
        kind = get_completion_class(shell)
        if kind is None:
            raise click.UsageError(f"there is no completion for {shell}")
        script = kind(root.command, {}, name, variable).source()
    click.echo(script, nl=False)
