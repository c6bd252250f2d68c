"""The commands that look at images, and at what is attached to them: `transship inspect`, `describe`, `verify`,
`policy check` and `receipt verify`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click
from msgspec.structs import astuple

from flows.cli.click_ext import Invocation, boolean, verb, words
from flows.cli.flags import concurrency_flag, open_session, registry_flags, store_flags
from flows.cli.output import ExitCode
from flows.cli.progress import LayerProgress, progress_flag, shown
from oci.descriptor import Platform
from oci.errors import Incomplete, InvalidInput, StoreError
from oci.output import to_dict
from oci.reference import ArchiveName, Reference, named_archive, parse_any, parse_store
from oci.relocation.session import Session
from oci.relocation.verify import names_by_store, verify_names
from oci.signatures.artifacts import WRITE_ONE
from oci.store import Source, found_manifest
from oci.units import counted, show_cost, show_size

if TYPE_CHECKING:
    from oci.archive.source import ArchiveSource
    from oci.bundle.describe import OpenSource
    from oci.signatures.inspect import Inspection

_PLATFORMS = ("Platform", "Digest", "Layers", "Bytes")
_LAYERS = ("Layer", "Bytes", "Media type")
_ATTACHED = ("Attached", "Digest", "Subject")
_LINES = ("User", "WorkingDir", "Entrypoint", "Cmd", "ExposedPorts", "Volumes", "StopSignal")
"""Of an image's config (image-spec, config.md), what a person who runs it asks for. `--json` has all of it."""


@verb(
    "inspect",
    "registry.example/shop/web:1.25",
    "registry.example/shop/web:1.25 --platform linux/arm64 --json",
    "--tar shop.tar",
)
@click.argument("reference", default="")
@click.option("--tar", multiple=True, help="Archive to look into (repeat it for volumes); REFERENCE says which image.")
@words("--platform", "platforms", help="Only these platforms of an index (repeatable).")
@concurrency_flag("Requests at a time")
@store_flags
@registry_flags()
def inspect_image(invocation: Invocation, /, reference: str, **flags: Any) -> None:
    """Show what an image is: its kind, platforms, config, layers, sizes, and what is attached to it. No layer is read.

    REFERENCE is REGISTRY/REPOSITORY[:TAG][@DIGEST], oci:PATH[:TAG], oci-archive:PATH[:TAG] or
    docker-archive:PATH[:NAME].
    """
    from oci.signatures.inspect import inspect  # noqa: PLC0415 - the other commands do without

    output = invocation.output
    output.check_columns(_PLATFORMS, _LAYERS, _ATTACHED)
    platforms = [Platform.parse(text) for text in flags["platforms"]]
    if not reference and not flags["tar"]:
        raise InvalidInput("Expected a reference", hint="name an image, or an archive with --tar")
    with open_session(invocation, "") as session:
        source: Source
        path, name = named_archive(reference) or ("", reference)
        if path or flags["tar"]:
            source, named = _in_archive(session, (*flags["tar"], *filter(None, (path,))), name)
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
    rows = [
        [artifact.tag or artifact.artifact_type or "referrer", artifact.digest, artifact.subject]
        for artifact in inspection.attached
    ]
    if rows:
        output.table("Artifacts", _ATTACHED, rows)
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
    if len(inspection.images) != 1:
        return
    image = inspection.images[0]
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
            words_of_value = map(str, value) if isinstance(value, list | Mapping) else (str(value),)
            yield f"{name}: {_one_line(' '.join(words_of_value))}"
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


def _in_archive(session: Session, locations: Sequence[str], name: str) -> tuple[ArchiveSource, Reference]:
    """Opens an archive. Returns it, and the reference of its image that `name` means."""
    from oci.relocation.archive_source import named_in_archive  # noqa: PLC0415 - brings the formats of archives

    archive = session.archive(ArchiveName.of(*locations))
    return archive, named_in_archive(archive, name)[0]


class _OutputType(click.Choice):  # type: ignore[type-arg,unused-ignore]  # generic from click 8.2 on
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        del param
        if value not in self.choices:
            raise click.UsageError(
                f"--output-type can only have the following values: [{', '.join(self.choices)}]", ctx
            )
        return value


@verb(
    "describe",
    "-b registry.example/shop/bundle:1.4.0",
    "-b registry.example/shop/bundle:1.4.0 --output-type yaml",
    "--tar bundle.tar --layers",
)
@click.option("-b", "--bundle", default="", help="REGISTRY/REPOSITORY:TAG or oci:PATH:TAG.")
@click.option("--tar", multiple=True, help="Archive to look into (repeat it for volumes); -b says which bundle.")
@concurrency_flag("Requests at a time")
@click.option("-o", "--output-type", type=_OutputType(["text", "yaml"]), default="text", show_default=True)
@boolean("--layers", default=True, help="Show the layers of each image.")
@boolean("--cosign-artifacts", default=True, help="Show cosign's signatures.")
@store_flags
@registry_flags()
def describe_bundle(invocation: Invocation, /, **flags: Any) -> None:
    """Show what a bundle holds: images, nested bundles, signatures, and where each of them is."""
    from oci.bundle.describe import (  # noqa: PLC0415 - the other commands do without
        DescribeReport,
        as_text,
        as_yaml,
        describe,
    )

    if not flags["bundle"] and not flags["tar"]:
        raise InvalidInput("Expected --bundle (-b)")
    with open_session(invocation, "") as session:
        open_source: OpenSource = session.source
        if flags["tar"]:
            from oci.relocation.archive_source import sealed  # noqa: PLC0415 - brings the formats of archives

            archive, reference = _in_archive(session, flags["tar"], flags["bundle"])
            open_source = sealed(archive)
        else:
            reference = parse_any(flags["bundle"])
        layers, signatures = flags["layers"], flags["cosign_artifacts"]
        bundle = describe(open_source, reference, session.workers, layers=layers, signatures=signatures)
    if flags["output_type"] == "yaml":
        head, _, document = as_yaml(bundle).partition("\n")
        blocks = [f"{head}\n", document]
    else:
        blocks = as_text(bundle).splitlines(keepends=True)
    invocation.output.result(**to_dict(DescribeReport.of(bundle)))
    # As many blocks as in imgpkg's JSON.
    for block in blocks:
        invocation.output.block(block)


_LOST = "copy it again with --repair: it sends what is missing"
_UNKNOWN = "check the name: `transship tag list -i REGISTRY/REPOSITORY` says what there is"
_PLACES = ("Place", "Names", "Manifests", "Blobs", "Problems")


@verb(
    "verify",
    "registry.corp.example/mirror/bundle:1.4.0",
    "registry.corp.example/mirror/bundle:1.4.0 --deep",
    "--lock bundle.lock.yml --json",
)
@click.argument("references", metavar="[REFERENCE]...", nargs=-1)
@words("--all-tags", "repositories", help="REGISTRY/REPOSITORY or oci:PATH: everything in it (repeatable).")
@words("--lock", "locks", help="What an ImagesLock or BundleLock file pins, where it says (repeatable).")
@boolean("--deep", help="Read and hash every byte.")
@progress_flag
@concurrency_flag("Requests at a time")
@registry_flags()
def verify_references(invocation: Invocation, /, **flags: Any) -> None:
    """Prove that what references name is complete: every manifest, and every blob that one lists.

    REFERENCE is REGISTRY/REPOSITORY[:TAG][@DIGEST] or oci:PATH[:TAG]. A bundle is complete when everything it lists is
    in its own repository, as a relocation leaves it.
    """
    invocation.output.check_columns(_PLACES)
    places = names_by_store(flags["references"], flags["repositories"], flags["locks"])
    if not places:
        raise InvalidInput("Expected something to verify", hint="name a reference, or --all-tags REPOSITORY")
    results = {}
    with open_session(invocation, "destination") as session:
        progress = LayerProgress(session.meter, "verifying", lambda receipt: receipt.bytes_read)
        with shown(progress, invocation, flags["progress_kind"]):
            for name, identifiers in places.items():
                results[name] = verify_names(session, name, identifiers, deep=flags["deep"])
        receipt = session.meter.receipt()
    rows = [
        [str(name), ", ".join(places[name]) or "all tags", result.manifests, result.blobs, len(result.problems)]
        for name, result in results.items()
    ]
    invocation.output.table("Places", _PLACES, rows)
    invocation.output.result(
        places=[
            {"place": str(name), "names": list(places[name])} | result.to_dict() for name, result in results.items()
        ],
        receipt=receipt.to_dict(),
    )
    problems = [problem for result in results.values() for problem in result.problems]
    if problems:
        raise Incomplete(
            counted(len(problems), "problem"),
            [StoreError(problem) for problem in problems],
            hint=_LOST if len(problems) > sum(result.absent for result in results.values()) else _UNKNOWN,
        )
    manifests, blobs = (sum(getattr(result, field) for result in results.values()) for field in ("manifests", "blobs"))
    hashed = sum(result.bytes_hashed for result in results.values())
    how = f"{show_size(hashed)} hashed" if flags["deep"] else "asked for by HEAD"
    cost = show_cost(receipt.total_requests, receipt.seconds)
    invocation.output.summary(f"complete: {counted(manifests, 'manifest')}, {counted(blobs, 'blob')}, {how}, {cost}")


@verb(
    "check",
    "registry.example/shop/web:1.25 --policy policy.yaml --to registry.corp.example/mirror/web",
    "registry.example/shop/web:1.25 --policy /etc/containers/policy.json --json",
    "oci:./mirror:1.4.0 --policy policy.yaml --require-signatures",
)
@click.argument("reference", metavar="REFERENCE")
@click.option(
    "--policy", default="", metavar="FILE", help="Policy file: transship's YAML, or policy.json as skopeo has it."
)
@click.option("--to", default="", metavar="REPOSITORY", help="Where the image is to go; by default where it is.")
@boolean("--require-signatures", help="Refuse what the policy accepts without a signature, too.")
@registry_flags()
def check_policy(invocation: Invocation, /, **flags: Any) -> None:
    """Explain, step by step, whether an image may go to a repository. Nothing is copied; exit code 3 when it may not.

    REFERENCE is REGISTRY/REPOSITORY[:TAG][@DIGEST] or oci:PATH[:TAG].
    """
    if not flags["policy"]:
        raise InvalidInput("Expected --policy", hint=WRITE_ONE)
    reference = parse_any(flags["reference"])
    with open_session(invocation, "") as session:
        gate = session.gate(flags["policy"], signed=flags["require_signatures"])
        source = session.source(reference.repository)
        digest = found_manifest(source, reference.identifier).digest
        image = Reference(reference.repository, reference.tag, digest)
        decision = gate.decide(source, image, parse_store(flags["to"]) if flags["to"] else image.repository)
    invocation.output.result(**to_dict(decision))
    for step in decision.steps:
        invocation.output.block(f"policy | {step}\n")
    if not decision.accepted:
        raise decision.error(hint=f"ask who publishes it for what is missing, or change the rule in {flags['policy']}")
    invocation.output.summary(f"{decision.image} -> {decision.destination}: accepted ({decision.scope})")


_DIFFERENCES = ("Kind", "Subject", "Expected", "Actual", "Detail")


@verb(
    "verify",
    "shop.receipt.json --key cosign.pub",
    "shop.receipt.json --key cosign.pub --deep --json",
    "registry.corp.example/mirror/bundle:1.4.0 --key cosign.pub",
    "shop.receipt.json --key cosign.pub --at /media/usb/shop.tar",
)
@click.argument("name", metavar="RECEIPT")
@words("--key", "keys", help="Public key that has signed it (repeatable: any of them).")
@click.option("--at", multiple=True, metavar="PLACE", help="Where the destination is now, if moved (repeatable).")
@boolean("--deep", help="Read and hash every blob.")
@concurrency_flag("Requests at a time")
@store_flags
@registry_flags()
def verify_receipt(invocation: Invocation, /, **flags: Any) -> int:
    """Prove that a key has signed RECEIPT, and that the destination is still as it says.

    RECEIPT is a file of `copy --receipt`, or an image that one is attached to: REGISTRY/REPOSITORY[:TAG][@DIGEST] or
    oci:PATH[:TAG].

    Exit codes: 0 all is as received, 4 something differs, 1 the key hasn't signed it.
    """
    from oci.receipts.check import check_receipt, find_receipt  # noqa: PLC0415 - the other commands do without
    from oci.signatures.keys import read_key_file  # noqa: PLC0415

    if not flags["keys"]:
        raise InvalidInput("Expected --key", hint="name the public key of its signer: --key cosign.pub")
    output = invocation.output
    output.check_columns(_DIFFERENCES)
    keys = [read_key_file(path) for path in flags["keys"]]
    with open_session(invocation, "destination") as session:
        received = find_receipt(session, flags["name"], keys)
        checked = check_receipt(session, received, at=flags["at"], deep=flags["deep"])
        cost = session.meter.receipt()
    output.result(statement=received.statement, **checked.to_dict(), receipt=cost.to_dict())
    if checked.differences:
        output.table("Differences", _DIFFERENCES, [astuple(difference) for difference in checked.differences])
    output.summary(str(checked))
    return ExitCode.DRIFT if checked.differences else ExitCode.DONE
