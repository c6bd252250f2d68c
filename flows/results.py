"""How flows end: with a message in their state, with a report although they were cancelled, and for programs without an
event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar, cast

from prefect import Flow
from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from prefect.states import Completed, Failed

from oci.errors import InvalidInput, StoreError, TransshipError
from oci.options import Options
from tasks.artifacts.markdown import in_forms

T = TypeVar("T")
P = TypeVar("P", bound=Options)

REPORT_SECONDS = 15.0
"""A worker kills a cancelled run after 30 seconds."""
_LONGEST_MESSAGE = 1000


DRIFT = "Drift"
"""Name of the state, of the type Failed, that a check ends in which found drift."""


def failed(error: TransshipError, name: str = "Failed") -> Any:
    """Returns a state that Prefect raises the error of, when the flow is awaited. Returned from a flow, because an
    error that is raised fills the log with a traceback and the state with its prefix, where one sentence says it
    all."""
    state: State[Any] = Failed(name=name, message=_one_line(in_forms(str(error))), data=error)
    return state


def completed(result: T, message: str = "") -> T:
    """Returns a state with a message, that Prefect gives the result of when the flow is awaited."""
    return cast("T", Completed(message=_one_line(message or str(result)), data=result))


def _one_line(message: str) -> str:
    return "; ".join(message.splitlines())[:_LONGEST_MESSAGE]


def failed_images(failures: Sequence[str], images: int) -> State[None] | None:
    """Returns the state of a helper's run in which images failed: an error that is raised would fill the log."""
    if not failures:
        return None
    return Failed(message=f"{len(failures)} of {images} images failed, the first: {failures[0]}")


async def or_failed(work: Awaitable[T], message: Callable[[T], str] = str) -> T:
    """The state of what `work` gives, or of its error."""
    try:
        result = await work
    except TransshipError as error:
        return cast("T", failed(error))
    return completed(result, message(result))


def cancelled() -> TransshipError:
    """Returns what the report of a cancelled run has as its cause and its next step."""
    return StoreError("the run was cancelled", hint="run it again: what has arrived is not sent again", retryable=True)


@asynccontextmanager
async def reported_when_cancelled(report: Callable[[], Awaitable[object]]) -> AsyncIterator[None]:
    """Awaits `report` when the block is cancelled. It must not be a task, for Prefect runs none in a cancelled run."""
    try:
        yield
    except asyncio.CancelledError:
        try:
            async with asyncio.timeout(REPORT_SECONDS):
                await report()
        except Exception as error:  # noqa: BLE001 - the run ends whatever becomes of its report
            get_run_logger().warning("the report of the cancelled run can't be written: %s", error)
        raise


def alone(flow: Flow[..., Coroutine[Any, Any, T]], form: type[P]) -> Callable[[P], T]:
    """Returns a flow for programs without an event loop; `form` is the type of its parameters."""
    del form

    def run(parameters: P) -> T:
        """Runs the flow in an event loop of its own. Raises InvalidInput where one runs: it can be awaited there."""
        with suppress(RuntimeError):
            asyncio.get_running_loop()
            hint = f"write `await {flow.name}(**parameters.to_dict())` instead"
            raise InvalidInput("an event loop is running here", hint=hint)
        result: T = asyncio.run(flow(**parameters.to_dict()))
        return result

    return run
