"""What the Prefect server knows of the flow runs of a test."""

from __future__ import annotations

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterDeploymentId, FlowRunFilterStartTime
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.sorting import FlowRunSort


async def newest_run(client: PrefectClient) -> FlowRun:
    """The last one that a program has started. The server is shared: runs that schedules of other tests have planned
    for tomorrow, or that workers carry out, aren't meant."""
    started = FlowRunFilter(
        start_time=FlowRunFilterStartTime(is_null_=False), deployment_id=FlowRunFilterDeploymentId(is_null_=True)
    )
    [run] = await client.read_flow_runs(flow_run_filter=started, sort=FlowRunSort.START_TIME_DESC, limit=1)
    return run
