"""Lock files on disk: reading whichever kind one is, and replacing one whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from oci.atomic import write_output
from oci.bundle import bundlelock, imageslock
from oci.bundle.bundlelock import BundleLock
from oci.bundle.document import SIZE_LIMIT, parse
from oci.bundle.imageslock import ImagesLock
from oci.errors import Denied, NotFound, StoreError, Unavailable


def read_lock(path: str) -> ImagesLock | BundleLock:
    """Raises InvalidDocument for a file that is neither kind, NotFound or Denied for one that can't be read."""
    with _errors(path, "reading the lock file"), open(path, "rb") as file:
        data = file.read(SIZE_LIMIT + 1)
    node = parse(data, path)
    kind = node.fields("kind", strict=False)["kind"]
    if kind.value == imageslock.KIND:
        return ImagesLock.from_node(node)
    if kind.value == bundlelock.KIND:
        return BundleLock.from_node(node)
    found = kind.text()
    raise kind.error(
        f"neither {imageslock.KIND} nor {bundlelock.KIND} but {found!r}"
        if found
        else f"not given; expected {imageslock.KIND} or {bundlelock.KIND}"
    )


def write_lock(path: str, lock: ImagesLock | BundleLock) -> None:
    """Writes the file with mode 0600, in place of one that is there; a reader sees the old text or the new, never part.

    A path that is no regular file, such as a pipe, is written to as it stands.
    """
    data = lock.to_yaml().encode()
    with _errors(path, "writing the lock file"):
        write_output(path, data)


@contextmanager
def _errors(path: str, operation: str) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFound("no such file or directory", subject=path, operation=operation) from error
    except OSError as error:
        kind: type[StoreError] = Denied if isinstance(error, PermissionError) else Unavailable
        raise kind(error.strerror or str(error), subject=path, operation=operation) from error
