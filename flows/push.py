"""Pushing files as a bundle or as a plain image."""

from __future__ import annotations

from prefect import flow
from prefect.runtime import flow_run

from flows.names import place, short
from flows.parameters.forms import flat
from flows.parameters.push import PushParameters
from flows.results import or_failed, run_alone
from oci.bundle.results import PushReport
from tasks.access import OneSided
from tasks.files import push_files
from tasks.run import running


def run_name() -> str:
    """`push config 1.4.0 -> registry.example`"""
    destination = PushParameters.read(flow_run.parameters).request().destination
    return f"push {short(destination)} -> {place(destination.repository)}"


@flow(name="push", flow_run_name=run_name, persist_result=False)
@flat
async def push(parameters: PushParameters) -> PushReport:
    """Packs files of the worker into one layer and pushes it. The same files give the same digest everywhere.

    Raises a TransshipError when they can't be packed or pushed; then the name wasn't moved.
    """
    async with running(OneSided(parameters.side(), "destination")):
        return await or_failed(_push(parameters))


async def _push(parameters: PushParameters) -> PushReport:
    lock_output, to_tar = parameters.lock_output, parameters.to_tar
    return await push_files(parameters.request(), parameters.destination, lock_output, to_tar)


def push_sync(parameters: PushParameters) -> PushReport:
    """`push` for programs without an event loop. Raises InvalidInput where one runs: await `push` there."""
    return run_alone(push, parameters)
