"""Pushing files of the machine the run is on, and pulling into a folder of it."""

from __future__ import annotations

from prefect import task
from prefect.logging import get_run_logger

from oci.bundle.lockfile import write_lock
from oci.bundle.pull import OpenSource, Pulled, PullRequest, pull
from oci.bundle.push import Pushed, PushRequest, entries_of, push
from oci.bundle.results import PullReport, PushReport
from oci.export.export import push_to_archive
from oci.files.output import output_folder
from oci.reference import ArchiveName
from oci.relocation.archive_source import in_archive, sealed
from oci.relocation.session import Session
from tasks.artifacts.pages import pull_page, push_page
from tasks.artifacts.report import BytesMoving, artifact_key, percent_shown, write_page
from tasks.run import REPEATABLE, Run, current


@task(name="push files", task_run_name="push {destination}", **REPEATABLE)
async def push_files(request: PushRequest, destination: str, lock_output: str = "", to_tar: str = "") -> PushReport:
    """Packs the files into one layer, pushes it and names it; writes a BundleLock to `lock_output` when that is given.
    With `to_tar`, the image goes into an archive there instead. `destination` is the request's; it is a parameter so
    that it can be read in the UI."""
    run = current(Run)
    session = await run.session()
    moving = BytesMoving(lambda: run.receipt().bytes_moved)
    async with percent_shown(artifact_key("progress", destination), f"push to {destination}", moving.percent):
        pushed = await run.in_thread(_push, session, request, moving, to_tar)
    if lock_output:
        await run.in_thread(write_lock, lock_output, pushed.lock)
    report = PushReport.of(pushed, run.receipt())
    await write_page("push", str(pushed.reference.repository), push_page(report), f"What was pushed to {destination}")
    get_run_logger().info("%s", report)
    return report


def _push(session: Session, request: PushRequest, moving: BytesMoving, to_tar: str) -> Pushed:
    entries = entries_of(request)
    if to_tar:
        return push_to_archive(session, request, entries, to_tar)[0]
    destination = session.destination(request.destination.repository)
    return push(destination, request, entries, cancel=session.cancel, on_packed=moving.expect)


@task(name="pull files", task_run_name="pull {source}", **REPEATABLE)
async def pull_files(
    request: PullRequest, source: str, folder: str, archive: ArchiveName | None = None, *, replace: bool = False
) -> PullReport:
    """Extracts into a new folder that takes the place of `folder` when everything is there, out of `archive`
    where that is given. `source` is the request's; it is a parameter so that it can be read in the UI."""
    run = current(Run)
    session = await run.session()
    moving = BytesMoving(lambda: run.meter.receipt().bytes_read)
    async with percent_shown(artifact_key("progress", source), f"pull of {source}", moving.percent):
        pulled = await run.in_thread(_pull, session, request, folder, archive, moving, replace=replace)
    report = PullReport.of(pulled, folder, run.receipt())
    await write_page("pull", report.image.partition("@")[0], pull_page(report), f"What was pulled from {source}")
    get_run_logger().info("%s", report)
    return report


def _pull(
    session: Session,
    request: PullRequest,
    folder: str,
    archive: ArchiveName | None,
    moving: BytesMoving,
    *,
    replace: bool,
) -> Pulled:
    log = get_run_logger().info
    open_source: OpenSource = session.source
    if archive is not None:
        opened = session.archive(archive)
        open_source, request = sealed(opened), in_archive(opened, request)
    with output_folder(folder, replace=replace) as new_folder:
        return pull(
            open_source,
            request,
            new_folder,
            session.workers,
            line=lambda text: log("%s", text.strip()),
            expect=moving.expect,
            cancel=session.cancel,
        )
