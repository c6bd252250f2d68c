"""A group of parts of an archive, written for the run that has planned all of it."""

from __future__ import annotations

from prefect import flow

from flows.ending import or_failed
from flows.parameters.parts import PartsParameters
from flows.tarball import plan_out
from tasks.account import account_kept
from tasks.parts import PartsAccount
from tasks.report import artifact_key
from tasks.tarball import exporting, write_tarball


@flow(name="write-archive-parts")
async def write_archive_parts(parameters: PartsParameters) -> None:
    """Writes a group of parts into the upload that another run has begun, after coming to the same plan by itself.

    May be repeated: what is in place isn't written again.
    """
    async with exporting(parameters.order()) as work:
        key = artifact_key("parts", parameters.relocation.archive)
        async with account_kept(key, lambda: PartsAccount.of(work)):
            return await or_failed(_write_group(parameters))


async def _write_group(parameters: PartsParameters) -> None:
    await plan_out(parameters.relocation)
    await write_tarball(parameters.relocation.archive, parameters.volume, parameters.parts)
