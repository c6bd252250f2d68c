"""From a mapping, or the text of mirrors.yaml, to a MirrorsConfig: every mistake at once, each with its line and path.

What a value may be stands in the declarations (`oci.options`); this module walks them, for nested groups, lists and
mappings alike.
"""

from __future__ import annotations

import os
import re
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from oci.documents.composer import FILE_LIMIT, Located, Path, read_located
from oci.documents.variables import Unusable, expanded
from oci.errors import (
    InvalidConfig,
    InvalidDocument,
    InvalidInput,
    did_you_mean,
)
from oci.mirror.config import BucketEntry, MirrorsConfig, RegistryEntry
from oci.options import Option, Options, field_schema, fields_of
from oci.output import read_named

O = TypeVar("O", bound=Options)  # noqa: E741 - the customary letter for a type variable of this bound

R = TypeVar("R", RegistryEntry, BucketEntry)

_NAMES = frozenset({("buckets",), ("buckets", "*", "tags")})
"""Mappings by names that a person chose, which may begin with `x-`."""

_SHOWN_PROBLEMS = 20
_WHOLE = frozenset({"schedule"})
"""Groups that a mirror has from the defaults as a whole or not at all: their fields exclude each other."""


def read_config(path: str, environment: Mapping[str, str] | None = None) -> MirrorsConfig:
    """Raises InvalidDocument, naming the file, the line and the path of each thing that is wrong; UnusableFile
    for a file that can't be read. `environment` is where variables come from, by default the process's."""
    data = read_named(
        path,
        "reading the mirrors",
        limit=FILE_LIMIT,
        hint="name a file of mirrors: `transship init` writes one",
    )
    return parse_config(data, path, os.environ if environment is None else environment).with_(from_file=True)


def parse_config(data: bytes, where: str, environment: Mapping[str, str] | None = None) -> MirrorsConfig:
    """Read the configuration in `data`. Raises InvalidConfig."""
    try:
        return _parsed(read_located(data, where, names=_NAMES), environment or {})
    except InvalidDocument as error:
        raise InvalidConfig(error.message, hint=error.hint) from error


def _parsed(located: Located, environment: Mapping[str, str]) -> MirrorsConfig:
    hint = "begin the file with `version: 1`"
    if not isinstance(located.value, dict):
        raise InvalidDocument(f"{located.at(())}: expected a mapping with version and mirrors", hint=hint)
    version = located.value.get("version", "nothing")
    if version != 1:
        raise InvalidDocument(f"{located.at(('version',))}: version: expected 1, got {version!r}", hint=hint)
    reader = _Reader()
    value = expanded(located.value, environment, reader.wrong)
    config = reader.config(value)
    if config is None or reader.problems:
        raise _invalid(located, reader.problems)
    return config.with_(
        registries={host: _with_explicit(each, value["registries"][host]) for host, each in config.registries.items()},
        buckets={name: _with_explicit(each, value["buckets"][name]) for name, each in config.buckets.items()},
    )


def _with_explicit(options: R, values: Mapping[str, Any]) -> R:
    fields = {field.name: field.default for field in fields_of(type(options))}
    return options.with_(explicit=frozenset(name for name in values if getattr(options, name) == fields[name]))


def make_config(value: Mapping[str, Any]) -> MirrorsConfig:
    """The configuration that a form, a deployment's parameters or a program gives as plain values. Raises
    InvalidInput that names each path."""
    reader = _Reader()
    return reader.checked(reader.config(value))


def make(options: type[O], value: Mapping[str, Any]) -> O:
    """The same for one part of a configuration: a Mirror, a TagRule."""
    reader = _Reader()
    return reader.checked(reader.options(options, value, ()))


def with_defaults(mirror: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The mirror with what `defaults` say and it doesn't: groups field by field; each of its tag rules with the parts
    of a default rule that it doesn't give (with several default rules: a rule for each of them); what is never taken is
    added up. A schedule is taken as a whole."""
    merged = {**defaults, **mirror}
    for name in defaults.keys() & mirror.keys():
        value, default = mirror[name], defaults[name]
        if isinstance(value, Mapping) and isinstance(default, Mapping) and name not in _WHOLE:
            merged[name] = {**default, **value}
        elif not isinstance(value, list) or not isinstance(default, list):
            continue
        elif name == "never" and all(isinstance(text, str) for text in (*default, *value)):
            merged[name] = list(dict.fromkeys([*default, *value]))
        elif name == "tags":
            bases = [rule for rule in default if isinstance(rule, Mapping)] or [{}]
            merged[name] = [{**base, **rule} if isinstance(rule, Mapping) else rule for rule in value for base in bases]
    return merged


class _Reader:
    """Makes options of plain values, and collects what is wrong: whatever is made beside a problem isn't used."""

    def __init__(self) -> None:
        self.problems: list[tuple[Path, str]] = []
        """Without a message, what was said elsewhere already."""

    def wrong(self, path: Path, message: str = "") -> None:
        self.problems.append((path, message))

    def checked(self, options: O | None) -> O:
        if options is None or self.problems:
            shown = self.problems[:_SHOWN_PROBLEMS]
            raise InvalidInput("\n".join(f"{_shown(path)}: {message}" for path, message in shown))
        return options

    def config(self, value: Mapping[str, Any]) -> MirrorsConfig | None:
        defaults, mirrors = value.get("defaults"), value.get("mirrors")
        if isinstance(defaults, Mapping) and isinstance(mirrors, list | tuple):
            merged = [with_defaults(each, defaults) if isinstance(each, Mapping) else each for each in mirrors]
            value = {**value, "mirrors": merged}
        return self.options(MirrorsConfig, value, ())

    def options(self, options: type[O], value: Any, path: Path) -> O | None:
        """None when they can't be made."""
        if isinstance(value, options):
            return value
        before = len(self.problems)
        if isinstance(value, Unusable):
            self.wrong(path)
        elif not isinstance(value, Mapping):
            self.wrong(path, "input should be a mapping")
        else:
            values = self._fields(options, value, path)
        if len(self.problems) > before:
            return None
        try:
            made_options = options(**values)
            made_options.check_stored()
        except InvalidInput as error:
            match = re.match(r"(\w+)(?:\[(\d+)\])?: ", error.message)
            if match and match[1] in options.__struct_fields__:
                item = (int(match[2]),) if match[2] else ()
                self.wrong((*path, match[1], *item), error.message[match.end() :])
            else:
                self.wrong(path, str(error))
            return None
        return made_options

    def _fields(self, options: type[Options], value: Mapping[str, Any], path: Path) -> dict[str, Any]:
        fields = {field.name: field for field in fields_of(options) if not field.secret}
        values: dict[str, Any] = {}
        for name, field in fields.items():
            if name in value:
                before = len(self.problems)
                values[name] = self._value(field, value[name], (*path, name))
                if field.check is not None and len(self.problems) == before:
                    self._check(field.check, values[name], (*path, name))
            elif field.required:
                self.wrong((*path, name), "field required")
        for name in (str(name) for name in value if name not in fields):
            hint = did_you_mean(name, fields)
            listed = len(fields) <= 20 or hint.startswith("did you mean")  # not all names of a big group
            self.wrong((*path, name), f"unknown key; {hint}" if hint and listed else "unknown key")
        return values

    def _check(self, check: Callable[[Any], None], value: Any, path: Path) -> None:
        """A message that begins with a key of a mapping is about the value of this key."""
        try:
            check(value)
        except (ValueError, InvalidInput) as error:
            key, colon, problem = str(error).partition(": ")
            inside = bool(colon) and isinstance(value, Mapping) and key in value
            self.wrong((*path, key) if inside else path, problem if inside else str(error))

    def _value(self, field: Option, value: Any, path: Path) -> Any:
        if _is_unusable(value, deep=field.spelled is not None):
            return self.wrong(path)
        if value is None and field.default is None:
            return None
        if field.options is not None:
            return self.options(field.options, value, path)
        if field.spelled is not None:
            try:
                value = field.spelled(value)
            except InvalidInput as error:
                return self.wrong(path, error.message)
        if field.is_list:
            if not isinstance(value, list | tuple):
                return self.wrong(path, "input should be a valid list")
            inner = _inner(field, 0)
            items = [self._value(inner, item, (*path, number)) for number, item in enumerate(value)]
            self._check_length(field, len(items), "items", path)
            return typing.get_origin(field.type)(items)
        if field.is_mapping:
            if not isinstance(value, Mapping):
                return self.wrong(path, "input should be a mapping")
            keys, inner = _inner(field, 0), _inner(field, 1)
            for key in value:
                self._leaf(keys, key, (*path, str(key)))
            self._check_length(field, len(value), "keys", path)
            return {key: self._value(inner, item, (*path, key)) for key, item in value.items()}
        return self._leaf(field, value, path)

    def _check_length(self, field: Option, length: int, noun: str, path: Path) -> None:
        if field.max_length is not None and length > field.max_length:
            self.wrong(path, f"at most {field.max_length} {noun}, got {length}")
        if field.min_length is not None and length < field.min_length:
            self.wrong(path, f"at least {field.min_length} {noun}, got {length}")

    def _leaf(self, field: Option, value: Any, path: Path) -> Any:
        if field.type is str and not isinstance(value, str):
            return self.wrong(path, "expected text: put it in quotes")
        if field.choices and not field.words and value not in field.choices:
            *first, last = map(repr, field.choices)
            words = f"{', '.join(first)} or {last}" if first else last
            return self.wrong(path, f"input should be {words}")
        try:
            return field.read(value)
        except InvalidInput as error:
            return self.wrong(path, _plain(error.message.removeprefix(f"{field.name}: ")))


def _inner(field: Option, number: int) -> Option:
    """The items of a list, or the keys or values of a mapping."""
    annotation = typing.get_args(field.type)[number]
    kind = typing.get_args(annotation)[0] if typing.get_origin(annotation) is typing.Annotated else annotation
    return msgspec.structs.replace(field, annotation=annotation, type=kind, default=msgspec.NODEFAULT, spelled=None)


def _is_unusable(value: Any, *, deep: bool) -> bool:
    """Whether a value has text whose variable can't be used; `deep` for one that is read as a whole."""
    if not deep or not isinstance(value, Mapping | list):
        return isinstance(value, Unusable)
    return any(_is_unusable(item, deep=True) for item in (value.values() if isinstance(value, Mapping) else value))


def _plain(message: str) -> str:
    """Msgspec's words for bounds, in ours."""
    for sign, words in ((">=", "greater than or equal to"), ("<=", "less than or equal to")):
        message = re.sub(
            rf"^expected (?:a whole number|a number) {sign} (\S+)$", rf"input should be {words} \1", message
        )
    return message[:1].lower() + message[1:]


# What is said.


def _invalid(located: Located, problems: Sequence[tuple[Path, str]]) -> InvalidDocument:
    """What a mirror has from `defaults` is wrong there, once, and not in each mirror."""
    wrong_defaults = {path[1:] for path, _ in problems if path[:1] == ("defaults",)}
    messages: dict[str, None] = {}
    for where, message in problems:
        path = where
        if path[:1] == ("mirrors",) and path[:3] not in located.lines and len(path) > 2:
            if path[2:] in wrong_defaults:
                continue
            path = ("defaults", *path[2:]) if ("defaults", *path[2:3]) in located.lines else path
        if message:
            messages[f"{located.at(path)}: {_shown(path)}: {message}"] = None
    lines = list(messages)
    shown = lines[:_SHOWN_PROBLEMS]
    if len(lines) > len(shown):
        shown.append(f"and {len(lines) - len(shown)} more")
    return InvalidDocument("\n".join(shown), hint="`transship mirror schema` prints the format for editors")


def _shown(path: Sequence[str | int]) -> str:
    """`mirrors[3].tags[0].semver`"""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return re.sub(r"^\.", "", text) or "the file"


# For editors and forms.


def json_schema() -> dict[str, Any]:
    """For editors: the format of the file, `x-` keys allowed everywhere; without what is for forms alone."""
    definitions: dict[str, Any] = {}
    body = schema(MirrorsConfig, definitions)
    body["properties"]["environment"] = {
        "type": "array",
        "items": {"type": "string"},
        "title": "Environment",
        "description": "Names of the variables that ${NAME} may stand for in this file; $$ is a dollar sign then.",
    }
    for model in (body, *definitions.values()):
        model["patternProperties"] = {"^x-": {}}
        for field in model["properties"].values():
            field.pop("position", None)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **body, "$defs": definitions}


_POSITIONS = {"name": -3, "source": -2, "destinations": -1, "mirrors": -1, "version": 1}
"""Where the form of the Prefect UI puts a field; others are at 0. Pages of rules come after what is changed often."""


def schema(options: type[Options], definitions: dict[str, Any] | None = None) -> dict[str, Any]:
    """For forms: the format with the places of fields, every group written out, or else put into `definitions`."""
    properties = {}
    for field in (field for field in fields_of(options) if not field.secret):
        nested = next(_groups_in(field.annotation), None)
        body = field_schema(msgspec.structs.replace(field, annotation=Any, type=Any)) if nested else field_schema(field)
        body.pop("default", None) if nested else None
        if nested:
            inner: Any = schema(nested, definitions)
            if definitions is not None:
                definitions[nested.__name__] = inner
                inner = {"$ref": f"#/$defs/{nested.__name__}"}
            if field.is_list:
                body |= {"type": "array", "items": inner, "default": [], "maxItems": field.max_length}
            elif field.is_mapping:
                body |= {"type": "object", "additionalProperties": inner, "default": {}}
            elif definitions is not None:
                body["allOf"] = [inner]
            else:
                body = {**inner, **body}
        if field.spelled is not None and definitions is not None:  # editors know the other ways to write it
            words = {name: body.pop(name) for name in ("type", "items", "maxItems") if name in body}
            lists = dict.fromkeys(("include", "exclude"), words)
            mapping = {"type": "object", "properties": lists, "additionalProperties": False}
            body["anyOf"] = [words, {"type": "string"}, mapping]
        properties[field.name] = body | {"position": _POSITIONS.get(field.name, 0)}
    return {
        "title": options.title(),
        "description": (options.__doc__ or "").partition("\n\n")[0],
        "type": "object",
        "properties": properties,
        "required": [field.name for field in fields_of(options) if field.required],
        "additionalProperties": False,
    }


def _groups_in(annotation: Any) -> Iterator[type[Options]]:
    if isinstance(annotation, type) and issubclass(annotation, Options):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from _groups_in(argument)
