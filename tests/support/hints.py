"""What an error tells people to do: are the flags that it names flags of that command?"""

from __future__ import annotations

import re
from collections.abc import Iterator

import click

from flows.cli.app import root


def commands(group: click.Group = root, *above: str) -> Iterator[tuple[str, click.Command]]:
    """Every command with its name, such as `tag list`."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from commands(command, *above, name)
        elif command is not None:
            yield " ".join((*above, name)), command


def flags_of(command: click.Command) -> set[str]:
    context = click.Context(command)
    return {flag for one in command.get_params(context) for flag in (*one.opts, *one.secondary_opts)}


def strange_flags(name: str, said: str) -> set[str]:
    """The flags in an error of the command `name` that neither it nor a command that the error names has."""
    known = flags_of(root) | {"--help"}
    for other, command in commands():
        if other == name or re.search(rf"\b{other}\b", said):
            known |= flags_of(command)
    return set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", said)) - known
