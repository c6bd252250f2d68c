"""The file of mirrors on the command line: its flags, the mirrors of it that a command is about and the session that
they share; and `transship mirror deploy`, `mirror schema` and `mirror validate`, which ask no registry."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import click

from flows import check_server_address
from flows.cli.click_ext import Invocation, boolean, verb
from flows.cli.flags import access, check_overwrites, show_requests
from flows.cli.output import Output
from oci.descriptor import parse_json
from oci.errors import InvalidConfig, InvalidInput, TransshipError
from oci.mirror.config import Mirror, MirrorsConfig
from oci.mirror.reader import json_schema, read_config
from oci.mirror.results import read_only
from oci.mirror.run import expect, opened
from oci.mirror.run_state import DigestCache, Shared, default_path
from oci.options import fields_of
from oci.output import read_named
from oci.registry.options import RegistryOptions
from oci.relocation.session import Session
from oci.units import counted

if TYPE_CHECKING:
    from flows.deploy.deployments import Change

F = TypeVar("F", bound=Callable[..., Any])

_FILE = "mirrors.yaml"
_ONLY_LIMIT = 256 << 20
"""Bytes of a report that --only reads: one of some hundred thousand tags."""


_OUTPUTS = {"--report": "report", "--output": "output", "--metrics-file": "metrics_file"}
"""Flags of files that commands write, and the names of their parameters."""


def _complete_name(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """The mirrors of the file, for a shell; none where it can't be read."""
    del parameter
    try:
        config = read_config(context.params.get("path") or _FILE)
    except TransshipError:
        return []
    return [mirror.name for mirror in config.mirrors if mirror.name.startswith(incomplete)]


file_flag = click.option("-f", "--file", "path", default=_FILE, show_default=True, help="The file of mirrors.")
audit_flag = boolean("--audit", help="Ask for immutable tags as well, and tell when one has moved at its source.")


names_argument = click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=_complete_name)
only_flag = click.option(
    "--only",
    default="",
    help="Look at nothing but what this file names: a report with failures, or REGISTRY/REPOSITORY:TAG a line.",
)


def mirror_flags(command: F) -> F:
    return names_argument(file_flag(only_flag(command)))


@dataclass(frozen=True, slots=True)
class Mirrors:
    """The mirrors that one command is about."""

    invocation: Invocation
    config: MirrorsConfig
    chosen: tuple[Mirror, ...]
    shared: Shared

    @classmethod
    def asked_for(
        cls, invocation: Invocation, flags: dict[str, Any], *, audit: bool = False, thorough: bool = False
    ) -> Mirrors:
        show_requests(invocation)
        config = read_config(flags["path"])
        check_overwrites({flag: flags.get(name, "") for flag, name in _OUTPUTS.items()}, flags["path"])
        chosen = config.chosen(flags["names"])
        options = invocation.registry
        _warn_of_flags(invocation.output, options, config)
        only: frozenset[str] = frozenset()
        if path := flags["only"]:
            text = read_named(path, "reading what to look at", limit=_ONLY_LIMIT).decode("utf-8", "replace")
            only = frozenset(read_only(text, path))
            if not only:
                raise InvalidInput(f"{path} names nothing", hint="nothing failed there: leave out --only")
        if only and not any(mirror.concerns(only) for mirror in chosen):
            raise InvalidInput(
                f"{path}: none of these mirrors has {min(only)}",
                hint="give a report of these mirrors, or REGISTRY/REPOSITORY:TAG of a source",
            )
        facts = DigestCache(default_path() if options.state else "")
        return cls(invocation, config, chosen, Shared(facts=facts, audit=audit, thorough=thorough, only=only))

    def check(self) -> None:
        """Raises what would end every run of these mirrors: consent of the machine that is lacking, files that can't be
        used."""
        with self.session():
            pass

    @contextmanager
    def session(self) -> Iterator[Session]:
        """Of all mirrors. What was learned about digests is kept, however it ends."""
        try:
            reach = partial(access, self.invocation)
            with opened(self.config, self.chosen, reach, self.invocation.cancel) as session:
                expect(session, self.chosen)
                yield session
        finally:
            self.shared.facts.save()
            if warning := self.shared.facts.warning(self.chosen):
                self.invocation.output.warn(warning)


def _warn_of_flags(output: Output, flags: RegistryOptions, config: MirrorsConfig) -> None:
    """Names the flags that don't hold for a registry, because the file says something else of it."""
    for field in fields_of(RegistryOptions):
        flag = getattr(flags, field.name)
        hosts = [
            host
            for host, registry in config.registries.items()
            if getattr(registry.over(flags, explicit=registry.explicit), field.name) != flag != field.default
        ]
        if hosts and not field.secret:
            output.warn(f"{field.flag} isn't used for {', '.join(hosts)}: `registries` says its {field.name}")


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
