"""The strict registry with a habit of a test's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.servers.strict_registry import Features, StrictHandler, StrictRegistry

Quirk = Callable[[Any, str], bool]
"""Given a call and its path: answers it in place of the registry, or says that it doesn't."""


class QuirkyHandler(StrictHandler):
    def _route(self, path: str) -> None:
        owner: Any = self.registry
        if not owner.quirk(self, path):
            super()._route(path)

    def answer(self, status: int, body: bytes = b"", /, **headers: str) -> None:
        super().answer(self.registry.statuses.get((self.command, status), status), body, **headers)  # type: ignore[attr-defined]


class Quirky(StrictRegistry):
    """`quirk` answers a request in place of the registry, or says that it doesn't. `statuses` are given instead of
    others, by method."""

    handler: type[StrictHandler] = QuirkyHandler

    def __init__(
        self,
        quirk: Quirk = lambda call, path: False,
        statuses: dict[tuple[str, int], int] | None = None,
        *,
        features: Features | None = None,
    ) -> None:
        super().__init__(features)
        self.quirk, self.statuses, self.once = quirk, statuses or {}, True

    def first(self) -> bool:
        """True for a single call."""
        first, self.once = self.once, False
        return first
