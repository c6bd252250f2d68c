"""A group of parts of an archive, written for the run that has planned all of it."""

from __future__ import annotations

from prefect import flow

from flows.parameters.forms import flat
from flows.parameters.parts import PartsParameters
from flows.results import or_failed
from flows.tarball import plan_out
from tasks.archive import ExportRun, PartsAccount, write_tarball
from tasks.heartbeat import heartbeats
from tasks.report import artifact_key
from tasks.run import running


@flow(name="write-archive-parts", persist_result=False)
@flat
async def write_archive_parts(parameters: PartsParameters) -> None:
    """Writes a group of parts into the upload that another run has begun, after coming to the same plan by itself.

    May be repeated: what is in place isn't written again.
    """
    async with running(ExportRun(parameters.order())) as work:
        key = artifact_key("parts", parameters.relocation.archive)
        async with heartbeats(key, lambda: PartsAccount.of(work)):
            return await or_failed(_write_group(parameters))


async def _write_group(parameters: PartsParameters) -> None:
    await plan_out(parameters.relocation)
    await write_tarball(parameters.relocation.archive, parameters.volume, list(parameters.parts))
