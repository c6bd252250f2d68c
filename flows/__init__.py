"""Relocations as Prefect flows, for programs: `from flows import relocate, RelocateParameters`.

Nothing is imported before it is asked for, so that the command line in `flows.cli` doesn't pay for Prefect.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flows.parameters import Artifact as Artifact
    from flows.parameters import RegistryOptions as RegistryOptions
    from flows.parameters import RelocateParameters as RelocateParameters
    from flows.parameters import SourceKind as SourceKind
    from flows.parameters import Verify as Verify
    from flows.relocate import relocate as relocate
    from flows.relocate import relocate_sync as relocate_sync
    from tasks.relocation_report import RelocationIncomplete as RelocationIncomplete
    from tasks.relocation_report import RelocationReport as RelocationReport

_HOMES = {
    "Artifact": "flows.parameters",
    "RegistryOptions": "flows.parameters",
    "RelocateParameters": "flows.parameters",
    "RelocationIncomplete": "tasks.relocation_report",
    "RelocationReport": "tasks.relocation_report",
    "SourceKind": "flows.parameters",
    "Verify": "flows.parameters",
    "relocate": "flows.relocate",
    "relocate_sync": "flows.relocate",
}

__all__ = [  # noqa: PLE0604 - the names are strings
    *_HOMES
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(home), name)


class _Flows(ModuleType):
    """A flow and its module share a name, and importing a module sets it on its package: the flow must win, whichever
    of `import flows.relocate` and `from flows import relocate` comes first."""

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, ModuleType) and _HOMES.get(name) == value.__name__:
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Flows
