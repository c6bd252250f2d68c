"""The three YAML documents of imgpkg as values: ImagesLock, BundleLock and ImageLocations; and locks on disk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from msgspec import Struct, field

from oci.documents.document import (
    API_VERSION,
    SIZE_LIMIT,
    YamlNode,
    check_header,
    parse,
    pinned,
    render,
    unknown_header,
)
from oci.errors import InvalidDocument, InvalidReference, NoSuchFile
from oci.output import PRIVATE, os_errors, read_named, write_output
from oci.reference import Reference, parse_tag


def read_lock(path: str) -> ImagesLock | BundleLock:
    """Raises InvalidDocument for a file that is neither kind, UnusableFile for one that can't be read."""
    try:
        node = parse(read_named(path, "reading the lock file", limit=SIZE_LIMIT), path)
    except NoSuchFile as error:
        error.sentence = f"Reading path {path}: open {path}: no such file or directory"
        raise
    kind = node.fields("kind", strict=False)["kind"]
    if kind.value == IMAGES_LOCK:
        return ImagesLock.from_node(node)
    if kind.value == BUNDLE_LOCK:
        return BundleLock.from_node(node)
    name = kind.text()
    raise kind.error(
        f"neither {IMAGES_LOCK} nor {BUNDLE_LOCK} but {name!r}"
        if name
        else f"not given; expected {IMAGES_LOCK} or {BUNDLE_LOCK}",
        sentence=f"Validating images lock: {unknown_header('kind', IMAGES_LOCK)}",
    )


@contextmanager
def _reading(lock: str) -> Iterator[None]:
    """Says in imgpkg's sentence which of the two kinds of lock it is that can't be used."""
    try:
        yield
    except InvalidDocument as error:
        if error.sentence:
            verb = "Unmarshaling" if error.sentence.startswith("error unmarshaling") else "Validating"
            error.sentence = f"{verb} {lock} lock: {error.sentence}"
        raise


def write_lock(path: str, lock: ImagesLock | BundleLock) -> None:
    """Writes the file with mode 0600, in place of one that is there; a reader sees the old text or the new, never part.

    A path that is no regular file, such as a pipe, is written to as it stands.
    """
    data = lock.to_yaml().encode()
    with os_errors(subject=path, operation="writing the lock file", named=True):
        write_output(path, data, PRIVATE)


IMAGES_LOCK = "ImagesLock"


class LockedImage(Struct, frozen=True):
    """One entry. `image` is a digest reference; annotations are kept as they are and mean nothing to us."""

    image: Reference
    annotations: Mapping[str, str] = field(default_factory=dict)

    def __hash__(self) -> int:
        return hash(self.image)


class ImagesLock(Struct, frozen=True):
    """Entries in the order of the file. The same reference may come more than once."""

    images: tuple[LockedImage, ...] = ()

    @classmethod
    def from_yaml(cls, data: str | bytes, where: str) -> ImagesLock:
        """Reads strictly, as imgpkg does: any unknown key is refused. References are canonicalised.

        Raises InvalidDocument naming `where` and the path inside, such as `images[3].image`.
        """
        return cls.from_node(parse(data, where))

    @classmethod
    def from_node(cls, node: YamlNode) -> ImagesLock:
        with _reading("images"):
            fields = node.fields("apiVersion", "images", "kind")
            check_header(fields, IMAGES_LOCK)
            entries = [item.fields("annotations", "image") for item in fields["images"].items()]
            return cls(
                tuple(LockedImage(entry["image"].reference(), entry["annotations"].texts()) for entry in entries)
            )

    def to_yaml(self) -> str:
        """Returns the text imgpkg would write; `from_yaml` gives the same lock back.

        Raises InvalidDocument for a reference without a digest or outside of a registry.
        """
        document: dict[str, Any] = {"apiVersion": API_VERSION, "kind": IMAGES_LOCK}
        if self.images:
            document["images"] = [
                {"image": pinned(image.image)} | ({"annotations": image.annotations} if image.annotations else {})
                for image in self.images
            ]
        return render(document)


BUNDLE_LOCK = "BundleLock"


class BundleLock(Struct, frozen=True):
    """`image` is a digest reference; `tag` is empty when the bundle was named by digest."""

    image: Reference
    tag: str = ""

    @classmethod
    def from_yaml(cls, data: str | bytes, where: str) -> BundleLock:
        """Reads strictly, as imgpkg does: any unknown key is refused. The reference is canonicalised.

        Raises InvalidDocument naming `where` and the path inside, such as `bundle.image`.
        """
        return cls.from_node(parse(data, where))

    @classmethod
    def from_node(cls, node: YamlNode) -> BundleLock:
        with _reading("bundle"):
            fields = node.fields("apiVersion", "bundle", "kind")
            check_header(fields, BUNDLE_LOCK)
            bundle = fields["bundle"].fields("image", "tag")
            image, tag = bundle["image"].reference(), bundle["tag"].text()
            try:
                return cls(image, parse_tag(tag) if tag else "")
            except InvalidReference as error:
                raise bundle["tag"].error(error.message, hint=error.hint) from error

    def to_yaml(self) -> str:
        """Returns the text imgpkg would write; `from_yaml` gives the same lock back.

        Raises InvalidDocument for a reference without a digest or outside of a registry.
        """
        bundle = {"image": pinned(self.image)} | ({"tag": self.tag} if self.tag else {})
        return render({"apiVersion": API_VERSION, "bundle": bundle, "kind": BUNDLE_LOCK})


IMAGE_LOCATIONS = "ImageLocations"


class LocatedImage(Struct, frozen=True, order=True):
    """One entry of the bundle's lock: `image` is the reference as it stands there, not the place it was copied to."""

    image: Reference
    is_bundle: bool


class ImageLocations(Struct, frozen=True):
    """The note beside a copied bundle that all it lists is in this repository, and which of it are bundles. A hint:
    check that an image is there before relying on it."""

    images: tuple[LocatedImage, ...] = ()

    @classmethod
    def from_yaml(cls, data: str | bytes, where: str) -> ImageLocations:
        """Reads leniently, as imgpkg does: unknown keys are passed over. Raises InvalidDocument."""
        fields = parse(data, where).fields("apiVersion", "images", "kind", strict=False)
        check_header(fields, IMAGE_LOCATIONS)
        entries = [item.fields("image", "isBundle", strict=False) for item in fields["images"].items()]
        return cls(tuple(LocatedImage(entry["image"].reference(), entry["isBundle"].flag()) for entry in entries))

    def to_yaml(self) -> str:
        """Returns the text imgpkg would write, sorted by reference."""
        entries = sorted({(pinned(located.image), located.is_bundle) for located in self.images})
        images = [{"image": image, "isBundle": is_bundle} for image, is_bundle in entries]
        return render({"apiVersion": API_VERSION, "images": images or None, "kind": IMAGE_LOCATIONS})
