"""Telling one bad image from a registry that is of no use: an expired login, a used-up quota, a server that is down.

A failure that each image would meet again is met a few times, not a thousand: after that nothing more is asked of that
registry, and the cause is said once.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping

from oci.errors import Denied, RateLimited, StoreError, TransshipError, Unauthorized, Unavailable
from oci.reference import LAYOUT_PREFIX

IN_A_ROW = 3
"""Failures of one kind, with no success at that registry between them, that make it the registry's own trouble."""

_COUNTED = (Unauthorized, Denied, Unavailable)


class Breaker:
    """Shared by all mirrors of a run; safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._row: dict[str, tuple[str, int]] = {}
        self._causes: dict[str, TransshipError] = {}

    @property
    def causes(self) -> Mapping[str, TransshipError]:
        """By place (`destination registry.corp.example`): why nothing more is asked of it."""
        with self._lock:
            return dict(self._causes)

    def cause(self, places: Iterable[str]) -> TransshipError | None:
        """Why something that needs these places isn't worth trying, or None."""
        with self._lock:
            return next((self._causes[place] for place in places if place in self._causes), None)

    def succeeded(self, places: Iterable[str]) -> None:
        with self._lock:
            for place in places:
                self._row.pop(place, None)

    def failed(self, error: TransshipError) -> None:
        if isinstance(error, StoreError):
            self.noted(type(error).__name__, error.side, error.store, error)

    def noted(self, kind: str, side: str, store: str, error: TransshipError) -> None:
        """The same for a failure of which only words are left; `kind` is the name of its class."""
        if not side or not store or kind not in {RateLimited.__name__, *(counted.__name__ for counted in _COUNTED)}:
            return
        where = place(side, store)
        with self._lock:
            before, count = self._row.get(where, (kind, 0))
            count = count + 1 if before == kind else 1
            self._row[where] = (kind, count)
            if count >= IN_A_ROW or kind == RateLimited.__name__:
                self._causes.setdefault(where, error)


def place(side: str, store: str) -> str:
    """The place that a store belongs to: its registry; a layout folder is one by itself."""
    return f"{side} {store if store.startswith(LAYOUT_PREFIX) else store.partition('/')[0]}"
