"""What the mirrors of one configuration ask of a Prefect server, put there: work pools, block types, limits that all
workers share, deployments, automations."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from uuid import UUID

from prefect.blocks.core import Block
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitUpdate, WorkPoolCreate
from prefect.exceptions import PrefectHTTPStatusError

import tasks.blocks
from flows.deploy.automations import parse_block, put_alarms, put_automation, put_trigger, remove_trigger
from flows.deploy.deployments import (
    FLEET,
    KIND,
    RESCUE,
    Change,
    Declaration,
    Outcome,
    Server,
    declared,
    left_over,
    or_none,
    put,
)
from flows.deploy.zombie_runs import zombie_automations
from oci.errors import InvalidInput, Refused, Unauthorized, Unavailable
from oci.meter import unheard
from oci.mirror.config import MirrorsConfig
from oci.registry.http.origin import canonical_host
from tasks.blocks import RegistryCredentials, S3Store, slug_and_name
from tasks.fleet.limits import limit_name


async def put_work_pool(
    server: Server, name: str, kind: str, *, like: str = "", template: Mapping[str, object] | None = None
) -> None:
    """One that exists is taken as it is, whatever its type. One that has to be made gets type and job template of the
    pool `like`, where that is there, else `template` or the default of its type. Raises InvalidInput for a type that
    the server doesn't know."""
    client = server.client
    if await or_none(client.read_work_pool(name)):
        server.note("work pool", name, Outcome.UNCHANGED)
        return
    default = await _job_template(client, kind)
    jobs = dict(template or default)
    if like and (model := await or_none(client.read_work_pool(like))):
        kind, jobs = model.type, model.base_job_template
    if not server.dry_run:
        await client.create_work_pool(WorkPoolCreate(name=name, type=kind, base_job_template=jobs))
    server.note("work pool", name, Outcome.CREATED, kind)


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


async def put_block_type(server: Server, block: type[Block]) -> None:
    """Registers a block type, so that the UI has the form for it."""
    outcome = Outcome.CREATED
    if kind := await or_none(server.client.read_block_type_by_slug(block.get_block_type_slug())):
        latest = await server.client.get_most_recent_block_schema_for_block_type(kind.id)
        same = latest is not None and latest.fields == block._to_block_schema(kind.id).fields  # noqa: SLF001
        outcome = Outcome.UNCHANGED if same else Outcome.UPDATED
    if outcome is not Outcome.UNCHANGED and not server.dry_run:
        await block.aregister_type_and_schema(client=server.client)
    server.note("block type", block.get_block_type_name(), outcome)


async def has_block(server: Server, kind: type[Block], name: str) -> bool:
    """A login is made by a person; that it is missing is reported before a run fails for it."""
    slug, document = slug_and_name(name, kind)
    if await or_none(server.client.read_block_document_by_name(document, slug, include_secrets=False)):
        return True
    type_name = kind.get_block_type_name() if slug == kind.get_block_type_slug() else slug
    server.note("block", name, Outcome.MISSING, f"make it in the UI: Blocks, +, {type_name}")
    return False


async def put_limit(server: Server, host: str, number: int, *, prune: bool) -> None:
    """`number` says how many images at a time the registry takes over all workers; 0 for any number, and then a limit
    that is there is removed by `prune` only: a person may have set it by hand."""
    client, name = server.client, limit_name(canonical_host(host))
    existing = await or_none(client.read_global_concurrency_limit_by_name(name))
    if existing is None and not number:
        return
    if existing is None:
        outcome, detail = Outcome.CREATED, str(number)
    elif not number:
        outcome, detail = Outcome.REMOVED if prune else Outcome.KEPT, str(existing.limit)
    elif existing.limit != number:
        outcome, detail = Outcome.UPDATED, f"{existing.limit} -> {number}"
    else:
        outcome, detail = Outcome.UNCHANGED, str(number)
    if not server.dry_run:
        if outcome is Outcome.CREATED:
            await client.upsert_global_concurrency_limit_by_name(name, number)
        elif outcome is Outcome.REMOVED:
            await client.delete_global_concurrency_limit_by_name(name)
        elif outcome is Outcome.UPDATED:
            await client.update_global_concurrency_limit(name, GlobalConcurrencyLimitUpdate(limit=number))
    server.note("concurrency limit", name, outcome, detail)


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
            await _deploy(Server(client, options.dry_run, on_change), config, declarations, options)
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
    server: Server, config: MirrorsConfig, declarations: list[Declaration], options: DeployOptions
) -> None:
    kind, pool, jobs = options.work_pool_type, options.work_pool, options.job_template
    await put_work_pool(server, pool, kind, template=jobs)
    if options.fleet_pool:
        await put_work_pool(server, options.fleet_pool, kind, like=pool, template=jobs)
    for _, member in inspect.getmembers(tasks.blocks, inspect.isclass):
        if issubclass(member, Block) and member.__module__ == tasks.blocks.__name__:
            await put_block_type(server, member)
    stores = sorted({bucket.s3_store for bucket in config.buckets.values()} - {""})
    missing = {name for name in sorted(config.credentials) if not await has_block(server, RegistryCredentials, name)}
    missing |= {name for name in stores if not await has_block(server, S3Store, name)}
    for host, registry in sorted(config.registries.items()):
        await put_limit(server, host, registry.images_at_a_time, prune=options.prune)
    deployment = await put(server, replace(RESCUE, work_pool=pool))
    for automation in zombie_automations(deployment or _NOT_MADE):
        await put_automation(server, automation)
    if options.notify:
        await put_alarms(server, options.notify, options.group)
    for declaration in FLEET if options.fleet_pool else ():
        await put(server, replace(declaration, work_pool=options.fleet_pool))
    for declaration in declarations:
        waits = bool(declaration.blocks & missing)
        deployment = await put(server, replace(declaration, work_pool=pool, group=options.group, waits=waits))
        if declaration.trigger:
            await put_trigger(server, declaration, declaration.trigger, deployment)
    for existing in await left_over(server.client, options.group, [declaration.name for declaration in declarations]):
        if not options.prune:
            server.note(KIND, existing.name, Outcome.KEPT, "no mirror has this name any more: --prune removes it")
            continue
        await remove_trigger(server, existing.name)
        if not server.dry_run:
            await server.client.delete_deployment(existing.id)  # the runs it had stay in the history
        server.note(KIND, existing.name, Outcome.REMOVED)
