"""A repository of a registry as a Source and a Destination, and all registries of a side.

Blobs are written by a ladder that is climbed down step by step (distribution-spec, "Pushing blobs").

    it is there, or can be mounted      one POST                       nothing is sent
    a small blob                        one POST with the whole blob
    one PUT for the whole blob          POST, PUT                      what nearly every registry takes
    chunks                              POST, PATCH..., PUT            where a proxy limits sizes, or to go on
                                                                       where a broken PUT got to

A source that breaks, or gives a wrong byte, ends the upload: its session is cancelled and its error goes up unchanged.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from typing import Self

from oci.descriptor import Descriptor
from oci.digest import Digest, digest_of
from oci.errors import CancelToken, Denied, NotFound, RateLimited, StoreError, Unauthorized
from oci.manifest import Manifest
from oci.meter import Meter
from oci.reference import Repository
from oci.registry import blobs, manifests, referrers
from oci.registry.blobs import has_blob
from oci.registry.credentials.credential import Credentials
from oci.registry.endpoints import GET_REFERRERS, POST_BLOB, POST_MOUNT, POST_SELF_MOUNT, Kind, Scope
from oci.registry.http.origin import canonical_host
from oci.registry.http.transport import Remote, Transport
from oci.registry.options import RegistryOptions
from oci.registry.state import Facts, State
from oci.registry.uploads import CUT, SMALL, UploadSession
from oci.store import BlobOutcome, BlobReader

MISSES = 16
"""A repository without tags may have blobs of an interrupted run. Blobs are sent in the same order again, so that after
so many in a row that weren't there, small ones are sent without asking."""

MOUNT_TRIES = 2
_POLL = 0.2
"""Seconds after which a waiting thread looks whether the run was cancelled."""

_NOTHING = Descriptor("application/octet-stream", digest_of(b""), 0)


class RegistryRepository(Remote):
    """See oci.store for what each method promises."""

    head_manifest = manifests.head_manifest
    get_manifest = manifests.get_manifest
    delete_manifest = manifests.delete_manifest
    delete_tag = manifests.delete_tag
    tags = manifests.list_tags
    read_blob = blobs.read_blob
    blob_size = blobs.blob_size
    referrers = referrers.list_referrers

    def __init__(self, transport: Transport, name: Repository) -> None:
        super().__init__(transport, name)
        self._lock = threading.Lock()
        self._misses = 0
        self._asking = 0
        self._answered = threading.Condition()
        self._refused_sources: set[Repository] = set()
        self._claimed: dict[Digest, tuple[UploadSession, Kind]] = {}
        """Blobs that a mount made be there, by the registry's word alone."""

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

    def put_blob(
        self, blob: Descriptor, read: BlobReader, *, mount_from: Sequence[Repository] = (), fresh: bool = False
    ) -> BlobOutcome:
        """See Destination.put_blob."""
        session = UploadSession(self, blob, _remembered(read) if blob.size <= SMALL else read)
        outcome: BlobOutcome | None = None
        if blob.size <= CUT or not session.resume():
            outcome = self._begin(session, mount_from=mount_from, fresh=fresh)
        if outcome is None:
            session.send()
            outcome = BlobOutcome.WRITTEN
        if outcome is BlobOutcome.WRITTEN and self.learned.works(POST_SELF_MOUNT) is None:
            self._learn_self_mount(session)
        self.transport.meter.blob(outcome.value, blob.size)
        return outcome

    def put_manifest(self, manifest: Manifest, tag: str = "") -> None:
        """A blob that the registry said to have mounted, and doesn't have, is uploaded before a second attempt."""
        try:
            listed = manifests.put_manifest(self, manifest, tag)
        except StoreError as error:
            if not self._restore(manifest, error):
                raise
            listed = manifests.put_manifest(self, manifest, tag)
        self._forget(manifest)
        if manifest.subject is not None and not listed:
            referrers.add_to_fallback(self, manifest, manifest.subject.digest)

    def _restore(self, manifest: Manifest, error: StoreError) -> bool:
        """After a manifest was refused with `error`, in whatever words: uploads its blobs that a mount only claimed to
        have put there. True when there were any."""
        if error.status in (0, 401, 429):
            return False
        restored = False
        for session, kind in self._take_claims(manifest):
            if not has_blob(self, session.blob.digest):
                self.learned.refuse(kind)
                session.start()
                session.send()
                self.transport.meter.blob(BlobOutcome.WRITTEN.value, session.blob.size)
                restored = True
        return restored

    def _forget(self, manifest: Manifest) -> None:
        """The registry took the manifest: its blobs are there."""
        if self._claimed:
            self._take_claims(manifest)

    def _take_claims(self, manifest: Manifest) -> list[tuple[UploadSession, Kind]]:
        with self._lock:
            claims = [self._claimed.pop(blob.digest, None) for blob in manifest.blobs]
        return [claim for claim in claims if claim is not None]

    def _begin(self, session: UploadSession, *, mount_from: Sequence[Repository], fresh: bool) -> BlobOutcome | None:
        """The first step, in as few requests as this registry allows: None where the blob is to be sent, for which the
        session is open."""
        unfit = {self.name, *self._refused_sources}
        others = [source for source in dict.fromkeys(mount_from) if source not in unfit]
        perhaps_there = self.name in mount_from or not fresh
        with self._asking_for(session.blob, sure=perhaps_there, left_over=not others) as asks:
            outcome = self._look_for(session) if asks else None
        if outcome is not None or (session.is_open and not others):
            return outcome
        session.cancel()
        if self.learned.works(POST_MOUNT) is not False:
            for other in others[:MOUNT_TRIES]:
                outcome = self._mount(session, other)
                if outcome is not None or session.is_open:
                    return outcome
        if session.blob.size <= SMALL and self.learned.may_try(POST_BLOB):
            return self._single_post(session)
        session.start()
        return None

    @contextmanager
    def _asking_for(self, blob: Descriptor, *, sure: bool, left_over: bool) -> Iterator[bool]:
        """Says whether to ask for a blob: `sure` to, or in a repository without tags, where it may be `left_over` of an
        interrupted run. Where a mount from the repository itself is the start of an upload at the same time, asking for
        a blob that needs a POST and a PUT anyway costs nothing. Else so many are asked for that the misses stay within
        MISSES: threads that come meanwhile wait for the answers, which are quick."""
        is_free = blob.size > SMALL and bool(self.learned.works(POST_SELF_MOUNT))
        if sure or not left_over or is_free:
            yield sure or left_over
            return
        with self._answered:
            while self._misses < MISSES <= self._misses + self._asking:
                self._answered.wait(_POLL)
                self.transport.cancel.check()
            asks = self._misses < MISSES
            self._asking += asks
        try:
            yield asks
        finally:
            with self._answered:
                self._asking -= asks
                self._answered.notify_all()

    def _look_for(self, session: UploadSession) -> BlobOutcome | None:
        """Existence and upload start in one request, where a mount from the repository itself is understood so."""
        digest, understood = session.blob.digest, self.learned.works(POST_SELF_MOUNT)
        if understood is not False:
            try:
                session.confirm(session.start(POST_SELF_MOUNT, mount=digest, source=self.name))
            except (Denied, Unauthorized) as refusal:
                self.learned.refuse(POST_SELF_MOUNT, refusal)
                return None  # the plain start of an upload decides whether this login may write here
            except StoreError as refusal:
                self.learned.refuse(POST_SELF_MOUNT, refusal)
            else:
                if not session.is_open:
                    self.learned.confirm(POST_SELF_MOUNT)
                    self._claim(session, POST_SELF_MOUNT)
                    return self._skipped()
                if understood:
                    self._misses += 1
                    return None
        if not has_blob(self, digest):
            self._misses += 1
            return None
        if session.is_open:
            # It is there, yet the mount said nothing of it: this registry has to be asked.
            self.learned.decline(POST_SELF_MOUNT)
            session.cancel()
        return self._skipped()

    def _skipped(self) -> BlobOutcome:
        self._misses = 0
        return BlobOutcome.SKIPPED

    def _claim(self, session: UploadSession, kind: Kind) -> None:
        with self._lock:
            self._claimed[session.blob.digest] = session, kind

    def _learn_self_mount(self, session: UploadSession) -> None:
        """Asks for a blob that is certainly there, once in a registry: only a 201 tells that 202 means absent."""
        if not self.learned.may_try(POST_SELF_MOUNT):
            return
        try:
            session.start(POST_SELF_MOUNT, mount=session.blob.digest, source=self.name)
            if session.is_open:
                self.learned.decline(POST_SELF_MOUNT)
                session.cancel()
            else:
                self.learned.confirm(POST_SELF_MOUNT)
        except StoreError:
            self.learned.decline(POST_SELF_MOUNT)

    def _mount(self, session: UploadSession, other: Repository) -> BlobOutcome | None:
        """201: mounted. 202: it wasn't, and here is a session. Anything else, a refusal among it, is a reason to
        upload, never to fail (imgpkg issue 495)."""
        scopes = (Scope(self.name.path, "pull,push", apart=True), Scope(other.path, "pull"))
        try:
            answer = session.start(POST_MOUNT, scopes=scopes, mount=session.blob.digest, source=other)
            if session.is_open:
                return None
            session.confirm(answer)
        except StoreError as refusal:
            if refusal.status and not isinstance(refusal, RateLimited):
                self._refused_sources.add(other)
                self.learned.note(f"a mount from {other.path} refused ({refusal.status}), {POST_MOUNT.plain_way}")
            return None
        self._claim(session, POST_MOUNT)
        return BlobOutcome.MOUNTED

    def _single_post(self, session: UploadSession) -> BlobOutcome | None:
        """The whole blob in the POST; a registry that doesn't know that answers with a session, or refuses."""
        data = b"".join(session.read(0))
        try:
            answer = session.start(POST_BLOB, body=data, digest=session.blob.digest)
            if session.is_open:
                self.learned.decline(POST_BLOB)
                return None
        except StoreError as refusal:
            session.start()
            self.learned.refuse(POST_BLOB, refusal)
            return None
        self.learned.confirm(POST_BLOB)
        self.transport.meter.sent(session.blob.size)
        session.confirm(answer)
        return BlobOutcome.WRITTEN

    @property
    def login(self) -> str:
        """Who asks, in words: `user bob (docker config)`, `anonymous`."""
        return self.transport.login.credential(self.name.path).identity

    def try_login(self, *, push: bool) -> bool:
        """Ask for the tags or, with `push`, start an upload session, which is cancelled. Return whether the repository
        is there, as far as that tells. Raise StoreError where it is refused."""
        if push:
            session = UploadSession(self, _NOTHING, lambda _: iter(()))
            session.start()
            session.cancel()
            return True
        try:
            next(self.tags(), None)
        except NotFound:
            return False
        return True


def _remembered(read: BlobReader) -> BlobReader:
    """Reads a small blob once, however often it is sent."""
    whole = cache(lambda: b"".join(read(0)))
    return lambda offset: iter((whole()[offset:],))


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
        self._settings = settings
        self._credentials = credentials
        self._open = partial(Transport, side=side, meter=meter, cancel=cancel, state=self._state, named=named)
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
                transport = self._open(registry, settings=settings, credentials=credentials)
                self._transports[registry] = transport
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
