"""JSON schemas of options, for forms and editors."""

from __future__ import annotations

import inspect
import typing
from datetime import timedelta
from typing import Any

import msgspec

from oci.options import DURATION_PATTERN, SIZE_PATTERN, Option, Options, leaves_of


def schema(options: type[Options]) -> dict[str, Any]:
    """Returns the JSON schema of what `convert` takes, without secrets. `position` is where the form of Prefect's UI
    puts a field: 0 for those without a group, then 1, "advanced" last."""
    fields = [field for field in leaves_of(options) if not field.secret]
    return {
        "title": options.__name__,
        "description": inspect.cleandoc(options.__doc__ or ""),
        "type": "object",
        "properties": {field.name: field_schema(field) for field in fields},
        "required": [field.name for field in fields if field.required],
        "additionalProperties": False,
    }


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
    body["title"] = field.title
    if field.help:
        body["description"] = field.help
    if field.examples:
        body["examples"] = list(field.examples)
    if not field.required:
        body["default"] = field.show(field.default)
    body["position"] = {"": 0, "advanced": 2}.get(field.group, 1)
    return body
