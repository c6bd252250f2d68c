"""The three YAML documents of imgpkg as values: ImagesLock, BundleLock and ImageLocations; and locks on disk.

Reading takes one document of mappings, lists and scalars. What can hurt is refused: more than SIZE_LIMIT bytes, deep
nesting, many aliases, tags, duplicate keys. Writing gives the text imgpkg gives for the same values, byte for byte:
`---`, keys sorted, quotes only where a plain word would mean something else. Only the signs U+0085, U+2028, U+2029 and
U+FEFF are written otherwise, as escapes, because imgpkg's own form of them doesn't read back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from msgspec import Struct, field

from oci.digest import Digest
from oci.documents.yamltext import NonText, plain_document, shown
from oci.errors import InvalidDocument, InvalidReference, NoSuchFile
from oci.output import PRIVATE, os_errors, read_named, write_output
from oci.reference import Reference, parse_tag

API_VERSION = "imgpkg.carvel.dev/v1alpha1"
IMAGES_LOCK, BUNDLE_LOCK, IMAGE_LOCATIONS = "ImagesLock", "BundleLock", "ImageLocations"

SIZE_LIMIT = 16 << 20
"""Bytes a document may have: room for 100,000 images."""

_PINNED = "write REGISTRY/REPOSITORY@sha256:..."


class YamlNode(Struct, frozen=True):
    """A value of a document and where it stands: `where` is the file, `path` such as `images[3].image`."""

    value: Any
    where: str
    path: str = ""

    def error(self, problem: str, *, hint: str = "", sentence: str = "") -> InvalidDocument:
        """`sentence` is what imgpkg calls the problem."""
        where = ": ".join(part for part in (self.where, self.path, problem) if part)
        return InvalidDocument(where, hint=hint, sentence=sentence)

    def fields(self, *names: str, strict: bool = True) -> dict[str, YamlNode]:
        """Returns a node for each known key, holding None where it is absent. `strict` refuses any other key."""
        entries = self._mapping()
        unknown = [key for key in entries if key not in names]
        if strict and unknown:
            raise self._child(unknown[0]).error(
                "unknown key",
                hint=f"known here: {', '.join(names)}",
                sentence=f'error unmarshaling JSON: while decoding JSON: json: unknown field "{unknown[0]}"',
            )
        return {key: self._child(key) for key in names}

    def document(self, kind: str, content: str, *, strict: bool = True) -> YamlNode:
        """Returns the node of the key `content` of a whole document. Raises InvalidDocument unless its `apiVersion` and
        `kind` are the known ones."""
        fields = self.fields(*sorted(("apiVersion", "kind", content)), strict=strict)
        for key, expected in (("apiVersion", API_VERSION), ("kind", kind)):
            if fields[key].text() != expected:
                problem = f"expected {expected}, got {shown(fields[key].value)}"
                raise fields[key].error(problem, sentence=unknown_header(key, expected))
        return fields[content]

    def texts(self) -> dict[str, str]:
        """Returns a mapping of text to text; `null` and an absent one are empty."""
        return {} if self.value is None else {key: self._child(key).text() for key in self._mapping()}

    def items(self) -> list[YamlNode]:
        """Returns the nodes of a list; `null` and an absent one are empty."""
        if not isinstance(self.value, list | None):
            raise self.error(f"expected a list, got {shown(self.value)}")
        return [YamlNode(item, self.where, f"{self.path}[{number}]") for number, item in enumerate(self.value or ())]

    def text(self) -> str:
        """Text; `null` and an absent one are empty. A bare number, or a bare word such as `yes`, isn't text."""
        if not isinstance(self.value, str | None):
            hint = "put it in quotes" if isinstance(self.value, NonText | bool) else ""
            raise self.error(f"expected text, got {shown(self.value)}", hint=hint)
        return self.value or ""

    def flag(self) -> bool:
        """Returns true or false; `null` and an absent one are false."""
        if not isinstance(self.value, bool | None):
            raise self.error(f"expected true or false, got {shown(self.value)}")
        return bool(self.value)

    def reference(self) -> Reference:
        """Returns a digest reference, canonicalised."""
        sentence = f"Expected ref to be in digest form, got '{self.text()}'"
        if not self.text():
            raise self.error("expected a digest reference, got nothing", hint=_PINNED, sentence=sentence)
        try:
            reference = Reference.parse(self.text())
        except InvalidReference as error:
            raise self.error(error.message, hint=error.hint, sentence=sentence) from error
        if reference.digest is None:
            raise self.error(f"expected a digest reference, got {shown(self.value)}", hint=_PINNED, sentence=sentence)
        return reference

    def _mapping(self) -> dict[str, Any]:
        if not isinstance(self.value, dict):
            raise self.error(f"expected a mapping, got {shown(self.value)}")
        return self.value

    def _child(self, key: str) -> YamlNode:
        return YamlNode(self._mapping().get(key), self.where, f"{self.path}.{key}" if self.path else key)


def unknown_header(key: str, expected: str) -> str:
    """Returns imgpkg's sentence for another `apiVersion` or `kind` than the expected one."""
    return f"Validating {key}: Unknown {'version' if key == 'apiVersion' else key} (known: {expected})"


def pinned(reference: Reference) -> str:
    """Returns the canonical text. Raises InvalidDocument for a tag or a layout folder, which no reader of locks
    knows."""
    if reference.digest is None or not reference.repository.registry:
        raise InvalidDocument(f"{reference} can't stand in a lock", hint=_PINNED)
    return str(reference)


def parse(data: str | bytes, where: str) -> YamlNode:
    """Reads the one document in `data`. Raises InvalidDocument, naming `where` and the line."""
    plain = plain_document(data)
    if plain is not None:
        return YamlNode(plain, where)
    from oci.documents.composer import Composer  # noqa: PLC0415 - PyYAML, for what isn't plain

    return YamlNode(Composer(where).compose(data, SIZE_LIMIT), where)


def render(value: Mapping[str, Any]) -> str:
    """Returns the document of mappings, sequences, text, booleans and None; its inverse is `parse`."""
    from oci.documents.composer import emitted  # noqa: PLC0415 - PyYAML, which a copy has no need of

    return emitted(value)


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
            images = node.document(IMAGES_LOCK, "images")
            entries = [item.fields("annotations", "image") for item in images.items()]
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
            bundle = node.document(BUNDLE_LOCK, "bundle").fields("image", "tag")
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


def references_in(lock: ImagesLock | BundleLock) -> tuple[Reference, ...]:
    return tuple(entry.image for entry in lock.images) if isinstance(lock, ImagesLock) else (lock.image,)


def pinned_by(lock: ImagesLock | BundleLock) -> tuple[Digest, ...]:
    return tuple(reference.digest for reference in references_in(lock) if reference.digest)


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
        images = parse(data, where).document(IMAGE_LOCATIONS, "images", strict=False)
        entries = [item.fields("image", "isBundle", strict=False) for item in images.items()]
        return cls(tuple(LocatedImage(entry["image"].reference(), entry["isBundle"].flag()) for entry in entries))

    def to_yaml(self) -> str:
        """Returns the text imgpkg would write, sorted by reference."""
        entries = sorted({(pinned(located.image), located.is_bundle) for located in self.images})
        images = [{"image": image, "isBundle": is_bundle} for image, is_bundle in entries]
        return render({"apiVersion": API_VERSION, "images": images or None, "kind": IMAGE_LOCATIONS})
