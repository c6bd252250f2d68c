"""What is asked for by references, by repositories and by locks, gathered by the place it is in."""

from __future__ import annotations

from collections.abc import Iterable

from oci.bundle.bundlelock import BundleLock
from oci.bundle.lockfile import read_lock
from oci.reference import Reference, StoreName, parse_any, parse_store


def names_by_store(
    references: Iterable[str], repositories: Iterable[str] = (), locks: Iterable[str] = ()
) -> dict[StoreName, tuple[str, ...]]:
    """Tags and digests by store; none for a store of which everything is asked for. Raises InvalidReference, and what
    reading a lock raises."""
    found: dict[StoreName, dict[str, None]] = {}
    for reference in (*map(parse_any, references), *(one for path in locks for one in _pinned(path))):
        found.setdefault(reference.repository, {})[reference.identifier] = None
    return {name: tuple(names) for name, names in found.items()} | {parse_store(name): () for name in repositories}


def _pinned(path: str) -> list[Reference]:
    lock = read_lock(path)
    return [lock.image] if isinstance(lock, BundleLock) else [image.image for image in lock.images]
