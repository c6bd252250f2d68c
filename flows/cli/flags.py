"""Flags derived from the declarations of options (oci/options.py)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import click

from flows.cli.click_ext import boolean
from oci.errors import InvalidInput
from oci.options import Option, Options, assemble, leaves_of
from oci.units import parse_duration, show_duration

F = TypeVar("F", bound=Callable[..., Any])


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
        words = [word.strip() for value in values for word in (value.split(",") if not field.no_commas else [value])]
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
