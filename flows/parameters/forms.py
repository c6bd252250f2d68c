"""Forms of flows, derived from the declarations of options (oci/options.py): flat parameters with titles, helps, bounds
and defaults, in the UI and for `prefect deployment run -p source=...`."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Coroutine, Sequence
from typing import Annotated, Any, TypeVar

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, core_schema

from flows.parameters.registry import SLUG
from oci.errors import InvalidInput
from oci.options import Option, Options, field_schema, leaves_of

R = TypeVar("R")


def flat(function: Callable[[Any], Coroutine[Any, Any, R]]) -> Callable[..., Coroutine[Any, Any, R]]:
    """Gives a flow's function, which takes one value of options, a keyword parameter for each of its fields. To be used
    below `@flow`. The required fields come first, then those that the form names in `FIRST`, then the others in the
    order of their declaration, groups of options and what is "advanced" last."""
    (name,) = inspect.signature(function).parameters
    hints = typing.get_type_hints(function)
    form: type[Options] = hints[name]

    @functools.wraps(function)
    async def with_fields(**values: Any) -> R:
        # Prefect leaves the FieldInfo of a parameter that a deployment doesn't have.
        return await function(
            form.read({key: value for key, value in values.items() if not isinstance(value, FieldInfo)})
        )

    first: Sequence[str] = getattr(form, "FIRST", ())
    fields = sorted(leaves_of(form), key=functools.partial(_place, first))
    with_fields.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [_parameter(field, position) for position, field in enumerate(fields)],
        return_annotation=hints.get("return", inspect.Signature.empty),
    )
    with_fields.__annotations__ = {}
    del with_fields.__wrapped__
    return with_fields


def _place(first: Sequence[str], field: Option) -> tuple[bool, int, int, bool]:
    place = first.index(field.name) if field.name in first else len(first)
    group = {"": 0, "advanced": 2}.get(field.group, 1)
    return not field.required, place, group, field.options is not None


def _is_folded(field: Option) -> bool:
    """Says whether a group of rarely changed options is absent in the form until a person wants it."""
    return field.options is not None and field.group == "advanced" and not field.required


def _form_of(field: Option) -> dict[str, Any]:
    form = field_schema(field)
    if not _is_folded(field):
        return form
    if field.default is None:
        form["anyOf"][0]["title"] = field.title
        return form
    form.pop("default")  # with one, the newer UI never opens the group
    shown = {key: form.pop(key) for key in ("title", "description", "position")}
    return {"anyOf": [form | {"title": shown["title"]}, {"type": "null"}], "default": None, **shown}


def _parameter(field: Option, position: int) -> inspect.Parameter:
    shown = {key: value for key, value in field_schema(field).items() if key in ("title", "examples")}
    return inspect.Parameter(
        field.name,
        inspect.Parameter.KEYWORD_ONLY,
        annotation=Annotated[Any, FormField(field)],
        default=Field(
            default=... if field.required else None if _is_folded(field) else field.show(field.default),
            description=field.help,
            json_schema_extra={**shown, "position": position},
        ),
    )


class FormField:
    """Tells pydantic how a declared option is read, and shown in a schema."""

    def __init__(self, field: Option) -> None:
        self._field = field

    def __repr__(self) -> str:
        return self._field.name

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        del source, handler
        form = _form_of(self._field)
        block = form.get("items", form)
        shown = _drop_down(block) if SLUG in block else core_schema.any_schema()
        shown = core_schema.list_schema(shown) if block is not form else shown
        return core_schema.no_info_plain_validator_function(self._read, json_schema_input_schema=shown)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        form, shown = _form_of(self._field), handler(schema)
        if SLUG in form:
            return {key: form[key] for key in form.keys() - _OF_A_BLOCK} | shown
        return form | ({"items": shown["items"]} if SLUG in form.get("items", {}) else {})

    def _read(self, value: Any) -> Any:
        """Checks the value, and leaves it as JSON has it: Prefect stores what this returns."""
        try:
            if value is None and _is_folded(self._field):
                return None
            spelled = self._field.spelled(value) if self._field.spelled is not None else value
            return self._field.show(self._field.read(self._field.show(spelled)))
        except InvalidInput as error:
            raise ValueError(str(error)) from error


_OF_A_BLOCK = frozenset({SLUG, "type", "pattern", "minLength", "maxLength"})


def _drop_down(block: dict[str, Any]) -> CoreSchema:
    """Returns the schema of a reference to a block. It is a definition with a name, and has that as its title, because
    the older UI shows a drop-down for a definition only, and the server takes the id of a block by the title."""
    title = "".join(word.capitalize() for word in block[SLUG].split("-"))
    definition = {key: block[key] for key in block.keys() & _OF_A_BLOCK} | {"title": title}
    return core_schema.str_schema(ref=f"blocks.{title}:0", metadata={"pydantic_js_functions": [lambda *_: definition]})
