"""`transship mirror deploy`, `transship mirror schema` and `transship mirror validate`."""

from __future__ import annotations

import json
import os
from collections import Counter
from typing import TYPE_CHECKING, Any

import click

from flows import check_server_address
from flows.cli.click_ext import Invocation, boolean, verb
from flows.cli.mirror.shared import file_flag
from oci.descriptor import parse_json
from oci.errors import InvalidConfig
from oci.mirror.reader import json_schema, read_config
from oci.output import read_named
from oci.units import counted

if TYPE_CHECKING:
    from flows.deploy.deployments import Change

_TEMPLATE_LIMIT = 4 << 20
_HEADER = ("Outcome", "Kind", "Name", "Detail")


@verb("deploy", "", "-f mirrors.yaml --work-pool transship", "--work-pool-type docker")
@file_flag
@click.option("--work-pool", default="transship", show_default=True, help="Work pool whose workers run the mirrors.")
@click.option("--work-pool-type", default="process", show_default=True, help="Type of a pool that has to be made.")
@click.option(
    "--job-template",
    default="",
    metavar="PATH",
    help="Base job template, in JSON, of a pool that has to be made. Without it, the default of the type.",
)
@click.option(
    "--fleet-work-pool",
    "fleet_pool",
    default="",
    help="Make this work pool too, whose workers take shards of large runs. Without it there is no fleet.",
)
@click.option(
    "--group",
    default="default",
    show_default=True,
    help="Keeps several files of mirrors on one server apart: --prune looks at its own only.",
)
@click.option(
    "--notify",
    default="",
    help="Block that is told of failures and drift: TYPE/NAME, such as slack-webhook/ops or webhook/alerts.",
)
@boolean("--prune", help="Remove deployments, triggers and limits that the file has no more.")
@boolean("--dry-run", help="Only print what would change.")
def deploy(invocation: Invocation, /, **flags: Any) -> None:
    """Put the mirrors on the Prefect server of PREFECT_API_URL: a scheduled deployment for each, triggers for pushes,
    limits of registries, the rescue of dead runs, alarms, and what machines of a fleet take shards from.

    Running it again changes nothing. What a person paused stays paused.
    """
    output = invocation.output
    output.check_columns(_HEADER)
    config = read_config(flags.pop("path"))
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_ENABLED", "false")
    os.environ.setdefault("DO_NOT_TRACK", "1")
    check_server_address(required=True)
    from flows.deploy.deploy import DeployOptions, deploy  # noqa: PLC0415 - importing Prefect takes a second

    options = DeployOptions(**flags | {"job_template": _template(flags["job_template"])})
    changes: list[Change] = []

    def note(change: Change) -> None:
        changes.append(change)
        invocation.cancel.check()

    try:
        deploy(config, options, on_change=note)
    finally:
        rows = [(change.outcome.value, change.kind, change.name, change.detail) for change in changes]
        described = [dict(zip(map(str.lower, _HEADER), row, strict=True)) for row in rows]
        output.result(dry_run=options.dry_run, changes=described)
        output.table("Objects", _HEADER, rows)
    counts = Counter(change.outcome.value for change in changes)
    counted_outcomes = ", ".join(f"{number} {outcome}" for outcome, number in counts.items())
    output.summary(f"nothing was changed; {counted_outcomes}" if options.dry_run else counted_outcomes)


def _template(path: str) -> dict[str, Any] | None:
    if not path:
        return None
    hint = "prefect work-pool get-default-base-job-template"
    data = read_named(path, "reading the job template", limit=_TEMPLATE_LIMIT)
    try:
        template = parse_json(data)
    except ValueError as error:
        raise InvalidConfig(f"{path}: {error}", hint=hint) from error
    if not isinstance(template, dict) or not {"job_configuration", "variables"} <= template.keys():
        raise InvalidConfig(f"{path}: expected job_configuration and variables", hint=hint)
    return template


@verb("schema", "", "--quiet", "--json")
def schema(invocation: Invocation) -> None:
    """Print the JSON schema of mirrors.yaml. Editors complete and check the file with it."""
    invocation.output.block(json.dumps(json_schema(), indent=2) + "\n")


_MIRRORS = ("Mirror", "Source", "Destinations", "Rules", "Schedule")


@verb("validate", "", "-f mirrors.yaml", "-f mirrors.yaml --json")
@file_flag
def validate(invocation: Invocation, /, **flags: Any) -> None:
    """Read mirrors.yaml and show what it says, without a request to any registry. Every mistake is shown with its
    line: unknown keys, expressions, ranges of versions, schedules, variables that aren't set."""
    output = invocation.output
    output.check_columns(_MIRRORS)
    config = read_config(flags["path"])
    rows = []
    for mirror in config.mirrors:
        destinations, rules = " ".join(map(str, mirror.destinations)), str(len(mirror.tags))
        rows.append([mirror.name, str(mirror.source), destinations, rules, str(mirror.schedule or "")])
    output.result(mirrors=[dict(zip(map(str.lower, _MIRRORS), row, strict=True)) for row in rows])
    output.table("Mirrors", _MIRRORS, rows)
    output.summary(f"{flags['path']} is valid: {counted(len(rows), 'mirror')}")
