"""Pulling a bundle's files, with those of the bundles inside it, or an image's, into a folder."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from oci.bundle import image as bundle_image
from oci.bundle.image import AS_BUNDLE, AS_IMAGE, LOCK_PATH, NOT_A_BUNDLE
from oci.bundle.lockfile import BUNDLE_LOCK, BundleLock, ImagesLock, LockedImage, read_lock, unknown_header, write_lock
from oci.digest import Chunk, Digest, hex_of
from oci.errors import (
    CancelToken,
    Denied,
    InvalidDocument,
    InvalidInput,
    InvalidManifest,
    NotFound,
    StoreError,
    Unauthorized,
)
from oci.files.decompress import DEFAULT_LIMITS, UnpackLimits
from oci.files.unpack import unpack
from oci.manifest import NESTING_LIMIT, Manifest
from oci.meter import Receipt, unheard
from oci.output import os_errors, store_error, to_dict
from oci.reference import ArchiveName, LayoutFolder, Reference, StoreName, absolute, parse_any
from oci.store import Source
from oci.units import counted, show_size

NESTED_FOLDER = os.path.join(".imgpkg", "bundles")
NESTED_INDEX = os.path.join(".imgpkg", "nested-bundles.md")
"""Which nested bundle is in which folder. Not inside NESTED_FOLDER: scripts take whatever is there for a bundle."""

LAYER_REPEATS = 127
"""Times that a manifest may list one layer: Docker makes no image of more layers."""

_KINDS: Mapping[type[StoreName], str] = {LayoutFolder: "an image-layout folder", ArchiveName: "an archive"}
OpenSource = Callable[[StoreName], Source]


@dataclass(frozen=True, slots=True, kw_only=True)
class PullRequest:
    """Exactly one of `bundle`, `image` and `lock` (a BundleLock file) says what to pull. Raises InvalidInput."""

    bundle: str = ""
    image: str = ""
    lock: str = ""
    recursive: bool = False
    """Nested bundles as well."""
    image_is_bundle_check: bool = True
    """False lets a bundle be pulled as the plain image that it is, its lock untouched."""
    limits: UnpackLimits = DEFAULT_LIMITS

    def __post_init__(self) -> None:
        named = list(filter(None, (self.bundle, self.image, self.lock)))
        if len(named) > 1:
            raise InvalidInput("Expected only one of image, bundle, or lock")
        if not named:
            raise InvalidInput("Expected either image or bundle reference", hint="say what to pull: -b, -i or --lock")
        if self.recursive and self.image:
            raise InvalidInput("Cannot use --recursive (-r) flag when pulling an image", hint="use -b instead of -i")
        if self.bundle and not self.image_is_bundle_check:
            raise InvalidInput("Cannot set --image-is-bundle-check while using -b flag", hint="use -i instead of -b")

    @property
    def as_bundle(self) -> bool:
        return bool(self.bundle) or (bool(self.lock) and self.image_is_bundle_check)

    def reference(self) -> Reference:
        if not self.lock:
            return parse_any(self.bundle or self.image)
        lock = read_lock(self.lock)
        if not isinstance(lock, BundleLock):
            error = InvalidDocument(
                f"{self.lock}: kind: expected BundleLock, got ImagesLock", hint="an ImagesLock is for copy --lock"
            )
            error.sentence = f"Validating bundle lock: {unknown_header('kind', BUNDLE_LOCK)}"
            raise error
        return lock.image


class Pulled(Struct, frozen=True, kw_only=True):
    """`image` is the digest reference and `folder` where its files are, inside the output; `lock_path` is the lock
    inside the output, empty for a plain image; `updated` says whether it names the bundle's own repository now.
    `origin` is the reference in the lock that lists a nested bundle. `cacheable`: pulling the same reference another
    day can't give anything else."""

    image: str
    folder: str = ""
    lock_path: str = ""
    updated: bool = False
    origin: str = ""
    nested: tuple[Pulled, ...] = ()
    cacheable: bool = False


@dataclass(frozen=True, slots=True)
class ResolvedSource:
    """The reference of a request, the store that has it, and its manifest."""

    reference: Reference
    source: Source
    manifest: Manifest


def look_up(open_source: OpenSource, request: PullRequest) -> ResolvedSource:
    """Fetches the manifest. Raises InvalidInput when it is not of the kind that was asked for."""
    reference = request.reference()
    source = open_source(reference.repository)
    manifest = source.get_manifest(reference.identifier)
    if request.as_bundle:
        if not bundle_image.is_bundle(source, manifest):
            raise InvalidInput(f"{reference} is a plain image", hint=AS_IMAGE, sentence=NOT_A_BUNDLE)
    elif manifest.is_index:
        platforms = ", ".join(f"{child.platform}: {child.digest}" for child in manifest.children if child.platform)
        raise InvalidInput(
            f"{reference} is an index{f' of {platforms}' if platforms else ''}",
            hint="ask for one of its images, by digest",
            sentence="Unable to pull non-images, such as image indexes. "
            "(hint: provide a specific digest to the image instead)",
        )
    elif request.image and request.image_is_bundle_check and bundle_image.is_bundle(source, manifest):
        raise InvalidInput(
            f"{reference} is a bundle",
            hint=AS_BUNDLE,
            sentence="Expected bundle flag when pulling a bundle (hint: Use -b instead of -i for bundles)",
        )
    return ResolvedSource(reference, source, manifest)


def pull(
    open_source: OpenSource,
    request: PullRequest,
    folder: str,
    threads: Executor,
    *,
    line: Callable[[str], None],
    expect: Callable[[int], None] = unheard,
    cancel: CancelToken | None = None,
    resolved: ResolvedSource | None = None,
) -> Pulled:
    """Extracts into `folder`, which is new and empty. `line` gets what imgpkg prints, `expect` the bytes of layers that
    are read next. `resolved` is what `look_up` gave already. Raises as `look_up` does."""
    resolved = resolved or look_up(open_source, request)
    source, manifest = resolved.source, resolved.manifest
    by_digest = resolved.reference.digest is not None
    name = f"{source.name}@{manifest.digest}"
    job = _Job(open_source, request, folder, threads, line, expect, cancel or CancelToken())
    if not request.as_bundle:
        line(f"Pulling image '{name}'")
        job.extract(source, manifest, folder, "")
        return Pulled(image=name, cacheable=by_digest)
    line(f"Pulling bundle '{name}'")
    lock_path, updated = job.bundle(source, manifest, "", "", 0)
    job.write_index()
    line("\nLocating image lock file images...")
    if updated:
        lock = f"the bundle's Images Lock file ({LOCK_PATH})"
        line(f"The bundle repo ({source.name}) is hosting every image specified in {lock}")
    elif not source.name.registry:
        line(f"A lock file can't name {_KINDS[type(source.name)]}; skipping lock file update")
    else:
        line("One or more images not found in bundle repo; skipping lock file update")
    return Pulled(
        image=name,
        lock_path=lock_path,
        updated=updated,
        nested=tuple(job.nested),
        cacheable=by_digest and updated,
    )


@dataclass(slots=True)
class _Job:
    """One pull; nested bundles go flat below the root's `.imgpkg/bundles`, each once."""

    open_source: OpenSource
    request: PullRequest
    root: str
    threads: Executor
    line: Callable[[str], None]
    expect: Callable[[int], None]
    cancel: CancelToken
    nested: list[Pulled] = field(default_factory=list)
    is_bundle: dict[Digest, bool] = field(default_factory=dict)
    """By the digest of an image of a lock that was read so far: says whether the image is a bundle."""

    def extract(self, source: Source, manifest: Manifest, folder: str, indent: str) -> None:
        def layers() -> Iterator[Iterator[Chunk]]:
            for number, layer in enumerate(manifest.layers, 1):
                self.line(f"{indent}Extracting layer '{layer.digest}' ({number}/{len(manifest.layers)})")
                yield source.read_blob(layer)

        repeats = Counter(layer.digest for layer in manifest.layers)
        digest, times = max(repeats.items(), key=itemgetter(1), default=("", 0))
        if times > LAYER_REPEATS:
            raise InvalidManifest(f"{source.name}@{manifest.digest} lists the layer {digest} {times} times")
        self.expect(sum(layer.size for layer in manifest.layers))
        try:
            unpack(layers(), folder, cancel=self.cancel, limits=self.request.limits)
        except InvalidManifest as error:
            raise InvalidManifest(f"{source.name}@{manifest.digest}: {error.message}", hint=error.hint) from error

    def bundle(self, source: Source, manifest: Manifest, place: str, indent: str, depth: int) -> tuple[str, bool]:
        """Extracts a bundle, and those it lists, at `place` inside the root. Gives the path of its lock there, and
        whether that names the bundle's repository now."""
        name = f"{source.name}@{manifest.digest}"
        if depth > NESTING_LIMIT:
            raise InvalidManifest(f"{name}: nested deeper than {NESTING_LIMIT} levels")
        self.extract(source, manifest, os.path.join(self.root, place), f"{indent}  ")
        lock_path = os.path.join(place, LOCK_PATH)
        path = os.path.join(self.root, lock_path)
        try:
            with open(path, "rb") as file:
                data = file.read(bundle_image.LOCK_LIMIT + 1)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            hint = "push the bundle again from its folder"
            raise InvalidManifest(f"{name}: expected to find {LOCK_PATH} among its files", hint=hint) from error
        except OSError as error:
            raise store_error(error, store=path, operation="reading the lock") from error
        lock = bundle_image.pushed_lock(data, name)
        # Locations are a hint; a HEAD is proof.
        digests = dict.fromkeys(entry.image.identifier for entry in lock.images)
        hosted = all(self.threads.map(lambda digest: _has(source, digest), digests))
        if self.request.recursive:
            self._pull_nested(source, manifest.digest, lock, indent, depth, hosted=hosted)
        if not hosted or not source.name.registry:
            return lock_path, False
        moved = (replace(entry, image=Reference(source.name, "", entry.image.digest)) for entry in lock.images)
        write_lock(path, ImagesLock(tuple(moved)))
        return lock_path, True

    def write_index(self) -> None:
        """Writes a table for people: folders of nested bundles have digests for names."""
        if not self.nested:
            return
        rows = "".join(
            f"| `{os.path.basename(bundle.folder)}` | {bundle.origin} | {bundle.image} |\n" for bundle in self.nested
        )
        path = os.path.join(self.root, NESTED_INDEX)
        with (
            os_errors(store=path, operation="writing the index of nested bundles"),
            open(path, "w", encoding="utf-8") as file,
        ):
            file.write(f"Nested bundles in `bundles`:\n\n| folder | listed as | pulled from |\n|---|---|---|\n{rows}")

    def _pull_nested(
        self, home: Source, parent: Digest, lock: ImagesLock, indent: str, depth: int, *, hosted: bool
    ) -> None:
        locations = bundle_image.read_locations(home, parent) if lock.images else None
        plain = {str(image.image) for image in locations.images if not image.is_bundle} if locations else set()
        entries = {str(entry.image): entry for entry in lock.images}
        unknown = [
            entry for name, entry in entries.items() if name not in plain and entry.image.digest not in self.is_bundle
        ]
        looked = self.threads.map(lambda entry: self._find(home, entry, hosted=hosted), unknown)
        bundles = {entry.image.digest: bundle for entry, bundle in zip(unknown, looked, strict=True)}
        for entry in entries.values():
            digest = Digest(entry.image.identifier)
            if digest in self.is_bundle:
                if self.is_bundle[digest]:
                    self.line(f"{indent}  Pulling nested bundle '{entry.image}'")
                    self.line(f"{indent}  Skipped, already downloaded")
                continue
            bundle = bundles.get(digest)
            self.is_bundle[digest] = bundle is not None
            if bundle is None:
                continue
            if not self.nested:
                self.line("\nNested bundles")
            source, manifest = bundle
            name = f"{source.name}@{manifest.digest}"
            self.line(f"{indent}  Pulling nested bundle '{name}'")
            folder = os.path.join(NESTED_FOLDER, f"sha256-{hex_of(manifest.digest)}")
            # The bundle may have been pushed from a folder that was pulled before: those files are another bundle's.
            shutil.rmtree(os.path.join(self.root, folder), ignore_errors=True)
            position = len(self.nested)
            self.nested.append(Pulled(image=name))
            lock_path, updated = self.bundle(source, manifest, folder, f"{indent}  ", depth + 1)
            self.nested[position] = Pulled(
                image=name, folder=folder, lock_path=lock_path, updated=updated, origin=str(entry.image)
            )

    def _find(self, home: Source, entry: LockedImage, *, hosted: bool) -> tuple[Source, Manifest] | None:
        """Finds the nested bundle in the bundle's own repository or where the lock says; None for a plain image."""
        places = (home.name, entry.image.repository) if hosted else (entry.image.repository, home.name)
        problem: StoreError | None = None
        for place in dict.fromkeys(places):
            source = self.open_source(place)
            try:
                manifest = source.get_manifest(entry.image.identifier)
                if not bundle_image.is_bundle(source, manifest):
                    return None
            except StoreError as error:
                problem = problem or error
            else:
                return source, manifest
        raise problem or InvalidManifest(f"{entry.image}: there is no place to pull it from")


def _has(source: Source, digest: str) -> bool:
    try:
        return source.head_manifest(digest) is not None
    except (NotFound, Unauthorized, Denied):
        return False


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

    def to_dict(self) -> dict[str, Any]:
        return {**to_dict(self), "receipt": self.receipt.to_dict()}

    def __str__(self) -> str:
        nested = f", {counted(len(self.nested), 'nested bundle')}" if self.nested else ""
        return f"pulled {self.image} into {self.folder}{nested}: {show_size(self.receipt.bytes_read)}"
