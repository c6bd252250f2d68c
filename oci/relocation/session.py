"""What one run shares: connections to both sides, threads, counters, and the token that stops it all."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import takewhile
from typing import TYPE_CHECKING, Self

from msgspec import Struct, field

from oci.archive.options import S3Options
from oci.bundle.image import blob_bytes
from oci.descriptor import Descriptor
from oci.digest import Digest
from oci.errors import CancelToken, InvalidInput
from oci.manifest import Manifest
from oci.meter import Meter, PartThreads
from oci.reference import ArchiveName, LayoutFolder, Repository, StoreName, bucket_and_key
from oci.registry.credentials.credential import Credentials
from oci.registry.http.origin import canonical_host
from oci.registry.http.pace import Bandwidth
from oci.registry.manifests import catalog
from oci.registry.options import DEFAULT_CONCURRENCY, RegistryOptions
from oci.registry.repository import Registries, RegistryRepository
from oci.registry.state import State, default_folder
from oci.relocation.fanout import BlobPool
from oci.store import BlobOutcome, Destination, Source

if TYPE_CHECKING:
    from oci.archive.open import ArchiveProof
    from oci.archive.source import ArchiveSource
    from oci.layout.store import LayoutStore
    from oci.signatures.policy import Gate


class Access(Struct, frozen=True, kw_only=True):
    """How the registries of one side are reached, with settings by host, a default and credentials, and the object
    stores that archives are in, by bucket and by default."""

    credentials: Credentials
    default: RegistryOptions = field(default_factory=RegistryOptions)
    per_registry: Mapping[str, RegistryOptions] = field(default_factory=dict)
    """By the normal form of the host."""
    named: Collection[str] | None = None
    """Registries that the user named; None where all are his. One that only a lock or a bundle names may be no nearer
    to this machine than these."""
    s3: S3Options = field(default_factory=S3Options)
    per_bucket: Mapping[str, S3Options] = field(default_factory=dict)

    def settings(self, registry: str) -> RegistryOptions:
        return self.per_registry.get(canonical_host(registry), self.default)

    def rate(self, registry: str) -> tuple[str, int]:
        """Returns the bytes a second of a registry, and whose they are: its own, or those of all that have none."""
        bandwidth = self.settings(registry).bandwidth if registry else self.default.bandwidth
        return (canonical_host(registry) if bandwidth != self.default.bandwidth else "", bandwidth)

    def object_store(self, location: str) -> S3Options:
        """Returns how s3://BUCKET/KEY, or a bucket by its name, is reached."""
        return self.per_bucket.get(bucket_and_key(location)[0], self.s3)


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
        self.ledger = BlobLedger()
        self.manifests = ManifestGate()
        self.pushed: set[tuple[StoreName, Digest]] = set()
        """(destination, digest) of manifests that this session has pushed."""
        self.moving: dict[Digest, int] = {}
        """Bytes read so far of each blob that is being moved, for the display of progress."""
        self.moved: set[Digest] = set()
        """Blobs that were moved, or found to be there."""
        self._lock = threading.Lock()
        self._gates: dict[tuple[str, bool], Gate] = {}
        self._layouts: dict[tuple[str, LayoutFolder], LayoutStore] = {}
        self._archives: dict[tuple[str, ArchiveName], ArchiveSource] = {}
        self._proofs: dict[ArchiveName, ArchiveProof] = {}
        self.access = {"source": source, "destination": destination}
        state = State(default_folder())
        named = None if source.named is None or destination.named is None else {*source.named, *destination.named}
        self._sides = {
            side: Registries(
                side=side,
                settings=access.settings,
                credentials=access.credentials,
                meter=self.meter,
                cancel=self.cancel,
                state=state,
                named=named,
            )
            for side, access in (("source", source), ("destination", destination))
        }
        self.bandwidth = Bandwidth((source.rate, destination.rate), self.cancel)
        self.blobs: BlobPool[BlobOutcome] = BlobPool(concurrency, self.cancel)
        self.workers = PartThreads(concurrency, thread_name_prefix="image")

    def source(self, name: StoreName) -> Source:
        return self.archive(name) if isinstance(name, ArchiveName) else self._store("source", name)

    def destination(self, name: StoreName) -> Destination:
        return self._store("destination", name)

    def repositories(self, registry: str) -> Iterator[str]:
        """The paths of a source registry's repositories, as far as its catalog shows them."""
        return catalog(self._sides["source"].transport(registry))

    def repository(self, side: str, name: Repository) -> RegistryRepository:
        return self._sides[side].repository(name)

    def expect(self, side: str, names: Iterable[StoreName]) -> None:
        """Says which repositories will be asked for soon, so that one token is fetched for several of them."""
        self._sides[side].expect(name for name in names if isinstance(name, Repository))

    def archive(self, name: ArchiveName, side: str = "source", *, anew: bool = False) -> ArchiveSource:
        """Opens an archive once; the session closes it. `anew` is for an archive that has been written meanwhile."""
        from oci.archive.open import open_readers  # noqa: PLC0415 - a copy between registries reads no archive
        from oci.archive.source import ArchiveSource  # noqa: PLC0415

        with self._lock:
            if anew and (side, name) in self._archives:
                self._archives.pop((side, name)).close()
            if (side, name) not in self._archives:
                store = self.access[side].object_store
                readers = open_readers(name, store, side=side, cancel=self.cancel, meter=self.meter)
                archive = ArchiveSource(name, readers, side=side, meter=self.meter, cancel=self.cancel)
                self._archives[side, name] = archive
            return self._archives[side, name]

    def object_store(self, location: str) -> S3Options:
        return self.access["destination"].object_store(location)

    def prove_archive(self, name: ArchiveName, key: str) -> None:
        """Asks that an archive is signed by the public key in a file, and reads it all while others read from it;
        `wait_for_proofs` says how that ends. Raises InvalidInput for the key, NotSigned for a signature that is missing
        or another key's."""
        from oci.archive.open import ArchiveProof  # noqa: PLC0415 - only where it is asked for
        from oci.signatures.keys import read_key_file, signed_sha256  # noqa: PLC0415

        readers = self.archive(name).readers
        if name not in self._proofs:
            public = read_key_file(key)
            self._proofs[name] = ArchiveProof(
                readers,
                lambda data, location: signed_sha256(data, public, location),
                self.access["source"].object_store,
                side="source",
            )

    def wait_for_proofs(self) -> None:
        """To be called before anything gets a name. Raises NotSigned for an archive that isn't what was signed."""
        for proof in self._proofs.values():
            proof.check()

    def gate(self, policy: str, *, signed: bool) -> Gate:
        """The policy of signatures in a file, read once, with what it has decided. Raises InvalidInput."""
        from oci.signatures.policy import Gate  # noqa: PLC0415 - only with a policy
        from oci.signatures.policy_file import read_policy  # noqa: PLC0415

        with self._lock:
            if (policy, signed) not in self._gates:
                self._gates[policy, signed] = Gate(read_policy(policy), signed=signed)
            return self._gates[policy, signed]

    def read_small(self, source: Source, blob: Descriptor) -> bytes:
        """Returns the whole of a config, a lock or the like, through the cache: what planning reads, the transfer needs
        again. It is a BlobBytes of oci.bundle.image."""
        data = self.cache.get(blob.digest)
        if data is None:
            data = blob_bytes(source, blob)
            self.cache.put(blob.digest, data)
        return data

    def _store(self, side: str, name: StoreName) -> Destination:
        if isinstance(name, Repository):
            return self.repository(side, name)
        if not isinstance(name, LayoutFolder):
            raise InvalidInput(f"{name}: an archive isn't written image by image", hint="copy to it with oci.copy")
        from oci.layout.store import LayoutStore  # noqa: PLC0415 - a copy between registries reads no folder

        with self._lock:
            if (side, name) not in self._layouts:
                self._layouts[side, name] = LayoutStore(name, side=side, meter=self.meter, cancel=self.cancel)
            return self._layouts[side, name]

    def close(self) -> None:
        """Ends threads and connections, and cancels what is still moving when an error closes the session."""
        self.workers.shutdown(wait=True, cancel_futures=True)
        self.blobs.close()
        for registries in self._sides.values():
            registries.close()
        for proof in self._proofs.values():
            proof.close()
        for archive in self._archives.values():
            archive.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is not None:
            self.cancel.cancel()
        self.close()


ITEM_LIMIT = 1 << 20
TOTAL_LIMIT = 32 << 20


class ByteCache:
    """Bytes by digest, least recently used out first. Its size has a bound, so memory doesn't grow with a plan."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._size = 0
        self._items: OrderedDict[Digest, bytes] = OrderedDict()

    def put(self, digest: Digest, data: bytes) -> None:
        """Keeps bytes up to ITEM_LIMIT; `data` must have been verified."""
        if len(data) > ITEM_LIMIT:
            return
        with self._lock:
            self._size += len(data) - len(self._items.pop(digest, b""))
            self._items[digest] = data
            while self._size > TOTAL_LIMIT:
                _, dropped = self._items.popitem(last=False)
                self._size -= len(dropped)

    def get(self, digest: Digest) -> bytes | None:
        with self._lock:
            data = self._items.get(digest)
            if data is not None:
                self._items.move_to_end(digest)
            return data


WORTH_SHARING = 256 << 10
"""Bytes from which a blob is sent once per registry: below, two requests cost less than to wait for another image."""

_POLL = 0.1


class Claim(Struct, eq=False):
    """A blob that one repository of a registry gets, while others of that registry wait to mount it from there."""

    owner: Repository
    waiters: int = 0
    ended: threading.Event = field(default_factory=threading.Event)

    def wait(self, cancel: CancelToken) -> None:
        """Waits until the owner has the blob, or has failed."""
        while not self.ended.wait(_POLL):
            cancel.check()


class BlobLedger:
    """Notes which repositories have got which blobs in this session, and which are about to get them.

    An image claims all its blobs at once and then waits for claims that were made before. So no two images ever wait
    for each other. After a claim that failed, each image that waited for it sends the blob itself.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._claims: dict[tuple[str, Digest], Claim] = {}
        self._owners: dict[tuple[str, Digest], dict[Repository, None]] = {}
        self._hints: Mapping[tuple[str, Digest], Repository] = {}

    def suggest(self, hints: Mapping[tuple[str, Digest], Repository]) -> None:
        """Takes what an earlier session knew, by registry and digest, as places to try a mount from. What isn't there
        any more costs the attempt: the blob is uploaded then."""
        self._hints = hints

    def locations(self) -> dict[tuple[str, Digest], Repository]:
        """By registry and digest, a repository that has the blob: what to suggest to a later session."""
        with self._lock:
            return {key: next(iter(owners)) for key, owners in self._owners.items()}

    def claim(self, store: StoreName, digests: Iterable[Digest]) -> tuple[dict[Digest, Claim], dict[Digest, Claim]]:
        """Returns the claims that `store` owns now, and those of other repositories to wait for.
        Neither has a blob that a repository of the registry is known to have."""
        owned: dict[Digest, Claim] = {}
        others: dict[Digest, Claim] = {}
        if not isinstance(store, Repository):
            return owned, others
        with self._lock:
            for digest in digests:
                key = (store.registry, digest)
                claim = self._claims.get(key)
                if claim is not None and claim.owner != store:
                    claim.waiters += 1
                    others[digest] = claim
                elif claim is None and key not in self._owners:
                    owned[digest] = self._claims[key] = Claim(store)
        return owned, others

    def release(self, claims: Mapping[Digest, Claim], *, stored: bool) -> None:
        """Ends claims that the caller owns. `stored` says that the repository has the blobs."""
        with self._lock:
            for digest, claim in claims.items():
                key = (claim.owner.registry, digest)
                if self._claims.get(key) is claim:
                    del self._claims[key]
                if stored:
                    self._owners.setdefault(key, {})[claim.owner] = None
                claim.ended.set()

    def owners(self, destination: StoreName, digest: Digest) -> tuple[Repository, ...]:
        """Lists repositories of the destination's registry from which the blob can be mounted."""
        if not isinstance(destination, Repository):
            return ()
        key = (destination.registry, digest)
        with self._lock:
            owners = dict(self._owners.get(key, {}))
        owners |= {self._hints[key]: None} if key in self._hints else {}
        return tuple(owner for owner in owners if owner != destination)


class _Push(Struct, frozen=True, eq=False):
    store: StoreName
    digest: Digest
    family: frozenset[Digest]
    """The manifest and its children."""


class ManifestGate:
    """Keeps the push of an index apart from other pushes of its children to the same repository.

    docker-registry 2.8.2 on a file system rewrites the link of a manifest at every push of it, and answers
    DIGEST_INVALID to an index whose child's link it finds empty at that moment.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._pushes: list[_Push] = []
        """On their way or waiting, in the order in which they came."""

    @contextmanager
    def pushing(self, store: StoreName, manifest: Manifest) -> Iterator[None]:
        """Waits until no earlier push of the manifest, of a child, or of an index that lists the manifest is under way.
        Later ones wait for this one: a child that is pushed again and again doesn't keep its index waiting."""
        digest = manifest.digest
        push = _Push(store, digest, frozenset((digest, *(child.digest for child in manifest.children))))

        def is_free() -> bool:
            earlier = takewhile(lambda other: other is not push, self._pushes)
            return not any(
                other.store == store and (digest in other.family or other.digest in push.family) for other in earlier
            )

        with self._changed:
            self._pushes.append(push)
        try:
            with self._changed:
                self._changed.wait_for(is_free)
            yield
        finally:
            with self._changed:
                self._pushes = [other for other in self._pushes if other is not push]
                self._changed.notify_all()
