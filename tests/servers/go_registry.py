"""The strict registry with the manners of the one in go-containerregistry, which imgpkg's own tests run against: `/v2/`
alone challenges, and refusals are plain text."""

from __future__ import annotations

import base64
import time

from tests.servers.strict_registry import Refusal, StrictHandler, StrictRegistry


class _Answered(Exception):
    """There is no more to say to this request."""


class GoHandler(StrictHandler):
    def _handle(self) -> None:
        time.sleep(self.registry.delay)  # type: ignore[attr-defined]
        try:
            super()._handle()
        except _Answered:
            return

    def _check_login(self) -> None:
        user = self.registry.features.user
        if not user:
            return
        if self.path == "/v2/":
            self._drain()
            self.answer(401, WWW_Authenticate="Basic")
            raise _Answered
        if self.headers.get("Authorization") != f"Basic {base64.b64encode(user.encode()).decode()}":
            self._drain()
            self.answer(401, b"incorrect username or password")
            raise _Answered

    def _manifest(self, name: str, reference: str) -> None:
        if self.command != "PUT" and name not in self.registry.store.repositories:
            raise Refusal(404, "NAME_UNKNOWN", "Unknown name")
        super()._manifest(name, reference)


class GoRegistry(StrictRegistry):
    handler = GoHandler
    delay = 0.0
    """Seconds before each answer."""
