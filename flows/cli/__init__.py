"""The command `transship`. Importing it costs nothing; `main` imports what the given command needs."""

from __future__ import annotations

import gc
from collections.abc import Sequence

_GARBAGE = 50_000
"""Objects between two searches for garbage. Python's 700 suit a small heap: with ours, each search costs more than it
frees."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and gives its exit code, one of `flows.cli.output.ExitCode`."""
    if argv is None:  # otherwise this is another program's process, or a test's: nothing of it is changed
        gc.set_threshold(_GARBAGE)
    from flows.cli.app import run  # noqa: PLC0415 - the console script imports this package to find `main`

    try:
        return run(argv)
    finally:
        if argv is None:
            gc.freeze()  # the end of the process frees all of it: Python needn't search it once more
