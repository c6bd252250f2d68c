"""Pulling a bundle's or an image's files into a folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass

from oci.bundle import reader
from oci.bundle.bundlelock import BundleLock
from oci.bundle.imageslock import ImagesLock, LockedImage
from oci.bundle.lockfile import read_lock, write_lock
from oci.cancel import CancelToken
from oci.digest import Digest, hex_of
from oci.errors import Denied, InvalidDocument, InvalidInput, NotFound, StoreError, Unauthorized
from oci.files.unpack import unpack
from oci.files.walk import LOCK_FILE
from oci.manifest import Manifest
from oci.reference import LayoutFolder, Reference, StoreName, parse_any
from oci.store import Source

NESTED_FOLDER = os.path.join(".imgpkg", "bundles")
NESTED_INDEX = os.path.join(NESTED_FOLDER, "index.txt")

OpenSource = Callable[[StoreName], Source]
Line = Callable[[str], None]


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

    def __post_init__(self) -> None:
        given = [name for name in ("bundle", "image", "lock") if getattr(self, name)]
        if len(given) > 1:
            raise InvalidInput("Expected only one of image, bundle, or lock")
        if not given:
            raise InvalidInput("Expected either image, bundle, or lock")
        if self.recursive and self.image:
            raise InvalidInput("Cannot use --recursive (-r) flag when pulling an image")
        if self.bundle and not self.image_is_bundle_check:
            raise InvalidInput("Cannot set --image-is-bundle-check while using bundle flag")

    @property
    def as_bundle(self) -> bool:
        return bool(self.bundle) or (bool(self.lock) and self.image_is_bundle_check)

    def reference(self) -> Reference:
        if not self.lock:
            return parse_any(self.bundle or self.image)
        lock = read_lock(self.lock)
        if not isinstance(lock, BundleLock):
            raise InvalidDocument(
                f"{self.lock}: kind: expected BundleLock, got ImagesLock", hint="an ImagesLock is for copy --lock"
            )
        return lock.image


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulled:
    """`image` is the digest reference; `lock_path` the lock inside the output, empty for a plain image; `updated` says
    whether it names the bundle's own repository now. `cacheable`: pulling it again would give the same files."""

    image: str
    lock_path: str = ""
    updated: bool = False
    nested: tuple[Pulled, ...] = ()
    cacheable: bool = False


def pull(
    open_source: OpenSource,
    request: PullRequest,
    folder: str,
    threads: Executor,
    *,
    line: Line,
    cancel: CancelToken | None = None,
) -> Pulled:
    """Extracts into `folder`, which is new and empty. `line` is told what imgpkg prints. Raises InvalidInput when the
    reference is not of the kind that was asked for."""
    reference = request.reference()
    source = open_source(reference.repository)
    manifest = source.get_manifest(reference.identifier)
    by_digest = reference.digest is not None
    name = f"{source.name}@{manifest.digest}"
    _check_kind(source, manifest, request, reference)
    token = cancel or CancelToken()
    if not request.as_bundle:
        line(f"Pulling image '{name}'")
        _extract(source, manifest, folder, line, token)
        return Pulled(image=name, cacheable=by_digest)
    line(f"Pulling bundle '{name}'")
    job = _Job(open_source, folder, threads, line, token, recursive=request.recursive)
    return job.root(source, manifest, by_digest=by_digest)


def _check_kind(source: Source, manifest: Manifest, request: PullRequest, reference: Reference) -> None:
    if request.as_bundle:
        if manifest.is_index or not reader.is_bundle(source, manifest):
            raise InvalidInput(f"Expected bundle image but found plain image: {reference}", hint="use -i instead of -b")
        return
    if manifest.is_index:
        platforms = ", ".join(f"{child.platform}: {child.digest}" for child in manifest.children if child.platform)
        raise InvalidInput(
            f"Unable to pull non-images, such as image indexes: {reference}",
            hint=f"give the digest of one image: {platforms}",
        )
    if request.image and request.image_is_bundle_check and reader.is_bundle(source, manifest):
        raise InvalidInput(f"Expected plain image but found bundle image: {reference}", hint="use -b instead of -i")


def _extract(source: Source, manifest: Manifest, folder: str, line: Line, cancel: CancelToken) -> None:
    def layers() -> Iterator[Iterator[bytes]]:
        for number, layer in enumerate(manifest.layers, 1):
            line(f"Extracting layer '{layer.digest}' ({number}/{len(manifest.layers)})")
            yield source.read_blob(layer)

    unpack(layers(), folder, cancel=cancel)


class _Job:
    """One pull of a bundle; nested ones go flat below the root's `.imgpkg/bundles`, each reference once."""

    def __init__(
        self,
        open_source: OpenSource,
        folder: str,
        threads: Executor,
        line: Line,
        cancel: CancelToken,
        *,
        recursive: bool,
    ) -> None:
        self._open = open_source
        self._folder = folder
        self._threads = threads
        self._line = line
        self._cancel = cancel
        self._recursive = recursive
        self._seen: dict[str, Pulled] = {}
        self._index: list[str] = []

    def root(self, source: Source, manifest: Manifest, *, by_digest: bool) -> Pulled:
        pulled = self._bundle(source, manifest, self._folder, "  ")
        if self._index:
            path = os.path.join(self._folder, NESTED_INDEX)
            with open(path, "w", encoding="utf-8") as file:
                file.write("".join(f"{entry}\n" for entry in self._index))
        self._line("")
        self._line("Locating image lock file images...")
        if pulled.updated:
            self._line(
                f"The bundle repo ({source.name}) is hosting every image specified in the bundle's Images Lock file "
                f"({LOCK_FILE})"
            )
        elif isinstance(source.name, LayoutFolder):
            self._line("A lock file can't name an image-layout folder; skipping lock file update")
        else:
            self._line("One or more images not found in bundle repo; skipping lock file update")
        return Pulled(
            image=pulled.image,
            lock_path=pulled.lock_path,
            updated=pulled.updated,
            nested=tuple(self._seen.values()),
            cacheable=by_digest and pulled.updated,
        )

    def _bundle(self, source: Source, manifest: Manifest, folder: str, indent: str) -> Pulled:
        _extract(source, manifest, folder, lambda text: self._line(f"{indent}{text}"), self._cancel)
        path = os.path.join(folder, LOCK_FILE)
        lock = self._read_lock(path, f"{source.name}@{manifest.digest}")
        locations = reader.read_locations(source, manifest.digest) if lock.images else None
        hints = {str(one.image): one.is_bundle for one in locations.images} if locations else {}
        hosted = self._hosts_all(source, lock)
        if self._recursive:
            for entry in lock.images:
                self._nested(source, entry, hints.get(str(entry.image)), hosted=hosted)
        updated = hosted and not isinstance(source.name, LayoutFolder)
        if updated:
            write_lock(path, ImagesLock(tuple(_moved(entry, source.name) for entry in lock.images)))
        return Pulled(image=f"{source.name}@{manifest.digest}", lock_path=path, updated=updated)

    def _read_lock(self, path: str, bundle: str) -> ImagesLock:
        try:
            with open(path, "rb") as file:
                data = file.read()
        except OSError as error:
            raise InvalidInput(f"{bundle}: expected to find {LOCK_FILE} among its files") from error
        return ImagesLock.from_yaml(data, f"{bundle} {LOCK_FILE}")

    def _hosts_all(self, source: Source, lock: ImagesLock) -> bool:
        """Has the bundle's repository everything that it lists? Locations are a hint; a HEAD is proof."""

        def there(entry: LockedImage) -> bool:
            try:
                return source.head_manifest(entry.image.identifier) is not None
            except (NotFound, Unauthorized, Denied):
                return False

        return all(list(self._threads.map(there, lock.images)))

    def _nested(self, home: Source, entry: LockedImage, hint: bool | None, *, hosted: bool) -> None:
        if hint is False:
            return
        found = self._find(home, entry, hosted=hosted)
        if found is None:
            return
        source, manifest = found
        if not self._seen:
            self._line("")
            self._line("Nested bundles")
        name = f"{source.name}@{manifest.digest}"
        self._line(f"  Pulling nested bundle '{name}'")
        if str(entry.image) in self._seen:
            self._line("  Skipped, already downloaded")
            return
        folder = os.path.join(NESTED_FOLDER, f"sha256-{hex_of(manifest.digest)}")
        self._seen[str(entry.image)] = Pulled(image=name)
        self._index.append(f"{os.path.basename(folder)}  {entry.image}")
        self._seen[str(entry.image)] = self._bundle(source, manifest, os.path.join(self._folder, folder), "    ")

    def _find(self, home: Source, entry: LockedImage, *, hosted: bool) -> tuple[Source, Manifest] | None:
        """The nested bundle from the bundle's own repository, or from where the lock says; None for a plain image."""
        digest = entry.image.identifier
        try:
            source, manifest = home, home.get_manifest(digest)
        except StoreError:
            if hosted:
                raise
            source = self._open(entry.image.repository)
            manifest = source.get_manifest(digest)
        if manifest.is_index or not reader.is_bundle(source, manifest):
            return None
        return source, manifest


def _moved(entry: LockedImage, repository: StoreName) -> LockedImage:
    return LockedImage(Reference(repository, "", Digest(entry.image.identifier)), entry.annotations)
