"""`transship receipt`."""

from __future__ import annotations

from typing import Any

import click

from flows.cli.access import RegistryFlags, concurrency_flag, registry_flags, store_flags
from flows.cli.click_ext import Invocation, Verb, boolean, everywhere, group, words
from flows.cli.output import ExitCode
from oci.archive.s3_options import S3Options
from oci.errors import InvalidInput
from oci.receipts.check import check_receipt, find_receipt
from oci.signatures.keys import read_key_file

_DIFFERENCES = ("Kind", "Subject", "Expected", "Actual", "Detail")


receipt = group(
    "receipt",
    "Receipts: what a copy has left in writing.",
    {"verify": ("flows.cli.images.receipt:verify", "Say whether all is still as the receipt says")},
)


@click.command(
    name="verify",
    cls=Verb,
    examples=(
        "shop.receipt.json --key cosign.pub",
        "shop.receipt.json --key cosign.pub --deep --json",
        "registry.corp.example/mirror/bundle:1.4.0 --key cosign.pub",
        "shop.receipt.json --key cosign.pub --at /media/usb/shop.tar",
    ),
)
@click.argument("name", metavar="RECEIPT")
@words("--key", "keys", help="Public key that has signed it (repeatable: any of them).")
@click.option("--at", multiple=True, metavar="PLACE", help="Where the destination is now, if moved (repeatable).")
@boolean("--deep", help="Read and hash every blob.")
@concurrency_flag("Requests at a time")
@store_flags
@registry_flags()
@everywhere
@click.pass_obj
def verify(invocation: Invocation, /, registry: RegistryFlags, store: S3Options, **flags: Any) -> int:
    """Prove that a key has signed RECEIPT, and that the destination is still as it says.

    RECEIPT is a file of `copy --receipt`, or an image that one is attached to: REGISTRY/REPOSITORY[:TAG][@DIGEST] or
    oci:PATH[:TAG].

    Exit codes: 0 all is as received, 4 something differs, 1 the key hasn't signed it.
    """
    if not flags["keys"]:
        raise InvalidInput("Expected --key", hint="name the public key of its signer: --key cosign.pub")
    output = invocation.output
    output.check_columns(_DIFFERENCES)
    keys = [read_key_file(path) for path in flags["keys"]]
    concurrency = flags["concurrency"]
    with registry.session(invocation, side="destination", concurrency=concurrency, store=store) as session:
        received = find_receipt(session, flags["name"], keys)
        checked = check_receipt(session, received, at=flags["at"], deep=flags["deep"])
        cost = session.meter.receipt()
    output.result(statement=received.statement, **checked.to_dict(), receipt=cost.to_dict())
    rows = [
        [difference.kind, difference.subject, difference.expected, difference.actual, difference.detail]
        for difference in checked.differences
    ]
    if rows:
        output.table("Differences", _DIFFERENCES, rows)
    output.summary(str(checked))
    return ExitCode.DRIFT if checked.differences else ExitCode.DONE
