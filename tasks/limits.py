"""Named concurrency limits, `registry:HOST`: shared by all workers of a fleet, beside the local pool of one run.

A limit counts images on their way, not requests: taking a slot asks the Prefect server and costs some 40 ms.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from prefect.client.orchestration import get_client
from prefect.concurrency.asyncio import concurrency
from prefect.exceptions import ObjectNotFound

from oci.reference import Repository, parse_store

LEASE = 60.0
"""Seconds after which the slot of a holder that was killed is given to another: the least that the server takes.
Whoever lives renews it in time."""


def limit_name(registry: str) -> str:
    return f"registry:{registry}"


def limits_of(*stores: str) -> frozenset[str]:
    """The names of the limits that hold for these stores; a layout folder has none."""
    names = (parse_store(store) for store in stores)
    return frozenset(limit_name(name.registry) for name in names if isinstance(name, Repository))


async def existing(names: Iterable[str]) -> dict[str, int]:
    """Those that the Prefect server knows and enforces, with their numbers of slots. Asked once per run, because
    taking a slot of an unknown limit is a warning each time."""
    found = {}
    async with get_client() as client:
        for name in sorted(names):
            try:
                limit = await client.read_global_concurrency_limit_by_name(name)
            except ObjectNotFound:
                continue
            if limit.active:
                found[name] = limit.limit
    return found


@asynccontextmanager
async def slots(names: Iterable[str]) -> AsyncIterator[None]:
    """Holds one slot of each limit; the server gives all of them at once or none, so two runs can't deadlock."""
    taken = sorted(names)
    if not taken:
        yield
        return
    async with concurrency(taken, occupy=1, lease_duration=LEASE, strict=False):
        yield
