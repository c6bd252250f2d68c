"""Short ways to relocate in tests: anonymous, against loopback registries."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from oci.meter import Meter
from oci.registry.credentials.credential import Credentials
from oci.registry.options import DEFAULT_CONCURRENCY, RegistryOptions
from oci.relocation.driver import Relocation, RelocationResult
from oci.relocation.request import RelocationRequest
from oci.relocation.session import Access, Session


def anonymous(**settings: Any) -> Access:
    return Access(credentials=Credentials([]), default=RegistryOptions(**settings))


@contextmanager
def session(meter: Meter | None = None, workers: int = DEFAULT_CONCURRENCY, **settings: Any) -> Iterator[Session]:
    access = anonymous(**settings)
    with Session(source=access, destination=access, meter=meter, concurrency=workers) as one:
        yield one


def copied(to: str, *, settings: dict[str, Any] | None = None, **request: Any) -> RelocationResult:
    """One whole relocation in a session of its own."""
    with session(**(settings or {})) as one:
        return Relocation(one, RelocationRequest(to=to, **request)).run()
