"""`transship version`"""

from __future__ import annotations

import click

from flows.cli.verb import Invocation, Verb, everywhere


@click.command(cls=Verb)
@everywhere
@click.pass_obj
def version(invocation: Invocation) -> None:
    """Print the version."""
    import importlib.metadata  # noqa: PLC0415 - a third of this command's time, and no other command's

    from flows.cli.app import program_name  # noqa: PLC0415 - app imports this module

    invocation.output.block(f"{program_name()} version {importlib.metadata.version('transship')}\n")
    invocation.output.finish()
