"""The flags that say what is copied, and the request they come down to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import click

from flows.cli.click_ext import boolean, words
from oci.errors import InvalidInput
from oci.relocation.request import ARTIFACTS, COSIGN, Artifact, RelocationRequest

F = TypeVar("F", bound=Callable[..., Any])

_SOURCES = ("lock", "bundle", "image", "tar")


def source_flags(command: F) -> F:
    options = (
        click.option(
            "-b", "--bundle", default="", help="Bundle with everything it lists: REGISTRY/REPOSITORY:TAG or oci:PATH."
        ),
        click.option("-i", "--image", default="", help="One image or index, in the same form."),
        click.option("--lock", default="", help="BundleLock or ImagesLock file."),
        click.option("--tar", multiple=True, help="Archive, a file or s3://BUCKET/KEY (repeat it for volumes)."),
        click.option("--only", multiple=True, help="Of --tar, only this image: digest, tag or reference (repeatable)."),
        boolean("--include-non-distributable-layers", help="Copy non-distributable layers as well."),
        boolean("--cosign-signatures", help="The same as --artifacts cosign."),
        words("--artifacts", help="What travels along: cosign, referrers, all or none."),
        words("--platform", help="Only these platforms of an index, which gets a new digest (repeatable)."),
        boolean("--shallow", help="The bundle's own image and nothing that it lists."),
        boolean("--ignore-bundle-check", help="With -i, the same: a bundle is copied as the plain image that it is."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def check_source(flags: dict[str, Any]) -> None:
    if len([name for name in _SOURCES if flags[name]]) != 1:
        raise InvalidInput("Expected either --lock, --bundle (-b), --image (-i), or --tar as a source")
    if flags["ignore_bundle_check"] and not flags["image"]:
        raise InvalidInput(
            "--ignore-bundle-check is for --image (-i): it copies a bundle as the plain image that it is",
            hint="use -i instead of -b, or --shallow for the bundle's own image and nothing that it lists",
        )


def request_of(flags: dict[str, Any], to: str, **more: Any) -> RelocationRequest:
    return RelocationRequest(
        bundle=flags["bundle"],
        image=flags["image"],
        lock=flags["lock"],
        archive=flags["tar"],
        only=flags["only"],
        to=to,
        artifacts=_artifacts(flags["artifacts"], cosign=flags["cosign_signatures"]),
        include_non_distributable=flags["include_non_distributable_layers"],
        platforms=flags["platform"],
        shallow=flags["shallow"] or flags["ignore_bundle_check"],
        **more,
    )


def _artifacts(named: Sequence[str], *, cosign: bool) -> frozenset[Artifact]:
    wanted = cast(frozenset[Artifact], frozenset(named) - {"none"})  # the request refuses unknown words
    if "all" in wanted:
        return ARTIFACTS
    return wanted | {COSIGN} if cosign else wanted
