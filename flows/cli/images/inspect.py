"""`transship inspect`: one image, whatever holds it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import click

from flows.cli.access import RegistryFlags, concurrency_flag, registry_flags, store_flags
from flows.cli.click_ext import Invocation, Verb, everywhere, words
from oci.archive.s3_options import S3Options
from oci.descriptor import Platform
from oci.errors import InvalidInput
from oci.output import to_dict
from oci.reference import ArchiveName, named_archive, parse_any
from oci.relocation.archive_source import named_in_archive
from oci.signatures.inspect import ImageFacts, Inspection, inspect
from oci.store import Source
from oci.units import counted, show_size

_PLATFORMS = ("Platform", "Digest", "Layers", "Bytes")
_LAYERS = ("Layer", "Bytes", "Media type")
_ATTACHED = ("Attached", "Digest", "Subject")
_LINES = ("User", "WorkingDir", "Entrypoint", "Cmd", "ExposedPorts", "Volumes", "StopSignal")
"""Of an image's config (image-spec, config.md), what a person who runs it asks for. `--json` has all of it."""


@click.command(
    name="inspect",
    cls=Verb,
    examples=(
        "registry.example/shop/web:1.25",
        "registry.example/shop/web:1.25 --platform linux/arm64 --json",
        "--tar shop.tar",
    ),
)
@click.argument("reference", default="")
@click.option("--tar", multiple=True, help="Archive to look into (repeat it for volumes); REFERENCE says which image.")
@words("--platform", "platforms", help="Only these platforms of an index (repeatable).")
@concurrency_flag("Requests at a time")
@store_flags
@registry_flags()
@everywhere
@click.pass_obj
def inspect_image(
    invocation: Invocation, /, registry: RegistryFlags, store: S3Options, reference: str, **flags: Any
) -> None:
    """Show what an image is: its kind, platforms, config, layers, sizes, and what is attached to it. No layer is read.

    REFERENCE is REGISTRY/REPOSITORY[:TAG][@DIGEST], oci:PATH[:TAG], oci-archive:PATH[:TAG] or
    docker-archive:PATH[:NAME].
    """
    output = invocation.output
    output.check_columns(_PLATFORMS, _LAYERS, _ATTACHED)
    platforms = [Platform.parse(text) for text in flags["platforms"]]
    if not reference and not flags["tar"]:
        raise InvalidInput("Expected a reference", hint="name an image, or an archive with --tar")
    with registry.session(invocation, side="", concurrency=flags["concurrency"], store=store) as session:
        source: Source
        path, name = named_archive(reference) or ("", reference)
        if path or flags["tar"]:
            source = archive = session.archive(ArchiveName.of(*flags["tar"], *filter(None, (path,))))
            named, _ = named_in_archive(archive, name)
        else:
            named = parse_any(reference)
            source = session.source(named.repository)
        inspection = inspect(source, named, session.workers, platforms=platforms)
    output.result(**to_dict(inspection))
    output.block("".join(f"{line}\n" for line in _about(inspection)))
    rows = [[image.platform or image.kind, image.digest, len(image.layers), image.size] for image in inspection.images]
    output.table("Images", _PLATFORMS, rows)
    if len(inspection.images) == 1:
        layers = inspection.images[0].layers
        output.table("Layers", _LAYERS, [[layer.digest, layer.size, layer.media_type] for layer in layers])
    if inspection.attached:
        output.table(
            "Artifacts",
            _ATTACHED,
            [
                [artifact.tag or artifact.artifact_type or "referrer", artifact.digest, artifact.subject]
                for artifact in inspection.attached
            ],
        )
    for text in inspection.unknown:
        output.warn(text)


def _about(inspection: Inspection) -> Iterator[str]:
    yield f"Reference: {inspection.reference}"
    if not inspection.reference.endswith(inspection.digest):
        yield f"Digest: {inspection.digest}"
    yield f"Kind: {inspection.kind} ({inspection.media_type})"
    yield f"Size: {show_size(inspection.size)} in {counted(inspection.blobs, 'blob')}"
    yield f"Attached: {counted(len(inspection.attached), 'artifact')}"
    yield from _pairs("Annotations", inspection.annotations)
    if len(inspection.images) == 1:
        yield from _config(inspection.images[0])


def _config(image: ImageFacts) -> Iterator[str]:
    if image.artifact_type:
        yield f"Artifact type: {_one_line(image.artifact_type)}"
    if image.config.get("created"):
        yield f"Created: {_one_line(str(image.config['created']))}"
    inner = image.config.get("config")
    if not isinstance(inner, Mapping):
        return
    for name in _LINES:
        value = inner.get(name)
        if value:
            shown = " ".join(map(str, value)) if isinstance(value, list | Mapping) else str(value)
            yield f"{name}: {_one_line(shown)}"
    environment = inner.get("Env")
    if isinstance(environment, list):
        yield from (f"Env: {_one_line(str(variable))}" for variable in environment)
    yield from _pairs("Labels", inner.get("Labels"))


def _pairs(title: str, values: Any) -> Iterator[str]:
    if isinstance(values, Mapping) and values:
        yield f"{title}:"
        yield from (f"  {_one_line(str(name))}: {_one_line(str(value))}" for name, value in sorted(values.items()))


def _one_line(text: str) -> str:
    """Escapes line breaks and control characters, so that no value of a config has a line of its own."""
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)
