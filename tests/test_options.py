"""Every option is declared once and reachable from every front end: the command, the flows and mirrors.yaml. What isn't
stands here with the reason."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from prefect.utilities.callables import parameter_schema

from flows import describe, mirror, mirror_check, prune, pull, push, relocate, tags, verify, verify_receipt
from flows.cli.app import root
from oci.archive.options import ExportOptions, S3Options
from oci.errors import InvalidInput
from oci.files.decompress import UnpackLimits
from oci.mirror.reader import json_schema
from oci.options import Option, Options, leaves_of
from oci.prune.policy import KeepOptions
from oci.registry.options import RegistryOptions
from oci.relocation.request import CopyOptions, ReceiptOptions
from oci.signatures.artifacts import MirrorReceipts

ROOT = Path(__file__).parent.parent
GROUPS: tuple[type[Options], ...] = (
    RegistryOptions,
    S3Options,
    ExportOptions,
    CopyOptions,
    ReceiptOptions,
    KeepOptions,
    UnpackLimits,
)
FLOWS = (relocate, push, pull, prune, tags, describe, mirror, mirror_check, verify, verify_receipt)
OPTIONS = [(group, field) for group in GROUPS for field in leaves_of(group) if not field.secret]

NOT_IN_FLOWS = {
    "S3Options": "a flow names an S3 Store block: object stores have keys, and parameters are stored in clear",
    "RegistryOptions.concurrency": "the concurrency of the flow is that of its registries",
}
NOT_IN_MIRRORS = {
    "KeepOptions": "a mirror deletes nothing; prune takes the file of mirrors as a policy",
    "UnpackLimits": "a mirror unpacks nothing",
    "ExportOptions": "an archive of a mirror is written anew and replaces the one before, from which it copies",
    "RegistryOptions.concurrency": "mirrors have limits of their own",
    "ReceiptOptions.receipt": "is `receipts.folder` of a mirror, with a file for each destination",
    "ReceiptOptions.attach_receipt": "is `receipts.attach` of a mirror",
    "CopyOptions.only": "a mirror's source is no archive",
    "CopyOptions.require_signature": "a mirror's source is no archive; images are asked for signatures by a policy",
    "CopyOptions.tags": "a mirror's rules say which tags it takes",
    "CopyOptions.shallow": "a mirror takes a bundle with all it lists",
    "CopyOptions.repair": "mirror check and a copy with --repair do that",
    "CopyOptions.names": "a mirror keeps the names of its source",
    "CopyOptions.repo_based_tags": "is `keep_alive` of a mirror",
    "CopyOptions.include_non_distributable": "a mirror leaves such layers where they are; copy takes them",
}


def commands(command: click.Command, context: click.Context) -> Iterator[click.Command]:
    yield command
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from commands(below, click.Context(below, info_name=name, parent=context))


COMMANDS = list(commands(root, click.Context(root, info_name="transship")))
FLAGS = {
    name
    for command in COMMANDS
    for option in command.params
    if isinstance(option, click.Option)
    for name in (*option.opts, *option.secondary_opts)
}


def properties(schema: Any) -> Iterator[str]:
    """The names of all fields of a JSON schema, at whatever depth."""
    if isinstance(schema, dict):
        for key, value in schema.items():
            if key == "properties" and isinstance(value, dict):
                yield from value
            yield from properties(value)
    elif isinstance(schema, list):
        for item in schema:
            yield from properties(item)


FLOW_FIELDS = {name for flow in FLOWS for name in properties(parameter_schema(flow.fn).model_dump())}
MIRROR_FIELDS = set(properties(json_schema()))


def excused(group: type[Options], field: Option, reasons: dict[str, str]) -> bool:
    return group.__name__ in reasons or f"{group.__name__}.{field.name}" in reasons


def named(value: object) -> str:
    return value.__name__ if isinstance(value, type) else value.name if isinstance(value, Option) else str(value)


@pytest.mark.parametrize(("group", "field"), OPTIONS, ids=named)
def test_the_command_has_a_flag_for_every_option(group: type[Options], field: Option) -> None:
    assert field.flag in FLAGS, f"{group.__name__}.{field.name}"
    assert not field.short or field.short in FLAGS


@pytest.mark.parametrize(("group", "field"), OPTIONS, ids=named)
def test_a_flow_has_a_field_for_every_option(group: type[Options], field: Option) -> None:
    if not excused(group, field, NOT_IN_FLOWS):
        assert field.name in FLOW_FIELDS, f"{group.__name__}.{field.name}"


@pytest.mark.parametrize(("group", "field"), OPTIONS, ids=named)
def test_the_file_of_mirrors_has_a_key_for_every_option(group: type[Options], field: Option) -> None:
    if not excused(group, field, NOT_IN_MIRRORS):
        assert field.name in MIRROR_FIELDS, f"{group.__name__}.{field.name}"


PATTERNED = [(group, field) for group, field in OPTIONS if "pattern='" in str(field.annotation)]


@pytest.mark.parametrize(("group", "field"), PATTERNED, ids=named)
def test_what_does_not_fit_a_pattern_is_answered_with_an_example(group: type[Options], field: Option) -> None:
    with pytest.raises(InvalidInput, match="expected text such as ") as caught:
        field.read(["no ne"] if field.is_list else "no ne")

    assert "regex" not in caught.value.message


def test_an_exception_is_for_an_option_that_exists() -> None:
    names = {name for group, field in OPTIONS for name in (group.__name__, f"{group.__name__}.{field.name}")}

    assert set(NOT_IN_FLOWS) | set(NOT_IN_MIRRORS) <= names


@pytest.mark.parametrize("name", ["format", "lock_output", "report", "sha256sums", "to_tar", "archive", "resume"])
def test_what_only_the_command_could_do_can_be_done_by_a_flow(name: str) -> None:
    assert name in FLOW_FIELDS


WITHOUT_RECEIPT = {
    "push": "what is pushed was made here and comes from no other place; its lock has the digest",
    "pull": "files in a folder have no digest that could be asked for later",
    "prune": "it brings nothing, and its report says what it deleted",
    "run": "`mirror run`: the file of mirrors says it, in `receipts`",
    "watch": "`mirror watch`: as above",
}


def test_what_writes_leaves_a_receipt_or_says_here_why_not() -> None:
    writers = {command.name for command in COMMANDS} & {"copy", *WITHOUT_RECEIPT}
    receipts = {field.flag for field in leaves_of(ReceiptOptions)}
    leaving = {command.name for command in COMMANDS if receipts <= {opt for one in command.params for opt in one.opts}}

    assert writers == {"copy", *WITHOUT_RECEIPT}
    assert leaving == writers - set(WITHOUT_RECEIPT)
    assert {field.name for field in leaves_of(MirrorReceipts)} <= MIRROR_FIELDS


FOREIGN = {
    "--help",  # click's own
    "--base-job-template",  # prefect's
    "--type",
    "--force-auth-refresh",  # gcloud's
    "--format",
}


def texts() -> Iterator[tuple[str, str]]:
    """Every text of the program, with its module; docstrings are left out."""
    for folder in ("oci", "tasks", "flows"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            tree = ast.parse(path.read_text())
            documents = {
                id(node.body[0].value)
                for node in ast.walk(tree)
                if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
                and node.body
                and isinstance(node.body[0], ast.Expr)
            }
            for node in ast.walk(tree):
                if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documents:
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", node.value


def test_every_flag_that_a_message_names_exists() -> None:
    unknown = [
        f"{place}: {flag}"
        for place, text in texts()
        for flag in re.findall(r"(?<![\w/-])--[a-z][a-z0-9-]*[a-z0-9](?![\w-])", text)
        if flag not in FLAGS | FOREIGN
    ]
    assert unknown == []
