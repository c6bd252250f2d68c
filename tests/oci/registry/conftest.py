from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from oci.errors import CancelToken
from oci.meter import Meter
from oci.reference import Repository
from oci.registry.credentials.credential import ANONYMOUS, Credential, Credentials, Fixed
from oci.registry.options import RegistryOptions
from oci.registry.repository import Registries, RegistryRepository
from oci.registry.state import State

TIMEOUTS: dict[str, Any] = {"header_timeout": 30.0, "idle_timeout": 30.0, "connect_timeout": 30.0}
"""So long that a busy machine reaches none. A test that waits for one sets it."""


class Client:
    """One side's registries with a meter and a token of its own."""

    def __init__(
        self, stack: ExitStack, credential: Credential, side: str, settings: dict[str, Any], state: State | None = None
    ) -> None:
        self.meter = Meter()
        self.cancel = CancelToken()
        self.registries = stack.enter_context(
            Registries(
                side=side,
                settings=lambda _: RegistryOptions(**{**TIMEOUTS, **settings}),
                credentials=Credentials([Fixed(credential)]),
                meter=self.meter,
                cancel=self.cancel,
                state=state,
            )
        )

    def repository(self, host: str, path: str) -> RegistryRepository:
        return self.registries.repository(Repository(host, path))

    @property
    def counts(self) -> dict[str, int]:
        """Requests by kind, of all registries."""
        found: dict[str, int] = {}
        for kinds in self.meter.receipt().requests.values():
            for kind, count in kinds.items():
                found[kind] = found.get(kind, 0) + count
        return found


@pytest.fixture
def make_client() -> Iterator[Callable[..., Client]]:
    with ExitStack() as stack:

        def make(credential: Credential = ANONYMOUS, side: str = "destination", **settings: Any) -> Client:
            return Client(stack, credential, side, settings)

        yield make


@pytest.fixture
def client(make_client: Callable[..., Client]) -> Client:
    return make_client()
