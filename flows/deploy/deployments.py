"""Deployments on the server: compared with what a mirror asks for, and created or changed where they differ."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any
from uuid import UUID

from prefect import Flow
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterTags
from prefect.client.schemas.objects import ConcurrencyLimitStrategy, ConcurrencyOptions
from prefect.client.schemas.responses import DeploymentResponse
from prefect.exceptions import ObjectNotFound
from prefect.utilities.callables import parameter_schema

from flows.deploy.declaration import TAG, Change, Declaration, Outcome, different
from oci.errors import InvalidInput
from tasks.artifacts.history import mirror_tag

KIND = "deployment"
JOB_VARIABLES = {"env": {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30"}}
"""Runs say often that they live, whatever the worker's settings are: the automation that ends those of dead machines
goes by it."""
_PAGE = 200


@dataclass(frozen=True, slots=True)
class Deployed:
    """A declaration with what all deployments of one call share. One without a group belongs to all of them."""

    declaration: Declaration
    work_pool: str
    group: str = ""
    waits: bool = False
    """A block that its runs need is missing: it is made paused, and goes on when the block is there."""

    @property
    def tags(self) -> list[str]:
        if self.declaration.unwatched:
            return [f"{TAG}:{self.declaration.name}"]
        of_mirror = [group_tag(self.group), mirror_tag(self.declaration.mirror)] if self.group else []
        return [TAG, *of_mirror, *([WAITS] if self.waits else [])]


WAITS = "transship:waits-for-block"
"""Tag of a deployment that is paused until a block is made. A deployment that a person paused stays paused."""


def group_tag(group: str) -> str:
    """How deployments know which configuration they belong to: only they are ever removed for it."""
    return f"mirrors:{group}"


def _flow(entrypoint: str) -> Flow[..., Any]:
    module, _, name = entrypoint.rpartition(".")
    flow: Flow[..., Any] = getattr(importlib.import_module(module), name)
    return flow


@cache
def _form(entrypoint: str) -> dict[str, Any]:
    """Returns the form of the flow's parameters: the same for all mirrors, so it is made once. Like `prefect deploy`,
    it has no `definitions` where there are none."""
    form = parameter_schema(_flow(entrypoint)).model_dump_for_openapi()
    return {key: value for key, value in form.items() if key != "definitions" or value}


async def put(client: PrefectClient, deployed: Deployed, *, dry_run: bool) -> tuple[Change, UUID | None]:
    """Returns what was done, and the deployment's id; None where it would have been made. Raises InvalidInput when
    another configuration has a mirror of this name."""
    flow = _flow(deployed.declaration.entrypoint)
    existing = await _existing(client, flow, deployed.declaration.name)
    name = deployed.declaration.name if deployed.group else f"{flow.name}/{deployed.declaration.name}"
    if existing is None:
        return Change(KIND, name, Outcome.CREATED), None if dry_run else await _make(client, flow, deployed)
    if deployed.group and group_tag(deployed.group) not in existing.tags:
        raise InvalidInput(
            f"there is a deployment {flow.name}/{name} already, and it isn't of the group {deployed.group}",
            hint="rename the mirror, or use the --group it was deployed with",
        )
    change = different(KIND, name, _differences(existing, deployed))
    if change.outcome is Outcome.UPDATED and not dry_run:
        await _make(client, flow, deployed)
        if WAITS in existing.tags and not deployed.waits:
            await client.resume_deployment(existing.id)
    return change, existing.id


async def _existing(client: PrefectClient, flow: Flow[..., Any], name: str) -> DeploymentResponse | None:
    try:
        return await client.read_deployment_by_name(f"{flow.name}/{name}")
    except ObjectNotFound:
        return None


async def _make(client: PrefectClient, flow: Flow[..., Any], deployed: Deployed) -> UUID:
    """Creates it or changes it; one that a person paused stays so."""
    declaration = deployed.declaration
    schedules = [DeploymentScheduleCreate(schedule=declaration.schedule)] if declaration.schedule else []
    return await client.create_deployment(
        flow_id=await client.create_flow_from_name(flow.name),
        name=declaration.name,
        description=declaration.description,
        entrypoint=declaration.entrypoint,
        pull_steps=[],
        job_variables=JOB_VARIABLES,
        parameters=declaration.parameters,
        parameter_openapi_schema=_form(declaration.entrypoint),
        enforce_parameter_schema=True,
        schedules=schedules,
        concurrency_limit=declaration.places,
        concurrency_options=_collisions(declaration),
        work_pool_name=deployed.work_pool,
        tags=deployed.tags,
        paused=True if deployed.waits else None,
    )


def _collisions(declaration: Declaration) -> ConcurrencyOptions | None:
    if declaration.places is None:
        return None
    strategy = ConcurrencyLimitStrategy.ENQUEUE if declaration.queued else ConcurrencyLimitStrategy.CANCEL_NEW
    return ConcurrencyOptions(collision_strategy=strategy)


def _differences(existing: DeploymentResponse, deployed: Deployed) -> Iterator[str]:
    declaration = deployed.declaration
    limit = existing.global_concurrency_limit
    collisions = _collisions(declaration)
    options = existing.concurrency_options
    pairs: dict[str, tuple[object, object]] = {
        "description": (existing.description, declaration.description),
        "entrypoint": (existing.entrypoint, declaration.entrypoint),
        "pull steps": (existing.pull_steps or [], []),
        "job variables": (existing.job_variables, JOB_VARIABLES),
        "parameters": (existing.parameters, declaration.parameters),
        "form": (existing.parameter_openapi_schema, _form(declaration.entrypoint)),
        "enforcement of parameters": (existing.enforce_parameter_schema, True),
        "schedule": (
            [schedule.schedule for schedule in existing.schedules],
            [declaration.schedule] * bool(declaration.schedule),
        ),
        "concurrency": (limit.limit if limit else None, declaration.places),
        "collisions": (
            options.collision_strategy if options else None,
            collisions.collision_strategy if collisions else None,
        ),
        "work pool": (existing.work_pool_name, deployed.work_pool),
        "tags": (sorted(existing.tags), sorted(deployed.tags)),
    }
    return (name for name, (actual, expected) in pairs.items() if actual != expected)


async def left_over(client: PrefectClient, group: str, names: Sequence[str]) -> list[DeploymentResponse]:
    """Deployments of the group that none of the `names` is for."""
    of_group = DeploymentFilter(tags=DeploymentFilterTags(all_=[TAG, group_tag(group)]))
    deployments: list[DeploymentResponse] = []
    while True:
        page = await client.read_deployments(deployment_filter=of_group, limit=_PAGE, offset=len(deployments))
        deployments += page
        if len(page) < _PAGE:
            return [deployment for deployment in deployments if deployment.name not in names]


async def remove(client: PrefectClient, deployment: DeploymentResponse, *, dry_run: bool) -> Change:
    """The runs it had stay in the history."""
    if not dry_run:
        await client.delete_deployment(deployment.id)
    return Change(KIND, deployment.name, Outcome.REMOVED)
