"""The registry flags: who we are and how we connect, for both sides at once or for one."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import click

from flows.cli import debug
from flows.cli.click_ext import Duration, Invocation, boolean, words
from flows.cli.output import Output
from oci.archive.s3_options import S3Settings
from oci.registry.credentials.chain import default_credentials
from oci.registry.credentials.credential import Credential
from oci.registry.options import RegistryOptions
from oci.relocation.session import DEFAULT_CONCURRENCY, Access, Session

F = TypeVar("F", bound=Callable[..., Any])
SIDES = ("source", "destination")
_IDENTITY = ("username", "password", "token")
MOST_CONCURRENCY = 64
"""More threads than this don't make anything faster."""


@dataclass(frozen=True, slots=True)
class RegistryFlags:
    """What the registry flags of one command line say."""

    values: dict[str, Any] = field(repr=False)

    def settings(self, concurrency: int) -> RegistryOptions:
        return RegistryOptions(
            ca_files=self.values["registry_ca_cert_path"],
            client_certificate=self.values["registry_client_cert"] or "",
            client_key=self.values["registry_client_key"] or "",
            verify_tls=self.values["registry_verify_certs"],
            insecure=self.values["registry_insecure"],
            proxy=self.values["registry_proxy"] or "",
            header_timeout=self.values["registry_response_header_timeout"],
            retries=self.values["registry_retry_count"],
            chunk_size=self.values["registry_chunk_size"],
            concurrency=concurrency + 1,
        )

    def access(self, side: str, output: Output, *, concurrency: int) -> Access:
        """How one side is reached. Flags of the side count alone; the general ones stand in for their variables."""
        credentials = default_credentials(
            side=side,
            explicit=self._explicit(side),
            flags={name: self.values.get(f"registry_{name}") or "" for name in _IDENTITY},
            anonymous=self.values["registry_anon"],
            warn=output.warn,
        )
        return Access(credentials=credentials, default=self.settings(concurrency))

    def session(
        self,
        invocation: Invocation,
        *,
        side: str | None = None,
        concurrency: int = DEFAULT_CONCURRENCY,
        store: S3Settings | None = None,
    ) -> Session:
        """Connections for a command that uses both sides, or, with `side`, only one: "source", "destination", or empty
        where the credentials of neither are meant. `store` is where archives may be, on either side."""
        if invocation.output.debug:
            debug.show_requests()
        reached = {
            name: replace(self.access(name, invocation.output, concurrency=concurrency), s3=store or S3Settings())
            for name in (SIDES if side is None else (side,))
        }
        source, destination = (reached.get(name) or reached[side or ""] for name in SIDES)
        return Session(source=source, destination=destination, concurrency=concurrency, cancel=invocation.cancel)

    def _explicit(self, side: str) -> Credential | None:
        username, token = self.values.get(f"{side}_username"), self.values.get(f"{side}_token")
        if username:
            return Credential(username, self.values.get(f"{side}_password") or "", origin=f"--{side}-username")
        if token:
            return Credential(registry_token=token, origin=f"--{side}-token")
        return None


def concurrency_flag(help: str) -> Callable[[F], F]:  # noqa: A002 - click's word
    def at_most(context: click.Context, parameter: click.Parameter, value: int) -> int:
        del context, parameter
        return min(value, MOST_CONCURRENCY)

    return click.option(
        "--concurrency",
        type=click.IntRange(1),
        default=DEFAULT_CONCURRENCY,
        show_default=True,
        callback=at_most,
        help=f"{help}, {MOST_CONCURRENCY} at most.",
    )


def registry_flags(*, sides: bool = False) -> Callable[[F], F]:
    """Adds the flags; the command gets them as `registry: RegistryFlags`. `sides` adds credentials for each side."""

    def decorate(command: F) -> F:
        options = _options(sides=sides)
        names = [str(click.Option([name for name in option if name.startswith("-")]).name) for option, _ in options]

        @functools.wraps(command)
        def with_flags(*args: Any, **values: Any) -> Any:
            flags = RegistryFlags({name: values.pop(name) for name in names})
            return command(*args, registry=flags, **values)

        wrapped: Any = with_flags
        for _, add in reversed(options):
            wrapped = add(wrapped)
        return wrapped  # type: ignore[no-any-return]

    return decorate


def _options(*, sides: bool) -> list[tuple[tuple[str, ...], Callable[[Any], Any]]]:
    def text(name: str, help: str) -> tuple[tuple[str, ...], Callable[[Any], Any]]:  # noqa: A002
        return (name,), click.option(name, help=help)

    options = [
        (
            ("--registry-ca-cert-path",),
            words("--registry-ca-cert-path", help="PEM file to trust beside the system's (repeatable)."),
        ),
        (
            ("--registry-verify-certs",),
            boolean("--registry-verify-certs", default=True, help="Check certificates and host names."),
        ),
        (("--registry-insecure",), boolean("--registry-insecure", help="Permit plain http.")),
        text("--registry-username", "User for every registry (IMGPKG_USERNAME)."),
        text("--registry-password", "Password for every registry (IMGPKG_PASSWORD)."),
        text("--registry-token", "Bearer token for every registry (IMGPKG_TOKEN)."),
        (
            ("--registry-anon",),
            boolean("--registry-anon", help="Don't look into the docker config (IMGPKG_ANON=true)."),
        ),
        (
            ("--registry-response-header-timeout",),
            click.option(
                "--registry-response-header-timeout",
                type=Duration(),
                default="30s",
                show_default=True,
                help="Wait so long for an answer to begin.",
            ),
        ),
        (
            ("--registry-retry-count",),
            click.option(
                "--registry-retry-count",
                type=click.IntRange(0),
                default=5,
                show_default=True,
                help="Repeat a failed request so often.",
            ),
        ),
        (
            ("--registry-chunk-size",),
            click.option(
                "--registry-chunk-size",
                type=click.IntRange(0),
                default=0,
                help="Upload in chunks of so many bytes (0: whole blobs first).",
            ),
        ),
        text("--registry-client-cert", "PEM file of a client certificate."),
        text("--registry-client-key", "PEM file of its key."),
        text("--registry-proxy", "URL of a proxy (else HTTPS_PROXY and NO_PROXY)."),
    ]
    if sides:
        options.extend(
            text(f"--{side}-{what}", f"{what.capitalize()} for the {side}'s registries alone.")
            for side in SIDES
            for what in _IDENTITY
        )
    return options
