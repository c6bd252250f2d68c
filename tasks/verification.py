"""Verifying what is somewhere, whoever has put it there."""

from __future__ import annotations

from collections.abc import Iterator

from prefect import task
from prefect.artifacts import acreate_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.events import emit_event
from prefect.logging import get_run_logger
from pydantic import BaseModel, computed_field

from oci.reference import parse_store
from oci.relocation.verify import verify_names
from oci.units import counted, show_size
from tasks.page import table
from tasks.report import artifact_key
from tasks.retries import DELAYS, RETRIES, worth_retrying
from tasks.visit import visited

FINISHED = "transship.verify.finished"
FAILED = "transship.verify.failed"

_SHOWN = 500
"""Problems on the page; the value has all."""

_EVENT_PROBLEMS = 100
"""Problems that travel in the event: one has a size limit."""


class VerifiedPlace(BaseModel):
    """One repository or layout folder; sizes in bytes."""

    place: str
    names: list[str] = []
    """Tags and digests; empty for all tags."""
    manifests: int = 0
    blobs: int = 0
    bytes_hashed: int = 0
    problems: list[str] = []


class VerificationReport(BaseModel):
    """The receipt of one flow run."""

    deep: bool
    places: list[VerifiedPlace]
    requests: int = 0
    seconds: float = 0.0

    @computed_field  # type: ignore[prop-decorator]
    @property
    def complete(self) -> bool:
        return not self.problems

    @property
    def problems(self) -> list[str]:
        return [problem for place in self.places for problem in place.problems]

    def __str__(self) -> str:
        manifests, blobs, hashed = (sum(getattr(one, what) for one in self.places) for what in _COUNTED)
        what = f"{counted(manifests, 'manifest')}, {counted(blobs, 'blob')}, {show_size(hashed)} hashed"
        verdict = "complete" if self.complete else counted(len(self.problems), "problem")
        return f"{verdict}: {what}, {counted(self.requests, 'request')}"

    def to_markdown(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield f"**{'Complete' if self.complete else counted(len(self.problems), 'problem')}.**"
        yield ""
        yield from table(
            ("Place", "Names", "Manifests", "Blobs", "Hashed", "Problems"),
            (
                (
                    one.place,
                    ", ".join(one.names) or "all tags",
                    str(one.manifests),
                    str(one.blobs),
                    show_size(one.bytes_hashed),
                    str(len(one.problems)),
                )
                for one in self.places
            ),
        )
        if self.problems:
            yield from table(("Problem",), ((problem,) for problem in self.problems[:_SHOWN]))


_COUNTED = ("manifests", "blobs", "bytes_hashed")


@task(
    name="verify place",
    task_run_name="verify {place}",
    retries=RETRIES,
    retry_delay_seconds=DELAYS,
    retry_condition_fn=worth_retrying,
    cache_policy=NO_CACHE,
)
async def verify_place(place: str, names: list[str], *, deep: bool) -> VerifiedPlace:
    """What `names` stand for in one repository or layout folder, or everything with a tag. Problems are part of the
    result; an error means that nothing could be looked at."""
    visit = visited()
    found = await visit.in_thread(verify_names, await visit.session(), parse_store(place), names, deep=deep)
    return VerifiedPlace(
        place=place,
        names=names,
        manifests=found.manifests,
        blobs=found.blobs,
        bytes_hashed=found.bytes_hashed,
        problems=list(found.problems),
    )


@task(name="report verification", cache_policy=NO_CACHE)
async def report_verification(places: list[VerifiedPlace], *, deep: bool) -> VerificationReport:
    """Writes the report artifact and emits `transship.verify.finished` or `.failed`, with the report as payload."""
    receipt = visited().meter.receipt()
    report = VerificationReport(
        deep=deep, places=places, requests=receipt.total_requests, seconds=round(receipt.seconds, 3)
    )
    first = places[0].place
    await acreate_markdown_artifact(
        key=artifact_key("verify", first), markdown=report.to_markdown(), description=str(report)
    )
    payload = report.model_dump(mode="json")
    for place in payload["places"]:
        place["problems"] = place["problems"][:_EVENT_PROBLEMS]
    emit_event(
        event=FINISHED if report.complete else FAILED,
        resource={"prefect.resource.id": f"transship.verify.{first}", "prefect.resource.name": first},
        payload=payload,
    )
    log = get_run_logger().info if report.complete else get_run_logger().error
    log("%s", report)
    return report
