"""Relocating a bundle, an image, what a lock lists or an archive: resolve, fetch, push, publish, verify, report."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import cast

from prefect import flow
from prefect.runtime import flow_run

from flows.ending import failed, run_alone
from flows.names import host_or_folder, short_source
from flows.parameters import RelocateParameters, ShardParameters, SourceKind, Verify
from flows.tarball import write_out
from flows.transfer import push_all, the_one
from oci.errors import Incomplete, TransshipError
from oci.reference import parse_store
from tasks.fetch import fetch_referenced_images
from tasks.progress import progress_shown
from tasks.publish import publish
from tasks.relocation import Relocation, opened
from tasks.relocation_report import RelocationIncomplete, RelocationReport
from tasks.report import report
from tasks.resolve import resolve_bundle
from tasks.shards import shared_out, transfer_on_fleet
from tasks.verify import verify


def run_name() -> str:
    """`shop-bundle 1.4.0 -> registry.corp.example`"""
    parameters = RelocateParameters.model_validate(flow_run.parameters["parameters"])
    destination = parse_store(parameters.destination)
    return f"{_short_source(parameters)} -> {host_or_folder(destination)}"


@flow(name="relocate", flow_run_name=run_name)
async def relocate(parameters: RelocateParameters) -> RelocationReport:
    """Copies images from registry to registry, every byte as it is, and names nothing until all of it has arrived. A
    source, a destination or both may be an archive.

    Raises RelocationIncomplete when images failed; the others are in place and are not sent again next time. Any other
    TransshipError is what ended the run early. Either way the report artifact and the event are written first.
    """
    if parameters.archive:
        return await _into_archive(parameters)
    async with opened(parameters.order()) as relocation:
        destination = parameters.destination
        with relocation.noting_failure():
            source = await resolve_bundle(parameters.kind.value, parameters.source)
            await fetch_referenced_images(source)
            await _transfer(relocation, parameters)
            relocation.check_complete()
            await publish(destination)
            if parameters.verify is not Verify.NONE:
                await verify(destination, deep=parameters.verify is Verify.DEEP)
        written = await report(destination)
        if relocation.error is not None:
            return _failed(relocation.error, written)
        return written


async def _into_archive(parameters: RelocateParameters) -> RelocationReport:
    work, told = await write_out(parameters)
    written = told.relocation(work)
    return written if work.error is None else _failed(work.error, written)


def _failed(error: TransshipError, written: RelocationReport) -> RelocationReport:
    if isinstance(error, Incomplete):
        error = RelocationIncomplete(written, error)
    return cast(RelocationReport, failed(error))


async def _transfer(relocation: Relocation, parameters: RelocateParameters) -> None:
    """Here, or where the fleet is large enough to be worth it: there, but for what only this run may write."""
    options = parameters.fleet
    shares = options and shared_out(relocation, count=options.shards, shard_bytes=options.shard_mebibytes * 1024 * 1024)
    try:
        async with progress_shown(relocation, _as_asked(relocation)), asyncio.TaskGroup() as group:
            group.create_task(push_all(relocation, shares.keep if shares else relocation.planned))
            if options and shares:
                group.create_task(
                    transfer_on_fleet(
                        relocation,
                        shares.shards,
                        options.fleet(),
                        partial(ShardParameters.sent, parameters),
                        trusting=not parameters.repair,
                    )
                )
    except BaseExceptionGroup as group_of_errors:
        raise the_one(group_of_errors) from None


def _as_asked(relocation: Relocation) -> str:
    """The source as it was asked for: a digest is wider than the page."""
    return relocation.source.reference if relocation.source else relocation.planned.source


def relocate_sync(parameters: RelocateParameters) -> RelocationReport:
    """`relocate` for programs without an event loop. Raises InvalidInput where one runs: await `relocate` there."""
    return run_alone(relocate, parameters)


def _short_source(parameters: RelocateParameters) -> str:
    return short_source(parameters.source, is_file=parameters.kind in (SourceKind.LOCK, SourceKind.ARCHIVE))
