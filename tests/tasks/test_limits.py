from __future__ import annotations

import asyncio
import uuid

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate

from tasks.limits import existing, limits_of, slots


def test_limits_are_named_after_registries_and_a_layout_folder_has_none() -> None:
    names = limits_of("corp.example:5000/shop", "registry.example/shop/web", "oci:/srv/layout")

    assert names == {"registry:corp.example:5000", "registry:registry.example"}


@pytest.mark.usefixtures("prefect")
def test_a_limit_that_exists_is_kept_and_one_that_does_not_costs_nothing() -> None:
    host = f"{uuid.uuid4().hex[:8]}.example"
    running = 0
    most = 0

    async def work(names: frozenset[str]) -> None:
        nonlocal running, most
        async with slots(names):
            running += 1
            most = max(most, running)
            await asyncio.sleep(0.01)
            running -= 1

    async def main() -> None:
        limit = f"registry:{host}"
        assert await existing([limit]) == {}
        async with get_client() as client:
            await client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=limit, limit=1, active=True))
        found = await existing([limit, "registry:other.example"])
        assert found == {limit: 1}
        await asyncio.gather(*(work(frozenset(found)) for _ in range(2)))

    asyncio.run(main())

    assert most == 1
