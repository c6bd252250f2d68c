"""The parts of one archive on several machines: what a run that writes some of them tells, and how its parent waits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any
from uuid import UUID

from pydantic import BaseModel

from oci.errors import Incomplete, StoreError
from oci.export.assembly import WriteReport
from oci.export.plan import Group
from oci.meter import Receipt
from tasks.archive import ExportRun
from tasks.fleet import End, Fleet, Job, run_on_fleet
from tasks.heartbeat import Heartbeat

GroupParameters = Callable[[Group], Mapping[str, Any]]
"""Makes the parameters of the flow run that is to write a group of parts."""


class PartsAccount(BaseModel):
    """What has become of a group of parts so far, and what that has cost."""

    stored: int = 0
    written: list[WriteReport] = []
    receipt: Receipt = Receipt()

    @classmethod
    def of(cls, export: ExportRun) -> dict[str, Any]:
        return {
            "stored": export.bytes_stored,
            "written": [asdict(one) for one in export.written],
            "receipt": asdict(export.receipt()),
        }


async def write_on_fleet(
    export: ExportRun, location: str, groups: Sequence[Group], fleet: Fleet, parameters: GroupParameters
) -> None:
    """Has every group written by the fleet, into the upload that the export has begun. A group whose run was lost is
    sent again, and only what is missing of it is written. Raises Incomplete when a group failed; what is stored stays.
    """

    def noted(run: UUID, account: Heartbeat) -> None:
        told = PartsAccount.model_validate(account.body)
        export.elsewhere[str(run)] = told.receipt
        export.stored_elsewhere[str(run)] = told.stored

    jobs = [
        Job(name=f"{location}, group {number} of {len(groups)}", parameters=parameters(group))
        for number, group in enumerate(groups, 1)
    ]
    ends = await run_on_fleet(jobs, fleet, on_account=noted)
    failures = [
        StoreError(end.message, side="destination", store=location, subject=job.name, retryable=True)
        for job, end in zip(jobs, ends, strict=True)
        if end.end is not End.COMPLETED
    ]
    if failures:
        raise Incomplete(
            f"{len(failures)} of {len(groups)} groups of parts failed; the first: {failures[0].message}",
            failures,
            some_done=len(failures) < len(groups),
            hint="run it again: what is stored isn't sent again",
        )
    for end in ends:
        export.written.extend(PartsAccount.model_validate(end.account.body).written)
