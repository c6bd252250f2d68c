"""What the operating system says of a file, as an error of ours."""

from __future__ import annotations

import errno

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
    elif error.errno in _FORBIDDEN:
        kind, hint = Denied, "check who may read and write there, and whether it is mounted read-only"
    elif error.errno in _FULL:
        message, hint = "the disk is full", "make room and run it again"
    elif error.errno == errno.EIO:
        kind, hint = Unavailable, "check the disk"
    return kind(message, side=side, store=store, subject=subject, operation=operation, hint=hint)
