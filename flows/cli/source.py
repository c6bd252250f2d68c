"""What the commands that copy share: the flags that say what is copied and how, the request they make, the lines that
say what is read, and the numbers of a run."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from itertools import groupby
from operator import itemgetter
from typing import Any, TypeVar

from flows.cli.click_ext import Invocation, boolean
from flows.cli.flags import flags_of
from flows.cli.output import Output
from oci.errors import InvalidInput
from oci.meter import RunMetrics, export_metrics
from oci.reference import ArchiveName, named_archive
from oci.relocation.plan import Plan
from oci.relocation.request import CopyOptions, RelocationRequest
from oci.relocation.session import Session
from oci.signatures.artifacts import COSIGN

F = TypeVar("F", bound=Callable[..., Any])

_SOURCES = ("lock", "bundle", "image", "archive")
OF_REPOSITORIES = ("repair", "repo_based_tags", "names", "backup")
"""Options of a copy that an archive has no use for."""


def source_flags(*, leave_out: Collection[str] = ()) -> Callable[[F], F]:
    """Adds the flags; the command gets the fields of a RelocationRequest that they set as `source`."""

    def decorate(command: F) -> F:
        @functools.wraps(command)
        def with_flags(*args: Any, **values: Any) -> Any:
            plain = values.pop("ignore_bundle_check")
            source = {**values.pop("source"), **values.pop("how")}
            for kind in ("image", "bundle"):  # `-i docker-archive:PATH:NAME` is `--tar PATH --only NAME`
                named = named_archive(source.get(kind) or "")
                if named is not None:
                    del source[kind]
                    path, name = named
                    source["archive"] = (*source.get("archive", ()), path)
                    if name:
                        source["only"] = (*source.get("only", ()), name)
            if values.pop("cosign_signatures"):
                source["artifacts"] = (*source.get("artifacts", ()), COSIGN)
            if len([name for name in _SOURCES if source.get(name)]) != 1:
                raise InvalidInput("Expected either --lock, --bundle (-b), --image (-i), or --tar as a source")
            if plain and not source.get("image"):
                raise InvalidInput(
                    "--ignore-bundle-check is for --image (-i): it copies a bundle as the plain image that it is",
                    hint="use -i instead of -b, or --shallow for the bundle's own image and nothing that it lists",
                )
            if plain:
                source["shallow"] = True
            return command(*args, source=source, **values)

        wrapped: Any = with_flags
        for option in (
            boolean(
                "--ignore-bundle-check", help="With -i, the same: a bundle is copied as the plain image that it is."
            ),
            boolean("--cosign-signatures", help="The same as --artifacts cosign."),
            flags_of(CopyOptions, "how", leave_out=leave_out, make=dict),
            flags_of(RelocationRequest, "source", take=_SOURCES, make=dict),
        ):
            wrapped = option(wrapped)
        return wrapped  # type: ignore[no-any-return]

    return decorate


def announce(output: Output, plan: Plan) -> None:
    """What is read from a registry, then what is sent; from an archive nothing is exported."""
    images = list(plan.images)
    if not all(isinstance(image.store, ArchiveName) for image in images):
        output.line(f"copy | exporting {len(images)} images...")
        for image in images:
            place = image.origin if image.present and image.origin else f"{image.store}@{image.digest}"
            output.line(f"copy | will export {place}")
        output.line(f"copy | exported {len(images)} images")


def warn_of_layers(output: Output, plan: Plan, *, included: bool) -> None:
    if plan.skipped_layers:
        lines = [
            (
                "Skipped the followings layer(s) due to it being non-distributable. If you would like to include "
                "non-distributable layers, use the --include-non-distributable-layers flag"
            )
        ]
        for manifest, layers in groupby(plan.skipped_layers, key=itemgetter(0)):
            image = plan.by_digest[manifest]
            named = f"{plan.destination}@{manifest}" if isinstance(image.store, ArchiveName) else image.subject
            lines += [f" - Image: {named}", "   Layers:"]
            lines += [f"     - {layer}" for _, layer in layers]
        output.warn("\n".join(lines), among_lines=True)
    elif included and not any(blob.descriptor.distributable is False for blob in plan.blobs):
        sentence = "flag provided, but no images contained a non-distributable layer."
        output.warn(f"'--include-non-distributable-layers' {sentence}", among_lines=True)


@contextmanager
def metrics_exported(
    session: Session, images: Callable[[], Mapping[str, int]], invocation: Invocation, to: str, flags: dict[str, Any]
) -> Iterator[None]:
    """Exports the metrics of the block when it ends, with or without an error, unless it only makes a plan; `images`
    counts images by outcome."""
    succeeded = False
    try:
        yield
        succeeded = True
    finally:
        run = RunMetrics(
            names={"destination": to},
            succeeded=succeeded,
            receipt=session.meter.receipt(),
            images=images(),
        )
        if not flags["plan_only"]:
            export_metrics(run, warn=invocation.output.warn, path=flags["metrics_file"])
