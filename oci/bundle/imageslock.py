"""ImagesLock: the images a bundle lists, each pinned by digest (`.imgpkg/images.yml`, or a file of its own)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from oci.bundle.document import API_VERSION, Node, check_header, parse, pinned, render
from oci.reference import Reference

KIND = "ImagesLock"


@dataclass(frozen=True, slots=True)
class LockedImage:
    """One entry. `image` is a digest reference; annotations are kept as they are and mean nothing to us."""

    image: Reference
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class ImagesLock:
    """Entries in the order of the file. The same reference may come more than once."""

    images: tuple[LockedImage, ...] = ()

    @classmethod
    def from_yaml(cls, data: str | bytes, where: str) -> ImagesLock:
        """Reads strictly, as imgpkg does: any unknown key is refused. References are canonicalised.

        Raises InvalidDocument naming `where` and the path inside, such as `images[3].image`.
        """
        return cls.from_node(parse(data, where))

    @classmethod
    def from_node(cls, node: Node) -> ImagesLock:
        fields = node.fields("apiVersion", "images", "kind")
        check_header(fields, KIND)
        return cls(tuple(_image(item) for item in fields["images"].items()))

    def to_yaml(self) -> str:
        """The text imgpkg would write; `from_yaml` gives the same lock back.

        Raises InvalidDocument for a reference without a digest or outside of a registry.
        """
        document: dict[str, Any] = {"apiVersion": API_VERSION, "kind": KIND}
        if self.images:
            document["images"] = [
                {"image": pinned(image.image)} | ({"annotations": image.annotations} if image.annotations else {})
                for image in self.images
            ]
        return render(document)


def _image(node: Node) -> LockedImage:
    fields = node.fields("annotations", "image")
    return LockedImage(fields["image"].reference(), fields["annotations"].texts())
