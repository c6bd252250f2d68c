"""Deployments: those that mirrors, the fleet and the rescue of runs ask for, and those on the server, which are created
or changed where they differ."""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cache
from typing import Any, TypeVar
from uuid import UUID

from prefect import Flow
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterTags
from prefect.client.schemas.objects import ConcurrencyLimitStrategy, ConcurrencyOptions
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import SCHEDULE_TYPES, CronSchedule, IntervalSchedule, RRuleSchedule
from prefect.exceptions import ObjectNotFound
from prefect.utilities.callables import parameter_schema
from pydantic import ValidationError

from oci.errors import InvalidInput
from oci.meter import unheard
from oci.mirror.config import Mirror, MirrorsConfig
from oci.reference import HUB, Repository
from tasks.artifacts.history import mirror_tag

T = TypeVar("T")

KIND = "deployment"
PUSH_SUFFIX = ".on-push"
"""What no mirror's name ends with: the deployment that a push starts."""
TAG = "transship"
WAITS = "transship:waits-for-block"
"""Tag of a deployment that is paused until a block is made. A deployment that a person paused stays paused."""
JOB_VARIABLES = {"env": {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30"}}
"""Runs say often that they live, whatever the worker's settings are: the automation that ends those of dead machines
goes by it."""
_PUSHES_AT_A_TIME = 2
"""A release is often pushed under several tags at once; they have nothing to wait for each other for."""
_LARGEST_PARAMETERS = 480_000
"""Characters; Prefect takes 512 KB, and a trigger adds its own."""
_PAGE = 200


@dataclass(frozen=True, slots=True)
class PushTrigger:
    """Which pushes start a mirror: those to `repository`, of `tag` when there is one. `REGISTRY/PATH/*` stands for the
    repositories of a namespace."""

    repository: Repository | str
    tag: str = ""


@dataclass(frozen=True, slots=True)
class Declaration:
    """One deployment. At most `places` of its runs are under way, None for any number; `queued` says what happens to
    one more: it waits, or, being one of a schedule, it is left out."""

    name: str
    description: str
    parameters: dict[str, Any] = field(default_factory=dict)
    schedule: SCHEDULE_TYPES | None = None
    places: int | None = 1
    queued: bool = False
    entrypoint: str = "flows.mirror.mirror"
    mirror: str = ""
    """That it is of; empty for one that all mirrors share."""
    trigger: PushTrigger | None = None
    """The pushes that start it."""
    blocks: frozenset[str] = frozenset()
    """Names of the blocks that its runs load."""
    unwatched: bool = False
    """Its runs have a tag of their own, and not that of all other runs."""
    work_pool: str = ""
    group: str = ""
    """The configuration that it belongs to; empty where it belongs to all of them."""
    waits: bool = False
    """A block that its runs need is missing: it is made paused, and goes on when the block is there."""

    @property
    def tags(self) -> list[str]:
        if self.unwatched:
            return [f"{TAG}:{self.name}"]
        of_mirror = [group_tag(self.group), mirror_tag(self.mirror)] if self.group else []
        return [TAG, *of_mirror, *([WAITS] if self.waits else [])]


def declared(config: MirrorsConfig, mirror: Mirror) -> tuple[Declaration, ...]:
    """Returns the deployments of a mirror: its own, and the one that a push starts, where the mirror says so and its
    source sends notifications. Its configuration travels in the parameters: a worker needs no file, every run shows its
    rules, and a change takes effect when it is deployed. Raises InvalidInput."""
    alone = config.alone(mirror)
    parameters = {"config": alone.to_dict() | {"version": config.version}}
    size = len(str(parameters))
    if size > _LARGEST_PARAMETERS:
        raise InvalidInput(f"mirror {mirror.name}: its configuration is {size} characters long, too much for Prefect")
    where = f"{mirror.source} -> {', '.join(map(str, mirror.destinations))}"
    stores = {bucket.s3_store for bucket in alone.buckets.values()} - {""}
    main = Declaration(
        name=mirror.name,
        description=f"Mirrors {where}.",
        parameters=parameters,
        schedule=_schedule(mirror),
        mirror=mirror.name,
        blocks=frozenset(stores.union(alone.credentials)),
    )
    trigger = _trigger(mirror) if mirror.on_push else None
    if trigger is None:
        return (main,)
    on_push = replace(
        main,
        name=f"{mirror.name}{PUSH_SUFFIX}",
        description=f"Mirrors what was pushed: {where}. Started by the automation of the same name.",
        schedule=None,
        places=_PUSHES_AT_A_TIME,
        queued=True,
        trigger=trigger,
    )
    return main, on_push


def _schedule(mirror: Mirror) -> SCHEDULE_TYPES | None:
    if mirror.schedule is None:
        return None
    try:
        if mirror.schedule.cron:
            return CronSchedule(cron=mirror.schedule.cron, timezone=mirror.schedule.timezone)
        if mirror.schedule.rrule:
            # With the start that Prefect would put there, so that both texts are the same.
            return RRuleSchedule(rrule=mirror.schedule.rule, timezone=mirror.schedule.timezone)
        return IntervalSchedule(
            interval=mirror.schedule.interval,
            anchor_date=mirror.schedule.anchor(mirror.name),  # type: ignore[arg-type,unused-ignore]  # see Prefect
            timezone=mirror.schedule.timezone,
        )
    except (ValidationError, ValueError) as error:
        raise InvalidInput(
            f"mirror {mirror.name}: Prefect doesn't understand its schedule",
            hint=str(error.errors()[0]["msg"]) if isinstance(error, ValidationError) else str(error),
        ) from error


def _trigger(mirror: Mirror) -> PushTrigger | None:
    within = mirror.source.within
    if within is not None:
        return None if within.registry == HUB else PushTrigger(f"{str(within).rstrip('/')}/*")
    store, reference = mirror.source.store, mirror.source.reference
    if not isinstance(store, Repository) or store.registry == HUB:  # Docker Hub sends none
        return None
    if reference is not None and not reference.tag:
        return None  # a digest doesn't move
    return PushTrigger(store, reference.tag if reference else "")


FLEET = tuple(
    Declaration("fleet", f"{work}, for a run that asks for a fleet.", places=None, entrypoint=entrypoint)
    for entrypoint, work in (
        ("flows.relocate.relocate_shard", "Copies a part of a large relocation"),
        ("flows.mirror.mirror_shard", "Carries some of a mirror's images"),
        ("flows.relocate.write_archive_parts", "Writes a group of parts of a large archive"),
    )
)
"""What the machines of a fleet take their work from. Its work pool isn't the one of the mirrors: there, runs that wait
for their shards could hold every place that a shard needs."""

RESCUE = Declaration(
    "rescue",
    "Looks after a run that seems dead, and starts it again once.",
    places=None,
    entrypoint="flows.deploy.zombie_runs.rescue",
    unwatched=True,  # with the patience of other runs; it has a tag of its own, see flows.deploy.zombie_runs
)
"""What the automations of flows.deploy.zombie_runs start, where the mirrors run."""


class Outcome(StrEnum):
    CREATED = "created"
    UPDATED = "updated"
    UNCHANGED = "unchanged"
    REMOVED = "removed"
    KEPT = "kept"
    """Nothing in the configuration asks for it, and its removal was not asked for."""
    MISSING = "missing"
    """Something that only a person can make, such as a block with a login in it."""


@dataclass(frozen=True, slots=True)
class Change:
    """`kind` is "deployment", "trigger", "automation", "concurrency limit", "block", "block type" or "work pool"."""

    kind: str
    name: str
    outcome: Outcome
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Server:
    """A Prefect server that is brought to what mirrors ask for. With `dry_run` nothing is changed there; `on_change` is
    called with each change, made or not."""

    client: PrefectClient
    dry_run: bool = False
    on_change: Callable[[Change], None] = unheard

    def note(self, kind: str, name: str, outcome: Outcome, detail: str = "") -> None:
        self.on_change(Change(kind, name, outcome, detail))


def compared(differences: Iterable[str]) -> tuple[Outcome, str]:
    """Returns UPDATED with the names of the differences, or UNCHANGED where there are none."""
    named = ", ".join(differences)
    return Outcome.UPDATED if named else Outcome.UNCHANGED, named


async def or_none(reading: Awaitable[T]) -> T | None:
    """Returns what the server has, or None where it has no such thing."""
    with suppress(ObjectNotFound):
        return await reading
    return None


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


async def put(server: Server, declaration: Declaration) -> UUID | None:
    """Returns the deployment's id; None where it would have been made. Raises InvalidInput when another configuration
    has a mirror of this name."""
    client, flow = server.client, _flow(declaration.entrypoint)
    full_name = f"{flow.name}/{declaration.name}"
    name = declaration.name if declaration.group else full_name
    existing = await or_none(client.read_deployment_by_name(full_name))
    if existing is None:
        deployment = None if server.dry_run else await _make(client, flow, declaration)
        server.note(KIND, name, Outcome.CREATED)
        return deployment
    if declaration.group and group_tag(declaration.group) not in existing.tags:
        raise InvalidInput(
            f"there is a deployment {full_name} already, and it isn't of the group {declaration.group}",
            hint="rename the mirror, or use the --group it was deployed with",
        )
    outcome, differences = compared(_differences(existing, declaration))
    if outcome is Outcome.UPDATED and not server.dry_run:
        await _make(client, flow, declaration)
        if WAITS in existing.tags and not declaration.waits:
            await client.resume_deployment(existing.id)
    server.note(KIND, name, outcome, differences)
    return existing.id


async def _make(client: PrefectClient, flow: Flow[..., Any], declaration: Declaration) -> UUID:
    """Creates it or changes it; one that a person paused stays so."""
    schedules = [DeploymentScheduleCreate(schedule=declaration.schedule)] if declaration.schedule else []
    collisions = _collisions(declaration)
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
        concurrency_options=ConcurrencyOptions(collision_strategy=collisions) if collisions else None,
        work_pool_name=declaration.work_pool,
        tags=declaration.tags,
        paused=True if declaration.waits else None,
    )


def _collisions(declaration: Declaration) -> ConcurrencyLimitStrategy | None:
    if declaration.places is None:
        return None
    return ConcurrencyLimitStrategy.ENQUEUE if declaration.queued else ConcurrencyLimitStrategy.CANCEL_NEW


def _differences(existing: DeploymentResponse, declaration: Declaration) -> Iterator[str]:
    limit, options = existing.global_concurrency_limit, existing.concurrency_options
    schedules = [schedule.schedule for schedule in existing.schedules]
    pairs: dict[str, tuple[object, object]] = {
        "description": (existing.description, declaration.description),
        "entrypoint": (existing.entrypoint, declaration.entrypoint),
        "pull steps": (existing.pull_steps or [], []),
        "job variables": (existing.job_variables, JOB_VARIABLES),
        "parameters": (existing.parameters, declaration.parameters),
        "form": (existing.parameter_openapi_schema, _form(declaration.entrypoint)),
        "enforcement of parameters": (existing.enforce_parameter_schema, True),
        "schedule": (schedules, [declaration.schedule] * bool(declaration.schedule)),
        "concurrency": (limit.limit if limit else None, declaration.places),
        "collisions": (options.collision_strategy if options else None, _collisions(declaration)),
        "work pool": (existing.work_pool_name, declaration.work_pool),
        "tags": (sorted(existing.tags), sorted(declaration.tags)),
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
