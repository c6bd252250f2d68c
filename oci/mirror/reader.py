"""From a mapping, or the text of mirrors.yaml, to a MirrorsConfig: every mistake at once, each with its line and path.

What a value may be stands in the declarations (`oci.options`); this module walks them, for nested groups, lists and
mappings alike.
"""

from __future__ import annotations

import os
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
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
from oci.mirror.config import Bucket, MirrorsConfig, Registry
from oci.mirror.policy import Checked
from oci.options import Option, Options, field_schema, fields_of
from oci.output import read_named

O = TypeVar("O", bound=Options)  # noqa: E741 - the customary letter for a type variable of this bound

R = TypeVar("R", Registry, Bucket)

_NAMES = frozenset({("buckets",), ("buckets", "*", "tags")})
"""Mappings by names that a person chose, which may begin with `x-`."""

_SHOWN_PROBLEMS = 20
_WHOLE = frozenset({"schedule"})
"""Groups that a mirror has from the defaults as a whole or not at all: their fields exclude each other."""


class Problem(msgspec.Struct, frozen=True):
    """Without a message, what was said elsewhere already."""

    path: Path
    message: str = ""


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
    if not isinstance(located.value, dict):
        raise InvalidDocument(
            f"{located.at(())}: expected a mapping with version and mirrors", hint="begin the file with `version: 1`"
        )
    if located.value.get("version") != 1:
        raise InvalidDocument(
            f"{located.at(('version',))}: version: expected 1, got {located.value.get('version', 'nothing')!r}",
            hint="begin the file with `version: 1`",
        )
    problems: list[Problem] = []
    value = expanded(located.value, environment, lambda path, message: problems.append(Problem(path, message)))
    config = _config(value, problems)
    if config is None or problems:
        raise _invalid(located, problems)
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
    problems: list[Problem] = []
    return _checked(_config(value, problems), problems)


def make(options: type[O], value: Mapping[str, Any]) -> O:
    """The same for one part of a configuration: a Mirror, a TagRule."""
    problems: list[Problem] = []
    return _checked(read_options(options, value, (), problems), problems)


def _checked(options: O | None, problems: list[Problem]) -> O:
    if options is None or problems:
        raise InvalidInput(
            "\n".join(f"{_shown(problem.path)}: {problem.message}" for problem in problems[:_SHOWN_PROBLEMS])
        )
    return options


def _config(value: Mapping[str, Any], problems: list[Problem]) -> MirrorsConfig | None:
    defaults = value.get("defaults")
    if isinstance(defaults, Mapping) and isinstance(value.get("mirrors"), list | tuple):
        mirrors = [
            with_defaults(mirror, defaults) if isinstance(mirror, Mapping) else mirror for mirror in value["mirrors"]
        ]
        value = {**value, "mirrors": mirrors}
    return read_options(MirrorsConfig, value, (), problems)


def with_defaults(mirror: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The mirror with what `defaults` say and it doesn't: groups field by field; each of its tag rules with the parts
    of a default rule that it doesn't give (with several default rules: a rule for each of them); what is never taken is
    added up. A schedule is taken as a whole."""
    merged = {**defaults, **mirror}
    for name in defaults.keys() & mirror.keys():
        value, default = mirror[name], defaults[name]
        if isinstance(value, Mapping) and isinstance(default, Mapping) and name not in _WHOLE:
            merged[name] = {**default, **value}
        elif isinstance(value, list) and isinstance(default, list) and name == "never":
            merged[name] = list(dict.fromkeys([*default, *value])) if _texts([*default, *value]) else value
        elif isinstance(value, list) and isinstance(default, list) and name == "tags":
            bases = [rule for rule in default if isinstance(rule, Mapping)] or [{}]
            merged[name] = [{**base, **rule} if isinstance(rule, Mapping) else rule for rule in value for base in bases]
    return merged


def _texts(values: Sequence[Any]) -> bool:
    return all(isinstance(value, str) for value in values)


def read_options(options: type[O], value: Any, path: Path, problems: list[Problem]) -> O | None:
    """Makes `options` of a mapping, and notes each problem. None when it can't be made."""
    if isinstance(value, options):
        return value
    if isinstance(value, Unusable):
        problems.append(Problem(path))
        return None
    if not isinstance(value, Mapping):
        problems.append(Problem(path, "input should be a mapping"))
        return None
    before = len(problems)
    fields = {field.name: field for field in fields_of(options) if not field.secret}
    checks = options.checks if issubclass(options, Checked) else {}
    values: dict[str, Any] = {}
    for name, field in fields.items():
        if name in value:
            count = len(problems)
            values[name] = _read(field, field.annotation, value[name], (*path, name), problems)
            if name in checks and len(problems) == count:
                try:
                    checks[name](values[name])
                except (ValueError, InvalidInput) as error:
                    problems.append(_at_key((*path, name), str(error), values[name]))
        elif field.required:
            problems.append(Problem((*path, name), "field required"))
    for name in value:
        if name not in fields:
            hint = did_you_mean(str(name), fields) if len(fields) <= 20 else _near(str(name), fields)
            problems.append(Problem((*path, str(name)), f"unknown key; {hint}" if hint else "unknown key"))
    if len(problems) > before:
        return None
    try:
        made_options = options(**values)
        made_options.check_stored()
    except InvalidInput as error:
        match = re.match(r"(\w+)(?:\[(\d+)\])?: ", error.message)
        if match and match[1] in fields:
            item = (int(match[2]),) if match[2] else ()
            problems.append(Problem((*path, match[1], *item), error.message[match.end() :]))
        else:
            problems.append(Problem(path, str(error)))
        return None
    return made_options


def _at_key(path: Path, message: str, value: Any) -> Problem:
    """At the key of a mapping that the message begins with, or else at the whole."""
    key, colon, problem = message.partition(": ")
    inside = bool(colon) and isinstance(value, Mapping) and key in value
    return Problem((*path, key), problem) if inside else Problem(path, message)


def _near(name: str, fields: Mapping[str, Option]) -> str:
    hint = did_you_mean(name, fields)
    return hint if hint.startswith("did you mean") else ""


def _read(field: Option, annotation: Any, value: Any, path: Path, problems: list[Problem]) -> Any:
    kind = _bare(annotation)
    if _is_unusable(value, deep=field.spelled is not None):
        problems.append(Problem(path))
        return None
    if value is None and type(None) in typing.get_args(_unannotated(annotation)):
        return None
    if isinstance(kind, type) and issubclass(kind, Options):
        return read_options(kind, value, path, problems)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if field.spelled is not None and annotation is field.annotation:
        try:
            value = field.spelled(value)
        except InvalidInput as error:
            problems.append(Problem(path, error.message))
            return ()
    if origin in (tuple, list, frozenset):
        if not isinstance(value, list | tuple):
            problems.append(Problem(path, "input should be a valid list"))
            return ()
        items = tuple(_read(field, arguments[0], item, (*path, n), problems) for n, item in enumerate(value))
        _check_length(field, len(items), "items", path, problems)
        return origin(items)
    if origin is dict:
        if not isinstance(value, Mapping):
            problems.append(Problem(path, "input should be a mapping"))
            return {}
        for key in value:
            _leaf(field, arguments[0], key, (*path, str(key)), problems)
        _check_length(field, len(value), "keys", path, problems)
        return {key: _read(field, arguments[1], item, (*path, key), problems) for key, item in value.items()}
    return _leaf(field, annotation, value, path, problems)


def _is_unusable(value: Any, *, deep: bool) -> bool:
    """Whether a value has text whose variable can't be used; `deep` for one that is read as a whole."""
    if not deep or not isinstance(value, Mapping | list):
        return isinstance(value, Unusable)
    return any(_is_unusable(item, deep=True) for item in (value.values() if isinstance(value, Mapping) else value))


def _check_length(field: Option, length: int, noun: str, path: Path, problems: list[Problem]) -> None:
    if field.max_length is not None and length > field.max_length:
        problems.append(Problem(path, f"at most {field.max_length} {noun}, got {length}"))
    if field.min_length is not None and length < field.min_length:
        problems.append(Problem(path, f"at least {field.min_length} {noun}, got {length}"))


def _leaf(field: Option, annotation: Any, value: Any, path: Path, problems: list[Problem]) -> Any:
    kind = _bare(annotation)
    choices = [str(member.value) for member in kind] if hasattr(kind, "__members__") else list(typing.get_args(kind))
    if kind is str and not isinstance(value, str):
        problems.append(Problem(path, "expected text: put it in quotes"))
    elif choices and value not in choices:
        *first, last = [repr(choice) for choice in choices]
        words = f"{', '.join(first)} or {last}" if first else last
        problems.append(Problem(path, f"input should be {words}"))
    else:
        try:
            leaf = msgspec.structs.replace(field, annotation=annotation, type=kind, spelled=None)
            return leaf.read(value)
        except InvalidInput as error:
            problems.append(Problem(path, _plain(error.message.removeprefix(f"{field.name}: "))))
    return None


def _plain(message: str) -> str:
    """Msgspec's words for bounds, in ours."""
    for sign, words in ((">=", "greater than or equal to"), ("<=", "less than or equal to")):
        message = re.sub(
            rf"^expected (?:a whole number|a number) {sign} (\S+)$", rf"input should be {words} \1", message
        )
    return message[:1].lower() + message[1:]


def _unannotated(annotation: Any) -> Any:
    return typing.get_args(annotation)[0] if typing.get_origin(annotation) is typing.Annotated else annotation


def _bare(annotation: Any) -> Any:
    """The type below Annotated and beside None."""
    annotation = _unannotated(annotation)
    kinds = [kind for kind in typing.get_args(annotation) if kind is not type(None)]
    if type(None) in typing.get_args(annotation) and len(kinds) == 1:
        return _bare(kinds[0])
    return annotation


# What is said.


def _invalid(located: Located, problems: Sequence[Problem]) -> InvalidDocument:
    """What a mirror has from `defaults` is wrong there, once, and not in each mirror."""
    wrong_defaults = {problem.path[1:] for problem in problems if problem.path[:1] == ("defaults",)}
    messages: dict[str, None] = {}
    for problem in filter(lambda each: each.message, problems):
        path = problem.path
        if path[:1] == ("mirrors",) and path[:3] not in located.lines and len(path) > 2:
            if path[2:] in wrong_defaults:
                continue
            path = ("defaults", *path[2:]) if ("defaults", *path[2:3]) in located.lines else path
        messages[f"{located.at(path)}: {_shown(path)}: {problem.message}"] = None
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
    body = _schema(MirrorsConfig, definitions)
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


def form_schema() -> dict[str, Any]:
    """For forms: the same with the places of fields, every group written out."""
    return _schema(MirrorsConfig, None)


_POSITIONS = {"name": -3, "source": -2, "destinations": -1, "mirrors": -1, "version": 1}
"""Where the form of the Prefect UI puts a field; others are at 0. Pages of rules come after what is changed often."""


def _schema(options: type[Options], definitions: dict[str, Any] | None) -> dict[str, Any]:
    properties = {}
    for field in (field for field in fields_of(options) if not field.secret):
        nested = next(_groups_in(field.annotation), None)
        body = field_schema(msgspec.structs.replace(field, annotation=Any, type=Any)) if nested else field_schema(field)
        body.pop("default", None) if nested else None
        if nested:
            inner: Any = _schema(nested, definitions)
            if definitions is not None:
                definitions[nested.__name__] = inner
                inner = {"$ref": f"#/$defs/{nested.__name__}"}
            kind = typing.get_origin(_bare(field.annotation))
            if kind is tuple:
                body |= {"type": "array", "items": inner, "default": [], "maxItems": field.max_length}
            elif kind is dict:
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
        "title": options.__name__,
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
