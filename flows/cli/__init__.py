"""The command `transship`. Importing it costs nothing; `main` imports what the given command needs."""

from __future__ import annotations

from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and gives its exit code, one of `flows.cli.output.ExitCode`."""
    from flows.cli.app import run  # noqa: PLC0415 - the console script imports this package to find `main`

    return run(argv)
