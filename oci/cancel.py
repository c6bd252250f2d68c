"""Stopping: one token that every loop over bytes and every wait looks at."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable

from oci.errors import Cancelled


class CancelToken:
    """Set once, from any thread or a signal handler; never reset."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._listeners: list[weakref.WeakMethod[Callable[[], None]]] = []

    def cancel(self) -> None:
        self._event.set()
        for reference in list(self._listeners):
            if listener := reference():
                listener()

    def on_cancel(self, listener: Callable[[], None]) -> None:
        """Has `listener`, a method, called when the token is set, to wake what can't look at it: it must not raise or
        block. A token may live for as long as the program, so it keeps no object alive."""
        with self._lock:
            alive = [reference for reference in self._listeners if reference() is not None]
            self._listeners = [*alive, weakref.WeakMethod(listener)]

    @property
    def cancelled(self) -> bool:
        return self._event.is_set()

    def check(self) -> None:
        """Raises Cancelled once the token is set."""
        if self._event.is_set():
            raise Cancelled

    def wait(self, seconds: float) -> None:
        """Sleeps, and raises Cancelled as soon as the token is set."""
        if seconds > 0:
            self._event.wait(seconds)
        self.check()
