"""Stopping: one token that every loop over bytes and every wait looks at."""

from __future__ import annotations

import threading
from collections.abc import Callable

from oci.errors import Cancelled


class CancelToken:
    """Set once, from any thread or a signal handler; never reset."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._listeners: list[Callable[[], None]] = []

    def cancel(self) -> None:
        self._event.set()
        for listener in list(self._listeners):
            listener()

    def on_cancel(self, listener: Callable[[], None]) -> None:
        """Has `listener` called when the token is set, to wake what can't look at it: it must not raise or block."""
        self._listeners.append(listener)

    @property
    def cancelled(self) -> bool:
        return self._event.is_set()

    def check(self) -> None:
        """Raises Cancelled once the token is set."""
        if self._event.is_set():
            raise Cancelled

    def wait(self, seconds: float) -> None:
        """Sleeps, and raises Cancelled as soon as the token is set."""
        if self._event.wait(max(0.0, seconds)):
            raise Cancelled
