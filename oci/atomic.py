"""Writing a file so that a reader sees the whole old one or the whole new one, whatever happens in between."""

from __future__ import annotations

import os
import stat
import tempfile
from contextlib import suppress


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
