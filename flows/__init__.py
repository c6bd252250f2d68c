"""What transship does, as Prefect flows, for programs: `from flows import relocate, RelocateParameters`.

Nothing is imported before it is asked for, so that the command line in `flows.cli` doesn't pay for Prefect.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flows.images import describe as describe
    from flows.images import describe_sync as describe_sync
    from flows.images import pull as pull
    from flows.images import pull_sync as pull_sync
    from flows.images import push as push
    from flows.images import push_sync as push_sync
    from flows.images import tags as tags
    from flows.images import tags_sync as tags_sync
    from flows.images import verify as verify
    from flows.images import verify_receipt as verify_receipt
    from flows.images import verify_receipt_sync as verify_receipt_sync
    from flows.images import verify_sync as verify_sync
    from flows.mirror import MirrorCheckParameters as MirrorCheckParameters
    from flows.mirror import MirrorParameters as MirrorParameters
    from flows.mirror import mirror as mirror
    from flows.mirror import mirror_check as mirror_check
    from flows.mirror import mirror_check_sync as mirror_check_sync
    from flows.mirror import mirror_sync as mirror_sync
    from flows.parameters.forms import FleetOptions as FleetOptions
    from flows.parameters.images import DescribeParameters as DescribeParameters
    from flows.parameters.images import PullParameters as PullParameters
    from flows.parameters.images import PushParameters as PushParameters
    from flows.parameters.images import TagAction as TagAction
    from flows.parameters.images import TagsParameters as TagsParameters
    from flows.parameters.images import VerifyParameters as VerifyParameters
    from flows.parameters.images import VerifyReceiptParameters as VerifyReceiptParameters
    from flows.parameters.relocate import RelocateParameters as RelocateParameters
    from flows.parameters.relocate import SourceKind as SourceKind
    from flows.parameters.relocate import TarballOptions as TarballOptions
    from flows.prune import AfterPlan as AfterPlan
    from flows.prune import PruneApproval as PruneApproval
    from flows.prune import PruneParameters as PruneParameters
    from flows.prune import prune as prune
    from flows.prune import prune_sync as prune_sync
    from flows.relocate import relocate as relocate
    from flows.relocate import relocate_sync as relocate_sync
    from oci.bundle.describe import DescribeReport as DescribeReport
    from oci.bundle.pull import PullReport as PullReport
    from oci.bundle.push import PushReport as PushReport
    from oci.bundle.tagnames import TagsReport as TagsReport
    from oci.mirror.config import MirrorsConfig as MirrorsConfig
    from oci.mirror.results import CheckReport as CheckReport
    from oci.mirror.results import Drifted as Drifted
    from oci.mirror.results import MirrorIncomplete as MirrorIncomplete
    from oci.mirror.results import MirrorRunReport as MirrorRunReport
    from oci.prune.plan import PruneRunReport as PruneRunReport
    from oci.prune.policy import KeepOptions as KeepOptions
    from oci.receipts.check import Checked as Checked
    from oci.registry.options import RegistryOptions as RegistryOptions
    from oci.relocation.driver import Verify as Verify
    from oci.relocation.report import RelocationIncomplete as RelocationIncomplete
    from oci.relocation.report import RelocationReport as RelocationReport
    from oci.relocation.report import VerificationReport as VerificationReport

_NAMES = {
    "flows.images": (
        "pull",
        "pull_sync",
        "push",
        "push_sync",
        "describe",
        "describe_sync",
        "tags",
        "tags_sync",
        "verify",
        "verify_sync",
        "verify_receipt",
        "verify_receipt_sync",
    ),
    "flows.mirror": (
        "MirrorCheckParameters",
        "MirrorParameters",
        "mirror",
        "mirror_sync",
        "mirror_check",
        "mirror_check_sync",
    ),
    "flows.parameters.forms": ("FleetOptions",),
    "flows.parameters.images": (
        "DescribeParameters",
        "PullParameters",
        "PushParameters",
        "TagAction",
        "TagsParameters",
        "VerifyParameters",
        "VerifyReceiptParameters",
    ),
    "flows.parameters.relocate": ("RelocateParameters", "SourceKind", "TarballOptions"),
    "flows.prune": ("AfterPlan", "PruneApproval", "PruneParameters", "prune", "prune_sync"),
    "flows.relocate": ("relocate", "relocate_sync"),
    "oci.bundle.describe": ("DescribeReport",),
    "oci.bundle.pull": ("PullReport",),
    "oci.bundle.push": ("PushReport",),
    "oci.bundle.tagnames": ("TagsReport",),
    "oci.mirror.config": ("MirrorsConfig",),
    "oci.mirror.results": ("CheckReport", "Drifted", "MirrorIncomplete", "MirrorRunReport"),
    "oci.prune.plan": ("PruneRunReport",),
    "oci.prune.policy": ("KeepOptions",),
    "oci.receipts.check": ("Checked",),
    "oci.registry.options": ("RegistryOptions",),
    "oci.relocation.report": ("RelocationIncomplete", "RelocationReport", "VerificationReport"),
    "oci.relocation.driver": ("Verify",),
}
_HOMES = {name: home for home, names in _NAMES.items() for name in names}

__all__ = [  # noqa: PLE0604 - the names are strings
    *_HOMES
]


_NAME_SERVER = "name the server: http://127.0.0.1:4200/api"


def be_patient() -> None:
    """Lets a server that Prefect starts for one program take its time: a busy machine needs more than its 20 seconds.
    Prefect reads the variable when it is imported."""
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "180")


def check_server_address(*, required: bool = False) -> None:
    """Checks where Prefect's settings (environment, profile, prefect.toml) say that its server is. Imports Prefect,
    which reads the environment only then. Raises InvalidInput for settings that can't be used, for what is no http or
    https address, and, where a server is `required`, for none."""
    from urllib.parse import urlsplit  # noqa: PLC0415 - few programs ask

    from oci.errors import InvalidInput  # noqa: PLC0415

    try:
        from prefect.settings import PREFECT_API_URL  # noqa: PLC0415 - importing Prefect takes a second

        address = PREFECT_API_URL.value() or ""
    except ValueError as error:  # pydantic's, of any of Prefect's settings, with its own address at the end
        reason = " ".join(str(error).partition("\n    For further")[0].split())
        raise InvalidInput(
            f"Prefect's settings can't be used: {reason}", hint="see what is set: env | grep PREFECT_"
        ) from error
    try:
        parts = urlsplit(address)
        is_address = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_address = False
    if address and not is_address:
        shown = re.sub("//[^/]*@", "//", address)
        raise InvalidInput(f"PREFECT_API_URL is no URL: {shown!r}", hint=_NAME_SERVER)
    if required and not address:
        raise InvalidInput("PREFECT_API_URL is not set", hint=_NAME_SERVER)


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    be_patient()
    return getattr(importlib.import_module(home), name)


class _Flows(ModuleType):
    """A flow and its module share a name, and importing a module sets it on its package: the flow must win, whichever
    of `import flows.relocate` and `from flows import relocate` comes first."""

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, ModuleType) and _HOMES.get(name) == value.__name__:
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Flows
