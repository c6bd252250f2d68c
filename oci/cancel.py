"""Stopping: one token that every loop over bytes and every wait looks at."""

from __future__ import annotations

import threading

from oci.errors import Cancelled


class CancelToken:
    """Set once, from any thread or a signal handler; never reset."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def cancel(self) -> None:
        self._event.set()

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
