"""Writing files, and what the operating system says of a file as an error of ours."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from oci.errors import Denied, NotFound, Refused, StoreError, Unavailable

NOT_THERE = frozenset({errno.ENOENT, errno.ENOTDIR})
_FORBIDDEN = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def store_error(error: OSError, *, side: str = "", store: str, subject: str = "", operation: str) -> StoreError:
    """`store` names the layout, folder or archive that the file belongs to."""
    kind: type[StoreError] = Refused
    message = (error.strerror or str(error)).lower()
    hint = "check the path"
    if error.errno in NOT_THERE:
        kind = NotFound
        hint = "make the folder first" if side == "destination" and operation == "opening" else hint
    elif error.errno in _FORBIDDEN:
        kind, hint = Denied, "check who may read and write there, and whether it is mounted read-only"
    elif error.errno in _FULL:
        message, hint = "the disk is full", "make room and run it again"
    elif error.errno == errno.EIO:
        kind, hint = Unavailable, "check the disk"
    return kind(message, side=side, store=store, subject=subject, operation=operation, hint=hint)


@contextmanager
def os_errors(*, side: str = "", store: str, subject: str = "", operation: str) -> Iterator[None]:
    """Raises a StoreError in place of an OSError."""
    try:
        yield
    except OSError as error:
        raise store_error(error, side=side, store=store, subject=subject, operation=operation) from error


def replace_file(path: str, data: bytes, mode: int = 0o600) -> None:
    """Raises OSError; nothing half-made is left then."""
    handle, partial = tempfile.mkstemp(
        prefix=f".{os.path.basename(path)}.", suffix=".partial", dir=os.path.dirname(path) or "."
    )
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(partial, mode)
        os.replace(partial, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(partial)
        raise


def write_output(path: str, data: bytes) -> None:
    """As `replace_file`, for a path that somebody asked for: a link is followed, and what is no regular file, such as a
    pipe or /dev/stdout, is written to as it stands."""
    if os.path.exists(path) and not stat.S_ISREG(os.stat(path).st_mode):
        with open(path, "wb") as file:
            file.write(data)
    else:
        replace_file(os.path.realpath(path), data)
