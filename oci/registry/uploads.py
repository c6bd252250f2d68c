"""Writing blobs: a ladder that is climbed down step by step (distribution-spec, "Pushing blobs").

    it is there, or can be mounted      one POST                       nothing is sent
    a small blob                        one POST with the whole blob
    one PUT for the whole blob          POST, PUT                      what nearly every registry takes
    chunks                              POST, PATCH..., PUT            where a proxy limits sizes, or to go on
                                                                       where a broken PUT got to

A source that breaks, or gives a wrong byte, ends the upload: its session is cancelled and its error goes up unchanged.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from oci.descriptor import Descriptor
from oci.digest import Digest
from oci.errors import Denied, RateLimited, StoreError, Unauthorized
from oci.manifest import Manifest
from oci.reference import Repository
from oci.registry.blobs import has_blob
from oci.registry.endpoints import POST_BLOB, POST_MOUNT, POST_SELF_MOUNT, Kind
from oci.registry.http.request import Scope
from oci.registry.http.transport import Remote
from oci.registry.sessions import CUT, SMALL, Session, Sessions
from oci.store import BlobOutcome, BlobReader

MISSES = 16
"""A repository without tags may have blobs of an interrupted run. Blobs are sent in the same order again, so that after
so many in a row that weren't there, small ones are sent without asking."""

MOUNT_TRIES = 2
_POLL = 0.2
"""Seconds after which a waiting thread looks whether the run was cancelled."""


class Uploader:
    """Uploads into a repository."""

    def __init__(self, remote: Remote) -> None:
        self._remote = remote
        self._name = remote.name
        self._transport = remote.transport
        self._learned = remote.learned
        self._sessions = Sessions(remote)
        self._lock = threading.Lock()
        self._misses = 0
        self._asking = 0
        self._answered = threading.Condition()
        self._refused_sources: set[Repository] = set()
        self._claimed: dict[Digest, tuple[Descriptor, BlobReader, Kind]] = {}
        """Blobs that a mount made be there, by the registry's word alone."""

    def put(self, blob: Descriptor, read: BlobReader, *, mount_from: Sequence[Repository], fresh: bool) -> BlobOutcome:
        """See Destination.put_blob."""
        if blob.size <= SMALL:
            read = _remembered(read)
        interrupted = self._sessions.interrupted(blob) if blob.size > CUT else None
        begun = interrupted or self._begin(blob, read, mount_from=mount_from, fresh=fresh)
        outcome = begun if isinstance(begun, BlobOutcome) else self._sessions.send(blob, read, begun)
        if outcome is BlobOutcome.WRITTEN and self._learned.works(POST_SELF_MOUNT) is None:
            self._learn_self_mount(blob)
        self._transport.meter.blob(outcome.value, blob.size)
        return outcome

    def restore(self, manifest: Manifest, error: StoreError) -> bool:
        """After a manifest was refused with `error`, in whatever words: uploads its blobs that a mount only claimed to
        have put there. True when there were any."""
        if error.status in (0, 401, 429):
            return False
        restored = False
        for blob, read, kind in self._take_claims(manifest):
            if not has_blob(self._remote, blob.digest):
                self._learned.refuse(kind)
                self._sessions.send(blob, read, self._sessions.start(blob))
                self._transport.meter.blob(BlobOutcome.WRITTEN.value, blob.size)
                restored = True
        return restored

    def forget(self, manifest: Manifest) -> None:
        """The registry took the manifest: its blobs are there."""
        if self._claimed:
            self._take_claims(manifest)

    def _take_claims(self, manifest: Manifest) -> list[tuple[Descriptor, BlobReader, Kind]]:
        with self._lock:
            claims = [self._claimed.pop(blob.digest, None) for blob in manifest.blobs]
        return [claim for claim in claims if claim is not None]

    def _begin(
        self, blob: Descriptor, read: BlobReader, *, mount_from: Sequence[Repository], fresh: bool
    ) -> BlobOutcome | Session:
        """The first step: there, mounted, or a session to send it to, in as few requests as this registry allows."""
        unfit = {self._name, *self._refused_sources}
        others = [source for source in dict.fromkeys(mount_from) if source not in unfit]
        perhaps_there = self._name in mount_from or not fresh
        with self._asking_for(blob, sure=perhaps_there, left_over=not others) as asks:
            outcome = self._there_or_session(blob, read) if asks else None
        if asks:
            if isinstance(outcome, BlobOutcome) or (outcome is not None and not others):
                return outcome
            if outcome is not None:
                self._sessions.cancel(outcome)
        if self._learned.works(POST_MOUNT) is not False:
            for other in others[:MOUNT_TRIES]:
                mounted = self._mount(blob, read, other)
                if mounted is not None:
                    return mounted
        if blob.size <= SMALL and self._learned.may_try(POST_BLOB):
            return self._single_post(blob, read)
        return self._sessions.start(blob)

    @contextmanager
    def _asking_for(self, blob: Descriptor, *, sure: bool, left_over: bool) -> Iterator[bool]:
        """Says whether to ask for a blob: `sure` to, or in a repository without tags, where it may be `left_over` of an
        interrupted run. Where a mount from the repository itself is the start of an upload at the same time, asking for
        a blob that needs a POST and a PUT anyway costs nothing. Else so many are asked for that the misses stay within
        MISSES: threads that come meanwhile wait for the answers, which are quick."""
        is_free = blob.size > SMALL and bool(self._learned.works(POST_SELF_MOUNT))
        if sure or not left_over or is_free:
            yield sure or left_over
            return
        with self._answered:
            while self._misses < MISSES <= self._misses + self._asking:
                self._answered.wait(_POLL)
                self._transport.cancel.check()
            asks = self._misses < MISSES
            self._asking += asks
        try:
            yield asks
        finally:
            with self._answered:
                self._asking -= asks
                self._answered.notify_all()

    def _there_or_session(self, blob: Descriptor, read: BlobReader) -> BlobOutcome | Session | None:
        """Existence and upload start in one request, where a mount from the repository itself is understood so."""
        session: Session | None = None
        understood = self._learned.works(POST_SELF_MOUNT)
        if understood is not False:
            try:
                answer = self._sessions.ask(POST_SELF_MOUNT, blob, mount=blob.digest, source=self._name)
                session = self._sessions.opened(answer) if answer.status != 201 else None
                self._sessions.confirm(answer, blob)
            except (Denied, Unauthorized) as refusal:
                self._learned.refuse(POST_SELF_MOUNT, refusal)
                return None  # the plain start of an upload decides whether this login may write here
            except StoreError as refusal:
                self._learned.refuse(POST_SELF_MOUNT, refusal)
            else:
                if session is None:
                    self._learned.confirm(POST_SELF_MOUNT)
                    self._claim(blob, read, POST_SELF_MOUNT)
                    return self._skipped()
                if understood:
                    self._misses += 1
                    return session
        if not has_blob(self._remote, blob.digest):
            self._misses += 1
            return session
        if session is not None:
            # It is there, yet the mount said nothing of it: this registry has to be asked.
            self._learned.decline(POST_SELF_MOUNT)
            self._sessions.cancel(session)
        return self._skipped()

    def _skipped(self) -> BlobOutcome:
        self._misses = 0
        return BlobOutcome.SKIPPED

    def _claim(self, blob: Descriptor, read: BlobReader, kind: Kind) -> None:
        with self._lock:
            self._claimed[blob.digest] = (blob, read, kind)

    def _learn_self_mount(self, blob: Descriptor) -> None:
        """Asks for a blob that is certainly there, once in a registry: only a 201 tells that 202 means absent."""
        if not self._learned.may_try(POST_SELF_MOUNT):
            return
        try:
            answer = self._sessions.ask(POST_SELF_MOUNT, blob, mount=blob.digest, source=self._name)
            if answer.status == 201:
                self._learned.confirm(POST_SELF_MOUNT)
            else:
                self._learned.decline(POST_SELF_MOUNT)
                self._sessions.cancel(self._sessions.opened(answer))
        except StoreError:
            self._learned.decline(POST_SELF_MOUNT)

    def _mount(self, blob: Descriptor, read: BlobReader, other: Repository) -> BlobOutcome | Session | None:
        """201: mounted. 202: it wasn't, and here is a session. Anything else, a refusal among it, is a reason to
        upload, never to fail (imgpkg issue 495)."""
        scopes = (Scope(self._name.path, "pull,push", apart=True), Scope(other.path, "pull"))
        try:
            answer = self._sessions.ask(POST_MOUNT, blob, scopes=scopes, mount=blob.digest, source=other)
            if answer.status != 201:
                return self._sessions.opened(answer)
            self._sessions.confirm(answer, blob)
        except StoreError as refusal:
            if refusal.status and not isinstance(refusal, RateLimited):
                self._refused_sources.add(other)
                self._learned.note(f"a mount from {other.path} refused ({refusal.status}), {POST_MOUNT.plain_way}")
            return None
        self._claim(blob, read, POST_MOUNT)
        return BlobOutcome.MOUNTED

    def _single_post(self, blob: Descriptor, read: BlobReader) -> BlobOutcome | Session:
        """The whole blob in the POST; a registry that doesn't know that answers with a session, or refuses."""
        data = b"".join(read(0))
        try:
            answer = self._sessions.ask(POST_BLOB, blob, body=data, digest=blob.digest)
            if answer.status != 201:
                session = self._sessions.opened(answer)
                self._learned.decline(POST_BLOB)
                return session
        except StoreError as refusal:
            session = self._sessions.start(blob)
            self._learned.refuse(POST_BLOB, refusal)
            return session
        self._learned.confirm(POST_BLOB)
        self._transport.meter.sent(blob.size)
        self._sessions.confirm(answer, blob)
        return BlobOutcome.WRITTEN


def _remembered(read: BlobReader) -> BlobReader:
    """Reads a small blob once, however often it is sent."""
    whole = functools.cache(lambda: b"".join(read(0)))
    return lambda offset: iter((whole()[offset:],))
