"""What one run shares: connections to both sides, threads, counters, and the token that stops it all."""

from __future__ import annotations

import heapq
import itertools
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType
from typing import Generic, Self, TypeAlias, TypeVar

from oci.archive.open import open_readers
from oci.archive.s3_options import S3Settings
from oci.archive.source import Archive, Nothing
from oci.cancel import CancelToken
from oci.digest import Digest
from oci.errors import Cancelled, InvalidInput
from oci.layout.store import Layout
from oci.meter import Meter
from oci.reference import S3_PREFIX, ArchiveName, LayoutFolder, Repository, StoreName
from oci.registry.credentials.chain import Credentials
from oci.registry.options import RegistryOptions
from oci.registry.repository import Registries
from oci.store import BlobOutcome, Destination, Source

DEFAULT_CONCURRENCY = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """How the registries of one side are reached, with settings by host, a default and credentials, and the object
    stores that archives are in, by bucket and by default."""

    credentials: Credentials
    default: RegistryOptions = field(default_factory=RegistryOptions)
    per_registry: Mapping[str, RegistryOptions] = field(default_factory=dict)
    s3: S3Settings = field(default_factory=S3Settings)
    per_bucket: Mapping[str, S3Settings] = field(default_factory=dict)

    def settings(self, registry: str) -> RegistryOptions:
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
        self.pushed: set[tuple[StoreName, Digest]] = set()
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


ITEM_LIMIT = 1 << 20
TOTAL_LIMIT = 32 << 20


class ByteCache:
    """Bytes by digest, least recently used out first. Its size has a bound, so memory doesn't grow with a plan."""

    def __init__(self, total: int = TOTAL_LIMIT) -> None:
        self._lock = threading.Lock()
        self._total = total
        self._held = 0
        self._items: OrderedDict[Digest, bytes] = OrderedDict()

    def put(self, digest: Digest, data: bytes) -> None:
        """Bytes beyond ITEM_LIMIT aren't kept; `data` must have been verified."""
        if len(data) > ITEM_LIMIT:
            return
        with self._lock:
            self._held += len(data) - len(self._items.pop(digest, b""))
            self._items[digest] = data
            while self._held > self._total:
                _, dropped = self._items.popitem(last=False)
                self._held -= len(dropped)

    def get(self, digest: Digest) -> bytes | None:
        with self._lock:
            data = self._items.get(digest)
            if data is not None:
                self._items.move_to_end(digest)
            return data


T = TypeVar("T")
Together: TypeAlias = Callable[[Sequence[Hashable], Callable[[Hashable, T | BaseException], None]], None]

SMALL = 1 << 20
"""Bytes up to which a blob counts as small: one thread takes nothing bigger, so that small ones never queue behind
a row of big ones."""


class BlobPool(Generic[T]):
    """A priority pool with a memo. `once` runs a key's function one time; a failure is forgotten, so that the next
    caller tries again."""

    def __init__(self, threads: int, cancel: CancelToken) -> None:
        self._cancel = cancel
        self._changed = threading.Condition()
        self._big: list[tuple[int, int, Callable[[], None]]] = []
        self._small: list[tuple[int, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._memo: dict[Hashable, Future[T]] = {}
        self._unclaimed: set[Hashable] = set()
        """Keys that `together` has started and nobody has asked for yet."""
        self._closed = False
        self._threads = [
            threading.Thread(target=self._work, args=(threads > 1 and number == 0,), name=f"blob-{number}", daemon=True)
            for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def once(self, key: Hashable, size: int, function: Callable[[], T]) -> tuple[Future[T], bool]:
        """The future of `key`, and whether this call is the first that asks for it."""
        with self._changed:
            known = self._memo.get(key)
            if known is not None:
                mine = key in self._unclaimed
                self._unclaimed.discard(key)
                return known, mine
            future: Future[T] = Future()
            self._memo[key] = future
            self._push(size, lambda: self._run(key, future, function))
            return future, True

    def together(self, keys: Sequence[Hashable], size: int, function: Together[T]) -> None:
        """Runs one function for several keys, unless all but one of them have been seen to already. It is given those
        that haven't, and calls back with a result or an exception for each as soon as it has one; who asks for a key
        later, finds it."""
        with self._changed:
            futures: dict[Hashable, Future[T]] = {key: Future() for key in keys if key not in self._memo}
            if len(futures) < 2:
                return
            self._memo.update(futures)
            self._unclaimed.update(futures)
            self._push(size, lambda: self._run_together(futures, function))

    def forget(self, key: Hashable) -> None:
        with self._changed:
            self._memo.pop(key, None)
            self._unclaimed.discard(key)

    def close(self) -> None:
        """Waits for what is running; what is still queued is answered with Cancelled."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        for _, _, job in (*self._big, *self._small):
            self._cancel.cancel()
            job()

    def _push(self, size: int, job: Callable[[], None]) -> None:
        queue = self._small if size <= SMALL else self._big
        heapq.heappush(queue, (-size, next(self._order), job))
        self._changed.notify_all()

    def _run_together(self, futures: Mapping[Hashable, Future[T]], function: Together[T]) -> None:
        def settle(key: Hashable, outcome: T | BaseException) -> None:
            if isinstance(outcome, BaseException):
                self.forget(key)
                futures[key].set_exception(outcome)
            else:
                futures[key].set_result(outcome)

        try:
            self._cancel.check()
            function(list(futures), settle)
        except BaseException as error:  # noqa: BLE001 - whatever it was belongs to whoever waits on the futures
            for key, future in futures.items():
                if not future.done():
                    settle(key, error)

    def _run(self, key: Hashable, future: Future[T], function: Callable[[], T]) -> None:
        try:
            self._cancel.check()
            result = function()
        except BaseException as error:  # noqa: BLE001 - whatever it was belongs to whoever waits on the future
            self.forget(key)
            future.set_exception(error)
        else:
            future.set_result(result)

    def _work(self, small_only: bool) -> None:
        while True:
            with self._changed:
                while not self._closed and not self._small and (small_only or not self._big):
                    self._changed.wait()
                if self._closed:
                    return
                queue = self._big if self._big and not small_only else self._small
                _, _, job = heapq.heappop(queue)
            job()


def wait_all(futures: list[Future[T]]) -> list[T]:
    """The results in order. Waits for every one before it raises the first failure, so that nothing is left running
    behind the caller's back; a cancellation outranks the failures it caused."""
    errors = [error for error in (future.exception() for future in futures) if error is not None]
    for error in errors:
        if isinstance(error, Cancelled):
            raise error
    if errors:
        raise errors[0]
    return [future.result() for future in futures]
