"""How registries are reached and who logs in: the flags for it, for both sides at once or for one, and sessions."""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click
from msgspec import Struct, field

from flows.cli.click_ext import Invocation, Number
from flows.cli.flags import flags_of
from flows.cli.output import Output, VisibleFormatter
from oci.archive.s3_options import S3Options
from oci.errors import InvalidInput
from oci.registry.credentials.credential import Credential, Credentials, default_credentials
from oci.registry.http.origin import named_hosts
from oci.registry.options import DEFAULT_CONCURRENCY, RegistryOptions
from oci.relocation.session import Access, Session

F = TypeVar("F", bound=Callable[..., Any])
SIDES = ("source", "destination")
MOST_CONCURRENCY = 64
"""More threads than this don't make anything faster."""

_REFERENCES = ("bundle", "image", "to_repo", "references", "repositories", "repository", "bundles")
"""Parameters of commands whose values name registries; those of derived flags have the group before `__`."""

_LOGIN = {
    "registry_username": "User for every registry (IMGPKG_USERNAME).",
    "registry_password": "Password for every registry (IMGPKG_PASSWORD).",
    "registry_token": "Bearer token for every registry (IMGPKG_TOKEN).",
}
_SIDES_LOGIN = {
    f"{side}_{field}": f"{field.capitalize()} for the {side}'s registries alone."
    for side in SIDES
    for field in ("username", "password", "token")
}


class RegistryFlags(Struct, frozen=True):
    """The registry flags of one command line: how registries are reached, and logins by the name of their flag."""

    options: RegistryOptions = field(default_factory=RegistryOptions)
    logins: dict[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"RegistryFlags({self.options!r})"  # without the logins

    def access(
        self, side: str, output: Output, *, concurrency: int = DEFAULT_CONCURRENCY, store: S3Options | None = None
    ) -> Access:
        """Returns how one side is reached. A login for the side counts alone; the general flags replace their
        variables. `store` says how the object store of archives is reached."""
        hosts = _named_hosts()
        credentials = default_credentials(
            side=side,
            explicit=self._explicit(side),
            flags={name: self.logins.get(f"registry_{name}") or "" for name in ("username", "password", "token")},
            anonymous=self.options.anonymous,
            hosts=hosts,
            warn=output.warn,
        )
        options = self.options.with_(concurrency=concurrency + 1)
        return Access(credentials=credentials, default=options, named=hosts, s3=store or S3Options())

    def session(
        self,
        invocation: Invocation,
        *,
        side: str | None = None,
        concurrency: int = DEFAULT_CONCURRENCY,
        store: S3Options | None = None,
    ) -> Session:
        """Opens connections for a command that uses both sides, or, with `side`, only one: "source", "destination", or
        empty where the credentials of neither are meant."""
        show_requests(invocation)
        reached = {
            name: self.access(name, invocation.output, concurrency=concurrency, store=store)
            for name in (SIDES if side is None else (side,))
        }
        source, destination = (reached.get(name) or reached[side or ""] for name in SIDES)
        return Session(source=source, destination=destination, concurrency=concurrency, cancel=invocation.cancel)

    def _explicit(self, side: str) -> Credential | None:
        username, token = self.logins.get(f"{side}_username"), self.logins.get(f"{side}_token")
        if username:
            return Credential(username, self.logins.get(f"{side}_password") or "", origin=f"--{side}-username")
        if token:
            return Credential(registry_token=token, origin=f"--{side}-token")
        return None


store_flags = flags_of(S3Options, "store")
"""How the object store of archives is reached; the command gets it as `store: S3Options`."""


def export_flags(command: F) -> F:
    """Adds the flags of how an archive is written; the command gets them as `tarball: ExportOptions`."""
    from oci.export.options import ExportOptions  # noqa: PLC0415 - for commands that may write an archive

    return flags_of(ExportOptions, "tarball")(command)


def _named_hosts() -> frozenset[str] | None:
    """The registries that the command line names: logins of flags and variables go to these. None for the commands of a
    mirrors file, where the mirror that is run names them."""
    context = click.get_current_context(silent=True)
    if context is None or "path" in context.params or context.params.get("mirrors"):
        return None
    texts: list[str] = []
    for name, value in context.params.items():
        if value and name.rpartition("__")[2] in _REFERENCES:
            texts += [value] if isinstance(value, str) else map(str, value)
    return named_hosts(texts)


def offline(invocation: Invocation, store: S3Options, *, concurrency: int = DEFAULT_CONCURRENCY) -> Session:
    """Opens a session for a command that needs no registry."""
    access = Access(credentials=Credentials([]), s3=store)
    return Session(source=access, destination=access, concurrency=concurrency, cancel=invocation.cancel)


def show_requests(invocation: Invocation) -> None:
    """With `--debug`, shows requests to registries on standard error, without anything secret."""
    logger = logging.getLogger("transship.http")
    if invocation.output.debug and not logger.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(VisibleFormatter("%(asctime)s %(message)s"))
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG)


def concurrency_flag(help: str) -> Callable[[F], F]:  # noqa: A002 - click's word
    def at_most(context: click.Context, parameter: click.Parameter, value: int) -> int:
        del context, parameter
        return min(value, MOST_CONCURRENCY)

    return click.option(
        "--concurrency",
        type=Number(1),
        default=DEFAULT_CONCURRENCY,
        show_default=True,
        callback=at_most,
        help=f"{help}, {MOST_CONCURRENCY} at most.",
    )


def registry_flags(*, sides: bool = False) -> Callable[[F], F]:
    """Adds the flags; the command gets them as `registry: RegistryFlags`. `sides` adds logins for each side."""
    logins = _LOGIN | (_SIDES_LOGIN if sides else {})

    def decorate(command: F) -> F:
        @functools.wraps(command)
        def with_flags(*args: Any, **values: Any) -> Any:
            identity = {name: values.pop(name) or "" for name in logins}
            if values.pop("registry_password_stdin"):
                identity["registry_password"] = _password_from_stdin(identity)
            return command(*args, registry=RegistryFlags(values.pop("registry_options"), identity), **values)

        wrapped: Any = with_flags
        for name, text in reversed(logins.items()):
            wrapped = click.option(f"--{name.replace('_', '-')}", help=text)(wrapped)
        wrapped = click.option(
            "--registry-password-stdin", is_flag=True, help="Read the password from standard input."
        )(wrapped)
        return flags_of(RegistryOptions, "registry_options", leave_out={"concurrency"})(wrapped)  # type: ignore[no-any-return]

    return decorate


def _password_from_stdin(logins: dict[str, str]) -> str:
    if not logins["registry_username"]:
        raise InvalidInput("Expected a user for the password", hint="name it: --registry-username USER")
    if logins["registry_password"]:
        raise InvalidInput("--registry-password and --registry-password-stdin can't both be given")
    password = sys.stdin.readline().rstrip("\r\n")
    if not password:
        raise InvalidInput("standard input has no password", hint="write it there: pass show registry | transship ...")
    return password
