"""What the commands on mirrors share: the file, which of its mirrors, and a session for each."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import click

from flows.cli import debug
from flows.cli.access import RegistryFlags
from flows.cli.verb import Invocation
from oci.archive.s3settings import S3Settings
from oci.atomic import write_output
from oci.errors import InvalidInput, NotFound, Refused
from oci.mirror.breaker import Breaker
from oci.mirror.compare import Care
from oci.mirror.config import Mirror, MirrorsConfig, read_config
from oci.mirror.facts import Facts, default_path
from oci.mirror.report import read_only
from oci.mirror.run import Shared, opened
from oci.relocation.session import Access, Session

F = TypeVar("F", bound=Callable[..., Any])

_FILE = "mirrors.yaml"


def mirror_flags(command: F) -> F:
    options = (
        click.argument("names", nargs=-1, metavar="[NAME]..."),
        click.option("-f", "--file", "path", default=_FILE, show_default=True, help="The file of mirrors."),
        click.option(
            "--only",
            default="",
            help="Look at nothing but what this file names: a report with failures, or REGISTRY/REPOSITORY:TAG a line.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


@dataclass(frozen=True, slots=True)
class Mirrors:
    """The mirrors that one command is about."""

    invocation: Invocation
    registry: RegistryFlags
    store: S3Settings
    config: MirrorsConfig
    chosen: tuple[Mirror, ...]
    only: frozenset[str]
    facts: Facts
    breaker: Breaker

    @classmethod
    def asked_for(
        cls, invocation: Invocation, registry: RegistryFlags, store: S3Settings, flags: dict[str, Any]
    ) -> Mirrors:
        if invocation.output.debug:
            debug.show_requests()
        config = read_config(flags["path"])
        only = frozenset(_only(flags["only"])) if flags["only"] else frozenset()
        return cls(
            invocation=invocation,
            registry=registry,
            store=store,
            config=config,
            chosen=config.chosen(flags["names"]),
            only=only,
            facts=Facts(default_path()),
            breaker=Breaker(),
        )

    def shared(self, *, audit: bool = False, thorough: bool = False) -> Shared:
        care = Care(audit=audit, thorough=thorough, only=self.only)
        return Shared(facts=self.facts, breaker=self.breaker, care=care)

    @contextmanager
    def session(self, mirror: Mirror) -> Iterator[Session]:
        """What was learned about digests is kept, however it ends."""
        try:
            with opened(self.config, mirror, self._access, self.invocation.cancel) as session:
                yield session
        finally:
            self.facts.save()

    def write(self, path: str, body: dict[str, Any], operation: str) -> None:
        """Nothing without a path."""
        if not path:
            return
        try:
            write_output(path, json.dumps(body, indent=1).encode())
        except OSError as error:
            raise Refused(error.strerror or str(error), subject=path, operation=operation) from error

    def _access(self, side: str, concurrency: int) -> Access:
        access = self.registry.access(side, self.invocation.output, concurrency=concurrency)
        return replace(access, s3=self.store)


def _only(path: str) -> tuple[str, ...]:
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise NotFound(reason or str(error), subject=path, operation="reading what to look at") from error
    names = read_only(text, path)
    if not names:
        raise InvalidInput(f"{path} names nothing", hint="nothing failed there: leave out --only")
    return names
