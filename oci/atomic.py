"""Writing a file so that a reader sees the whole old one or the whole new one, whatever happens in between."""

from __future__ import annotations

import os
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
