"""Pushing files: as a bundle, or as a plain image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from msgspec import Struct

from oci.bundle import tagnames
from oci.bundle.image import BUNDLE_LABEL, single_layer_image
from oci.bundle.lockfile import BundleLock
from oci.errors import CancelToken, InvalidInput, InvalidReference
from oci.files.pack import DEFAULT_EXCLUSIONS, FileEntry, check_bundle, check_duplicates, is_bundle, pack, walk
from oci.meter import Receipt, unheard
from oci.output import check_destination, to_dict
from oci.reference import Reference, clipped, parse_any, parse_tag
from oci.store import Destination, reader_of
from oci.units import counted, show_size


@dataclass(frozen=True, slots=True, kw_only=True)
class PushRequest:
    """Exactly one of `bundle` and `image` names the destination, by tag (`latest` when there is none). `files` are
    files and folders; `exclusions` whole paths inside the image. Raises InvalidInput in the order imgpkg checks."""

    bundle: str = ""
    image: str = ""
    tags: tuple[str, ...] = ()
    """More names for the result, beside the tag of the destination."""
    files: tuple[str, ...] = ()
    exclusions: tuple[str, ...] = DEFAULT_EXCLUSIONS
    preserve_permissions: bool = False
    labels: Mapping[str, str] | None = None
    oci_types: bool = False
    """OCI media types; imgpkg can pull such a bundle and can't copy it."""
    may_be_empty: bool = False
    """An image of no files at all, which imgpkg pushes."""

    def __post_init__(self) -> None:
        if BUNDLE_LABEL in (self.labels or {}):
            raise InvalidInput(
                f"label '{BUNDLE_LABEL}' is reserved and cannot be overriden. Please use a different key"
            )
        if self.bundle and self.image:
            raise InvalidInput("Expected only one of image or bundle")
        if not self.bundle and not self.image:
            raise InvalidInput("Expected either image or bundle", hint="name where to push to with -b or -i")
        for tag in self.tags:
            parse_tag(tag)

    @property
    def destination(self) -> Reference:
        name = self.bundle or self.image
        try:
            reference = parse_any(name)
        except InvalidReference as error:
            problem = error.message.removeprefix(f"{clipped(name)}: ")
            raise InvalidReference(f"Parsing '{name}': {problem}", hint=error.hint) from error
        if reference.digest is not None:
            raise InvalidReference(
                f"Parsing '{name}': this is a digest reference, and what is pushed gets its digest from its files",
                hint="push to a tag",
            )
        return reference


class Pushed(Struct, frozen=True, kw_only=True):
    """`reference` is the digest reference; `entries` what the layer has, in its order."""

    reference: Reference
    tag: str
    entries: tuple[FileEntry, ...]

    @property
    def lock(self) -> BundleLock:
        return BundleLock(self.reference, self.tag)


class PushReport(Struct, frozen=True, kw_only=True):
    """What a push gave, for pages, events and programs. `reference` is by digest, `tag` the name it has; `size` counts
    the bytes of the files."""

    reference: str
    tag: str
    files: int
    folders: int
    size: int
    receipt: Receipt

    @classmethod
    def of(cls, pushed: Pushed, receipt: Receipt) -> PushReport:
        folders = sum(entry.is_folder for entry in pushed.entries)
        return cls(
            reference=str(pushed.reference),
            tag=pushed.tag,
            files=len(pushed.entries) - folders,
            folders=folders,
            size=sum(entry.size for entry in pushed.entries),
            receipt=receipt,
        )

    def to_dict(self) -> dict[str, Any]:
        return {**to_dict(self), "receipt": self.receipt.to_dict()}

    def __str__(self) -> str:
        return f"pushed {self.reference} as {self.tag}: {counted(self.files, 'file')}, {show_size(self.size)}"


def entries_of(request: PushRequest) -> tuple[FileEntry, ...]:
    """Returns the files of a request, checked: a bundle must be one, an image must not be one, no path comes twice."""
    if request.image and not request.files and not request.may_be_empty:
        raise InvalidInput("Expected files or folders to push", hint="name them: -f PATH")
    entries = walk(request.files, exclusions=request.exclusions, preserve_permissions=request.preserve_permissions)
    if request.bundle:
        check_bundle(entries)
    elif is_bundle(entries):
        raise InvalidInput(
            "Images cannot be pushed with '.imgpkg' directories, consider using --bundle (-b) option",
            hint="use -b instead of -i",
        )
    check_duplicates(entries)
    return entries


def push(
    destination: Destination,
    request: PushRequest,
    entries: Sequence[FileEntry],
    *,
    cancel: CancelToken | None = None,
    on_packed: Callable[[int], None] = unheard,
) -> Pushed:
    """Packs the entries into one layer and pushes the image under its tag and its keep-alive tag. The same files give
    the same digest everywhere. `on_packed` gets the size of the layer in bytes when it is known."""
    check_destination(request.destination.repository)
    layer = pack(entries, cancel=cancel)
    on_packed(layer.size)
    labels = dict(request.labels or {}) | ({BUNDLE_LABEL: "true"} if request.bundle else {})
    manifest, config, config_descriptor = single_layer_image(
        layer.digest, layer.size, layer.diff_id, labels, oci_types=request.oci_types
    )
    destination.put_blob(manifest.layers[0], layer.open)
    destination.put_blob(config_descriptor, reader_of(config))
    # The keep-alive tag first: when the second request fails, the name that was asked for isn't there alone.
    destination.put_manifest(manifest, tagnames.keep_alive(manifest.digest))
    tag = request.destination.tag
    for name in dict.fromkeys((tag, *request.tags)):
        destination.put_manifest(manifest, name)
    return Pushed(reference=request.destination.at(manifest.digest), tag=tag, entries=tuple(entries))
