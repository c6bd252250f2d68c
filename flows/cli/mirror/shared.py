"""What the commands on mirrors share: the file, which of its mirrors, and a session for each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import click

from flows.cli.click_ext import Invocation, boolean
from flows.cli.flags import access, show_requests
from flows.cli.output import Output
from oci.errors import InvalidInput, TransshipError
from oci.mirror.comparison import Shared, concerns
from oci.mirror.config import Mirror, MirrorsConfig
from oci.mirror.digest_cache import DigestCache, default_path
from oci.mirror.reader import read_config
from oci.mirror.results import read_only
from oci.mirror.run import expect, opened
from oci.options import fields_of
from oci.output import read_named
from oci.registry.options import RegistryOptions
from oci.relocation.session import Session

F = TypeVar("F", bound=Callable[..., Any])

_FILE = "mirrors.yaml"
_ONLY_LIMIT = 256 << 20
"""Bytes of a report that --only reads: one of some hundred thousand tags."""


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


def mirror_flags(command: F) -> F:
    options = (
        click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=_complete_name),
        file_flag,
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
    config: MirrorsConfig
    chosen: tuple[Mirror, ...]
    shared: Shared

    @classmethod
    def asked_for(
        cls, invocation: Invocation, flags: dict[str, Any], *, audit: bool = False, thorough: bool = False
    ) -> Mirrors:
        show_requests(invocation)
        config = read_config(flags["path"])
        chosen = config.chosen(flags["names"])
        options = invocation.registry
        _warn_of_flags(invocation.output, options, config)
        only: frozenset[str] = frozenset()
        if path := flags["only"]:
            text = read_named(path, "reading what to look at", limit=_ONLY_LIMIT).decode("utf-8", "replace")
            only = frozenset(read_only(text, path))
            if not only:
                raise InvalidInput(f"{path} names nothing", hint="nothing failed there: leave out --only")
        if only and not any(concerns(mirror, only) for mirror in chosen):
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
