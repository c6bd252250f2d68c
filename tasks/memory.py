"""What an earlier attempt of a flow run has learned, for the attempt that goes on: JSON in the inputs of the flow run,
which the Prefect server keeps.

Results that Prefect persists are files whose own header says how they are read, pickles among them: whoever can write
to a shared folder of results could run code in a worker. Nothing here persists results.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.runtime import flow_run
from pydantic import BaseModel

M = TypeVar("M", bound=BaseModel)


async def remembered(key: str, model: type[M], make: Callable[[], Awaitable[M]]) -> M:
    """What `make` gave in an earlier attempt of this flow run, or gives now. `key` has letters, digits and dashes."""
    run = flow_run.id
    if run is None:
        return await make()
    async with get_client() as client:
        try:
            return model.model_validate_json(await client.read_flow_run_input(run, key))
        except (ObjectNotFound, PrefectHTTPStatusError):
            made = await make()
        await client.create_flow_run_input(run, key, made.model_dump_json())
        return made
