"""What is said of a plan: as lines while it is carried out, as tables instead of that."""

from __future__ import annotations

from itertools import groupby
from operator import itemgetter

from flows.cli.output import Output
from oci.reference import ARCHIVE_PREFIX
from oci.relocation.plan import Plan
from oci.units import counted, show_size

IMAGES = ("Role", "Image", "State", "Tags")
REQUESTS = ("Registry", "Requests")


def announce(output: Output, plan: Plan) -> None:
    """What is read from a registry, then what is sent; from an archive nothing is exported."""
    images = list(plan.images)
    if not all(image.store.startswith(ARCHIVE_PREFIX) for image in images):
        output.line(f"copy | exporting {len(images)} images...")
        for image in images:
            place = image.origin if image.present and image.origin else f"{image.store}@{image.digest}"
            output.line(f"copy | will export {place}")
        output.line(f"copy | exported {len(images)} images")


def show(output: Output, plan: Plan) -> None:
    rows = [
        [
            image.role.value,
            image.origin or f"{image.store}@{image.digest}",
            "present" if image.present else "to copy",
            ", ".join(image.tags),
        ]
        for image in plan.images
    ]
    output.table("Images", IMAGES, rows)
    for failed in plan.failures:
        output.warn(f"can't be read: {failed.subject}: {failed.message}")
    requests = [[name, str(count)] for name, count in plan.estimated_requests.items()]
    output.table("Requests", REQUESTS, requests)
    moved = f"at most {show_size(plan.bytes_to_move)}, of it {show_size(plan.bytes_to_mount)} to mount"
    blobs = counted(len(plan.blobs), "blob")
    output.summary(f"{len(plan.to_transfer)} of {counted(len(rows), 'image')} to copy: {blobs}, {moved}")


def warn_of_layers(output: Output, plan: Plan, *, included: bool) -> None:
    if plan.skipped_layers:
        lines = ["Skipped non-distributable layers; --include-non-distributable-layers copies them:"]
        for manifest, layers in groupby(plan.skipped_layers, key=itemgetter(0)):
            image = plan.by_digest[manifest]
            lines += [f" - Image: {image.origin or f'{image.store}@{manifest}'}", "   Layers:"]
            lines += [f"     - {layer}" for _, layer in layers]
        output.warn("\n".join(lines))
    elif included and not any(blob.descriptor.distributable is False for blob in plan.blobs):
        output.warn("'--include-non-distributable-layers' was given, but no image had a non-distributable layer")
