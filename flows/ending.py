"""How flows end: with an error's own sentence, and for programs without an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar, cast

from prefect import Flow
from prefect.client.schemas.objects import State
from prefect.states import Failed
from pydantic import BaseModel

from oci.errors import InvalidInput, TransshipError

T = TypeVar("T")


def failed(error: TransshipError) -> State[Any]:
    """A state that Prefect raises the error of, to whoever awaits the flow. Returned from a flow, because an error that
    is raised fills the log with a traceback and the state with its prefix, where one sentence says it all."""
    return Failed(message=str(error), data=error)


async def or_failed(work: Awaitable[T]) -> T:
    """What `work` gives, or the state of its error."""
    try:
        return await work
    except TransshipError as error:
        return cast(T, failed(error))


def run_alone(flow: Flow[Any, Coroutine[Any, Any, T]], parameters: BaseModel) -> T:
    """Runs a flow in an event loop of its own. Raises InvalidInput where one runs: it can be awaited there."""
    with suppress(RuntimeError):
        asyncio.get_running_loop()
        raise InvalidInput("an event loop is running here", hint=f"write `await {flow.name}(parameters)` instead")
    return asyncio.run(flow(parameters))
