"""The steps of a relocation as tasks: resolve, plan, one task for each image, publish, verify."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from msgspec.structs import replace
from prefect import task
from prefect.logging import get_run_logger
from pydantic import BaseModel

from oci.digest import Digest, parse_digest
from oci.errors import Incomplete, PartFailed, TransshipError, cause_and_step
from oci.meter import RunMetrics, export_metrics, unheard
from oci.registry.options import DEFAULT_CONCURRENCY
from oci.relocation.driver import Relocation, RelocationResult, Step, Verify
from oci.relocation.plan import Plan
from oci.relocation.planner import OnNode
from oci.relocation.report import ImageFailure, RelocationReport, report_of, short_subject
from oci.relocation.request import RelocationRequest
from oci.relocation.session import Session
from oci.relocation.transfer import DONE, ImageOutcome, transfer_image
from oci.store import found_manifest
from oci.units import counted, percent, show_size
from tasks.artifacts.history import OtherLine, keep_overview
from tasks.artifacts.markdown import in_forms, with_short_digests
from tasks.artifacts.pages import relocation_page
from tasks.artifacts.report import REFUSED, artifact_key, emit, percent_shown, write_page, write_table
from tasks.fleet.limits import limits_of
from tasks.run import ONCE, REPEATABLE, Run, Side, current, remembered


class Resolution(BaseModel):
    """What a source reference turned out to be; nothing before it is resolved. For a lock or an archive, which pins its
    images itself, there is no digest."""

    what: str = ""
    """"bundle", "image", "index", "lock" or "archive"."""
    reference: str = ""
    """As it was asked for, in canonical form."""
    pinned: str = ""
    """The same by digest; a lock or an archive as it is."""
    digest: str = ""
    tag: str = ""
    """The tag that the source carries, and passes on unless other tags are asked for."""


class RelocationRun(Run):
    """A relocation being carried out for a flow: the driver, which has all that was done, and what only a flow knows.
    A part of a relocation gets its plan bit by bit, and has no request."""

    def __init__(
        self,
        request: RelocationRequest | None = None,
        *,
        source: Side | None = None,
        destination: Side | None = None,
        concurrency: int = DEFAULT_CONCURRENCY,
        verify: Verify = Verify.NONE,
    ) -> None:
        super().__init__(concurrency, {"source": source or Side(), "destination": destination or Side()})
        self.relocation = Relocation(None, request, verify=verify)
        self.on_node: OnNode = unheard
        """Sees what planning finds."""
        self.source = Resolution()
        self.fleet = ""
        """What was decided about helpers, in words."""

    async def _open(self) -> Session:
        session = await super()._open()
        self.relocation.open(session)
        return session

    @property
    def destination(self) -> str:
        return str(self.relocation.request.destination)

    def pin(self, source: Resolution) -> None:
        """Makes the relocation work on the resolved content and nothing else."""
        self.source = source
        if source.digest:
            request = self.relocation.request
            tags = request.tags or ((source.tag,) if source.tag else ())
            kind = "bundle" if request.bundle else "image"
            self.relocation.whole_request = request.with_(**{kind: source.pinned}, tags=tags, asked_tag=source.tag)

    async def transfer(self, digest: Digest) -> ImageOutcome:
        """Brings one image to the destination, unless that is done. Raises what stopped it; the outcome says so."""
        outcome = self.relocation.outcomes.get(digest)
        if outcome is not None and outcome.status == DONE:
            return outcome
        await self.session()
        async with self.slots.slot():
            return await self.in_thread(self.relocation.transfer, digest)

    async def take(self, step: Step) -> None:
        await self.session()
        await self.in_thread(self.relocation.take, step)

    def result(self) -> RelocationResult:
        """Returns what was done, here and elsewhere."""
        return replace(self.relocation.result(), receipt=self.receipt())

    def report(self) -> RelocationReport:
        source = self.source
        named = {"source": source.reference, "what": source.what, "digest": source.digest}
        return report_of(self.relocation, self.receipt(), **named, fleet=self.fleet)


@task(name="resolve bundle", task_run_name="resolve {kind} {source}", **REPEATABLE)
async def resolve_bundle(kind: str, source: str) -> Resolution:
    """Asks the source, by one HEAD, for the digest of `source`. `kind` is "bundle", "image", "lock" or "archive".

    The answer is kept for the flow run: when it is retried, a tag that has moved on meanwhile doesn't mix two contents.
    """
    if kind in ("lock", "archive"):
        return Resolution(what=kind, reference=source, pinned=source)
    run = current(RelocationRun)

    async def ask() -> str:
        session, reference = await run.session(), run.relocation.request.reference
        descriptor = await run.in_thread(
            lambda: found_manifest(session.source(reference.repository), reference.identifier)
        )
        resolution = Resolution(
            what="index" if kind == "image" and descriptor.is_index else kind,
            reference=str(reference),
            pinned=str(reference.at(descriptor.digest)),
            digest=descriptor.digest,
            tag=reference.tag,
        )
        return resolution.model_dump_json()

    return Resolution.model_validate_json(await remembered("resolved-source", ask))


@task(name="fetch referenced images", task_run_name="plan {source.reference}", **REPEATABLE)
async def fetch_referenced_images(source: Resolution) -> None:
    """Walks everything below the source and asks the destination which of it is in place.

    Never cached, not even within a flow run: a run that is retried learns here what the attempt before has done.
    """
    run = current(RelocationRun)
    run.pin(source)
    session, outcomes = await run.session(), run.relocation.outcomes
    plan = await run.in_thread(run.relocation.make_plan, run.on_node)
    for image in plan.images:
        before = outcomes.get(image.digest)
        if image.present and not (before and before.status == DONE):  # helpers may have brought it meanwhile
            outcomes[image.digest] = transfer_image(session, plan, image.digest)
    if plan.to_transfer:
        await run.limit(limits_of(plan.destination, *{image.store for image in plan.to_transfer}))
    get_run_logger().info(
        "%s in %s, %d of them to copy: %s in %s",
        counted(sum(1 for _ in plan.images), "image"),
        source.reference,
        len(plan.to_transfer),
        show_size(sum(blob.size for blob in plan.blobs)),
        counted(len(plan.blobs), "blob"),
    )
    for failure in plan.failures:
        get_run_logger().warning("can't be read: %s", PartFailed(failure.message, subject=failure.subject))


def push_name(parameters: dict[str, Any]) -> str:
    """`copy shop-web@sha256:111111111111 -> registry.corp.example/shop`, in the signs that the UI's graph can draw."""
    images: Sequence[str] = parameters["images"]
    images_name = counted(len(images), "image")
    if len(images) == 1:
        repository, _, digest = images[0].rpartition("@")
        images_name = f"{repository.rpartition('/')[2]}@{digest[:19]}"
    return f"copy {images_name} -> {parameters['destination']}"


@task(
    name="push to target registry",
    task_run_name=push_name,  # type: ignore[arg-type]  # Prefect takes it, but its Protocol asks for a class method
    **REPEATABLE,
)
async def push_to_target_registry(images: list[str], destination: str) -> list[ImageOutcome]:  # noqa: ARG001 - shown in the UI
    """Transfers images of the plan, each given as REPOSITORY@DIGEST, and names none of them.

    What became of each is kept in the run, failed ones included; then the first failure is raised, or an Incomplete of
    them all.
    """
    run = current(RelocationRun)
    failures: list[TransshipError] = []
    outcomes = []
    for image in images:
        try:
            outcomes.append(await run.transfer(parse_digest(image.rpartition("@")[2])))
        except TransshipError as error:
            failures.append(error)
    if len(failures) > 1:
        raise Incomplete(f"{len(failures)} of {len(images)} images failed", failures)
    if failures:
        raise failures[0]
    return outcomes


def names_of(plan: Plan, images: Iterable[Digest]) -> list[str]:
    """Returns images as `push_to_target_registry` takes them."""
    return [f"{plan.by_digest[digest].store}@{digest}" for digest in images]


@task(name="publish", task_run_name="{step} {destination}", **REPEATABLE)
async def publish(destination: str, step: str = Step.PUBLISH.value) -> None:  # noqa: ARG001 - shown in the UI
    """Writes bundles and their locations images (`publish content`), then the names (`publish names`), or both
    (`publish`). Raises Incomplete, with nothing named, when an image of the plan isn't in place."""
    run = current(RelocationRun)
    await run.take(Step(step))
    if tags := run.relocation.published.tags:
        get_run_logger().info("tags moved: %s", ", ".join(tags))


@task(name="verify", task_run_name="verify {destination}", **ONCE)
async def verify(destination: str) -> None:  # noqa: ARG001 - shown in the UI
    """Walks the destination: asks for every blob, or with `deep` in the order reads and hashes every byte.

    Raises Incomplete when something is missing or wrong, before any name moves. Not run again by itself: its requests
    were retried, and what is wrong by then stays so.
    """
    run = current(RelocationRun)
    await run.take(Step.VERIFY)
    if (verification := run.relocation.verification) is not None:
        get_run_logger().info("verified %d manifests and %d blobs", verification.manifests, verification.blobs)


@task(name="report", task_run_name="report {destination}", **ONCE)
async def report(destination: str) -> RelocationReport:  # noqa: ARG001 - shown in the UI
    """Writes the report artifact, the table of failures when there are any, and emits `transship.relocation.finished`
    or `transship.relocation.failed` with the report as payload. Writes metrics where the worker's environment says
    so."""
    run = current(RelocationRun)
    written = run.report()
    where = run.destination
    kind = "export" if written.archive_facts else "relocation"
    await write_page(kind, where, relocation_page(written), f"What the relocation of {written.source} did")
    sent = OtherLine(what=f"{written.source} → {where}", succeeded=written.succeeded, sent=written.bytes.written)
    await keep_overview({}, sent)
    if written.failures:
        await write_table("failures", where, map(_row, written.failures), f"What failed of {written.source}")
    for failed in written.failures:
        if failed.refused:
            emit(REFUSED, failed.image, {"image": failed.image, "destination": where, "reason": failed.error})
    ending = "finished" if written.succeeded else "failed"
    emit(f"transship.relocation.{ending}", where, written.to_dict(), **{"transship.source": written.source})
    metrics = RunMetrics(
        names={"destination": where},
        succeeded=written.succeeded,
        receipt=run.receipt(),
        images={
            "copied": written.images_copied,
            "present": written.images_present,
            "failed": len(written.failures),
        },
    )
    await asyncio.to_thread(export_metrics, metrics, warn=get_run_logger().warning)
    log = get_run_logger().info if written.succeeded else get_run_logger().error
    log("%s", written)
    return written


def _row(failure: ImageFailure) -> dict[str, str]:
    """The cause comes early: the UI doesn't wrap, and a whole reference fills a page."""
    cause, step = cause_and_step(failure.error)
    return {
        "image": short_subject(failure.image),
        "trying again": "may help" if failure.retryable else "won't help",
        "cause": with_short_digests(cause),
        "next step": in_forms(step),
        "reference": failure.image,
        "detail": failure.error,
    }


@asynccontextmanager
async def progress_shown(run: RelocationRun, source: str) -> AsyncIterator[None]:
    """A progress artifact of a plan being carried out; `source` is the reference that the user gave. Without anything
    to copy there is none."""
    plan = run.relocation.plan
    if not plan.to_transfer:
        yield
        return
    key = artifact_key("progress", str(plan.destination))
    description = (
        f"{counted(len(plan.to_transfer), 'image')}, {show_size(plan.bytes_to_move)}: {source} → {plan.destination}"
    )
    images = len(plan.to_transfer)

    def percent_done() -> float:
        """By bytes where there are any, and by images where all that is missing is small print."""
        copied = sum(1 for outcome in run.relocation.outcomes.values() if outcome.status == DONE)
        if copied == images:
            return 100.0
        part, whole = (run.receipt().bytes_moved, plan.bytes_to_move) if plan.bytes_to_move else (copied, images)
        return round(min(99.0, percent(part, whole)), 1)

    async with percent_shown(key, description, percent_done):
        yield
