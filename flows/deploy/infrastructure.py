"""What deployments need around them: the work pool, block types, and limits that all workers share."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping

from prefect.blocks.core import Block
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import GlobalConcurrencyLimitUpdate, WorkPoolCreate
from prefect.exceptions import ObjectNotFound

import tasks.blocks
from flows.deploy.declaration import Change, Outcome
from oci.errors import InvalidInput
from oci.registry.http.origin import canonical_host
from tasks.blocks import slug_and_name
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
        kind, jobs = await _model(client, like) or (kind, dict(template or default))
        if not dry_run:
            await client.create_work_pool(WorkPoolCreate(name=name, type=kind, base_job_template=jobs))
        return Change("work pool", name, Outcome.CREATED, kind)
    return Change("work pool", name, Outcome.UNCHANGED)


async def _model(client: PrefectClient, name: str) -> tuple[str, dict[str, object]] | None:
    try:
        pool = await client.read_work_pool(name) if name else None
    except ObjectNotFound:
        return None
    return (pool.type, pool.base_job_template) if pool else None


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


def block_types() -> Iterator[type[Block]]:
    for _, member in inspect.getmembers(tasks.blocks, inspect.isclass):
        if issubclass(member, Block) and member.__module__ == tasks.blocks.__name__:
            yield member


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


async def put_limits(client: PrefectClient, limits: Mapping[str, int], *, prune: bool, dry_run: bool) -> list[Change]:
    """`limits` says how many images at a time each registry takes over all workers; 0 for any number, and then a limit
    that is there is removed by `prune` only: a person may have set it by hand."""
    return [
        change
        for host, number in sorted(limits.items())
        for change in [await _put_limit(client, limit_name(canonical_host(host)), number, prune=prune, dry_run=dry_run)]
        if change
    ]


async def _put_limit(client: PrefectClient, name: str, number: int, *, prune: bool, dry_run: bool) -> Change | None:
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
