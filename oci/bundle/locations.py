"""ImageLocations: the note beside a copied bundle that all it lists is in this repository, and which are bundles.

It travels as a small image of its own, under the tag `oci.bundle.tagnames.locations` gives.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from oci.bundle.image import BuiltImage, single_layer_image
from oci.descriptor import DOCKER_LAYER, Descriptor
from oci.digest import digest_of
from oci.documents.document import API_VERSION, YamlNode, check_header, parse, pinned, render
from oci.reference import Reference

KIND = "ImageLocations"
FILE_NAME = "image-locations.yml"


class LocatedImage(Struct, frozen=True, order=True):
    """One entry of the bundle's lock: `image` is the reference as it stands there, not the place it was copied to."""

    image: Reference
    is_bundle: bool


class ImageLocations(Struct, frozen=True):
    """The direct entries of one bundle. A hint: check that an image is there before relying on it."""

    images: tuple[LocatedImage, ...] = ()

    @classmethod
    def from_yaml(cls, data: str | bytes, where: str) -> ImageLocations:
        """Reads leniently, as imgpkg does: unknown keys are passed over. Raises InvalidDocument."""
        fields = parse(data, where).fields("apiVersion", "images", "kind", strict=False)
        check_header(fields, KIND)
        return cls(tuple(_image(item) for item in fields["images"].items()))

    def to_yaml(self) -> str:
        """Returns the text imgpkg would write, sorted by reference."""
        entries = sorted({(pinned(located.image), located.is_bundle) for located in self.images})
        return _text(entries)


def locations_image(entries: Iterable[tuple[str, bool]]) -> BuiltImage:
    """Returns the image for (canonical reference, is it a bundle): the same bytes imgpkg makes from the same
    entries."""
    from oci.files import tar  # noqa: PLC0415 - only a bundle that is copied gets one
    from oci.files.deflate import compress  # noqa: PLC0415

    body = _text(sorted(set(entries))).encode()
    archive = b"".join(
        (
            tar.header(".", mode=0o700, size=0, typeflag=tar.FOLDER),
            tar.header(FILE_NAME, mode=0o600, size=len(body)),
            body,
            tar.padding(len(body)),
            tar.END,
        )
    )
    data = b"".join(compress([archive]))
    layer = Descriptor(DOCKER_LAYER, digest_of(data), len(data))
    manifest, config, config_descriptor = single_layer_image(layer.digest, layer.size, digest_of(archive), {})
    return BuiltImage(manifest, ((layer, data), (config_descriptor, config)))


def _text(entries: list[tuple[str, bool]]) -> str:
    images = [{"image": image, "isBundle": is_bundle} for image, is_bundle in entries]
    return render({"apiVersion": API_VERSION, "images": images or None, "kind": KIND})


def _image(node: YamlNode) -> LocatedImage:
    fields = node.fields("image", "isBundle", strict=False)
    return LocatedImage(fields["image"].reference(), fields["isBundle"].flag())
