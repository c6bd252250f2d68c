"""Types of parameters that are values of `oci`: read from plain values, written back as such."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any

from pydantic import BeforeValidator, GetCoreSchemaHandler, GetJsonSchemaHandler, PlainSerializer, WithJsonSchema
from pydantic_core import CoreSchema, core_schema

from oci.errors import InvalidInput
from oci.mirror.config import MirrorsConfig
from oci.mirror.reader import form_schema, make_config
from oci.options import DURATION_PATTERN
from oci.units import parse_duration, show_duration


def _duration(value: Any) -> Any:
    if isinstance(value, str):
        return parse_duration(value)
    if isinstance(value, timedelta):
        return value
    raise ValueError("expected a length of time as text: 90s, 30m, 12h, 7d, 2w")


Duration = Annotated[
    timedelta,
    BeforeValidator(_duration),
    PlainSerializer(show_duration, return_type=str),
    WithJsonSchema({"type": "string", "pattern": DURATION_PATTERN, "examples": ["12h", "7d"]}),
]
"""Text in a form, a timedelta in a program."""


class _Mirrors:
    """How pydantic reads and writes a MirrorsConfig."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        del source, handler
        serialization = core_schema.plain_serializer_function_ser_schema(MirrorsConfig.to_dict)
        return core_schema.no_info_plain_validator_function(_config, serialization=serialization)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        del schema, handler
        return form_schema()


def _config(value: Any) -> MirrorsConfig:
    if isinstance(value, MirrorsConfig):
        return value
    if not isinstance(value, Mapping):
        raise ValueError("expected the mirrors as a mapping, as the file has them")  # noqa: TRY004 - pydantic's rule
    try:
        return make_config(value)
    except InvalidInput as error:
        raise ValueError(str(error)) from error


MirrorsField = Annotated[MirrorsConfig, _Mirrors]
