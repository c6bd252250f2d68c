"""Forms of flows, derived from the declarations of options (oci/options.py): flat parameters with titles, helps, bounds
and defaults, in the UI and for `prefect deployment run -p source=...`."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Coroutine
from typing import Annotated, Any, TypeVar

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, core_schema

from oci.errors import InvalidInput
from oci.options import Option, Options, field_schema, leaves_of

R = TypeVar("R")


def flat(function: Callable[[Any], Coroutine[Any, Any, R]]) -> Callable[..., Coroutine[Any, Any, R]]:
    """Gives a flow's function, which takes one value of options, a keyword parameter for each of its fields. To be used
    below `@flow`. The fields come in the order of their declaration: required ones first, groups of options and what
    is "advanced" last."""
    (name,) = inspect.signature(function).parameters
    hints = typing.get_type_hints(function)
    form: type[Options] = hints[name]

    @functools.wraps(function)
    async def with_fields(**values: Any) -> R:
        # Prefect leaves the FieldInfo of a parameter that a deployment doesn't have.
        return await function(
            form.read({key: value for key, value in values.items() if not isinstance(value, FieldInfo)})
        )

    fields = sorted(leaves_of(form), key=_place)
    with_fields.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [_parameter(field, position) for position, field in enumerate(fields)],
        return_annotation=hints.get("return", inspect.Signature.empty),
    )
    with_fields.__annotations__ = {}
    del with_fields.__wrapped__
    return with_fields


def _place(field: Option) -> tuple[bool, int, bool]:
    group = {"": 0, "advanced": 2}.get(field.group, 1)
    return not field.required, group, field.options is not None


def _parameter(field: Option, position: int) -> inspect.Parameter:
    shown = {key: value for key, value in field_schema(field).items() if key in ("title", "examples")}
    return inspect.Parameter(
        field.name,
        inspect.Parameter.KEYWORD_ONLY,
        annotation=Annotated[Any, FormField(field)],
        default=Field(
            default=... if field.required else field.show(field.default),
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
        return core_schema.no_info_plain_validator_function(self._read)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        del schema, handler
        return field_schema(self._field)

    def _read(self, value: Any) -> Any:
        """Checks the value, and leaves it as JSON has it: Prefect stores what this returns."""
        try:
            return self._field.show(self._field.read(self._field.show(value)))
        except InvalidInput as error:
            raise ValueError(str(error)) from error
