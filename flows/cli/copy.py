"""`transship copy`"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import click

from flows.cli import debug
from flows.cli.access import RegistryFlags, concurrency_flag, registry_flags
from flows.cli.metrics import metrics_flag, told
from flows.cli.progress import RelocationProgress, progress_flag, shown
from flows.cli.verb import Invocation, Verb, boolean, everywhere, words
from oci.atomic import replace_file
from oci.bundle.lockfile import write_lock
from oci.errors import Incomplete, InvalidInput, InvalidReference, Refused, StoreError
from oci.meter import Receipt
from oci.reference import LAYOUT_PREFIX, parse_store
from oci.relocation.plan import Plan
from oci.relocation.planner import make_plan
from oci.relocation.publish import Published, publish
from oci.relocation.request import ARTIFACTS, COSIGN, RelocationRequest
from oci.relocation.resultlock import result_lock
from oci.relocation.session import Session
from oci.relocation.transfer import PRESENT, ImageOutcome, transfer_all
from oci.relocation.verify import verify
from tasks.metrics import METRICS_FILE
from tasks.sizes import human

_PLAN_IMAGES = ("Role", "Image", "State", "Tags")
_PLAN_REQUESTS = ("Registry", "Requests")


@click.command(cls=Verb)
@click.option(
    "-b", "--bundle", default="", help="Bundle with everything it lists: REGISTRY/REPOSITORY:TAG or oci:PATH."
)
@click.option("-i", "--image", default="", help="One image or index, in the same form.")
@click.option("--lock", default="", help="BundleLock or ImagesLock file.")
@click.option("--to-repo", default="", help="REGISTRY/REPOSITORY, or oci:PATH for an image-layout folder; no tag.")
@click.option("--lock-output", default="", help="Write a lock file of the result.")
@words("--to-tag", help="Tag at the destination instead of the source's (repeatable).")
@concurrency_flag("Blobs on their way at a time")
@boolean("--repo-based-tags", help="Keep-alive tags that show where an image came from.")
@boolean("--include-non-distributable-layers", help="Copy non-distributable layers as well.")
@boolean("--cosign-signatures", help="The same as --artifacts cosign.")
@words("--artifacts", help="What travels along: cosign, referrers, all or none.")
@words("--platform", help="Only these platforms of an index, which gets a new digest (repeatable).")
@boolean("--shallow", help="The bundle's own image and nothing that it lists.")
@click.option(
    "--name-images",
    multiple=True,
    help="[PATTERN=]TEMPLATE: a readable tag for each listed image, of {name}, {path}, {tag}, {short} (repeatable).",
)
@boolean("--repair", help="Ask the destination for every blob, and send again what it has lost.")
@click.option(
    "--verify",
    "verify_mode",
    type=click.Choice(["none", "head", "deep"]),
    default="none",
    help="Afterwards, walk the destination: ask for everything, or hash every byte.",
)
@boolean("--plan", "plan_only", help="Say what would be done, and do nothing.")
@click.option("--report", default="", help="Write what became of each image to a JSON file.")
@metrics_flag
@progress_flag
@boolean("--monitor", help="Run as a Prefect flow: progress, history and report in its UI.")
@registry_flags(sides=True)
@everywhere
@click.pass_obj
def copy(invocation: Invocation, /, registry: RegistryFlags, **flags: Any) -> None:
    """Copy a bundle, an image or what a lock lists, with all it references, to another registry or a folder."""
    invocation.kept = "what is copied stays, and no name was moved; run the same again to go on"
    request = _request(flags)
    if flags["plan_only"]:
        invocation.output.check_columns(_PLAN_IMAGES, _PLAN_REQUESTS)
    if flags["monitor"]:
        _monitored(invocation, registry, request, flags)
        return
    _copy(invocation, registry, request, flags)
    invocation.output.finish()


def _request(flags: dict[str, Any]) -> RelocationRequest:
    given = [name for name in ("lock", "bundle", "image") if flags[name]]
    if len(given) != 1:
        raise InvalidInput("Expected exactly one of --lock, --bundle (-b) or --image (-i)")
    if not flags["to_repo"]:
        raise InvalidInput("Expected --to-repo", hint="name where to copy to: --to-repo REGISTRY/REPOSITORY")
    try:
        parse_store(flags["to_repo"])
    except InvalidReference as error:
        raise InvalidReference(f"Building import repository ref: {error.message}", hint=error.hint) from error
    if flags["lock_output"] and flags["to_repo"].startswith(LAYOUT_PREFIX):
        raise InvalidInput("A lock names registries only: --lock-output can't be used with an image-layout folder")
    return RelocationRequest(
        **{given[0]: flags[given[0]]},
        to=flags["to_repo"],
        tags=flags["to_tag"],
        artifacts=_artifacts(flags["artifacts"], cosign=flags["cosign_signatures"]),
        repo_based_tags=flags["repo_based_tags"],
        include_non_distributable=flags["include_non_distributable_layers"],
        platforms=flags["platform"],
        shallow=flags["shallow"],
        names=flags["name_images"],
        repair=flags["repair"],
    )


def _artifacts(named: Sequence[str], *, cosign: bool) -> frozenset[str]:
    wanted = frozenset(named) - {"none"}
    if "all" in wanted:
        return ARTIFACTS
    return wanted | {COSIGN} if cosign else wanted


def _copy(invocation: Invocation, registry: RegistryFlags, request: RelocationRequest, flags: dict[str, Any]) -> None:
    output = invocation.output
    session = registry.session(invocation, concurrency=flags["concurrency"])
    progress = RelocationProgress(session)
    telling = told(progress, invocation, destination=str(request.destination), path=flags["metrics_file"])
    with session, nullcontext() if flags["plan_only"] else telling:
        with shown(progress, invocation, flags["progress_kind"]):
            plan = make_plan(session, request)
            progress.planned(plan)
            if flags["plan_only"]:
                _show_plan(invocation, plan)
                return
            _announce(invocation, plan)
            outcomes = transfer_all(session, plan, on_done=progress.finished)
            output.line("copy | Tagging images")
            published = _publish(session, plan, outcomes, flags["report"])
        _verify(session, plan, flags["verify_mode"])
        receipt = session.meter.receipt()
    _warn_of_layers(invocation, plan, included=request.include_non_distributable)
    write_report(flags["report"], plan, outcomes, published, receipt)
    if flags["lock_output"]:
        write_lock(flags["lock_output"], result_lock(request, plan))
    _identities(invocation, receipt)
    output.summary(_summary(plan, outcomes, receipt))


def _publish(session: Session, plan: Plan, outcomes: tuple[ImageOutcome, ...], report: str) -> Published:
    """The report is written even, and above all, when something failed."""
    try:
        return publish(session, plan, outcomes)
    except Incomplete:
        write_report(report, plan, outcomes, Published(), session.meter.receipt())
        raise


def _verify(session: Session, plan: Plan, mode: str) -> None:
    if mode == "none":
        return
    found = verify(session, plan, deep=mode == "deep")
    if found.problems:
        raise Incomplete(
            f"{len(found.problems)} problems at {plan.destination}",
            [StoreError(problem, side="destination") for problem in found.problems],
            hint="run the copy again with --repair: it sends what is missing",
        )


def _announce(invocation: Invocation, plan: Plan) -> None:
    images = list(plan.images)
    line = invocation.output.line
    line(f"copy | exporting {len(images)} images...")
    for image in images:
        line(f"copy | will export {image.store}@{image.digest}")
    line(f"copy | exported {len(images)} images")
    line(f"copy | importing {len(plan.to_transfer)} images...")


def _show_plan(invocation: Invocation, plan: Plan) -> None:
    output = invocation.output
    rows = [
        [
            image.role.value,
            image.origin or f"{image.store}@{image.digest}",
            "present" if image.present else "to copy",
            ", ".join(image.tags),
        ]
        for image in plan.images
    ]
    output.table("Images", _PLAN_IMAGES, rows)
    for failed in plan.failures:
        output.warn(f"can't be read: {failed.subject}: {failed.message}")
    requests = [[name, str(count)] for name, count in plan.estimated_requests.items()]
    output.table("Requests", _PLAN_REQUESTS, requests)
    moved = f"{len(plan.blobs)} blobs, at most {human(plan.bytes_to_move)}, of it {human(plan.bytes_to_mount)} to mount"
    output.summary(f"{len(plan.to_transfer)} of {len(rows)} images to copy: {moved}")


def _warn_of_layers(invocation: Invocation, plan: Plan, *, included: bool) -> None:
    if plan.skipped_layers:
        named = "\n".join(f"  {manifest}: {layer}" for manifest, layer in plan.skipped_layers)
        invocation.output.warn(
            "Skipped non-distributable layers; --include-non-distributable-layers copies them:\n" + named
        )
    elif included and not any(blob.descriptor.distributable is False for blob in plan.blobs):
        invocation.output.warn(
            "'--include-non-distributable-layers' was given, but no image had a non-distributable layer"
        )


def _identities(invocation: Invocation, receipt: Receipt) -> None:
    for registry, identity in sorted(receipt.identities.items()):
        invocation.output.line(f"copy | {registry}: {identity}")


def _summary(plan: Plan, outcomes: Sequence[ImageOutcome], receipt: Receipt) -> str:
    present = sum(outcome.status == PRESENT for outcome in outcomes)
    copied = len(outcomes) - present
    return (
        f"{plan.source} -> {plan.destination}: {copied} images copied, {present} there already, "
        f"{human(receipt.bytes_written)} sent, {human(receipt.bytes_mounted)} mounted, "
        f"{receipt.total_requests} requests, {receipt.seconds:.1f} s"
    )


def write_report(
    path: str, plan: Plan, outcomes: Sequence[ImageOutcome], published: Published, receipt: Receipt
) -> None:
    if not path:
        return
    body = {
        "source": plan.source,
        "destination": plan.destination,
        "root": plan.root,
        "images": [outcome.to_dict() for outcome in outcomes],
        "unreadable": [
            {"subject": one.subject, "error": one.message, "retryable": one.retryable} for one in plan.failures
        ],
        "tags": list(published.tags),
        "locations": list(published.locations),
        "receipt": receipt.to_dict(),
    }
    try:
        replace_file(path, json.dumps(body, indent=1).encode())
    except OSError as error:
        raise Refused(f"{error.strerror}", subject=path, operation="writing the report") from error


def _monitored(
    invocation: Invocation, registry: RegistryFlags, request: RelocationRequest, flags: dict[str, Any]
) -> None:
    from flows import monitor  # noqa: PLC0415 - Prefect takes a second to import

    if flags["metrics_file"]:
        os.environ[METRICS_FILE] = flags["metrics_file"]  # the flow hears of it as a worker's would
    if invocation.output.debug:
        debug.show_requests()
    concurrency = flags["concurrency"]
    report = monitor.run(
        request,
        source=registry.access("source", invocation.output, concurrency=concurrency),
        destination=registry.access("destination", invocation.output, concurrency=concurrency),
        concurrency=concurrency,
        verify=flags["verify_mode"],
    )
    invocation.output.summary(str(report))
    invocation.output.finish()
