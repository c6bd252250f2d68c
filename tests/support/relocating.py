"""Short ways to relocate in tests: anonymous, against loopback registries."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from oci.meter import Meter
from oci.registry.credentials import Credentials
from oci.registry.settings import RegistrySettings
from oci.relocation.relocate import RelocationResult, relocate
from oci.relocation.request import RelocationRequest
from oci.relocation.session import Access, Session


def anonymous(**settings: Any) -> Access:
    return Access(credentials=Credentials([]), default=RegistrySettings(**settings))


@contextmanager
def session(meter: Meter | None = None, **settings: Any) -> Iterator[Session]:
    with Session(source=anonymous(**settings), destination=anonymous(**settings), meter=meter) as one:
        yield one


def copied(to: str, *, settings: dict[str, Any] | None = None, **request: Any) -> RelocationResult:
    """One whole relocation in a session of its own."""
    with session(**(settings or {})) as one:
        return relocate(one, RelocationRequest(to=to, **request))
