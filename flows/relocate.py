"""Relocating a bundle, an image or what a lock lists: resolve, fetch, push, publish, verify, report."""

from __future__ import annotations

import asyncio
from typing import cast

from prefect import flow
from prefect.runtime import flow_run

from flows.ending import failed, run_alone
from flows.names import host_or_folder, short_source
from flows.parameters import RelocateParameters, SourceKind, Verify
from oci.errors import Cancelled, Incomplete, TransshipError
from oci.reference import parse_store
from tasks.fetch import fetch_referenced_images
from tasks.progress import progress_shown
from tasks.publish import publish
from tasks.push import batches, push_to_target_registry
from tasks.relocation import Relocation, opened
from tasks.relocation_report import RelocationIncomplete, RelocationReport
from tasks.report import report
from tasks.resolve import resolve_bundle
from tasks.verify import verify


def run_name() -> str:
    """`shop-bundle 1.4.0 -> registry.corp.example`"""
    parameters = RelocateParameters.model_validate(flow_run.parameters["parameters"])
    destination = parse_store(parameters.destination)
    return f"{_short_source(parameters)} -> {host_or_folder(destination)}"


@flow(name="relocate", flow_run_name=run_name)
async def relocate(parameters: RelocateParameters) -> RelocationReport:
    """Copies images from registry to registry, every byte as it is, and names nothing until all of it has arrived.

    Raises RelocationIncomplete when images failed; the others are in place and are not sent again next time. Any other
    TransshipError is what ended the run early. Either way the report artifact and the event are written first.
    """
    async with opened(parameters.order()) as relocation:
        destination = parameters.destination
        with relocation.noting_failure():
            source = await resolve_bundle(parameters.kind.value, parameters.source)
            await fetch_referenced_images(source)
            await _push_all(relocation)
            relocation.check_complete()
            await publish(destination)
            if parameters.verify is not Verify.NONE:
                await verify(destination, deep=parameters.verify is Verify.DEEP)
        written = await report(destination)
        if relocation.error is not None:
            return _failed(relocation.error, written)
        return written


def _failed(error: TransshipError, written: RelocationReport) -> RelocationReport:
    if isinstance(error, Incomplete):
        error = RelocationIncomplete(written, error)
    return cast(RelocationReport, failed(error))


async def _push_all(relocation: Relocation) -> None:
    """Some images at a time. One that fails doesn't stop the others: its outcome is kept in the relocation."""
    slots = asyncio.Semaphore(relocation.width)
    plan = relocation.planned

    async def push(images: list[str]) -> None:
        async with slots:
            try:
                await push_to_target_registry(images, plan.destination)
            except Cancelled:
                raise
            except TransshipError:
                return

    try:
        async with progress_shown(relocation), asyncio.TaskGroup() as group:
            for images in batches(plan):
                group.create_task(push(images))
    except BaseExceptionGroup as group_of_errors:
        raise _the_one(group_of_errors) from None


def _the_one(error: BaseException) -> BaseException:
    """Out of exception groups, what Prefect has to see: its signal to end this run before any other error."""
    while isinstance(error, BaseExceptionGroup):
        error = min(error.exceptions, key=lambda inner: isinstance(inner, Exception))
    return error


def relocate_sync(parameters: RelocateParameters) -> RelocationReport:
    """`relocate` for programs without an event loop. Raises InvalidInput where one runs: await `relocate` there."""
    return run_alone(relocate, parameters)


def _short_source(parameters: RelocateParameters) -> str:
    return short_source(parameters.source, is_file=parameters.kind is SourceKind.LOCK)
