"""What one run shares: connections to both sides, threads, counters, and the token that stops it all."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from oci.archive.places import open_readers
from oci.archive.s3settings import S3Settings
from oci.archive.source import Archive, Nothing
from oci.cancel import CancelToken
from oci.digest import Digest
from oci.errors import InvalidInput
from oci.layout import Layout
from oci.meter import Meter
from oci.reference import S3_PREFIX, ArchiveName, LayoutFolder, Repository, StoreName
from oci.registry.credentials.chain import Credentials
from oci.registry.registries import Registries
from oci.registry.settings import RegistrySettings
from oci.relocation.cache import ByteCache
from oci.relocation.pool import BlobPool
from oci.store import BlobOutcome, Destination, Source

DEFAULT_CONCURRENCY = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """How the registries of one side are reached, with settings by host, a default and credentials, and the object
    stores that archives are in, by bucket and by default."""

    credentials: Credentials
    default: RegistrySettings = field(default_factory=RegistrySettings)
    per_registry: Mapping[str, RegistrySettings] = field(default_factory=dict)
    s3: S3Settings = field(default_factory=S3Settings)
    per_bucket: Mapping[str, S3Settings] = field(default_factory=dict)

    def settings(self, registry: str) -> RegistrySettings:
        return self.per_registry.get(registry, self.default)

    def object_store(self, location: str) -> S3Settings:
        """Of s3://BUCKET/KEY, or of a bucket by its name."""
        return self.per_bucket.get(location.removeprefix(S3_PREFIX).partition("/")[0], self.s3)


class Session:
    """Use as a context manager. `concurrency` is the number of blobs, and of images, on their way at a time."""

    def __init__(
        self,
        *,
        source: Access,
        destination: Access,
        concurrency: int = DEFAULT_CONCURRENCY,
        meter: Meter | None = None,
        cancel: CancelToken | None = None,
    ) -> None:
        self.meter = meter or Meter()
        self.cancel = cancel or CancelToken()
        self.concurrency = concurrency
        self.cache = ByteCache()
        self.pushed: set[tuple[str, Digest]] = set()
        """(destination, digest) of manifests that this session has pushed."""
        self.moving: dict[Digest, int] = {}
        """Bytes read so far of each blob that is on its way, for whoever shows progress."""
        self.moved: set[Digest] = set()
        """Blobs that were moved, or found to be there."""
        self._lock = threading.Lock()
        self._layouts: dict[tuple[str, LayoutFolder], Layout] = {}
        self._archives: dict[tuple[str, ArchiveName], Archive] = {}
        self._object_stores = {"source": source.object_store, "destination": destination.object_store}
        self._sides = {
            side: Registries(
                side=side,
                settings=access.settings,
                credentials=access.credentials,
                meter=self.meter,
                cancel=self.cancel,
            )
            for side, access in (("source", source), ("destination", destination))
        }
        self.blobs: BlobPool[BlobOutcome] = BlobPool(concurrency, self.cancel)
        self.workers = ThreadPoolExecutor(concurrency, thread_name_prefix="image")

    def source(self, name: StoreName) -> Source:
        return self.archive(name) if isinstance(name, ArchiveName) else self._store("source", name)

    def destination(self, name: StoreName) -> Destination:
        if isinstance(name, ArchiveName):
            raise InvalidInput(f"{name}: an archive isn't written image by image", hint="use oci.archive.export")
        return self._store("destination", name)

    def compared(self, name: StoreName) -> Source:
        """What a plan is compared with: the destination as it is; an archive is always written from nothing."""
        return Nothing(name) if isinstance(name, ArchiveName) else self.destination(name)

    def archive(self, name: ArchiveName, side: str = "source", *, anew: bool = False) -> Archive:
        """Opened once, and closed with the session; `anew` for one that has been written meanwhile."""
        with self._lock:
            archive = self._archives.get((side, name))
            if anew and archive is not None:
                archive.close()
            if anew or archive is None:
                readers = open_readers(name, self._object_stores[side], side=side, cancel=self.cancel, meter=self.meter)
                archive = Archive(name, readers, side=side, meter=self.meter, cancel=self.cancel)
                self._archives[(side, name)] = archive
            return archive

    def object_store(self, location: str, side: str = "destination") -> S3Settings:
        return self._object_stores[side](location)

    def _store(self, side: str, name: Repository | LayoutFolder) -> Destination:
        if not isinstance(name, LayoutFolder):
            return self._sides[side].repository(name)
        with self._lock:
            layout = self._layouts.get((side, name))
            if layout is None:
                layout = Layout(name, side=side, meter=self.meter, cancel=self.cancel)
                self._layouts[(side, name)] = layout
            return layout

    def close(self) -> None:
        """Ends threads and connections; whatever is still moving when an error closes the session is cancelled."""
        self.workers.shutdown(wait=True, cancel_futures=True)
        self.blobs.close()
        for registries in self._sides.values():
            registries.close()
        for archive in self._archives.values():
            archive.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.cancel.cancel()
        self.close()
