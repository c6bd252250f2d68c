"""When Prefect runs a task again. Requests are retried where they are made, in `oci.registry`; a task is run again
only when that was not enough and its error says that trying again can help."""

from __future__ import annotations

from typing import Any

from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task

RETRIES = 2
DELAYS = [10.0, 60.0]
"""Seconds before each of the RETRIES: a registry that outlasted the retries of the requests needs some time."""


async def worth_retrying(task: Task[..., Any], task_run: TaskRun, state: State[Any]) -> bool:  # noqa: ARG001 - Prefect's signature
    error = await state.aresult(raise_on_failure=False)
    return bool(getattr(error, "retryable", False))
