"""Servers end with the process that started them, also where that is killed, or leaves without its fixtures."""

from __future__ import annotations

from collections.abc import Sequence


def ending_with_parent(command: Sequence[str], signal: str) -> list[str]:
    """The command of a process that gets the signal when the thread that started it ends (prctl(2),
    PR_SET_PDEATHSIG): to be started by the main thread. It has the same process id."""
    return ["setpriv", "--pdeathsig", signal, *command]
