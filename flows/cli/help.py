"""`transship help [COMMAND...]`"""

from __future__ import annotations

import click

from flows.cli.verb import everywhere


@click.command(name="help")
@click.argument("words", nargs=-1)
@everywhere
@click.pass_context
def show_help(context: click.Context, words: tuple[str, ...]) -> None:
    """Explain a command."""
    found = context.find_root()
    for word in words:
        below = found.command.get_command(found, word) if isinstance(found.command, click.Group) else None
        if below is None:
            raise click.UsageError(f"unknown help topic '{' '.join(words)}'")
        found = click.Context(below, info_name=word, parent=found)
    click.echo(found.get_help())
