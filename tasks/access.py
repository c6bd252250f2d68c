"""How a flow run reaches registries and object stores: by names of blocks, or by what the calling program has."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from pydantic import BaseModel

from oci.registry.credentials.credential import Credentials
from oci.registry.credentials.environment import default_credentials
from oci.registry.http.origin import named_hosts
from oci.registry.options import RegistryOptions
from oci.relocation.session import Access, Session
from tasks.blocks import load_credentials, load_s3
from tasks.run import Connect, Run

_REFERENCES = frozenset({"source", "destination", "bundle", "image", "repository", "reference"})
"""Parameters of flows whose values name registries; in the plan of a shard, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """How the registries of one side are reached. Credentials are names of Registry Credentials blocks; registries
    that none of them covers use the environment and, unless `anonymous`, the docker config of the machine."""

    settings: RegistryOptions = field(default_factory=RegistryOptions)
    credentials: tuple[str, ...] = ()
    anonymous: bool = False
    s3_store: str = ""
    """Name of an S3 Store block; without one, the environment says how object stores are reached."""

    async def access(self, name: str) -> Access:
        """`name` is "source", "destination", or empty for neither."""
        blocks = await load_credentials(self.credentials)
        warn = get_run_logger().warning
        # The login of a worker's variables goes to the registries that the parameters of the flow run name, and not to
        # those that only a lock or a bundle names.
        hosts = named_hosts(_references(flow_run.parameters)) if flow_run.id else None
        default = await asyncio.to_thread(
            default_credentials, side=name, anonymous=self.anonymous, hosts=hosts, warn=warn
        )
        s3 = await load_s3(self.s3_store)
        return Access(
            default=self.settings,
            credentials=Credentials([blocks, default]),
            per_registry=blocks.settings(self.settings),
            named=hosts,
            s3=s3,
        )


def _references(parameters: Any) -> Iterator[str]:
    values = parameters.model_dump() if isinstance(parameters, BaseModel) else parameters
    if isinstance(values, Mapping):
        for key, value in values.items():
            if isinstance(value, str) and key in _REFERENCES and "/" in value:
                yield value
            elif isinstance(value, BaseModel | Mapping):
                yield from _references(value)


def between(source: Side, destination: Side, concurrency: int) -> Connect:
    """Returns a session from one side to the other."""

    async def connect(run: Run) -> Session:
        accesses = _OVERRIDES.get()
        from_side, to_side = accesses or (await source.access("source"), await destination.access("destination"))
        return Session(
            source=from_side, destination=to_side, concurrency=concurrency, meter=run.meter, cancel=run.cancel
        )

    return connect


class OneSided(Run):
    """A run that works at one side only. `name` is as in Side.access."""

    def __init__(self, side: Side, name: str) -> None:
        self.side = side
        concurrency = side.settings.concurrency

        async def connect(run: Run) -> Session:
            both = await side.access(name)
            return Session(source=both, destination=both, concurrency=concurrency, meter=run.meter, cancel=run.cancel)

        super().__init__(connect, concurrency=concurrency)


@contextmanager
def reached_by(*, source: Access, destination: Access) -> Iterator[None]:
    """Runs opened inside use these accesses instead of loading blocks: for a program that has credentials already and
    must not give them to the Prefect server."""
    token = _OVERRIDES.set((source, destination))
    try:
        yield
    finally:
        _OVERRIDES.reset(token)


def access_was_given() -> bool:
    """Says whether this run reaches registries with what no other machine can have."""
    return _OVERRIDES.get() is not None


_OVERRIDES: ContextVar[tuple[Access, Access] | None] = ContextVar("given_access", default=None)
