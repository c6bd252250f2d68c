"""`transship mirror schema`"""

from __future__ import annotations

import json

import click

from flows.cli.verb import Invocation, Verb, everywhere
from oci.mirror.config import json_schema


@click.command(name="schema", cls=Verb)
@everywhere
@click.pass_obj
def schema(invocation: Invocation) -> None:
    """Print the JSON schema of mirrors.yaml. Editors complete and check the file with it."""
    invocation.output.block(json.dumps(json_schema(), indent=2) + "\n")
    invocation.output.finish()
