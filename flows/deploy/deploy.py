"""What the mirrors of one configuration ask of a Prefect server, put there: work pools, block types, limits that all
workers share, deployments, automations."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from uuid import UUID

from prefect.blocks.core import Block
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitUpdate, WorkPoolCreate
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError

import tasks.blocks
from flows.deploy.automations import parse_block, put_alarms, put_automation, put_trigger, remove_trigger
from flows.deploy.deployments import KIND, Change, Declaration, Outcome, declared, fleet, left_over, put, rescue
from flows.deploy.zombie_runs import zombie_automations
from oci.errors import InvalidInput, Refused, Unauthorized, Unavailable
from oci.meter import unheard
from oci.mirror.config import MirrorsConfig
from oci.registry.http.origin import canonical_host
from tasks.blocks import RegistryCredentials, S3Store, slug_and_name
from tasks.fleet.limits import limit_name


async def put_work_pool(
    client: PrefectClient,
    name: str,
    kind: str,
    *,
    like: str = "",
    template: Mapping[str, object] | None = None,
    dry_run: bool,
) -> Change:
    """One that exists is taken as it is, whatever its type. One that has to be made gets type and job template of the
    pool `like`, where that is there, else `template` or the default of its type. Raises InvalidInput for a type that
    the server doesn't know."""
    try:
        await client.read_work_pool(name)
    except ObjectNotFound:
        default = await _job_template(client, kind)
        jobs = dict(template or default)
        with suppress(ObjectNotFound):
            if like:
                model = await client.read_work_pool(like)
                kind, jobs = model.type, model.base_job_template
        if not dry_run:
            await client.create_work_pool(WorkPoolCreate(name=name, type=kind, base_job_template=jobs))
        return Change("work pool", name, Outcome.CREATED, kind)
    return Change("work pool", name, Outcome.UNCHANGED)


async def _job_template(client: PrefectClient, kind: str) -> dict[str, object]:
    """Returns the default of the type, as the server knows it."""
    for workers in (await client.read_worker_metadata()).values():
        if kind in workers:
            template: dict[str, object] = workers[kind]["default_base_job_configuration"]
            return template
    raise InvalidInput(
        f"the Prefect server knows no work pool of type {kind!r}",
        hint="make the pool yourself: prefect work-pool create --type TYPE --base-job-template FILE NAME",
    )


async def put_block_type(client: PrefectClient, block: type[Block], *, dry_run: bool) -> Change:
    """Registers a block type, so that the UI has the form for it."""
    name = block.get_block_type_name()
    try:
        kind = await client.read_block_type_by_slug(block.get_block_type_slug())
    except ObjectNotFound:
        outcome = Outcome.CREATED
    else:
        latest = await client.get_most_recent_block_schema_for_block_type(kind.id)
        same = latest is not None and latest.fields == block._to_block_schema(kind.id).fields  # noqa: SLF001
        outcome = Outcome.UNCHANGED if same else Outcome.UPDATED
    if outcome is not Outcome.UNCHANGED and not dry_run:
        await block.aregister_type_and_schema(client=client)
    return Change("block type", name, outcome)


async def find_block(client: PrefectClient, kind: type[Block], name: str) -> Change | None:
    """A login is made by a person; that it is missing is reported before a run fails for it."""
    slug, document = slug_and_name(name, kind)
    try:
        await client.read_block_document_by_name(document, slug, include_secrets=False)
    except ObjectNotFound:
        type_name = kind.get_block_type_name() if slug == kind.get_block_type_slug() else slug
        return Change("block", name, Outcome.MISSING, f"make it in the UI: Blocks, +, {type_name}")
    return None


async def put_limit(client: PrefectClient, host: str, number: int, *, prune: bool, dry_run: bool) -> Change | None:
    """`number` says how many images at a time the registry takes over all workers; 0 for any number, and then a limit
    that is there is removed by `prune` only: a person may have set it by hand."""
    name = limit_name(canonical_host(host))
    kind = "concurrency limit"
    try:
        existing = await client.read_global_concurrency_limit_by_name(name)
    except ObjectNotFound:
        if not number:
            return None
        if not dry_run:
            await client.upsert_global_concurrency_limit_by_name(name, number)
        return Change(kind, name, Outcome.CREATED, str(number))
    if not number:
        if not prune:
            return Change(kind, name, Outcome.KEPT, str(existing.limit))
        if not dry_run:
            await client.delete_global_concurrency_limit_by_name(name)
        return Change(kind, name, Outcome.REMOVED, str(existing.limit))
    if existing.limit == number:
        return Change(kind, name, Outcome.UNCHANGED, str(number))
    if not dry_run:
        await client.update_global_concurrency_limit(name, GlobalConcurrencyLimitUpdate(limit=number))
    return Change(kind, name, Outcome.UPDATED, f"{existing.limit} -> {number}")


_NOT_MADE = UUID(int=0)
"""Id that stands for a deployment which a dry run doesn't make."""


@dataclass(frozen=True, slots=True)
class DeployOptions:
    """Workers of `fleet_pool` take shards of large runs; empty where there is no fleet. Where the work pools have to be
    made, they are of `work_pool_type`, and that of the fleet like the other. `group` keeps several configurations on
    one server apart. `notify` names the block, TYPE/NAME, that is notified of failures and drift. `prune` removes what
    the group has left over; without it that is only reported."""

    work_pool: str = "transship"
    work_pool_type: str = "process"
    job_template: Mapping[str, object] | None = None
    """Base job template of a work pool that has to be made."""
    fleet_pool: str = ""
    group: str = "default"
    notify: str = ""
    prune: bool = False
    dry_run: bool = False


def deploy(
    config: MirrorsConfig, options: DeployOptions | None = None, *, on_change: Callable[[Change], None] = unheard
) -> None:
    """Makes the server of PREFECT_API_URL hold a deployment for each mirror and what belongs to it. Doing it again
    changes nothing. All mirrors are read before the first change; `on_change` is called with each that was made. Raises
    InvalidInput."""
    asyncio.run(_connected(config, options or DeployOptions(), on_change))


async def _connected(config: MirrorsConfig, options: DeployOptions, on_change: Callable[[Change], None]) -> None:
    if options.notify:
        parse_block(options.notify)
    declarations = [declaration for mirror in config.mirrors for declaration in declared(config, mirror)]
    try:
        async with get_client() as client:
            trouble = await client.api_healthcheck()
            if trouble is not None and not isinstance(trouble, PrefectHTTPStatusError):
                raise Unavailable(
                    f"can't be reached: {trouble}",
                    store=f"Prefect server {client.api_url}",
                    operation="deploying",
                    hint="is PREFECT_API_URL right, and the server running?",
                )
            await _deploy(client, config, declarations, options, on_change)
    except PrefectHTTPStatusError as error:
        status = error.response.status_code
        kind, hint = (Unauthorized, "set PREFECT_API_AUTH_STRING") if status == 401 else (Refused, "")
        raise kind(
            f"answered {status} to {error.request.method} {error.request.url.path}: {error.response.text[:300]}",
            store="Prefect server",
            operation="deploying",
            status=status,
            hint=hint,
        ) from error


async def _deploy(
    client: PrefectClient,
    config: MirrorsConfig,
    declarations: list[Declaration],
    options: DeployOptions,
    on_change: Callable[[Change], None],
) -> None:
    dry_run = options.dry_run
    type_of_pools, pool = options.work_pool_type, options.work_pool
    jobs = options.job_template
    on_change(await put_work_pool(client, pool, type_of_pools, template=jobs, dry_run=dry_run))
    if options.fleet_pool:
        on_change(
            await put_work_pool(client, options.fleet_pool, type_of_pools, like=pool, template=jobs, dry_run=dry_run)
        )
    for _, member in inspect.getmembers(tasks.blocks, inspect.isclass):
        if issubclass(member, Block) and member.__module__ == tasks.blocks.__name__:
            on_change(await put_block_type(client, member, dry_run=dry_run))
    registries = sorted({registry.credentials for registry in config.registries.values()} - {""})
    stores = sorted({bucket.s3_store for bucket in config.buckets.values()} - {""})
    logins: list[tuple[type[Block], str]] = [
        *((RegistryCredentials, name) for name in registries),
        *((S3Store, name) for name in stores),
    ]
    missing = [change for kind, name in logins if (change := await find_block(client, kind, name))]
    for change in missing:
        on_change(change)
    for host, registry in sorted(config.registries.items()):
        limit = await put_limit(client, host, registry.images_at_a_time, prune=options.prune, dry_run=dry_run)
        if limit is not None:
            on_change(limit)
    change, deployment = await put(client, replace(rescue(), work_pool=pool), dry_run=dry_run)
    on_change(change)
    for automation in zombie_automations(deployment or _NOT_MADE):
        on_change(await put_automation(client, automation, dry_run=dry_run))
    if options.notify:
        for change in await put_alarms(client, options.notify, options.group, dry_run=dry_run):
            on_change(change)
    for declaration in fleet() if options.fleet_pool else ():
        change, _ = await put(client, replace(declaration, work_pool=options.fleet_pool), dry_run=dry_run)
        on_change(change)
    lacking = frozenset(change.name for change in missing)
    for declaration in declarations:
        waits = bool(declaration.blocks & lacking)
        placed = replace(declaration, work_pool=pool, group=options.group, waits=waits)
        change, deployment = await put(client, placed, dry_run=dry_run)
        on_change(change)
        if declaration.trigger:
            on_change(await put_trigger(client, declaration, declaration.trigger, deployment, dry_run=dry_run))
    for existing in await left_over(client, options.group, [declaration.name for declaration in declarations]):
        if not options.prune:
            on_change(Change(KIND, existing.name, Outcome.KEPT, "no mirror has this name any more: --prune removes it"))
            continue
        for change in await remove_trigger(client, existing.name, dry_run=dry_run):
            on_change(change)
        if not dry_run:
            await client.delete_deployment(existing.id)  # the runs it had stay in the history
        on_change(Change(KIND, existing.name, Outcome.REMOVED))
