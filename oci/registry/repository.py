"""A repository of a registry as a Source and a Destination, and all registries of a side.

A blob is written in the first of these ways that the registry accepts (distribution-spec, "Pushing blobs"):

    way                                 requests                       when
    find or mount it                    POST                           it is there, or in another repository
    send it in the POST                 POST                           it is small
    send it whole                       POST, PUT                      nearly every registry accepts this
    send chunks                         POST, PATCH..., PUT            a proxy limits sizes, or a PUT broke off and
                                                                       the upload goes on from there

When reading the source fails, or a byte of it is wrong, the upload is cancelled and the source's error is raised
unchanged.
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
"""So many blobs in a row were asked for and absent: after them, small ones are sent without asking. It counts in a
repository without tags, which has blobs only if a run was interrupted, and a run sends its blobs in the same order
again."""

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
        """Blobs that were absent, since the last that was there."""
        self._asking = 0
        """Threads that are asking for a blob and may add to the misses."""
        self._answered = threading.Condition()
        self._refused_sources: set[Repository] = set()
        """Repositories from which the registry refuses to mount."""
        self._claimed: dict[Digest, tuple[UploadSession, Kind]] = {}
        """Blobs that the registry says it has mounted, with the kind of the request. No manifest has proven it yet."""

    def all_tags(self) -> Iterator[str]:
        return manifests.list_tags(self, exhaustive=True)

    def all_referrers(self, subject: Digest) -> tuple[Descriptor, ...]:
        return referrers.list_referrers(self, subject, exhaustive=True)

    @property
    def has_referrers_api(self) -> bool | None:
        """Says whether the registry has the referrers API; None until it was asked: an assumption of its profile
        doesn't count."""
        return None if self.learned.is_assumed(GET_REFERRERS) else self.learned.works(GET_REFERRERS)

    def listed(self) -> tuple[Digest, ...]:
        """Returns nothing: distribution-spec has no list of manifests."""
        return ()

    def sweep(self, candidates: Collection[Digest]) -> int | None:
        """Does nothing, and returns None: a registry collects garbage itself."""
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
        """See Destination.put_manifest. Where the registry refuses it because it lacks a blob that it said it had
        mounted, uploads that blob and tries once more."""
        try:
            listed = manifests.put_manifest(self, manifest, tag)
        except StoreError as error:
            if not self._restore(manifest, error):
                raise
            listed = manifests.put_manifest(self, manifest, tag)
        self._take_claims(manifest)  # the registry took the manifest: its blobs are there
        if manifest.subject is not None and not listed:
            referrers.add_to_fallback(self, manifest, manifest.subject.digest)

    def _restore(self, manifest: Manifest, error: StoreError) -> bool:
        """Uploads those blobs of a refused manifest that the registry claimed to have mounted and doesn't have. Says
        whether there were any. Registries word such a refusal in their own ways, so any may be one."""
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

    def _take_claims(self, manifest: Manifest) -> list[tuple[UploadSession, Kind]]:
        """Returns the claims on the blobs of a manifest, and drops them."""
        with self._lock:
            claims = [self._claimed.pop(blob.digest, None) for blob in manifest.blobs]
        return [claim for claim in claims if claim is not None]

    def _begin(self, session: UploadSession, *, mount_from: Sequence[Repository], fresh: bool) -> BlobOutcome | None:
        """Finds the blob, mounts it or sends it in a POST, in as few requests as this registry allows. Returns None
        where the session is open and the blob is to be sent in it."""
        unfit = {self.name, *self._refused_sources}
        others = [source for source in dict.fromkeys(mount_from) if source not in unfit]
        may_be_there = self.name in mount_from or not fresh
        with self._asking_for(session.blob, always=may_be_there, if_interrupted=not others) as asks:
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
    def _asking_for(self, blob: Descriptor, *, always: bool, if_interrupted: bool) -> Iterator[bool]:
        """Says whether to ask for a blob before it is sent. With `if_interrupted`, only an interrupted run can have
        left it there. Asking is free then for a big blob where a mount from the repository itself also starts the
        upload, as the blob takes a POST and a PUT anyway. For other blobs the misses stay within MISSES: a thread
        waits for the answers that others await, as long as these may bring the misses to that number."""
        is_free = blob.size > SMALL and bool(self.learned.works(POST_SELF_MOUNT))
        if always or not if_interrupted or is_free:
            yield always or if_interrupted
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
        """Asks whether the blob is there. Where the registry answers a mount from the repository itself with 201 if it
        is and 202 if it isn't, that one request also opens the session. Returns None when it is absent."""
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
            # HEAD finds it, and the mount didn't: the mount doesn't tell at this registry.
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
        """Tries, once for a registry, to mount a blob that was just written from the repository itself. Only if it
        answers 201 for such a blob does its 202 mean that a blob is absent."""
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
        """Mounts the blob from another repository. A 201 says that it is done; a 202 says that it isn't, and opens the
        session. Any other answer, also a refusal, means that the blob is uploaded, and is no failure (imgpkg issue
        495)."""
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
        """Sends the whole blob in the POST. A registry that doesn't support it answers with a session, or refuses."""
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
        """Returns the login in words: `user bob (docker config)`, `anonymous`."""
        return self.transport.login.credential(self.name.path).identity

    def try_login(self, *, push: bool) -> bool:
        """Asks for the tags or, with `push`, starts an upload session and cancels it. Returns False where the answer
        says that there is no such repository. Raises StoreError where the login is refused."""
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
    """Returns a reader that reads a small blob from its source once, however often it is sent."""
    whole = cache(lambda: b"".join(read(0)))
    return lambda offset: iter((whole()[offset:],))


class Registries:
    """The registries of one side of a run, and their repositories, each opened once. Use as a context manager."""

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
        """`settings` gives the options of a registry host, and is called once for each. `state` is what earlier runs
        have learned of registries. `named` are the registries that the user named; None stands for all."""
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
        """Says which repositories will be asked for soon, so that one token is fetched for several of them."""
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
