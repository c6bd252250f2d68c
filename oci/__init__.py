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
    from oci.bundle.lockfile import BundleLock, ImagesLock, LockedImage, read_lock, write_lock
    from oci.cancel import CancelToken
    from oci.errors import (
        Cancelled,
        Denied,
        Incomplete,
        IntegrityError,
        InvalidInput,
        NotFound,
        NotTrusted,
        RateLimited,
        Refused,
        StoreError,
        TransshipError,
        Unauthorized,
        Unavailable,
    )
    from oci.export.options import ExportOptions
    from oci.library import (
        Archive,
        Layout,
        Registry,
        copy,
        describe,
        execute_prune,
        open_session,
        plan,
        plan_prune,
        pull,
        push,
        run_mirrors,
        tags,
        verify,
        verify_receipt,
    )
    from oci.prune.keep import Keep
    from oci.reference import Reference, Repository
    from oci.registry.credentials.credential import Credential
    from oci.registry.options import RegistryOptions
    from oci.relocation.plan import Plan
    from oci.relocation.request import ReceiptOptions, RelocationRequest
    from oci.relocation.run import Relocation, RelocationResult
    from oci.relocation.session import Access, Session

_HOMES = {
    "oci.bundle.lockfile": ("BundleLock", "ImagesLock", "LockedImage", "read_lock", "write_lock"),
    "oci.cancel": ("CancelToken",),
    "oci.errors": (
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
    "oci.export.options": ("ExportOptions",),
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
    "oci.prune.keep": ("Keep",),
    "oci.reference": ("Reference", "Repository"),
    "oci.registry.credentials.credential": ("Credential",),
    "oci.registry.options": ("RegistryOptions",),
    "oci.relocation.plan": ("Plan",),
    "oci.relocation.request": ("ReceiptOptions", "RelocationRequest"),
    "oci.relocation.run": ("Relocation", "RelocationResult"),
    "oci.relocation.session": ("Access", "Session"),
}
_MODULE_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "Access",
    "Archive",
    "BundleLock",
    "CancelToken",
    "Cancelled",
    "Credential",
    "Denied",
    "ExportOptions",
    "ImagesLock",
    "Incomplete",
    "IntegrityError",
    "InvalidInput",
    "Keep",
    "Layout",
    "LockedImage",
    "NotFound",
    "NotTrusted",
    "Plan",
    "RateLimited",
    "ReceiptOptions",
    "Reference",
    "Refused",
    "Registry",
    "RegistryOptions",
    "Relocation",
    "RelocationRequest",
    "RelocationResult",
    "Repository",
    "Session",
    "StoreError",
    "TransshipError",
    "Unauthorized",
    "Unavailable",
    "copy",
    "describe",
    "execute_prune",
    "open_session",
    "plan",
    "plan_prune",
    "pull",
    "push",
    "read_lock",
    "run_mirrors",
    "tags",
    "verify",
    "verify_receipt",
    "write_lock",
]


def __getattr__(name: str) -> Any:
    """Loads a name of `__all__` from its module (PEP 562)."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
