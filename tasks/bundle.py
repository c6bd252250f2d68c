"""Work at one side: pushing and pulling files, and looking at what registries hold."""

from __future__ import annotations

from prefect import task
from prefect.logging import get_run_logger

from oci.bundle.describe import DescribedBundle, DescribeReport, OpenSource, describe
from oci.bundle.lockfile import write_lock
from oci.bundle.pull import Pulled, PullReport, PullRequest, pull
from oci.bundle.push import Pushed, PushReport, PushRequest, entries_of, push
from oci.bundle.tagnames import Tag, TagsReport, list_tags, resolve_tag
from oci.export.export import push_to_archive
from oci.files.folder import output_folder
from oci.output import to_dict
from oci.receipts.check import Checked, check_receipt, find_receipt
from oci.reference import ArchiveName, Reference, StoreName
from oci.relocation.archive_source import in_archive, named_in_archive, sealed
from oci.relocation.report import VerificationReport, VerifiedPlace
from oci.relocation.verify import verify_names
from oci.signatures.keys import read_key_file
from tasks.artifacts.pages import describe_page, pull_page, push_page, verification_page
from tasks.artifacts.report import (
    EVENT_NAMES,
    ROWS,
    BytesMoving,
    artifact_key,
    emit,
    percent_shown,
    write_page,
    write_table,
)
from tasks.run import ONCE, REPEATABLE, Run, current


@task(name="push files", task_run_name="push {destination}", **REPEATABLE)
async def push_files(request: PushRequest, destination: str, lock_output: str = "", to_tar: str = "") -> PushReport:
    """Packs the files into one layer, pushes it and names it; writes a BundleLock to `lock_output` when that is given.
    With `to_tar`, the image goes into an archive there instead. `destination` is the request's; it is a parameter so
    that it can be read in the UI."""
    run = current(Run)
    session = await run.session()
    moving = BytesMoving(lambda: run.receipt().bytes_moved)

    def push_all() -> Pushed:
        entries = entries_of(request)
        if to_tar:
            return push_to_archive(session, request, entries, to_tar)[0]
        repository = session.destination(request.destination.repository)
        return push(repository, request, entries, cancel=session.cancel, on_packed=moving.expect)

    async with percent_shown(artifact_key("progress", destination), f"push to {destination}", moving.percent):
        pushed = await run.in_thread(push_all)
    if lock_output:
        await run.in_thread(write_lock, lock_output, pushed.lock)
    report = PushReport.of(pushed, run.receipt())
    await write_page("push", str(pushed.reference.repository), push_page(report), f"What was pushed to {destination}")
    get_run_logger().info("%s", report)
    return report


@task(name="pull files", task_run_name="pull {source}", **REPEATABLE)
async def pull_files(
    request: PullRequest, source: str, folder: str, archive: ArchiveName | None = None, *, replace: bool = False
) -> PullReport:
    """Extracts into a new folder that takes the place of `folder` when everything is there, out of `archive`
    where that is given. `source` is the request's; it is a parameter so that it can be read in the UI."""
    run = current(Run)
    session = await run.session()
    moving = BytesMoving(lambda: run.meter.receipt().bytes_read)

    def pull_all() -> Pulled:
        log = get_run_logger().info
        open_source: OpenSource = session.source
        request_inside = request
        if archive is not None:
            opened = session.archive(archive)
            open_source, request_inside = sealed(opened), in_archive(opened, request)
        with output_folder(folder, replace=replace) as new_folder:
            return pull(
                open_source,
                request_inside,
                new_folder,
                session.workers,
                line=lambda text: log("%s", text.strip()),
                expect=moving.expect,
                cancel=session.cancel,
            )

    async with percent_shown(artifact_key("progress", source), f"pull of {source}", moving.percent):
        pulled = await run.in_thread(pull_all)
    report = PullReport.of(pulled, folder, run.receipt())
    await write_page("pull", report.image.partition("@")[0], pull_page(report), f"What was pulled from {source}")
    get_run_logger().info("%s", report)
    return report


@task(name="describe bundle", task_run_name="describe {bundle}", **REPEATABLE)
async def describe_bundle(
    bundle: Reference, archive: ArchiveName | None = None, *, layers: bool = True, signatures: bool = True
) -> DescribeReport:
    """Reads the bundle and everything it lists, out of `archive` where that is given, and writes the page of it."""
    run = current(Run)
    session = await run.session()

    def look() -> DescribedBundle:
        open_source: OpenSource = session.source
        reference = bundle
        if archive is not None:
            opened = session.archive(archive)
            open_source, (reference, _) = sealed(opened), named_in_archive(opened, str(bundle))
        return describe(open_source, reference, session.workers, layers=layers, signatures=signatures)

    report = DescribeReport.of(await run.in_thread(look))
    await write_page("describe", str(bundle.repository), describe_page(report), f"What {bundle} holds")
    get_run_logger().info("%s holds %d images and bundles", report.image, len(report.contents))
    return report


@task(name="list tags", task_run_name="list tags of {repository}", **REPEATABLE)
async def list_repository_tags(repository: StoreName, *, internal: bool = False, digests: bool = False) -> TagsReport:
    """The tags of a repository, with `digests` a HEAD for each, and as a table artifact."""
    run = current(Run)
    session = await run.session()
    workers = session.workers if digests else None
    listed = await run.in_thread(lambda: list_tags(session.source(repository), internal=internal, digests=workers))
    return await _write_tags(TagsReport(repository=str(repository), tags=listed))


@task(name="resolve tag", task_run_name="resolve {reference}", **REPEATABLE)
async def resolve_tag_of(reference: Reference) -> TagsReport:
    """The digest that a tag stands for, by one HEAD, and as a table artifact."""
    run = current(Run)
    session = await run.session()
    pinned = await run.in_thread(lambda: resolve_tag(session.source(reference.repository), reference))
    tag = Tag(reference.tag, pinned.identifier)
    return await _write_tags(TagsReport(repository=str(reference.repository), tags=(tag,)))


async def _write_tags(report: TagsReport) -> TagsReport:
    more = f", the first {ROWS} of {len(report.tags)}" if len(report.tags) > ROWS else ""
    rows = ({"Name": tag.name, "Digest": tag.digest} for tag in report.tags)
    await write_table("tags", report.repository, rows, f"Tags of {report.repository}{more}")
    get_run_logger().info("%d tags in %s", len(report.tags), report.repository)
    return report


@task(name="verify place", task_run_name="verify {place}", **REPEATABLE)
async def verify_place(place: StoreName, names: list[str], *, deep: bool) -> VerifiedPlace:
    """What `names` stand for in one repository or layout folder, or everything with a tag. Problems are part of the
    result; an error means that nothing could be looked at."""
    run = current(Run)
    verification = await run.in_thread(verify_names, await run.session(), place, names, deep=deep)
    return VerifiedPlace.of(str(place), names, verification)


@task(name="report verification", task_run_name="report verification", **ONCE)
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


@task(name="compare receipt", task_run_name="compare {receipt}", **REPEATABLE)
async def compare_receipt(receipt: str, keys: list[str], at: list[str], *, deep: bool) -> Checked:
    """Reads a receipt that one of the keys has signed, lists what differs in a table artifact, and emits
    `transship.receipt.proven` or `.drifted`."""
    run = current(Run)
    session = await run.session()

    def compare() -> Checked:
        received = find_receipt(session, receipt, [read_key_file(path) for path in keys])
        return check_receipt(session, received, at=at, deep=deep)

    checked = await run.in_thread(compare)
    rows = map(to_dict, checked.differences)
    await write_table("receipt", checked.destination, rows, str(checked))
    emit(f"transship.receipt.{'drifted' if checked.differences else 'proven'}", checked.destination, checked.to_dict())
    log = get_run_logger().warning if checked.differences else get_run_logger().info
    log("%s", checked)
    return checked
