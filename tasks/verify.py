"""Verifying what is somewhere, by whatever means it came to be there."""

from __future__ import annotations

from prefect import task
from prefect.logging import get_run_logger

from oci.reference import parse_store
from oci.relocation.report import VerificationReport, VerifiedPlace
from oci.relocation.verify import verify_names
from tasks.pages import verification_page
from tasks.report import EVENT_NAMES, emit, write_page
from tasks.retries import ONCE, REPEATABLE
from tasks.run import Run, current


@task(name="verify place", task_run_name="verify {place}", **REPEATABLE)
async def verify_place(place: str, names: list[str], *, deep: bool) -> VerifiedPlace:
    """What `names` stand for in one repository or layout folder, or everything with a tag. Problems are part of the
    result; an error means that nothing could be looked at."""
    run = current(Run)
    found = await run.in_thread(verify_names, await run.session(), parse_store(place), names, deep=deep)
    return VerifiedPlace.of(place, names, found)


@task(name="report verification", **ONCE)
async def report_verification(places: list[VerifiedPlace], *, deep: bool) -> VerificationReport:
    """Writes the report artifact and emits `transship.verify.finished` or `.failed`, with the report as payload."""
    receipt = current(Run).receipt()
    report = VerificationReport(
        deep=deep, places=places, requests=receipt.total_requests, seconds=round(receipt.seconds, 3)
    )
    first = places[0].place
    await write_page("verify", first, verification_page(report), str(report))
    payload = report.to_dict()
    for place in payload["places"]:
        place["problems"] = place["problems"][:EVENT_NAMES]
    emit(f"transship.verify.{'finished' if report.complete else 'failed'}", first, payload)
    log = get_run_logger().info if report.complete else get_run_logger().error
    log("%s", report)
    return report
