"""Everything that the mirrors of one configuration ask of a Prefect server, put there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from uuid import UUID

from prefect.blocks.core import Block
from prefect.client.orchestration import PrefectClient, get_client
from prefect.exceptions import PrefectHTTPStatusError

from flows.deploy.automations import parse_block, put_alarms, put_automation, put_trigger, remove_trigger
from flows.deploy.declaration import Change, DeclaredMirror, Outcome, declared, fleet, rescue
from flows.deploy.deployments import KIND, Deployed, left_over, put, remove
from flows.deploy.infrastructure import block_types, find_block, put_block_type, put_limits, put_work_pool
from flows.deploy.zombie_runs import zombie_automations
from oci.errors import Refused, StoreError, Unauthorized, Unavailable
from oci.meter import unheard
from oci.mirror.config import MirrorsConfig
from tasks.blocks import RegistryCredentials, S3Store

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
    """`adeploy` for programs without an event loop; `on_change` is called with each change when it is done."""

    async def run() -> None:
        async for change in adeploy(config, options):
            on_change(change)

    asyncio.run(run())


async def adeploy(config: MirrorsConfig, options: DeployOptions | None = None) -> AsyncIterator[Change]:
    """Makes the server of PREFECT_API_URL hold a deployment for each mirror and what belongs to it. Doing it again
    changes nothing. All mirrors are read before the first change. Raises InvalidInput."""
    options = options or DeployOptions()
    if options.notify:
        parse_block(options.notify)
    mirrors = [declared(config, mirror) for mirror in config.mirrors]
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
            async for change in _deploy(client, config, mirrors, options):
                yield change
    except PrefectHTTPStatusError as error:
        raise _refused(error) from error


def _refused(error: PrefectHTTPStatusError) -> StoreError:
    status = error.response.status_code
    kind, hint = (Unauthorized, "set PREFECT_API_AUTH_STRING") if status == 401 else (Refused, "")
    return kind(
        f"answered {status} to {error.request.method} {error.request.url.path}: {error.response.text[:300]}",
        store="Prefect server",
        operation="deploying",
        status=status,
        hint=hint,
    )


async def _deploy(
    client: PrefectClient, config: MirrorsConfig, mirrors: list[DeclaredMirror], options: DeployOptions
) -> AsyncIterator[Change]:
    dry_run = options.dry_run
    type_of_pools, pool = options.work_pool_type, options.work_pool
    jobs = options.job_template
    yield await put_work_pool(client, pool, type_of_pools, template=jobs, dry_run=dry_run)
    if options.fleet_pool:
        yield await put_work_pool(client, options.fleet_pool, type_of_pools, like=pool, template=jobs, dry_run=dry_run)
    for block in block_types():
        yield await put_block_type(client, block, dry_run=dry_run)
    missing = [change for kind, name in _logins(config) if (change := await find_block(client, kind, name))]
    for change in missing:
        yield change
    limits = {host: registry.images_at_a_time for host, registry in config.registries.items()}
    for change in await put_limits(client, limits, prune=options.prune, dry_run=dry_run):
        yield change
    change, deployment = await put(client, Deployed(rescue(), pool), dry_run=dry_run)
    yield change
    for automation in zombie_automations(deployment or _NOT_MADE):
        yield await put_automation(client, automation, dry_run=dry_run)
    if options.notify:
        for change in await put_alarms(client, options.notify, options.group, dry_run=dry_run):
            yield change
    for declaration in fleet() if options.fleet_pool else ():
        change, _ = await put(client, Deployed(declaration, options.fleet_pool), dry_run=dry_run)
        yield change
    for declared_mirror in mirrors:
        async for change in _deploy_mirror(
            client, declared_mirror, options, missing=frozenset(change.name for change in missing)
        ):
            yield change
    async for change in _left_over(client, mirrors, options):
        yield change


def _logins(config: MirrorsConfig) -> list[tuple[type[Block], str]]:
    """The blocks that runs of the mirrors will ask for."""
    registries = sorted({registry.credentials for registry in config.registries.values()} - {""})
    stores = sorted({bucket.s3_store for bucket in config.buckets.values()} - {""})
    return [*((RegistryCredentials, name) for name in registries), *((S3Store, name) for name in stores)]


async def _deploy_mirror(
    client: PrefectClient, asked_for: DeclaredMirror, options: DeployOptions, *, missing: frozenset[str]
) -> AsyncIterator[Change]:
    for declaration in asked_for.deployments:
        deployed = Deployed(declaration, options.work_pool, options.group, waits=bool(asked_for.blocks & missing))
        change, deployment = await put(client, deployed, dry_run=options.dry_run)
        yield change
        if asked_for.trigger and declaration is asked_for.on_push:
            yield await put_trigger(client, declaration, asked_for.trigger, deployment, dry_run=options.dry_run)


async def _left_over(
    client: PrefectClient, mirrors: list[DeclaredMirror], options: DeployOptions
) -> AsyncIterator[Change]:
    names = [declaration.name for asked_for in mirrors for declaration in asked_for.deployments]
    for deployment in await left_over(client, options.group, names):
        if not options.prune:
            yield Change(KIND, deployment.name, Outcome.KEPT, "no mirror has this name any more: --prune removes it")
            continue
        for change in await remove_trigger(client, deployment.name, dry_run=options.dry_run):
            yield change
        yield await remove(client, deployment, dry_run=options.dry_run)
