"""What a case of hostile input is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

from oci.errors import TransshipError

T = TypeVar("T")
ACCEPTED = None
"""The end of input that is strange, and harmless."""


class Case(NamedTuple, Generic[T]):
    """`make` gives the input when it is needed; `expected` is the error that it is refused with."""

    name: str
    make: Callable[[], T]
    expected: type[TransshipError] | None


def given(value: T) -> Callable[[], T]:
    return lambda: value
