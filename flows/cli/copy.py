"""`transship copy`."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from flows import be_patient, check_server_address
from flows.cli.click_ext import Invocation, boolean, verb
from flows.cli.flags import (
    access,
    concurrency_flag,
    flags_of,
    metrics_flag,
    open_session,
    output_file,
    registry_flags,
    show_requests,
    store_flags,
)
from flows.cli.output import Output
from flows.cli.progress import RelocationProgress, progress_flag, shown
from flows.cli.source import OF_REPOSITORIES, announce, metrics_exported, source_flags, warn_of_layers
from oci.archive.entry import DOCKER_ARCHIVE, OCI_LAYOUT
from oci.archive.options import ExportOptions
from oci.bundle.lockfile import write_lock
from oci.errors import Incomplete, InvalidInput, InvalidReference, PartFailed, Unavailable
from oci.meter import METRICS_FILE
from oci.output import check_outputs
from oci.reference import DOCKER_ARCHIVE_PREFIX, LAYOUT_PREFIX, ArchiveName, named_archive, parse_store
from oci.registry.options import DEFAULT_CONCURRENCY
from oci.relocation.driver import Relocation, RelocationResult, Step, Verify, check_readable
from oci.relocation.plan import Plan
from oci.relocation.report import RelocationReport, left_behind, result_lock
from oci.relocation.request import CopyOptions, ReceiptOptions, RelocationRequest
from oci.relocation.session import Access
from oci.relocation.transfer import DONE, FAILED, PRESENT, ImageOutcome
from oci.units import counted, show_cost, show_size

if TYPE_CHECKING:
    from oci.receipts.record import Recorder

_UNMONITORED = {
    "plan_only": "--plan",
    "lock_output": "--lock-output",
    "report": "--report",
    "sha256sums": "--sha256sums",
}


_RARE = """--repo-based-tags --name-images --only --cosign-signatures --ignore-bundle-check --sha256sums --metrics-file
--progress --base --delta-from --max-size --part-size --max-blob-size --include-non-distributable-layers --record
--attach-receipt --backup-tag --shallow --require-signature --require-signatures --concurrency --receipt --sign
--tar-format"""


@verb(
    "copy",
    "-b registry.example/shop/bundle:1.4.0 --to-repo registry.corp.example/mirror/bundle",
    "-i registry.example/shop/web:1.25 --to-tar web.tar --resume",
    "--tar s3://exports/shop.tar --to-repo registry.corp.example/mirror/shop --verify deep",
    rare=_RARE.split(),
)
@source_flags()
@click.option(
    "--to-repo",
    default="",
    help="REGISTRY/REPOSITORY, oci:PATH, oci-archive:PATH[:TAG] or docker-archive:PATH[:NAME].",
)
@output_file("--to-tar", "Archive to write: a file, or s3://BUCKET/KEY.")
@boolean("--resume", help="Go on with a --to-tar that was interrupted, and reuse what is there already.")
@boolean("--sha256sums", help="Write NAME.SHA256SUMS beside --to-tar; reads it once more.")
@output_file("--lock-output", "Write a lock file of the result.")
@concurrency_flag("Blobs on their way at the most; how many are right is found out")
@click.option(
    "--verify",
    "verify_mode",
    type=click.Choice(["none", "head", "deep"]),
    default="none",
    help="Afterwards, walk the destination: ask for everything, or hash every byte.",
)
@boolean("--plan", "plan_only", help="Say what would be done, and do nothing.")
@output_file("--report", "Write what became of each image to a JSON file.")
@flags_of(ReceiptOptions, "receipts")
@metrics_flag
@progress_flag
@boolean("--monitor", help="Run as a Prefect flow: progress, history and report in its UI.")
@flags_of(ExportOptions, "tarball")
@store_flags
@registry_flags(sides=True)
def copy(
    invocation: Invocation, /, tarball: ExportOptions, source: dict[str, Any], receipts: ReceiptOptions, **flags: Any
) -> None:
    """Copy a bundle, an image, what a lock lists or an archive, with all it references, to another registry, a folder
    or an archive."""
    invocation.resume_hint = "what is copied stays, and no name was moved; run the same again to go on"
    tarball, docker_name = _as_archive(source, flags, tarball)
    request = _request(source, flags)
    if docker_name is not None:
        from flows.cli.archive import to_docker  # noqa: PLC0415 - few copies are for docker

        recorder = _recorder(receipts, request, flags, kind=DOCKER_ARCHIVE)
        to_docker(invocation, request, name=docker_name, recorder=recorder, flags=flags)
        return
    if flags["plan_only"] and not flags["to_tar"]:
        invocation.output.check_columns(IMAGES, REQUESTS)
    if flags["monitor"]:
        _monitored(invocation, request, tarball if flags["to_tar"] else None, receipts, flags)
        return
    recorder = _recorder(receipts, request, flags)
    if flags["to_tar"]:
        from flows.cli.archive import to_tar  # noqa: PLC0415 - a copy to a registry needs no archives

        to_tar(invocation, request, options=tarball, recorder=recorder, flags=flags)
    else:
        _copy(invocation, request, recorder, flags)


def _as_archive(
    source: dict[str, Any], flags: dict[str, Any], tarball: ExportOptions
) -> tuple[ExportOptions, str | None]:
    """Writes `--to-repo docker-archive:PATH[:NAME]` and `oci-archive:PATH[:TAG]` as the `--to-tar PATH` that they mean,
    and the TAG as `--to-tag`. Returns how the archive is to be, and the NAME in an archive for docker, which is None
    for every other destination."""
    path_and_name = named_archive(flags["to_repo"])
    if path_and_name is None:
        return tarball, None
    if flags["to_tar"]:
        raise InvalidInput("Expected either --to-tar or --to-repo")
    is_for_docker = flags["to_repo"].startswith(DOCKER_ARCHIVE_PREFIX)
    flags["to_repo"] = ""
    flags["to_tar"], name = path_and_name
    if is_for_docker:
        return tarball, name
    check_outputs(flags["to_tar"])
    if name:
        source["tags"] = (name,)
    return tarball.with_(format=OCI_LAYOUT), None


def _request(source: dict[str, Any], flags: dict[str, Any]) -> RelocationRequest:
    """Makes the request, with the checks of imgpkg in its order and its words."""
    if bool(flags["to_tar"]) == bool(flags["to_repo"]):
        raise InvalidInput("Expected either --to-tar or --to-repo")
    if source.get("archive") and flags["to_tar"]:
        raise InvalidInput("Cannot use tar source (--tar) with tar destination (--to-tar)")
    if flags["lock_output"] and flags["to_tar"]:
        raise InvalidInput("cannot output lock file with tar destination")
    if flags["resume"] and flags["to_repo"]:
        raise InvalidInput("Flag --resume can only be used when copying to tar")
    if flags["monitor"] and any(flags[name] for name in _UNMONITORED):
        raise InvalidInput(
            f"--monitor runs a flow, which can't be combined with {', '.join(_UNMONITORED.values())}",
            hint="leave out one or the other; the flow leaves its report in Prefect",
        )
    if flags["to_tar"]:
        if useless := [CopyOptions.declared[name].flag for name in OF_REPOSITORIES if source.get(name)]:
            raise InvalidInput(
                f"{', '.join(useless)} can only be used when copying to a repository", hint="leave it out with --to-tar"
            )
        return RelocationRequest(to=str(ArchiveName.of(flags["to_tar"])), **source)
    try:
        parse_store(flags["to_repo"])
    except InvalidReference as error:
        raise InvalidReference(f"Building import repository ref: {error.message}", hint=error.hint) from error
    if flags["lock_output"] and flags["to_repo"].startswith(LAYOUT_PREFIX):
        raise InvalidInput("A lock names registries only: --lock-output can't be used with an image-layout folder")
    return RelocationRequest(to=flags["to_repo"], **source)


def _recorder(
    receipts: ReceiptOptions, request: RelocationRequest, flags: dict[str, Any], kind: str = ""
) -> Recorder | None:
    if receipts == ReceiptOptions():
        return None
    from oci.receipts.record import Recorder  # noqa: PLC0415 - for those who want a receipt

    return Recorder(receipts, request, verify=Verify(flags["verify_mode"]), kind=kind)


def _copy(invocation: Invocation, request: RelocationRequest, recorder: Recorder | None, flags: dict[str, Any]) -> None:
    output = invocation.output
    session = open_session(invocation)
    relocation = Relocation(session, request, verify=Verify(flags["verify_mode"]))
    with (
        session,
        metrics_exported(session, lambda: _sums(relocation), invocation, str(request.destination), flags),
        shown(RelocationProgress(relocation), invocation, flags["progress_kind"]),
    ):
        plan = relocation.make_plan()
        if recorder is not None:
            recorder.check(plan)
        if flags["plan_only"]:
            output.result(**planned(plan))
            show_plan(output, plan)
            check_readable(plan)
            return
        lock = result_lock(session, request, plan) if flags["lock_output"] else None
        announce(output, plan)
        output.line(f"copy | importing {len(plan.to_transfer)} images...")

        def say(step: Step) -> None:
            if step is Step.VERIFY:
                output.line("copy | Verifying the destination")
            elif step in (Step.PUBLISH, Step.NAMES):
                output.line("copy | Tagging images")

        try:
            result = relocation.run(on_step=say)
        except Incomplete:
            output.report(flags["report"], relocation.result().to_dict())
            raise
        fields = result.to_dict()
        output.result(**fields)
        _say_done(output, request, result)
        if recorder is not None:
            recorder.record(session, result)
    output.report(flags["report"], fields)
    if lock is not None:
        write_lock(flags["lock_output"], lock)


def _say_done(output: Output, request: RelocationRequest, result: RelocationResult) -> None:
    """Says what was copied, before files are written about it: a full disk takes nothing of that back."""
    plan, receipt = result.plan, result.receipt
    if plan.unchanged and any(image.is_bundle for image in plan.images):
        output.line("copy | The bundle was in place; what it lists wasn't looked at: use --verify head or --repair")
    warn_of_layers(output, plan, included=request.include_non_distributable)
    for registry, identity in sorted(receipt.identities.items()):
        output.line(f"copy | {registry}: {identity}")
    for registry, texts in sorted(receipt.fallbacks.items()):
        for text in texts:
            output.line(f"copy | {registry}: {text}")
    if plan.attached_left:
        output.line(f"copy | {counted(plan.attached_left, 'attached artifact')} left at the source: --artifacts all")
    output.summary(_summary(result, plain=bool(request.image)))


def _summary(result: RelocationResult, *, plain: bool) -> str:
    """With `plain`, a bundle was copied as the image that it is."""
    plan, receipt, verification = result.plan, result.receipt, result.verification
    present = [outcome for outcome in result.outcomes if outcome.status == PRESENT]
    copied = [outcome for outcome in result.outcomes if outcome.status != PRESENT]
    images = f"{_kinds(plan, copied, plain=plain)} copied, {len(present)} there already"
    if plan.unchanged and any(image.is_bundle for image in plan.images):
        images = "nothing copied, 1 bundle there already (what it lists wasn't asked for)"
    if plan.repair:
        images = f"{_kinds(plan, copied, plain=plain)} repaired, {len(present)} complete already"
    images += left_behind(plan.attached_left)
    verified = f", {verification} verified" if verification else ""
    return (
        f"{plan.source} -> {plan.destination}: {images}, "
        f"{show_size(receipt.bytes_written)} sent, {show_size(receipt.bytes_mounted)} mounted{verified}, "
        f"{show_cost(receipt.total_requests, receipt.seconds)}"
    )


def _kinds(plan: Plan, outcomes: Sequence[ImageOutcome], *, plain: bool) -> str:
    """`1 image`, or `7 (2 bundles, 3 images, 2 indexes)`."""
    names = (plan.by_digest[outcome.digest].kind for outcome in outcomes)
    kinds = Counter("image" if plain and kind == "bundle" else kind for kind in names)
    if len(kinds) < 2:
        return counted(len(outcomes), *kinds) if kinds else "0 images"
    return f"{len(outcomes)} ({', '.join(counted(count, kind) for kind, count in sorted(kinds.items()))})"


def _sums(relocation: Relocation) -> Mapping[str, int]:
    """Images of a relocation so far."""
    counts = Counter(outcome.status for outcome in relocation.outcomes.values())
    unread = len(relocation.made_plan.failures) if relocation.made_plan else 0
    return {"copied": counts[DONE], "present": counts[PRESENT], "failed": counts[FAILED] + unread}


def _monitored(
    invocation: Invocation,
    request: RelocationRequest,
    options: ExportOptions | None,
    receipts: ReceiptOptions,
    flags: dict[str, Any],
) -> None:
    if flags["metrics_file"]:
        os.environ[METRICS_FILE] = flags["metrics_file"]  # the flow hears of it as a worker's would
    show_requests(invocation)
    concurrency = invocation.concurrency or DEFAULT_CONCURRENCY
    report = run_as_flow(
        request,
        source=access(invocation, "source", concurrency),
        destination=access(invocation, "destination", concurrency),
        tarball=options,
        resume=flags["resume"],
        concurrency=concurrency,
        verify=Verify(flags["verify_mode"]),
        receipts=receipts,
    )
    invocation.output.summary(str(report))


def run_as_flow(
    request: RelocationRequest,
    *,
    source: Access,
    destination: Access,
    tarball: ExportOptions | None = None,
    resume: bool = False,
    **how: Any,
) -> RelocationReport:
    """Runs `request` as the flow `relocate` on the Prefect server of PREFECT_API_URL, or, without one, on a server
    that lives as long as this call (some 15 seconds to start it the first time).

    `source` and `destination` are used as they are: credentials stay in this process and reach neither the parameters
    nor the server. `tarball` says how an archive that is the destination is to be, and `resume` goes on with an
    unfinished one; `how` are other fields of RelocateParameters. Progress and the address of the run are logged to
    standard error. Ctrl-C stops it within seconds.

    Raises InvalidInput for a PREFECT_API_URL that is no address, and what the flow raises: RelocationIncomplete (an
    Incomplete with `report`) or another TransshipError.
    """
    # Prefect reads these when it is imported. A copy must not phone home unasked; who wants that sets them.
    os.environ.setdefault("DO_NOT_TRACK", "1")
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    be_patient()
    # A server that ends with the command complains about what it would have liked to do still.
    os.environ.setdefault("PREFECT_SERVER_LOGGING_LEVEL", "CRITICAL")
    check_server_address()

    from flows.parameters.relocate import RelocateParameters, TarballOptions  # noqa: PLC0415 - Prefect takes a second
    from flows.relocate import relocate_sync  # noqa: PLC0415
    from tasks.run import reached_by  # noqa: PLC0415

    archive = TarballOptions(export=tarball, resume=resume) if tarball else None
    with reached_by(source=source, destination=destination):
        try:
            return relocate_sync(RelocateParameters.of(request, tarball=archive, **how))
        except RuntimeError as error:  # Prefect's own, for a server that doesn't answer
            if "Failed to reach API" not in str(error):
                raise
            hint = "is PREFECT_API_URL right, and the server running?"
            raise Unavailable(str(error), store="Prefect server", operation="running the flow", hint=hint) from error


def planned(plan: Plan) -> dict[str, Any]:
    """What a copy would do, for programs."""
    return {
        "source": plan.source,
        "destination": str(plan.destination),
        "images": [
            {
                "role": image.role.value,
                "kind": image.kind,
                "subject": image.subject,
                "digest": image.digest,
                "present": image.present,
                "tags": list(image.tags),
            }
            for image in plan.images
        ],
        "to_copy": len(plan.to_transfer),
        "blobs": len(plan.blobs),
        "bytes_to_move": plan.bytes_to_move,
        "bytes_to_mount": plan.bytes_to_mount,
        "requests": dict(plan.estimated_requests),
        "unreadable": [{"subject": failure.subject, "error": failure.message} for failure in plan.failures],
    }


IMAGES = ("Role", "Image", "State", "Tags")
REQUESTS = ("Registry", "Requests")


def show_plan(output: Output, plan: Plan) -> None:
    rows = [
        [image.role.value, image.subject, "present" if image.present else "to copy", ", ".join(image.tags)]
        for image in plan.images
    ]
    output.table("Images", IMAGES, rows)
    for failed in plan.failures:
        output.warn(f"can't be read: {PartFailed(failed.message, subject=failed.subject)}")
    output.table("Requests", REQUESTS, list(plan.estimated_requests.items()))
    moved = f"at most {show_size(plan.bytes_to_move)}, of it {show_size(plan.bytes_to_mount)} to mount"
    blobs = counted(len(plan.blobs), "blob")
    output.summary(f"{len(plan.to_transfer)} of {counted(len(rows), 'image')} to copy: {blobs}, {moved}")
