"""BundleLock: one bundle pinned by digest, with the tag it had."""

from __future__ import annotations

from dataclasses import dataclass

from oci.bundle.document import API_VERSION, Node, check_header, parse, pinned, render
from oci.errors import InvalidReference
from oci.reference import Reference, parse_tag

KIND = "BundleLock"


@dataclass(frozen=True, slots=True)
class BundleLock:
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
    def from_node(cls, node: Node) -> BundleLock:
        fields = node.fields("apiVersion", "bundle", "kind")
        check_header(fields, KIND)
        bundle = fields["bundle"].fields("image", "tag")
        return cls(bundle["image"].reference(), _tag(bundle["tag"]))

    def to_yaml(self) -> str:
        """The text imgpkg would write; `from_yaml` gives the same lock back.

        Raises InvalidDocument for a reference without a digest or outside of a registry.
        """
        bundle = {"image": pinned(self.image)} | ({"tag": self.tag} if self.tag else {})
        return render({"apiVersion": API_VERSION, "bundle": bundle, "kind": KIND})


def _tag(node: Node) -> str:
    tag = node.text()
    try:
        return parse_tag(tag) if tag else ""
    except InvalidReference as error:
        raise node.error(error.message, hint=error.hint) from error
