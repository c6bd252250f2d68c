"""Writing what skopeo calls docker-archive:PATH[:NAME]."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flows.cli.access import RegistryFlags
from flows.cli.click_ext import Invocation
from flows.cli.progress import LayerProgress, shown
from flows.cli.source import announce
from oci.archive.entry import DOCKER_ARCHIVE
from oci.archive.s3_options import S3Options
from oci.errors import InvalidInput
from oci.export.export import docker_images, seal_archive, write_docker
from oci.output import check_outputs
from oci.relocation.planner import make_plan
from oci.relocation.request import RelocationRequest
from oci.units import counted, show_cost, show_size

if TYPE_CHECKING:
    from oci.receipts.record import Recorder


def to_docker(
    invocation: Invocation,
    registry: RegistryFlags,
    store: S3Options,
    request: RelocationRequest,
    *,
    name: str,
    recorder: Recorder | None,
    flags: dict[str, Any],
) -> None:
    """Writes the file that `request.to` names, and its signature and receipt. `name` is what its only image is called;
    empty for what its source or the tags that are asked for call each."""
    output, path = invocation.output, request.destination.location
    invocation.resume_hint = "nothing is written under this name; run the same again"
    useless = [flag for flag in ("resume", "plan_only", "monitor", "lock_output") if flags[flag]]
    useless += ["verify"] if flags["verify_mode"] != "none" else []
    if useless:
        named = ", ".join(f"--{flag.removesuffix('_only').replace('_', '-')}" for flag in useless)
        raise InvalidInput(f"{DOCKER_ARCHIVE}: can't be written with {named}", hint="leave it out, or use --to-tar")
    check_outputs(path)
    with registry.session(invocation, concurrency=flags["concurrency"], store=store) as session:
        plan = make_plan(session, request)
        images = docker_images(session, plan, name)
        announce(output, plan)
        progress = LayerProgress(session.meter, "unpacking layers", lambda receipt: receipt.bytes_read)
        progress.expect(sum({layer.digest: layer.size for image in images for layer in image.manifest.layers}.values()))
        with shown(progress, invocation, flags["progress_kind"]):
            report = write_docker(session, plan, path, images)
        sums = seal_archive(session, plan, (path,), path, sha256sums=flags["sha256sums"], recorder=recorder)
    names = [name for image in images for name in image.names]
    result = {"location": path, "format": DOCKER_ARCHIVE, "images": report.images, "layers": report.blobs}
    result |= {"sha256": [*sums.values()], "signatures": recorder.signatures_beside([path]) if recorder else []}
    result |= {"names": names, "size": report.size, "seconds": report.seconds, "requests": report.requests}
    output.report(flags["report"], result)
    output.summary(
        f"{plan.source} -> {path}: {counted(report.images, 'image')}, {counted(report.blobs, 'layer')}, "
        f"{show_size(report.size)} written, {show_cost(report.requests, report.seconds)}"
    )
