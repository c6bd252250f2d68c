"""`transship verify`."""

from __future__ import annotations

from typing import Any

import click

from flows.cli.access import RegistryFlags, concurrency_flag, registry_flags
from flows.cli.click_ext import Invocation, Verb, boolean, everywhere, words
from flows.cli.progress import LayerProgress, progress_flag, shown
from oci.errors import Incomplete, InvalidInput, StoreError
from oci.relocation.verify import names_by_store, verify_names
from oci.units import counted, show_cost, show_size

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
    results = {}
    with registry.session(invocation, side="destination", concurrency=flags["concurrency"]) as session:
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
