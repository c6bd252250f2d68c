"""A repository of a registry as a Source and a Destination, and all registries of a side."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Self

from oci.cancel import CancelToken
from oci.descriptor import Descriptor
from oci.digest import Chunk, Digest, digest_of
from oci.errors import NotFound, Refused, StoreError
from oci.manifest import Manifest
from oci.meter import Meter
from oci.reference import Repository
from oci.registry import blobs, manifests, referrers, tags
from oci.registry.credentials.credential import Credentials
from oci.registry.endpoints import GET_REFERRERS
from oci.registry.http.origin import canonical_host
from oci.registry.http.transport import Remote, Transport
from oci.registry.options import RegistryOptions
from oci.registry.profiles import Learned
from oci.registry.sessions import Session
from oci.registry.state import Facts, State
from oci.registry.uploads import Uploader
from oci.store import BlobOutcome, BlobReader

_NOTHING = Descriptor("application/octet-stream", digest_of(b""), 0)


class RegistryRepository:
    """See oci.store for what each method promises."""

    def __init__(self, transport: Transport, name: Repository) -> None:
        self._remote = Remote(transport, name, transport.learned)
        self._uploader = Uploader(self._remote)

    @property
    def name(self) -> Repository:
        return self._remote.name

    def head_manifest(self, identifier: str) -> Descriptor | None:
        return manifests.head_manifest(self._remote, identifier)

    def get_manifest(self, identifier: str) -> Manifest:
        return manifests.get_manifest(self._remote, identifier)

    def read_blob(self, blob: Descriptor, offset: int = 0, length: int | None = None) -> Iterator[Chunk]:
        return blobs.read_blob(self._remote, blob, offset, length)

    def blob_size(self, digest: Digest) -> int | None:
        return blobs.blob_size(self._remote, digest)

    def tags(self) -> Iterator[str]:
        return tags.list_tags(self._remote)

    def all_tags(self) -> Iterator[str]:
        """As `tags`, for callers that delete what isn't named: a list cut short without a Link is continued."""
        return tags.list_tags(self._remote, exhaustive=True)

    def referrers(self, subject: Digest, artifact_type: str = "") -> tuple[Descriptor, ...]:
        return referrers.list_referrers(self._remote, subject, artifact_type)

    def all_referrers(self, subject: Digest) -> tuple[Descriptor, ...]:
        return referrers.list_referrers(self._remote, subject, "", exhaustive=True)

    @property
    def has_referrers_api(self) -> bool | None:
        """None until referrers were asked for: what a profile assumes isn't known yet."""
        learned = self._remote.learned
        return None if learned.is_assumed(GET_REFERRERS) else learned.works(GET_REFERRERS)

    def listed(self) -> tuple[Digest, ...]:
        """Empty: distribution-spec has no list of manifests."""
        return ()

    def sweep(self, candidates: Collection[Digest]) -> int | None:
        """Does nothing: a registry collects garbage itself."""
        del candidates
        return None

    def put_blob(
        self, blob: Descriptor, read: BlobReader, *, mount_from: Sequence[Repository] = (), fresh: bool = False
    ) -> BlobOutcome:
        return self._uploader.put(blob, read, mount_from=mount_from, fresh=fresh)

    def put_manifest(self, manifest: Manifest, tag: str = "") -> None:
        """A blob that the registry said to have mounted, and doesn't have, is uploaded before a second attempt."""
        try:
            listed = manifests.put_manifest(self._remote, manifest, tag)
        except StoreError as error:
            if not self._uploader.restore(manifest, error):
                raise
            listed = manifests.put_manifest(self._remote, manifest, tag)
        self._uploader.forget(manifest)
        if manifest.subject is not None and not listed:
            referrers.add_to_fallback(self._remote, manifest, manifest.subject.digest)

    @property
    def login(self) -> str:
        """Who asks, in words: `user bob (docker config)`, `anonymous`."""
        return self._remote.transport.login.credential(self.name.path).identity

    def try_login(self, *, push: bool) -> bool:
        """Ask for the tags or, with `push`, start an upload session, which is cancelled. Return whether the repository
        is there, as far as that tells. Raise StoreError where it is refused."""
        if push:
            session = Session(self._remote, _NOTHING, lambda _: iter(()))
            session.start()
            session.cancel()
            return True
        try:
            next(self.tags(), None)
        except NotFound:
            return False
        return True

    def delete_manifest(self, digest: Digest) -> None:
        manifests.delete_manifest(self._remote, digest, "deleting the manifest")

    def delete_tag(self, tag: str) -> None:
        """Never falls back to deleting the manifest: other tags may show it."""
        try:
            manifests.delete_manifest(self._remote, tag, "deleting the tag")
        except StoreError as error:
            if error.status in (400, 405, 501):
                raise self._remote.transport.error(
                    Refused,
                    f"this registry can't delete a tag alone: {error.message}",
                    error.subject,
                    error.operation,
                    status=error.status,
                    code=error.code,
                    hint="delete the manifest by its digest, with all its tags, if that is what you want",
                ) from error
            raise


class Registries:
    """Opens repositories; `settings` is asked once for each registry host. Use as a context manager."""

    def __init__(
        self,
        *,
        side: str,
        settings: Callable[[str], RegistryOptions],
        credentials: Credentials,
        meter: Meter,
        cancel: CancelToken,
        state: State | None = None,
        named: Collection[str] | None = None,
    ) -> None:
        """`state` is what earlier runs left; `named` are the registries that the user named; None stands for all."""
        self._state = state or State()
        self._named = named
        self._side = side
        self._settings = settings
        self._credentials = credentials
        self._meter = meter
        self._cancel = cancel
        self._lock = threading.Lock()
        self._transports: dict[str, Transport] = {}
        self._repositories: dict[Repository, RegistryRepository] = {}

    def repository(self, name: Repository) -> RegistryRepository:
        transport = self.transport(name.registry)
        with self._lock:
            return self._repositories.setdefault(name, RegistryRepository(transport, name))

    def expect(self, names: Iterable[Repository]) -> None:
        """Says which repositories will be asked for soon."""
        for name in names:
            self.transport(name.registry).login.expect(name.path)

    def transport(self, registry: str) -> Transport:
        with self._lock:
            transport = self._transports.get(registry)
            if transport is None:
                settings, credentials = self._settings(registry), self._credentials
                if settings.aws_profile or settings.aws_role:
                    from oci.registry.credentials.keychains import amazon  # noqa: PLC0415 - few settings name one

                    credentials = Credentials([amazon(settings.aws_profile, settings.aws_role), credentials])
                learned = Learned(
                    registry,
                    self._meter,
                    settings.profile,
                    self._state if settings.state else None,
                )
                transport = self._transports[registry] = Transport(
                    registry,
                    settings=settings,
                    credentials=credentials,
                    side=self._side,
                    meter=self._meter,
                    cancel=self._cancel,
                    learned=learned,
                    named=self._named,
                )
            return transport

    def close(self) -> None:
        with self._lock:
            news: dict[str, Facts] = {}
            for registry, transport in self._transports.items():
                transport.close()
                new = transport.learned.news(transport.pace.rates()) if transport.settings.state else None
                if new is not None:
                    news[canonical_host(registry)] = new
            self._state.learn(news)
            self._transports.clear()
            self._repositories.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
