"""Writes the reference pages that follow from declarations: the commands with their flags, the keys
of mirrors.yaml, the exit codes.

mkdocs calls `on_pre_build`; the pages lie in docs/reference and aren't committed.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from flows.cli.app import root
from flows.cli.click_ext import Verb
from flows.cli.output import ExitCode
from oci.mirror.reader import json_schema

FOLDER = Path(__file__).parent / "reference"


def on_pre_build(**_: object) -> None:
    """Writes what differs from what is on disk, so that a server that watches the folder comes to rest."""
    pages = {"commands.md": commands_page(), "mirrors.md": mirrors_page(), "exit-codes.md": exit_codes_page()}
    for name, text in pages.items():
        path = FOLDER / name
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


def commands_page() -> str:
    lines = ["# Commands\n\n", "Flags that every command takes stand at the end.\n"]
    common = {parameter.name for parameter in root.params}
    for path, command in leaves(root, ()):
        context = click.Context(command, info_name=" ".join(("transship", *path)))
        lines.append(f"\n## transship {' '.join(path)}\n\n{inspect.cleandoc(command.help or '')}\n")
        if isinstance(command, Verb):
            calls = [f"{context.command_path} {example}".rstrip() for example in command.examples]
            lines.append("\n" + "".join(f"    {call}\n" for call in calls))
        flags = [one for one in command.params if isinstance(one, click.Option) and not one.hidden]
        lines.append(flag_table(flag for flag in flags if flag.name not in common) if flags else "")
        context.close()
    lines.append("\n## Every command\n\n")
    lines.append(flag_table(one for one in root.params if isinstance(one, click.Option)))
    return "".join(lines)


def leaves(group: click.Group, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from leaves(command, (*path, name))
        elif command is not None:
            yield (*path, name), command


def flag_table(flags: Iterable[click.Option]) -> str:
    rows = ["\n| flag | what it does | default |\n|---|---|---|\n"]
    for flag in flags:
        value = "" if flag.is_flag else f" {(flag.metavar or flag.type.name).upper()}"
        default = flag.default if flag.show_default and flag.default not in (None, "", False) else ""
        rows.append(f"| `{', '.join(flag.opts)}{value}` | {cell(flag.help or '')} | {cell(default)} |\n")
    return "".join(rows) if len(rows) > 1 else ""


def exit_codes_page() -> str:
    rows = [f"| {code.value} | {cell(code.meaning)} | {cell(code.next_step)} |\n" for code in ExitCode]
    lines = ["# Exit codes\n\n", "The same for every command:\n\n", "| code | meaning | what to do |\n|---|---|---|\n"]
    end = "\nUnder the name `imgpkg` every error ends with 1, as in imgpkg: 2 and 3 are not among its codes.\n"
    return "".join([*lines, *rows, end])


def mirrors_page() -> str:
    schema = json_schema()
    lines = [
        "# mirrors.yaml\n\n",
        "`transship mirror schema` prints the same as JSON Schema, for editors.",
        " Keys that begin with `x-` are ignored everywhere.\n",
        "\n## The file\n",
        key_table(schema),
    ]
    for name, definition in schema["$defs"].items():
        if "properties" in definition:
            title = definition.get("title", name)
            text = definition.get("description", "")
            lines.append(f"\n## {title}\n\n{text}\n")
            lines.append(key_table(definition))
    return "".join(lines)


def key_table(definition: Mapping[str, Any]) -> str:
    rows = ["\n| key | type | what it says | default |\n|---|---|---|---|\n"]
    required = definition.get("required", ())
    for key, field in definition["properties"].items():
        default = "required" if key in required else cell(field.get("default", ""))
        rows.append(
            f"| `{key}` | {kind(field)} | {cell(field.get('description', field.get('title', '')))} | {default} |\n"
        )
    return "".join(rows)


def kind(field: Mapping[str, Any]) -> str:
    """The type of a key in words: `text`, `list of Mirror`, `whole number, 1 to 64`."""
    if "$ref" in field:
        return str(field["$ref"]).rpartition("/")[2]
    if "anyOf" in field:
        return " or ".join(kind(one) for one in field["anyOf"] if one.get("type") != "null")
    if "enum" in field:
        return " or ".join(f"`{value}`" for value in field["enum"])
    match field.get("type"):
        case "array":
            return f"list of {kind(field.get('items', {}))}"
        case "object" if "properties" in field:
            return f"mapping with {' and '.join(f'`{name}`' for name in field['properties'])}"
        case "object":
            return f"mapping to {kind(field.get('additionalProperties', {}))}"
        case "integer" | "number" as number:
            word = "whole number" if number == "integer" else "number"
            low, high = field.get("minimum"), field.get("maximum")
            return word + (f", {low} to {high}" if high is not None else f", from {low}" if low is not None else "")
        case "boolean":
            return "true or false"
        case "string":
            return "text"
    return "any"


def cell(value: object) -> str:
    """As text of a Markdown table."""
    text = "" if value in ({}, [], None) else str(value)
    return " ".join(text.replace("|", "\\|").replace("<", "&lt;").split())
