"""When Prefect runs a task again. Requests are retried where they are made, in `oci.registry`; a task is run again
only when that was not enough and its error says that trying again can help."""

from __future__ import annotations

from typing import Any

from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task

RETRIES = 2
DELAYS = [10.0, 60.0]
"""Seconds before each of the RETRIES: a registry that outlasted the retries of the requests needs some time."""


async def worth_retrying(task: Task[..., Any], task_run: TaskRun, state: State[Any]) -> bool:  # noqa: ARG001 - Prefect's signature
    error = await state.aresult(raise_on_failure=False)
    return bool(getattr(error, "retryable", False))


ONCE: dict[str, Any] = {"cache_policy": NO_CACHE, "persist_result": False}
"""Of a task: only the registries know what is in place, so nothing is cached; nothing is persisted (see
tasks.memory)."""
REPEATABLE: dict[str, Any] = ONCE | {
    "retries": RETRIES,
    "retry_delay_seconds": DELAYS,
    "retry_condition_fn": worth_retrying,
    "retry_jitter_factor": 0.5,
}
"""Of a task that may be run again."""
