"""Help in sections: what a command is about comes first, what many commands share after it."""

from __future__ import annotations

import click

_SHARED = {
    "Registries": ("--registry-", "--source-", "--destination-"),
    "Object store": ("--s3-",),
}
_EVERYWHERE = {"tty", "color", "json", "column", "debug", "yes", "quiet"}


def write_options(command: click.Command, context: click.Context, formatter: click.HelpFormatter) -> None:
    sections: dict[str, list[tuple[str, str]]] = {name: [] for name in ("Options", *_SHARED, "Every command")}
    for option in command.get_params(context):
        record = option.get_help_record(context)
        if isinstance(option, click.Option) and record is not None:
            sections[_section(option)].append((_names(option, record[0]), record[1]))
    for name, records in sections.items():
        if records:
            with formatter.section(name):
                formatter.write_dl(records)


def _section(option: click.Option) -> str:
    if option.name in _EVERYWHERE:
        return "Every command"
    return next((name for name, starts in _SHARED.items() if option.opts[0].startswith(starts)), "Options")


def _names(option: click.Option, shown: str) -> str:
    """Of a flag that is off unless it is given, only the form that switches it on."""
    return shown if option.default is True else shown.partition(" / ")[0]
