"""Copies, mirrors, verifies and prunes OCI images and imgpkg bundles.

The smallest program copies an image between two registries:

    import oci

    oci.copy("registry.example/shop/web:1.4.0", "registry.corp.example/mirror/web")

Each name below is loaded when it is first used: importing `oci` costs nothing. The functions take references as text;
give them one `session` to share connections and logins between calls. Errors are kinds of `TransshipError`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from oci.archive.options import ExportOptions as ExportOptions
    from oci.bundle.lockfile import BundleLock as BundleLock
    from oci.bundle.lockfile import ImagesLock as ImagesLock
    from oci.bundle.lockfile import LockedImage as LockedImage
    from oci.bundle.lockfile import read_lock as read_lock
    from oci.bundle.lockfile import write_lock as write_lock
    from oci.errors import Cancelled as Cancelled
    from oci.errors import CancelToken as CancelToken
    from oci.errors import Denied as Denied
    from oci.errors import Incomplete as Incomplete
    from oci.errors import IntegrityError as IntegrityError
    from oci.errors import InvalidInput as InvalidInput
    from oci.errors import NotFound as NotFound
    from oci.errors import NotTrusted as NotTrusted
    from oci.errors import RateLimited as RateLimited
    from oci.errors import Refused as Refused
    from oci.errors import StoreError as StoreError
    from oci.errors import TransshipError as TransshipError
    from oci.errors import Unauthorized as Unauthorized
    from oci.errors import Unavailable as Unavailable
    from oci.library import Archive as Archive
    from oci.library import Layout as Layout
    from oci.library import Registry as Registry
    from oci.library import copy as copy
    from oci.library import describe as describe
    from oci.library import execute_prune as execute_prune
    from oci.library import open_session as open_session
    from oci.library import plan as plan
    from oci.library import plan_prune as plan_prune
    from oci.library import pull as pull
    from oci.library import push as push
    from oci.library import run_mirrors as run_mirrors
    from oci.library import tags as tags
    from oci.library import verify as verify
    from oci.library import verify_receipt as verify_receipt
    from oci.prune.policy import Keep as Keep
    from oci.reference import Reference as Reference
    from oci.reference import Repository as Repository
    from oci.registry.credentials.credential import Credential as Credential
    from oci.registry.options import RegistryOptions as RegistryOptions
    from oci.relocation.driver import Relocation as Relocation
    from oci.relocation.driver import RelocationResult as RelocationResult
    from oci.relocation.plan import Plan as Plan
    from oci.relocation.request import ReceiptOptions as ReceiptOptions
    from oci.relocation.request import RelocationRequest as RelocationRequest
    from oci.relocation.session import Access as Access
    from oci.relocation.session import Session as Session

_HOMES = {
    "oci.bundle.lockfile": ("BundleLock", "ImagesLock", "LockedImage", "read_lock", "write_lock"),
    "oci.errors": (
        "CancelToken",
        "Cancelled",
        "Denied",
        "Incomplete",
        "IntegrityError",
        "InvalidInput",
        "NotFound",
        "NotTrusted",
        "RateLimited",
        "Refused",
        "StoreError",
        "TransshipError",
        "Unauthorized",
        "Unavailable",
    ),
    "oci.archive.options": ("ExportOptions",),
    "oci.library": (
        "Archive",
        "Layout",
        "Registry",
        "copy",
        "describe",
        "execute_prune",
        "open_session",
        "plan",
        "plan_prune",
        "pull",
        "push",
        "run_mirrors",
        "tags",
        "verify",
        "verify_receipt",
    ),
    "oci.prune.policy": ("Keep",),
    "oci.reference": ("Reference", "Repository"),
    "oci.registry.credentials.credential": ("Credential",),
    "oci.registry.options": ("RegistryOptions",),
    "oci.relocation.plan": ("Plan",),
    "oci.relocation.request": ("ReceiptOptions", "RelocationRequest"),
    "oci.relocation.driver": ("Relocation", "RelocationResult"),
    "oci.relocation.session": ("Access", "Session"),
}
_MODULE_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = sorted(_MODULE_OF)  # noqa: PLE0605 - the names are strings


def __getattr__(name: str) -> Any:
    """Loads a name of `__all__` from its module (PEP 562)."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
