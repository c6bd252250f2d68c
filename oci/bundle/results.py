"""What a push, a pull, a description and a list of tags gave: a value each, for pages, events and programs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from msgspec import Struct

from oci.bundle.describe import DescribedBundle, as_yaml
from oci.bundle.pull import Pulled
from oci.bundle.push import Pushed
from oci.bundle.tagnames import Tag
from oci.meter import Receipt
from oci.reference import absolute
from oci.units import counted, show_size


class PushReport(Struct, frozen=True, kw_only=True):
    """`reference` is by digest, `tag` the name it has; `size` counts the bytes of the files."""

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

    def __str__(self) -> str:
        """One line."""
        return f"pushed {self.reference} as {self.tag}: {counted(self.files, 'file')}, {show_size(self.size)}"


class PulledBundle(Struct, frozen=True, kw_only=True):
    """A nested bundle: where it was listed, pulled from and put."""

    image: str
    origin: str
    folder: str
    lock_updated: bool


class PullReport(Struct, frozen=True, kw_only=True):
    """`image` is by digest. `images_lock` is the path of the bundle's lock, empty for a plain image; `lock_updated`
    says whether it names the bundle's own repository now, which has all that it lists. `cacheable`: pulling the same
    reference another day can't give anything else."""

    image: str
    folder: str
    images_lock: str = ""
    lock_updated: bool = False
    nested: list[PulledBundle] = []
    cacheable: bool = False
    receipt: Receipt = Receipt()

    @classmethod
    def of(cls, pulled: Pulled, folder: str, receipt: Receipt) -> PullReport:
        root = absolute(folder)
        return cls(
            image=pulled.image,
            folder=root,
            images_lock=os.path.join(root, pulled.lock_path) if pulled.lock_path else "",
            lock_updated=pulled.updated,
            nested=[
                PulledBundle(
                    image=bundle.image,
                    origin=bundle.origin,
                    folder=os.path.join(root, bundle.folder),
                    lock_updated=bundle.updated,
                )
                for bundle in pulled.nested
            ],
            cacheable=pulled.cacheable,
            receipt=receipt,
        )

    def __str__(self) -> str:
        """One line."""
        nested = f", {counted(len(self.nested), 'nested bundle')}" if self.nested else ""
        return f"pulled {self.image} into {self.folder}{nested}: {show_size(self.receipt.bytes_read)}"


class Content(Struct, frozen=True, kw_only=True):
    """One entry of a bundle, at whatever depth: 0 for what the described bundle lists itself. `kind` is "Bundle",
    "Image", "Signature" or "Internal" (where a relocation says what it has brought). With an `error`, the registry
    wouldn't say whether there is a signature; `image` is its tag then."""

    depth: int
    kind: str
    image: str
    origin: str
    layers: list[str] = []
    annotations: dict[str, str] = {}
    error: str = ""


class DescribeReport(Struct, frozen=True, kw_only=True):
    """`document` is the same in YAML, as `transship describe -o yaml` prints it."""

    digest: str
    image: str
    contents: list[Content]
    document: str

    @classmethod
    def of(cls, bundle: DescribedBundle) -> DescribeReport:
        contents = list(_contents(bundle, 0))
        return cls(digest=str(bundle.digest), image=bundle.image, contents=contents, document=as_yaml(bundle))


def _contents(bundle: DescribedBundle, depth: int) -> Iterator[Content]:
    for nested in bundle.bundles:
        yield Content(
            depth=depth,
            kind="Bundle",
            image=nested.image,
            origin=nested.origin,
            layers=list(map(str, nested.layers)),
            annotations=dict(nested.annotations),
        )
        yield from _contents(nested, depth + 1)
    for image in bundle.images:
        yield Content(
            depth=depth,
            kind=image.kind,
            image=image.image or image.key,
            origin=image.origin,
            layers=list(map(str, image.layers)),
            annotations=dict(image.annotations),
            error=image.error,
        )


class TagDigest(Struct, frozen=True, kw_only=True):
    """`digest` is empty where it wasn't asked for, or where the tag went away since it was listed."""

    name: str
    digest: str = ""


class TagsReport(Struct, frozen=True, kw_only=True):
    """Sorted by name. A resolved tag is the only one of its list."""

    repository: str
    tags: list[TagDigest]

    @classmethod
    def of(cls, repository: str, tags: Sequence[Tag]) -> TagsReport:
        return cls(repository=repository, tags=[TagDigest(name=tag.name, digest=tag.digest or "") for tag in tags])
