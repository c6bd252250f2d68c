"""`transship describe`, `transship tag` and `transship verify`."""

from __future__ import annotations

from typing import Any

import click

from flows.cli.access import RegistryFlags, concurrency_flag, registry_flags, store_flags
from flows.cli.click_ext import Invocation, Tree, Verb, boolean, everywhere, expect_subcommand, words
from flows.cli.progress import LayerProgress, progress_flag, shown
from oci.archive.s3_options import S3Options
from oci.bundle.describe import OpenSource, as_text, as_yaml, describe
from oci.bundle.results import DescribeReport
from oci.bundle.tagnames import resolve_tag
from oci.errors import Incomplete, InvalidInput, StoreError
from oci.output import to_dict
from oci.reference import ArchiveName, Reference, parse_any, parse_store
from oci.relocation.archive_source import named_in_archive, sealed
from oci.relocation.verify import names_by_store, verify_names
from oci.signatures.artifacts import WRITE_ONE
from oci.store import found_manifest
from oci.units import counted, show_size


@click.command(
    name="describe",
    cls=Verb,
    examples=(
        "-b registry.example/shop/bundle:1.4.0",
        "-b registry.example/shop/bundle:1.4.0 --output-type yaml",
        "--tar bundle.tar --layers",
    ),
)
@click.option("-b", "--bundle", default="", help="REGISTRY/REPOSITORY:TAG or oci:PATH:TAG.")
@click.option("--tar", multiple=True, help="Archive to look into (repeat it for volumes); -b says what, if need be.")
@concurrency_flag("Requests at a time")
@click.option("-o", "--output-type", type=click.Choice(["text", "yaml"]), default="text", show_default=True)
@boolean("--layers", default=True, help="Show the layers of each image.")
@boolean("--cosign-artifacts", default=True, help="Show cosign's signatures.")
@store_flags
@registry_flags()
@everywhere
@click.pass_obj
def describe_bundle(invocation: Invocation, /, registry: RegistryFlags, store: S3Options, **flags: Any) -> None:
    """Show what a bundle holds: images, nested bundles, signatures, and where each of them is."""
    if not flags["bundle"] and not flags["tar"]:
        raise InvalidInput("Expected --bundle (-b)")
    with registry.session(invocation, side="", concurrency=flags["concurrency"], store=store) as session:
        open_source: OpenSource = session.source
        if flags["tar"]:
            archive = session.archive(ArchiveName.of(*flags["tar"]))
            open_source = sealed(archive)
            reference, _ = named_in_archive(archive, flags["bundle"])
        else:
            reference = parse_any(flags["bundle"])
        found = describe(
            open_source,
            reference,
            session.workers,
            layers=flags["layers"],
            signatures=flags["cosign_artifacts"],
        )
    if flags["output_type"] == "yaml":
        head, _, document = as_yaml(found).partition("\n")
        blocks = [f"{head}\n", document]
    else:
        blocks = as_text(found).splitlines(keepends=True)
    invocation.output.result(**to_dict(DescribeReport.of(found)))
    # As many blocks as in imgpkg's JSON.
    for block in blocks:
        invocation.output.block(block)
    invocation.output.finish()


@click.command(
    cls=Tree,
    members={
        "list": ("flows.cli.mirror.tags:list_tags", "List the tags of a repository"),
        "resolve": ("flows.cli.look:resolve", "Say which digest a tag stands for"),
    },
    aliases={"ls": "list"},
    invoke_without_command=True,
)
@everywhere
@click.pass_context
def tag(context: click.Context) -> None:
    """Tags of a repository."""
    expect_subcommand(context)


@click.command(
    name="resolve",
    cls=Verb,
    examples=("-i registry.example/shop/web:1.25", "-i registry.example/shop/web:1.25 --json", "-i oci:./mirror:1.4.0"),
)
@click.option("-i", "--image", default="", help="Reference: REGISTRY/REPOSITORY:TAG or oci:PATH:TAG.")
@registry_flags()
@everywhere
@click.pass_obj
def resolve(invocation: Invocation, /, registry: RegistryFlags, **flags: Any) -> None:
    """Print the reference with the digest that the tag stands for."""
    reference = parse_any(given(flags))
    with registry.session(invocation, side="") as session:
        found = resolve_tag(session.source(reference.repository), reference)
    invocation.output.result(reference=str(found), digest=found.identifier)
    invocation.output.block(str(found))
    invocation.output.finish()


def given(flags: dict[str, Any]) -> str:
    """The --image of a command. Raises InvalidInput where it is left out."""
    if not flags["image"]:
        raise InvalidInput("Expected --image (-i)", hint="name the repository: -i REGISTRY/REPOSITORY")
    return str(flags["image"])


_LOST = "copy it again with --repair: it sends what is missing"
_UNKNOWN = "check the name: `transship tag list -i REGISTRY/REPOSITORY` says what there is"
_PLACES = ("Place", "Names", "Manifests", "Blobs", "Problems")


@click.command(
    name="verify",
    cls=Verb,
    examples=(
        "registry.corp.example/mirror/bundle:1.4.0",
        "registry.corp.example/mirror/bundle:1.4.0 --deep",
        "--lock bundle.lock.yml --json",
    ),
)
@click.argument("references", metavar="[REFERENCE]...", nargs=-1)
@words("--all-tags", "repositories", help="REGISTRY/REPOSITORY or oci:PATH: everything in it (repeatable).")
@words("--lock", "locks", help="What an ImagesLock or BundleLock file pins, where it says (repeatable).")
@boolean("--deep", help="Read and hash every byte.")
@progress_flag
@concurrency_flag("Requests at a time")
@registry_flags()
@everywhere
@click.pass_obj
def verify_references(invocation: Invocation, /, registry: RegistryFlags, **flags: Any) -> None:
    """Prove that what references name is complete: every manifest, and every blob that one lists.

    REFERENCE is REGISTRY/REPOSITORY[:TAG][@DIGEST] or oci:PATH[:TAG]. A bundle is complete when everything it lists is
    in its own repository, as a relocation leaves it.
    """
    invocation.output.check_columns(_PLACES)
    places = names_by_store(flags["references"], flags["repositories"], flags["locks"])
    if not places:
        raise InvalidInput("Expected something to verify", hint="name a reference, or --all-tags REPOSITORY")
    found = {}
    with registry.session(invocation, side="destination", concurrency=flags["concurrency"]) as session:
        progress = LayerProgress(session.meter, "verifying", lambda receipt: receipt.bytes_read)
        with shown(progress, invocation, flags["progress_kind"]):
            for name, identifiers in places.items():
                found[name] = verify_names(session, name, identifiers, deep=flags["deep"])
        receipt = session.meter.receipt()
    rows = [
        [str(name), ", ".join(places[name]) or "all tags", one.manifests, one.blobs, len(one.problems)]
        for name, one in found.items()
    ]
    invocation.output.table("Places", _PLACES, rows)
    invocation.output.result(
        places=[{"place": str(name), "names": list(places[name])} | one.to_dict() for name, one in found.items()],
        receipt=receipt.to_dict(),
    )
    problems = [problem for one in found.values() for problem in one.problems]
    if problems:
        raise Incomplete(
            counted(len(problems), "problem"),
            [StoreError(problem) for problem in problems],
            hint=_LOST if len(problems) > sum(one.absent for one in found.values()) else _UNKNOWN,
        )
    manifests, blobs = (sum(getattr(one, what) for one in found.values()) for what in ("manifests", "blobs"))
    hashed = sum(one.bytes_hashed for one in found.values())
    how = f"{show_size(hashed)} hashed" if flags["deep"] else "asked for by HEAD"
    cost = f"{counted(receipt.total_requests, 'request')}, {receipt.seconds:.1f} s"
    invocation.output.summary(f"complete: {counted(manifests, 'manifest')}, {counted(blobs, 'blob')}, {how}, {cost}")
    invocation.output.finish()


@click.command(
    cls=Tree,
    members={"check": ("flows.cli.look:check_policy", "Explain what a policy says of an image")},
    aliases={},
    invoke_without_command=True,
)
@everywhere
@click.pass_context
def policy(context: click.Context) -> None:
    """Policies of signatures."""
    expect_subcommand(context)


@click.command(
    name="check",
    cls=Verb,
    examples=(
        "registry.example/shop/web:1.25 --policy policy.yaml --to registry.corp.example/mirror/web",
        "registry.example/shop/web:1.25 --policy /etc/containers/policy.json --json",
        "oci:./mirror:1.4.0 --policy policy.yaml --require-signatures",
    ),
)
@click.argument("reference", metavar="REFERENCE")
@click.option("--policy", default="", metavar="FILE", help="Our YAML, or policy.json as skopeo has it.")
@click.option("--to", default="", metavar="REPOSITORY", help="Where the image is to go; by default where it is.")
@boolean("--require-signatures", help="Refuse what the policy accepts without a signature, too.")
@registry_flags()
@everywhere
@click.pass_obj
def check_policy(invocation: Invocation, /, registry: RegistryFlags, **flags: Any) -> None:
    """Explain, step by step, whether an image may go to a repository. Nothing is copied; exit code 3 when it may not.

    REFERENCE is REGISTRY/REPOSITORY[:TAG][@DIGEST] or oci:PATH[:TAG].
    """
    if not flags["policy"]:
        raise InvalidInput("Expected --policy", hint=WRITE_ONE)
    reference = parse_any(flags["reference"])
    with registry.session(invocation, side="") as session:
        source = session.source(reference.repository)
        digest = found_manifest(source, reference.identifier).digest
        image = Reference(reference.repository, reference.tag, digest)
        gate = session.gate(flags["policy"], signed=flags["require_signatures"])
        decision = gate.decide(source, image, parse_store(flags["to"]) if flags["to"] else image.repository)
    invocation.output.result(**decision.to_dict())
    for step in decision.steps:
        invocation.output.line(f"policy | {step}")
    if not decision.accepted:
        raise decision.error()
    invocation.output.summary(f"{decision.image} -> {decision.destination}: accepted ({decision.scope})")
    invocation.output.finish()
