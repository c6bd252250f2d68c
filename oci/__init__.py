"""Copies, mirrors, verifies and prunes OCI images and imgpkg bundles.

The smallest program copies an image between two registries:

    import oci

    oci.copy("registry.example/shop/web:1.4.0", "registry.corp.example/mirror/web")

Each name below is loaded when it is first used: importing `oci` costs nothing. The functions take references as text;
give them one `session` to share connections and logins between calls. Errors are kinds of `TransshipError`.
"""

from __future__ import annotations

import functools
import importlib
import re
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
    from oci.relocation.plan import Plan as Plan
    from oci.relocation.request import ReceiptOptions as ReceiptOptions
    from oci.relocation.request import RelocationRequest as RelocationRequest
    from oci.relocation.run import Relocation as Relocation
    from oci.relocation.run import RelocationResult as RelocationResult
    from oci.relocation.session import Access as Access
    from oci.relocation.session import Session as Session


def __getattr__(name: str) -> Any:
    """Loads a name when it is first used (PEP 562)."""
    modules = _modules()
    if name == "__all__":
        return sorted(modules)
    if name not in modules:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(modules[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(_modules())


@functools.cache
def _modules() -> dict[str, str]:
    """Returns the module of each name, as the imports above have it, which only type checkers run: read from the text
    of this module, so that a name stands there once."""
    source = __loader__.get_source(__name__)  # type: ignore[name-defined]  # each module has it
    return {name: module for module, name in re.findall(r"^    from (\S+) import \w+ as (\w+)$", source, re.MULTILINE)}
