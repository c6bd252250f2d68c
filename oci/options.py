"""How an option is declared: once, as a field of an `Options` value, with its default, help and bounds. The command's
flags, the forms of flows, the reader of mirrors.yaml and the reference page are derived from the declaration.

    class CopyOptions(Options):
        '''How a copy is done.'''

        source: str = required("REGISTRY/REPOSITORY:TAG.")
        verify: bool = option(False, "Read the copy back before names move.")
        part_size: int = option(16 << 20, "Bytes of a part.", unit="bytes", ge=5 << 20)

Types of fields must be importable (not below `TYPE_CHECKING`).
"""

from __future__ import annotations

import functools
import inspect
import re
import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import timedelta
from enum import Enum
from typing import Annotated, Any, Literal, Self, TypeVar, Union, dataclass_transform

import msgspec

from oci.errors import InvalidInput, did_you_mean, in_words
from oci.units import exact_size, parse_duration, parse_size, show_duration

Unit = Literal["", "bytes", "seconds"]
T = TypeVar("T")
O = TypeVar("O", bound="Options")  # noqa: E741 - the customary letter for a type variable of this bound
DURATION_PATTERN = r"^(\d+(\.\d*)?(ns|us|µs|ms|s|m|h|d|w))*$"
SIZE_PATTERN = r"^\d+(\.\d+)?\s*[kKmMgGtT]?i?[bB]?$"


def option(
    default: T,
    help: str = "",  # noqa: A002 - click's and argparse's word
    *,
    title: str = "",
    ge: float | None = None,
    le: float | None = None,
    pattern: str | None = None,
    min_length: int | None = None,
    max_length: int | None = None,
    examples: Sequence[Any] = (),
    words: Sequence[str] = (),
    spelled: Callable[[Any], Any] | None = None,
    check: Callable[[Any], None] | None = None,
    unit: Unit = "",
    flag: str = "",
    short: str = "",
    metavar: str = "",
    group: str = "",
    commas: bool = True,
    flat: bool = False,
    secret: bool = False,
    hidden: bool = False,
) -> T:
    """Declares a field of an `Options` class, in the place of its default.

    `help` is a sentence, `title` the label of a form where that isn't the field's name. `ge`, `le`, `pattern` and the
    lengths are bounds as msgspec has them; those for the items of a list belong to the items' type. `words` are those
    that a text may be, as Literal and StrEnum say in the type. `spelled` makes the value of what people may write
    instead (a list of one text); it raises InvalidInput. `check` raises ValueError or InvalidInput for a value, where
    the class or the reader of a file runs it. `unit` says that a number is in bytes or seconds: people may write
    `16MiB` or `1m30s` then (a timedelta is always written so). `flag` is the command's name for the option where that
    isn't `--the-name`, `short` its letter (`-t`). `group` is a heading: fields without a group come first, "advanced"
    last. A `secret` is never shown, and never a parameter of a flow. A `hidden` value isn't shown by `repr`: it may
    contain a login. A `flat` field is a group whose own fields stand beside it in forms, files and flags.
    `commas=False` is for a list whose items may contain a comma: the command takes one item with each flag then.
    """
    declared: Any = Option(**locals() | {"examples": tuple(examples), "words": tuple(words)})  # each is a field of it
    return declared  # type: ignore[no-any-return]  # what the class makes of it: a field with this default


def required(help: str = "", **declared: Any) -> Any:  # noqa: A002
    """Declares a field that must be given. The rest is as for `option`."""
    return option(msgspec.NODEFAULT, help, **declared)


class Option(msgspec.Struct, frozen=True, kw_only=True):
    """A declared field: what `option` was given for it, its name, and, where `fields_of` has read its class, its type.
    `annotation` is the whole of the type with its bounds, `type` the part that says what a value is. `default` is
    msgspec.NODEFAULT where the field must be given."""

    name: str = ""
    annotation: Any = None
    type: Any = None
    default: Any
    title: str
    help: str
    ge: float | None = None
    le: float | None = None
    pattern: str | None = None
    min_length: int | None = None
    max_length: int | None = None
    examples: tuple[Any, ...] = ()
    words: tuple[str, ...] = ()
    spelled: Callable[[Any], Any] | None = None
    check: Callable[[Any], None] | None = None
    unit: Unit = ""
    flag: str = ""
    short: str = ""
    metavar: str = ""
    group: str = ""
    secret: bool = False
    hidden: bool = False
    commas: bool = True
    flat: bool = False

    def __repr__(self) -> str:
        return f"Option({self.name})"

    @property
    def required(self) -> bool:
        return self.default is msgspec.NODEFAULT

    @property
    def choices(self) -> tuple[str, ...]:
        """Returns the words that a value, or an item of a list, may be; empty where any may be."""
        if self.words:
            return self.words
        kind = self.item if self.is_list else self.type
        if typing.get_origin(kind) is Literal:
            return tuple(str(value) for value in typing.get_args(kind))
        if isinstance(kind, type) and issubclass(kind, Enum):
            return tuple(str(member.value) for member in kind)
        return ()

    @property
    def is_list(self) -> bool:
        return typing.get_origin(self.type) in (tuple, list, frozenset)

    @property
    def is_mapping(self) -> bool:
        return typing.get_origin(self.type) in (dict, Mapping)

    @property
    def item(self) -> Any:
        """Returns the type of a list's items."""
        return _bare(typing.get_args(self.type)[0])

    @property
    def options(self) -> type[Options] | None:
        """Returns the declarations inside, where a value is a group of options itself."""
        return self.type if isinstance(self.type, type) and issubclass(self.type, Options) else None

    def read(self, value: Any) -> Any:
        """Converts what a person or a file gives (text with a unit, a list, a mapping) to the field's value. Raises
        InvalidInput, whose message begins with the field's name. A group that is None has its default."""
        if value is None and self.options and not self.required:
            return self.default
        try:
            value = self.spelled(value) if self.spelled is not None else value
            if self.options is not None and isinstance(value, Mapping):
                return self.options.make(value)
        except InvalidInput as error:
            dot = "." if self.options is not None else ": "
            raise type(error)(f"{self.name}{dot}{error.message}", hint=error.hint) from error
        if self.words and value not in self.words:
            raise InvalidInput(f"{self.name}: {value!r} is not one of {', '.join(self.words)}")
        try:
            return msgspec.convert(self._numbers(value), self.annotation)
        except msgspec.ValidationError as error:
            raise InvalidInput(f"{self.name}: {in_words(str(error), value, self.examples)}") from error
        except ValueError as error:
            raise InvalidInput(f"{self.name}: {error}") from error

    def read_text(self, text: str) -> Any:
        """Converts text as a command line has it, where a number is text too. Raises InvalidInput."""
        if self.unit or self.type not in (int, float):
            return self.read(text)
        try:
            return self.read(self.type(text))
        except ValueError:
            raise InvalidInput(f"{self.name}: {text!r} is not a number") from None

    def show(self, value: Any) -> Any:
        """Converts a value back to what `read` takes: plain JSON types, with units."""
        if isinstance(value, timedelta):
            return show_duration(value)
        if self.unit == "seconds" and isinstance(value, int | float):
            return show_duration(timedelta(seconds=value)) or "0s"
        if self.unit == "bytes" and isinstance(value, int):
            return exact_size(value)
        if isinstance(value, Options):
            return value.to_dict()
        if isinstance(value, tuple | list):
            return [self.show(item) for item in value]
        if isinstance(value, Mapping):
            return {name: self.show(item) for name, item in value.items()}
        return msgspec.to_builtins(value, order="deterministic")

    def _numbers(self, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        if self.unit == "bytes":
            return parse_size(value)
        if self.unit == "seconds":
            return parse_duration(value).total_seconds()
        return parse_duration(value) if self.type is timedelta else value


class _Declaring(msgspec.StructMeta):
    """Turns each `option` of a class body into a field with its default. `flags` is the prefix of their flags."""

    declared: dict[str, Option]

    def __new__(  # noqa: PYI034 - a metaclass has no Self
        cls, name: str, bases: tuple[type, ...], body: dict[str, Any], *, flags: str = "--", **config: Any
    ) -> _Declaring:
        declared = {field: value for field, value in body.items() if isinstance(value, Option)}
        others = {key: value for key, value in body.items() if key not in declared}
        defaults = {field: option.default for field, option in declared.items() if not option.required}
        options = super().__new__(cls, name, bases, others | defaults, **{"frozen": True, "kw_only": True} | config)
        options.declared = {}
        for base in bases:
            options.declared |= getattr(base, "declared", {})
        for field, option in declared.items():
            title = option.title or field.replace("_", " ").capitalize()
            flag = option.flag or flags + field.replace("_", "-")
            options.declared[field] = msgspec.structs.replace(option, name=field, title=title, flag=flag)
        return options


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(required,))
class Options(msgspec.Struct, metaclass=_Declaring, frozen=True, forbid_unknown_fields=True):
    """Base of groups of options, which are frozen. A group defines `__post_init__` for what bounds can't say, and
    raises InvalidInput there."""

    def to_dict(self) -> dict[str, Any]:
        """Returns what differs from the defaults, as `make` takes it. Secrets are left out."""
        values: dict[str, Any] = {}
        for field in fields_of(type(self)):
            value = getattr(self, field.name)
            if field.flat:
                values |= value.to_dict()
            elif value != field.default and not field.secret:
                values[field.name] = field.show(value)
        return values

    def with_(self, **changes: Any) -> Self:
        """Returns a copy with other values in some fields."""
        return msgspec.structs.replace(self, **changes)

    def over(self, base: O, *, explicit: Collection[str] = ()) -> O:
        """Returns `base` with what this value has for its fields that isn't their default, or that is `explicit`."""
        default, values = type(base)(), ((name, getattr(self, name)) for name in base.__struct_fields__)
        return base.with_(**{key: value for key, value in values if key in explicit or value != getattr(default, key)})

    @classmethod
    def make(cls, values: Mapping[str, Any]) -> Self:
        """Makes options of plain values, as JSON and YAML have them. A group that is read in a way of its own overrides
        this, and `form`. Raises InvalidInput that names the field (`field.inner: ...`)."""
        leaves = {field.name: field for field in leaves_of(cls)}
        for name in values:
            if name not in leaves:
                raise InvalidInput(f"{name}: unknown option", hint=did_you_mean(name, leaves))
        for name, field in leaves.items():
            if field.required and name not in values:
                raise InvalidInput(f"{name}: expected a value")
        return assemble(cls, {name: leaves[name].read(value) for name, value in values.items()})

    @classmethod
    def title(cls) -> str:
        """Returns the words of the name, for forms and editors."""
        return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", cls.__name__).capitalize()

    @classmethod
    def form(cls) -> dict[str, Any]:
        """Returns the JSON schema of what `make` takes, without secrets. `position` is where the form of Prefect's UI
        puts a field: 0 for those without a group, then 1, "advanced" last."""
        fields = [field for field in leaves_of(cls) if not field.secret]
        return {
            "title": cls.title(),
            "description": inspect.cleandoc(cls.__doc__ or ""),
            "type": "object",
            "properties": {field.name: field_schema(field) for field in fields},
            "required": [field.name for field in fields if field.required],
            "additionalProperties": False,
        }

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> Self:
        """Makes options of what a form or a flow run has, without what must not be stored. Raises InvalidInput."""
        options = cls.make(values)
        options.check_stored()
        return options

    def check_stored(self) -> None:
        """Refuses values that must not stand in a file or in Prefect's database, such as a password in a URL. Front
        ends that store what they get call this. Raises InvalidInput."""
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if isinstance(value, Options):
                value.check_stored()

    def __repr__(self) -> str:
        shown = ", ".join(
            f"{field.name}={getattr(self, field.name)!r}"
            for field in fields_of(type(self))
            if not (field.secret or field.hidden)
        )
        return f"{type(self).__name__}({shown})"


@functools.cache
def fields_of(options: type[Options]) -> tuple[Option, ...]:
    """Returns the declarations of a group, in the order they are written. Raises TypeError for a field without."""
    hints = typing.get_type_hints(options, include_extras=True)
    fields = []
    for name in options.__struct_fields__:
        if name not in options.declared:
            raise TypeError(f"{options.__name__}.{name} is not declared by option(...)")
        option, hint = options.declared[name], hints[name]
        fields.append(msgspec.structs.replace(option, annotation=_described(option, hint), type=_bare(hint)))
    return tuple(fields)


def _described(option: Option, hint: Any) -> Any:
    """Returns a type with what the option says of it, as msgspec reads that."""
    bounds = {name: getattr(option, name) for name in ("ge", "le", "min_length", "max_length")}
    meta = msgspec.Meta(
        title=option.title,
        description=option.help or None,
        examples=list(option.examples) or None,
        pattern=option.pattern and _in_python(option.pattern),
        **bounds,
    )
    return Annotated[hint, meta]


def leaves_of(options: type[Options]) -> tuple[Option, ...]:
    """Returns the declarations of a group with those of its flat groups in their places."""
    return tuple(
        leaf
        for field in fields_of(options)
        for leaf in (leaves_of(field.options) if field.flat and field.options else (field,))
    )


def assemble(options: type[O], values: Mapping[str, Any]) -> O:
    """Makes options of values that are read already, by the names of `leaves_of`; others have their defaults."""
    arguments: dict[str, Any] = {}
    for field in fields_of(options):
        if field.flat and field.options is not None:
            arguments[field.name] = assemble(field.options, values)
        elif field.name in values:
            arguments[field.name] = values[field.name]
    return options(**arguments)


def _in_python(pattern: str) -> str:
    """Returns a pattern of JSON Schema (ECMA-262) for Python, where `$` matches before a line break at the end, too."""
    return pattern.removesuffix("$") + r"\Z" * pattern.endswith("$")


def _in_schemas(pattern: str) -> str:
    """Returns the inverse of `_in_python`."""
    return pattern.removesuffix(r"\Z") + "$" * pattern.endswith(r"\Z")


def field_schema(field: Option) -> dict[str, Any]:
    """Returns the JSON schema of one field, with its title, help and default."""
    body: dict[str, Any]
    if field.options is not None:
        body = {**field.options.form()}
        if field.default is None:
            body = {"anyOf": [body, {"type": "null"}]}
    elif field.choices:
        body = {"type": "string", "enum": list(field.choices)}
        if field.is_list:
            body = {"type": "array", "items": body, "uniqueItems": typing.get_origin(field.type) is frozenset}
            body |= {"maxItems": field.max_length} if field.max_length is not None else {}
    elif field.unit or field.type is timedelta:
        body = {"type": "string", "pattern": SIZE_PATTERN if field.unit == "bytes" else DURATION_PATTERN}
    else:
        body = msgspec.json.schema(field.annotation)
        for part in (body, body.get("items", {})):
            part |= {"pattern": _in_schemas(part["pattern"])} if "pattern" in part else {}  # noqa: PLW2901 - in place
    body["title"] = field.title
    body |= {"description": field.help} if field.help else {}
    body |= {"examples": list(field.examples)} if field.examples else {}
    if not field.required:
        body["default"] = field.show(field.default)
    body["position"] = {"": 0, "advanced": 2}.get(field.group, 1)
    return body


def _bare(annotation: Any) -> Any:
    """Returns the type below `Annotated` and beside None."""
    if typing.get_origin(annotation) is typing.Annotated:
        return _bare(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (Union, types.UnionType):
        kinds = [kind for kind in typing.get_args(annotation) if kind is not type(None)]
        return _bare(kinds[0]) if len(kinds) == 1 else annotation
    return annotation
