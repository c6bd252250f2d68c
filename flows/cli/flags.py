"""Flags derived from the declarations of options (oci/options.py), and those that say how registries and object stores
are reached and who logs in; the sessions that commands open with them."""

from __future__ import annotations

import functools
import logging
import os
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import click

from flows.cli.click_ext import Invocation, Number, boolean, names_images
from flows.cli.output import VisibleFormatter
from oci.archive.options import S3Options
from oci.errors import InvalidInput
from oci.meter import METRICS_FILE, PUSHGATEWAY
from oci.options import Option, Options, assemble, leaves_of
from oci.registry.credentials.credential import Credential, Credentials
from oci.registry.credentials.keychains import default_credentials
from oci.registry.http.origin import named_hosts
from oci.registry.options import DEFAULT_CONCURRENCY, RegistryOptions
from oci.relocation.session import Access, Session
from oci.units import parse_duration, show_duration

F = TypeVar("F", bound=Callable[..., Any])
SIDES = ("source", "destination")
MOST_CONCURRENCY = 64
"""More threads than this don't make anything faster."""


class Age(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # generic from click 8.2 on
    """Days and weeks: `7d`, `2w`, `12h`, `1d12h`, as configurations of mirrors have them. Gives a timedelta."""

    name = "age"

    def __init__(self, least: timedelta = timedelta(), most: timedelta = timedelta.max) -> None:
        self._least, self._most = least, most

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        if isinstance(value, timedelta):
            return value
        try:
            age = parse_duration(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if not self._least <= age <= self._most:
            size, bound, end = ("short", self._least, "least") if age < self._least else ("long", self._most, "most")
            self.fail(f"{value!r} is too {size} a time: {show_duration(bound)} is the {end}", param, ctx)
        return age


class Declared(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # generic from click 8.2 on
    """The type of a declared option: its bounds, its unit, its words."""

    def __init__(self, field: Option) -> None:
        self.field = field
        self.name = _metavar(field).lower()

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str) or self.field.is_list or self.field.is_mapping:
            return value  # a default, or an item of a list, which is read as a whole
        try:
            return self.field.read_text(value)
        except InvalidInput as error:
            self.fail(error.message.removeprefix(f"{self.field.name}: "), param, ctx)


class OutputFile(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """A file that the command is to write. That it can be written is found out before any work. With `folder`, it may
    be a folder for several; an address with a scheme, such as s3://, is left to what writes there."""

    name = "path"

    def __init__(self, *, folder: bool = False) -> None:
        self._folder = folder

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        del param
        if value and "://" not in value and ctx is not None and not ctx.resilient_parsing:
            from oci.output import check_outputs  # noqa: PLC0415 - few commands are given one

            in_folder = self._folder and (value.endswith("/") or os.path.isdir(value))
            check_outputs(os.path.join(value, "file") if in_folder else value)
        return str(value)


def output_file(name: str, help: str) -> Callable[[F], F]:  # noqa: A002 - click's word
    return click.option(name, type=OutputFile(), default="", help=help)


def check_overwrites(outputs: Mapping[str, str], *inputs: str) -> None:
    """Raises InvalidInput for an output, by its flag, that would take the place of a file that is read, or of another
    output. Devices may be named more than once."""
    places = {os.path.realpath(path): path for path in inputs if path}
    for flag, path in outputs.items():
        if not path or (os.path.exists(path) and not os.path.isfile(path)):
            continue
        if (place := os.path.realpath(path)) in places:
            raise InvalidInput(
                f"{flag} would be written in the place of {places[place]}, which this command uses",
                hint="name another file",
            )
        places[place] = path


def flags_of(
    group: type[Options],
    parameter: str,
    *,
    take: Collection[str] = (),
    leave_out: Collection[str] = (),
    make: Callable[[dict[str, Any]], Any] | None = None,
) -> Callable[[F], F]:
    """Adds a flag for each option of `group`, or for those in `take` alone, without secrets. The command gets them as
    `parameter`: a value of `group`, or what `make` makes of those that were given."""
    leaves = [field for field in leaves_of(group) if not field.secret and field.name not in leave_out]
    fields = [field for field in leaves if not take or field.name in take]

    def decorate(command: F) -> F:
        @functools.wraps(command)
        def with_flags(*args: Any, **values: Any) -> Any:
            all_values = {field.name: values.pop(f"{parameter}__{field.name}") for field in fields}
            set_values = {name: value for name, value in all_values.items() if value is not None}
            return command(*args, **{parameter: make(set_values) if make else assemble(group, set_values)}, **values)

        wrapped: Any = with_flags
        for field in reversed(fields):
            wrapped = flag_of(field, f"{parameter}__{field.name}")(wrapped)
        return wrapped  # type: ignore[no-any-return]

    return decorate


def flag_of(field: Option, parameter: str) -> Callable[[F], F]:
    """Adds the flag of one option; the command gets None where it isn't given."""
    names = (parameter, *filter(None, (field.short, field.flag)))
    if field.type is bool:
        return boolean(*names, default=field.default, help=field.help)
    if field.is_list or field.is_mapping:
        return click.option(
            *names,
            type=Declared(field),
            multiple=True,
            metavar=_metavar(field),
            callback=_whole(field),
            help=field.help if "repeat" in field.help else f"{field.help.removesuffix('.')} (repeatable).",
        )
    shown = (
        "" if field.default in ("", 0, timedelta(0)) or field.required else f"  [default: {field.show(field.default)}]"
    )
    return click.option(
        *names, type=Declared(field), default=None, metavar=_metavar(field), help=f"{field.help}{shown}"
    )


def _whole(field: Option) -> Callable[[click.Context, click.Parameter, Sequence[str]], Any]:
    """Reads what was given to a list or a mapping: repeated flags, and words between commas."""

    def read(context: click.Context, parameter: click.Parameter, values: Sequence[str]) -> Any:
        if not values:
            return None
        words = [word.strip() for value in values for word in (value.split(",") if field.commas else [value])]
        words = [word for word in words if word]
        try:
            return field.read(pairs_of(words) if field.is_mapping else words)
        except InvalidInput as error:
            raise click.BadParameter(error.message.removeprefix(f"{field.name}: "), context, parameter) from error

    return read


def pairs_of(words: Sequence[str]) -> dict[str, str]:
    """Reads `KEY=VALUE`. Raises InvalidInput."""
    pairs = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise InvalidInput(f"{word!r} is not KEY=VALUE")
        pairs[key] = value
    return pairs


def _metavar(field: Option) -> str:
    if field.metavar:
        return field.metavar
    if field.choices:
        return f"[{'|'.join(field.choices)}]"
    if field.is_mapping:
        return "KEY=VALUE"
    if field.unit == "bytes":
        return "SIZE"
    if field.unit == "seconds" or field.type is timedelta:
        return "DURATION"
    return "NUMBER" if field.type in (int, float) else "TEXT"


_LOGIN = {
    "registry_username": "User for every registry (IMGPKG_USERNAME).",
    "registry_password": "Password for every registry (IMGPKG_PASSWORD).",
    "registry_token": "Bearer token for every registry (IMGPKG_TOKEN).",
}
_SIDES_LOGIN = {
    f"{side}_{word}": f"{word.capitalize()} for the {side}'s registries alone."
    for side in SIDES
    for word in ("username", "password", "token")
}


def access(invocation: Invocation, side: str, concurrency: int) -> Access:
    """Returns how one side is reached. A login for the side counts alone; the general flags replace their variables."""
    logins, hosts = invocation.logins, _named_hosts()
    explicit = None
    if username := logins.get(f"{side}_username"):
        explicit = Credential(username, logins.get(f"{side}_password") or "", origin=f"--{side}-username")
    elif token := logins.get(f"{side}_token"):
        explicit = Credential(registry_token=token, origin=f"--{side}-token")
    credentials = default_credentials(
        side=side,
        explicit=explicit,
        flags={name: logins.get(f"registry_{name}") or "" for name in ("username", "password", "token")},
        anonymous=invocation.registry.anonymous,
        hosts=hosts,
        warn=invocation.output.warn,
    )
    options = invocation.registry.with_(concurrency=concurrency + 1)
    return Access(credentials=credentials, default=options, named=hosts, s3=invocation.store or S3Options())


def open_session(invocation: Invocation, side: str | None = None) -> Session:
    """Opens connections for a command that uses both sides, or, with `side`, only one: "source", "destination", or
    empty where the credentials of neither are meant."""
    show_requests(invocation)
    concurrency = invocation.concurrency or DEFAULT_CONCURRENCY
    reached = {name: access(invocation, name, concurrency) for name in (SIDES if side is None else (side,))}
    source, destination = (reached.get(name) or reached[side or ""] for name in SIDES)
    return Session(source=source, destination=destination, concurrency=concurrency, cancel=invocation.cancel)


def offline(invocation: Invocation) -> Session:
    """Opens a session for a command that needs no registry."""
    reached = Access(credentials=Credentials([]), s3=invocation.store or S3Options())
    concurrency = invocation.concurrency or DEFAULT_CONCURRENCY
    return Session(source=reached, destination=reached, concurrency=concurrency, cancel=invocation.cancel)


_OF_RECEIPTS = ("RECEIPT", "PLACE")
"""What else may be a reference in a command, or a file."""


def _named_hosts() -> frozenset[str] | None:
    """The registries that the command line names: logins of flags and variables go to these. None for the commands of a
    mirrors file, where the mirror that is run names them."""
    context = click.get_current_context(silent=True)
    if context is None or "path" in context.params or context.params.get("mirrors"):
        return None
    texts: list[str] = []
    for parameter in context.command.params:
        value = context.params.get(str(parameter.name))
        if value and (names_images(parameter) or parameter.metavar in _OF_RECEIPTS):
            texts += [value] if isinstance(value, str) else map(str, value)
    return named_hosts(text for text in texts if not os.path.isfile(text))


def show_requests(invocation: Invocation) -> None:
    """With `--debug`, shows requests to registries on standard error, without anything secret."""
    logger = logging.getLogger("transship.http")
    if invocation.output.debug and not logger.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(VisibleFormatter("%(asctime)s %(message)s"))
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG)


def concurrency_flag(help: str) -> Callable[[F], F]:  # noqa: A002 - click's word
    """Adds the flag, whose value is the invocation's `concurrency`."""

    def note(context: click.Context, parameter: click.Parameter, value: int) -> None:
        del parameter
        context.ensure_object(Invocation).concurrency = min(value, MOST_CONCURRENCY)

    return click.option(
        "--concurrency",
        type=Number(1),
        default=DEFAULT_CONCURRENCY,
        show_default=True,
        expose_value=False,
        callback=note,
        help=f"{help}, {MOST_CONCURRENCY} at most.",
    )


def store_flags(command: F) -> F:
    """Adds the flags of the object store of archives, which become the invocation's `store`."""

    @functools.wraps(command)
    def with_store(invocation: Invocation, /, store: S3Options, **values: Any) -> Any:
        invocation.store = store
        return command(invocation, **values)

    return flags_of(S3Options, "store")(with_store)  # type: ignore[return-value]


def registry_flags(*, sides: bool = False) -> Callable[[F], F]:
    """Adds the flags, which become the invocation's `registry` and `logins`. `sides` adds logins for each side."""
    logins = _LOGIN | (_SIDES_LOGIN if sides else {})

    def decorate(command: F) -> F:
        @functools.wraps(command)
        def with_flags(invocation: Invocation, /, registry_options: RegistryOptions, **values: Any) -> Any:
            identity = {name: values.pop(name) or "" for name in logins}
            if values.pop("registry_password_stdin"):
                identity["registry_password"] = _password_from_stdin(identity)
            invocation.registry, invocation.logins = registry_options, identity
            return command(invocation, **values)

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


metrics_flag: Callable[[F], F] = click.option(
    "--metrics-file",
    type=OutputFile(folder=True),
    default="",
    envvar=METRICS_FILE,
    help=f"Write the run's numbers for Prometheus to this file or folder ({METRICS_FILE}); {PUSHGATEWAY} pushes them.",
)
