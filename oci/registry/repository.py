"""A repository of a registry as a Source and a Destination, and all registries of a side."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Self

from oci.cancel import CancelToken
from oci.descriptor import Descriptor
from oci.digest import Digest, digest_of
from oci.errors import NotFound, StoreError
from oci.manifest import Manifest
from oci.meter import Meter
from oci.reference import Repository
from oci.registry import blobs, manifests, referrers
from oci.registry.credentials.credential import Credentials
from oci.registry.endpoints import GET_REFERRERS
from oci.registry.http.origin import canonical_host
from oci.registry.http.transport import Transport
from oci.registry.options import RegistryOptions
from oci.registry.sessions import Session
from oci.registry.state import Facts, State
from oci.registry.uploads import Uploader

_NOTHING = Descriptor("application/octet-stream", digest_of(b""), 0)


class RegistryRepository(Uploader):
    """See oci.store for what each method promises."""

    head_manifest = manifests.head_manifest
    get_manifest = manifests.get_manifest
    delete_manifest = manifests.delete_manifest
    delete_tag = manifests.delete_tag
    tags = manifests.list_tags
    read_blob = blobs.read_blob
    blob_size = blobs.blob_size
    referrers = referrers.list_referrers

    def all_tags(self) -> Iterator[str]:
        return manifests.list_tags(self, exhaustive=True)

    def all_referrers(self, subject: Digest) -> tuple[Descriptor, ...]:
        return referrers.list_referrers(self, subject, exhaustive=True)

    @property
    def has_referrers_api(self) -> bool | None:
        """None until referrers were asked for: what a profile assumes isn't known yet."""
        return None if self.learned.is_assumed(GET_REFERRERS) else self.learned.works(GET_REFERRERS)

    def listed(self) -> tuple[Digest, ...]:
        """Empty: distribution-spec has no list of manifests."""
        return ()

    def sweep(self, candidates: Collection[Digest]) -> int | None:
        """Does nothing: a registry collects garbage itself."""
        del candidates
        return None

    def put_manifest(self, manifest: Manifest, tag: str = "") -> None:
        """A blob that the registry said to have mounted, and doesn't have, is uploaded before a second attempt."""
        try:
            listed = manifests.put_manifest(self, manifest, tag)
        except StoreError as error:
            if not self.restore(manifest, error):
                raise
            listed = manifests.put_manifest(self, manifest, tag)
        self.forget(manifest)
        if manifest.subject is not None and not listed:
            referrers.add_to_fallback(self, manifest, manifest.subject.digest)

    @property
    def login(self) -> str:
        """Who asks, in words: `user bob (docker config)`, `anonymous`."""
        return self.transport.login.credential(self.name.path).identity

    def try_login(self, *, push: bool) -> bool:
        """Ask for the tags or, with `push`, start an upload session, which is cancelled. Return whether the repository
        is there, as far as that tells. Raise StoreError where it is refused."""
        if push:
            session = Session(self, _NOTHING, lambda _: iter(()))
            session.start()
            session.cancel()
            return True
        try:
            next(self.tags(), None)
        except NotFound:
            return False
        return True


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
                transport = self._transports[registry] = Transport(
                    registry,
                    settings=settings,
                    credentials=credentials,
                    side=self._side,
                    meter=self._meter,
                    cancel=self._cancel,
                    state=self._state,
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
