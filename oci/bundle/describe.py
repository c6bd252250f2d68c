"""What a bundle holds: its images and nested bundles, where each is, where it came from, and its signatures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor
from typing import Any, ClassVar, TypeAlias

from msgspec import Struct, field

from oci.bundle import image as bundle_image
from oci.bundle import tagnames
from oci.bundle.lockfile import ImagesLock, LockedImage, render
from oci.descriptor import Platform
from oci.digest import Digest
from oci.errors import Denied, InvalidInput, InvalidManifest, NotFound, StoreError
from oci.manifest import NESTING_LIMIT, Manifest
from oci.reference import Reference, StoreName
from oci.store import Source

IMAGE = "Image"
SIGNATURE = "Signature"
INTERNAL = "Internal"

OpenSource: TypeAlias = Callable[[StoreName], Source]

_COMMON = Platform("linux", "amd64")
"""Platform whose layers are shown for an index."""


class DescribedImage(Struct, frozen=True):
    """`image` is the reference that it was read from, `origin` the reference in its lock. Without an answer of the
    registry whether it has a signature, `error` says so, and the key is the tag reference."""

    key: str
    kind: str
    image: str = ""
    origin: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict)
    layers: tuple[Digest, ...] = ()
    error: str = ""


class DescribedBundle(Struct, frozen=True):
    """A bundle with its content; entries in the order of its lock, signatures and locations after them."""

    kind: ClassVar[str] = "Bundle"
    key: ClassVar[str] = ""
    error: ClassVar[str] = ""

    digest: Digest
    image: str
    origin: str
    annotations: Mapping[str, str] = field(default_factory=dict)
    layers: tuple[Digest, ...] = ()
    bundles: tuple[DescribedBundle, ...] = ()
    images: tuple[DescribedImage, ...] = ()


def describe(
    open_source: OpenSource, reference: Reference, threads: Executor, *, layers: bool = True, signatures: bool = True
) -> DescribedBundle:
    """Reads the bundle and everything it lists, each manifest once. Raises InvalidInput when it is no bundle, and
    whatever the registry of an image that can be found nowhere says."""
    source = open_source(reference.repository)
    manifest = source.get_manifest(reference.identifier)
    if not bundle_image.is_bundle(source, manifest):
        raise InvalidInput(f"Only bundles can be described, and {reference} is not a bundle")
    walk = _Walk(open_source, threads, layers=layers, signatures=signatures)
    root = LockedImage(Reference(reference.repository, "", manifest.digest))
    return walk.bundle(source, manifest, root, 0)


MOST_DESCRIBED = 10_000
"""Images of a bundle and those nested in it, each as often as it is listed: a description shows them all."""


class _Walk:
    def __init__(self, open_source: OpenSource, threads: Executor, *, layers: bool, signatures: bool) -> None:
        self._open = open_source
        self._threads = threads
        self._layers = layers
        self._signatures = signatures
        self._count = 0
        self._places: dict[tuple[StoreName, Reference], tuple[Source, Manifest, bool]] = {}
        self._locks: dict[Digest, ImagesLock] = {}

    def bundle(self, source: Source, manifest: Manifest, entry: LockedImage, depth: int) -> DescribedBundle:
        if depth > NESTING_LIMIT:
            raise InvalidManifest(f"{entry.image}: nested deeper than {NESTING_LIMIT} levels")
        lock = self._locks.get(manifest.digest) or bundle_image.read_images_lock(source, manifest)
        self._locks[manifest.digest] = lock
        self._count += len(lock.images)
        if self._count > MOST_DESCRIBED:
            raise InvalidManifest(f"{entry.image}: more than {MOST_DESCRIBED} images, each where it is listed")
        places = list(self._threads.map(lambda image: self._find(source, image), lock.images))
        nested, images = [], []
        for listed, (where, child, is_bundle) in zip(lock.images, places, strict=True):
            if is_bundle:
                nested.append(self.bundle(where, child, listed, depth + 1))
            else:
                images.append(
                    DescribedImage(
                        key=child.digest,
                        kind=IMAGE,
                        image=f"{where.name}@{child.digest}",
                        origin=str(listed.image),
                        annotations=listed.annotations,
                        layers=self._layers_of(where, child),
                    )
                )
        extra: list[DescribedImage | None] = []
        if self._signatures:
            subjects = [(source, manifest.digest), *((where, child.digest) for where, child, _ in places)]
            extra += self._threads.map(lambda pair: self._signature(*pair), subjects)
        extra.append(self._tagged(source, tagnames.locations(manifest.digest), INTERNAL, {}))
        return DescribedBundle(
            digest=manifest.digest,
            image=f"{source.name}@{manifest.digest}",
            origin=str(entry.image),
            annotations=entry.annotations,
            layers=self._layers_of(source, manifest),
            bundles=tuple({bundle.digest: bundle for bundle in nested}.values()),
            images=tuple({image.key: image for image in (*images, *filter(None, extra))}.values()),
        )

    def _find(self, home: Source, entry: LockedImage) -> tuple[Source, Manifest, bool]:
        """Looks in the bundle's own repository first, then where the lock says."""
        key = (home.name, entry.image)
        if key in self._places:
            return self._places[key]
        digest = entry.image.identifier
        try:
            where, manifest = home, home.get_manifest(digest)
        except StoreError:
            where = self._open(entry.image.repository)
            manifest = where.get_manifest(digest)
        place = where, manifest, bundle_image.is_bundle(where, manifest)
        return self._places.setdefault(key, place)

    def _layers_of(self, where: Source, manifest: Manifest) -> tuple[Digest, ...]:
        if not self._layers:
            return ()
        if not manifest.is_index:
            return tuple(layer.digest for layer in manifest.layers)
        for child in manifest.children:
            if child.is_manifest and child.platform is not None and child.platform.matches(_COMMON):
                return self._layers_of(where, where.get_manifest(child.digest))
        return ()

    def _signature(self, where: Source, subject: Digest) -> DescribedImage | None:
        tag = tagnames.cosign(subject)[0]
        try:
            return self._tagged(where, tag, SIGNATURE, {"tag": tag})
        except Denied as error:
            return DescribedImage(key=f"{where.name}:{tag}", kind=SIGNATURE, error=str(error))

    def _tagged(self, where: Source, tag: str, kind: str, annotations: Mapping[str, str]) -> DescribedImage | None:
        """Returns what a tool put under a tag of its own; None when there is none. Reads it only when its layers are
        wanted."""
        layers: tuple[Digest, ...] = ()
        if self._layers:
            try:
                manifest = where.get_manifest(tag)
            except NotFound:
                return None
            digest, layers = manifest.digest, self._layers_of(where, manifest)
        else:
            descriptor = where.head_manifest(tag)
            if descriptor is None:
                return None
            digest = descriptor.digest
        image = f"{where.name}@{digest}"
        return DescribedImage(digest, kind, image, image, annotations, layers)


def as_yaml(bundle: DescribedBundle) -> str:
    """Writes what imgpkg writes: the root's digest on a line of its own, then the document."""
    return f"sha: {bundle.digest}\n{render(_bundle_document(bundle)).removeprefix('---' + chr(10))}"


def as_text(bundle: DescribedBundle) -> str:
    """Writes what imgpkg writes, in the order of the locks."""
    lines = [f"Bundle SHA: {bundle.digest}", ""]
    if bundle.bundles or bundle.images:
        lines.append("Images:")
        lines.extend(_content_lines(bundle, "  "))
    return "\n".join([*lines, ""])


def _bundle_document(bundle: DescribedBundle) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if bundle.bundles:
        content["bundles"] = {nested.digest: _bundle_document(nested) for nested in bundle.bundles}
    if bundle.images:
        content["images"] = {image.key: _document(image, imageType=image.kind) for image in bundle.images}
    return _document(bundle, content=content) | {"metadata": {}}


def _document(described: DescribedBundle | DescribedImage, *, content: Any = None, **more: str) -> dict[str, Any]:
    """Returns what isn't empty, in the order of imgpkg."""
    fields = {
        "annotations": dict(described.annotations),
        "content": content,
        "error": described.error,
        "image": described.image,
        **more,
        "layers": [{"digest": layer} for layer in described.layers],
        "origin": described.origin,
    }
    return {name: value for name, value in fields.items() if value}


def _content_lines(bundle: DescribedBundle, indent: str) -> list[str]:
    lines: list[str] = []
    for number, nested in enumerate(bundle.bundles):
        if number:
            lines.append("")
        lines.extend(_head(indent, nested))
        if nested.bundles or nested.images:
            lines.append(f"{indent}  Images:")
            lines.extend(_content_lines(nested, f"{indent}  "))
    for image in bundle.images:
        if not image.error:
            lines.extend(_head(indent, image))
    return lines


def _head(indent: str, described: DescribedBundle | DescribedImage) -> list[str]:
    lines = [f"{indent}- Image: {described.image}", f"{indent}  Type: {described.kind}"]
    if described.origin and described.kind in ("Bundle", IMAGE):
        lines.append(f"{indent}  Origin: {described.origin}")
    if described.layers:
        lines.append(f"{indent}  Layers:")
        lines.extend(f"{indent}    - Digest: {layer}" for layer in described.layers)
    if described.annotations:
        lines.append(f"{indent}  Annotations:")
        for name, value in sorted(described.annotations.items()):
            # An annotation of several lines stays inside the tree.
            first, *further = value.rstrip("\n").split("\n")
            lines.append(f"{indent}    {name}: {first}")
            lines.extend(f"{indent}      {line}" for line in further)
    return lines


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
    listed: list[DescribedBundle | DescribedImage] = [*bundle.bundles, *bundle.images]
    for described in listed:
        yield Content(
            depth=depth,
            kind=described.kind,
            image=described.image or described.key,
            origin=described.origin,
            layers=list(map(str, described.layers)),
            annotations=dict(described.annotations),
            error=described.error,
        )
        if isinstance(described, DescribedBundle):
            yield from _contents(described, depth + 1)
