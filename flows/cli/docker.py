"""skopeo's names of archives on the command line: docker-archive:PATH[:NAME] and oci-archive:PATH[:NAME]."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from flows.cli.access import RegistryFlags
from flows.cli.click_ext import Invocation
from flows.cli.progress import LayerProgress, shown
from flows.cli.source import announce
from oci.archive.docker_archive import DockerImage, docker_name, write_docker_archive
from oci.archive.entry import DOCKER_ARCHIVE
from oci.archive.s3_options import S3Options
from oci.descriptor import Descriptor
from oci.digest import Chunk
from oci.errors import InvalidInput
from oci.export.export import seal_archive
from oci.export.planner import check_whole
from oci.output import check_outputs, write_json
from oci.reference import Reference, Repository
from oci.relocation.plan import Plan, PlannedManifest, Role
from oci.relocation.planner import make_plan
from oci.relocation.request import RelocationRequest
from oci.relocation.session import Session
from oci.relocation.transfer import load_manifest
from oci.units import counted, show_size

if TYPE_CHECKING:
    from oci.receipts.record import Recorder

_RESUME_HINT = "nothing is written under this name; run the same again"


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
    invocation.resume_hint = _RESUME_HINT
    useless = [flag for flag in ("resume", "plan_only", "monitor", "lock_output") if flags[flag]]
    if useless or flags["verify_mode"] != "none":
        named = ", ".join(f"--{flag.removesuffix('_only').replace('_', '-')}" for flag in (*useless, "verify"))
        raise InvalidInput(f"{DOCKER_ARCHIVE}: can't be written with {named}", hint="leave it out, or use --to-tar")
    check_outputs(path)
    with registry.session(invocation, concurrency=flags["concurrency"], store=store) as session:
        plan = make_plan(session, request)
        check_whole(plan)
        images = [_image(session, plan, image) for image in _loadable(plan)]
        if name:
            if len(images) != 1:
                raise InvalidInput(
                    f"{counted(len(images), 'image')} can't all be called {name}", hint="name the file alone"
                )
            images = [DockerImage(manifest=images[0].manifest, names=(_checked(name),))]
        announce(output, plan)
        layers = {layer.digest: layer.size for image in images for layer in image.manifest.layers}
        progress = LayerProgress(session.meter, "unpacking layers", lambda receipt: receipt.bytes_read)
        progress.expect(sum(layers.values()))

        def read(blob: Descriptor) -> Iterator[Chunk]:
            planned = plan.blob_by_digest.get(blob.digest)
            if planned is None:
                raise InvalidInput(
                    f"the layer {blob.digest} is non-distributable, and docker needs all layers",
                    hint="bring it along: --include-non-distributable-layers",
                )
            return session.source(planned.stores[0]).read_blob(blob)

        with shown(progress, invocation, flags["progress_kind"]):
            size = write_docker_archive(path, images, read)
        sums = seal_archive(session, plan, (path,), path, sha256sums=flags["sha256sums"], recorder=recorder)
        receipt = session.meter.receipt()
    names = [name for image in images for name in image.names]
    result = {"location": path, "format": DOCKER_ARCHIVE, "images": len(images), "layers": len(layers)}
    result |= {"sha256": list(sums.values())}
    result |= {"names": names, "size": size, "seconds": receipt.seconds, "requests": receipt.total_requests}
    output.result(**result)
    if flags["report"]:
        write_json(flags["report"], result)
    output.summary(
        f"{plan.source} -> {path}: {counted(len(images), 'image')}, {counted(len(layers), 'layer')}, "
        f"{show_size(size)} written, {counted(receipt.total_requests, 'request')}, {receipt.seconds:.1f} s"
    )


def _loadable(plan: Plan) -> Iterator[PlannedManifest]:
    """What docker can hold: no signatures, and nothing that is attached."""
    return (image for image in plan.images if image.role not in (Role.SIGNATURE, Role.REFERRER))


def _image(session: Session, plan: Plan, image: PlannedManifest) -> DockerImage:
    """Of an index, its only image."""
    manifests = [manifest for manifest in plan.below(image) if not manifest.children or manifest.is_bundle]
    if len(manifests) != 1:
        platforms = ", ".join(filter(None, (manifest.platform for manifest in manifests)))
        raise InvalidInput(
            f"{image.subject} has {len(manifests)} images ({platforms}), and docker's archives have no index",
            hint="choose one: --platform linux/amd64",
        )
    home = image.origin.repository if image.origin else image.store
    names = tuple(docker_name(home, tag) for tag in image.tags) if isinstance(home, Repository) else image.tags
    return DockerImage(manifest=load_manifest(session, manifests[0]), names=tuple(n for n in names if ":" in n))


def _checked(name: str) -> str:
    """As docker knows names: with a tag, which is `latest` where none is given."""
    reference = Reference.parse(name)
    if reference.digest is not None or not isinstance(reference.repository, Repository):
        raise InvalidInput(f"{name!r} is no name of docker's", hint="write NAME:TAG")
    return docker_name(reference.repository, reference.tag)
