"""The plain form of values: what JSON has."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

from msgspec import Struct

from oci.errors import TransshipError
from oci.reference import ArchiveName, LayoutFolder, Reference, Repository

_TEXTS = (Repository, LayoutFolder, ArchiveName, Reference, TransshipError)


def to_dict(value: Struct) -> dict[str, Any]:
    """The fields of a value by name, all in plain form: references, names of stores and errors are text, an enum is its
    value, a tuple is a list. It is what reports, events and stored plans have."""
    return {name: _plain(getattr(value, name)) for name in value.__struct_fields__}


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, _TEXTS):
        return value if value is None else str(value)
    if isinstance(value, Struct):
        return to_dict(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in (sorted(value) if isinstance(value, set | frozenset) else value)]
    return value
