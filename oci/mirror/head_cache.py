"""What stores show, asked by HEAD, several at a time, each once; and what more is asked where a mirror wants it:
whether an image is signed, what is attached to it, whether all that a bundle or a lock lists is there."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from oci.archive.source import Archive, EmptyArchive
from oci.bundle import reader, tagnames
from oci.bundle.lockfile import ImagesLock, read_lock
from oci.descriptor import Descriptor
from oci.digest import Digest
from oci.errors import NotFound, TransshipError
from oci.mirror.comparison import ATTACHED, LISTED, Comparison, DestinationComparison, TagComparison, TagState
from oci.mirror.config import Mirror
from oci.mirror.digest_cache import DigestCache
from oci.mirror.work import LOCK, Breaker, Target, WorkItem, place
from oci.reference import ARCHIVE_PREFIX, ArchiveName, StoreName
from oci.relocation.planner import make_plan
from oci.relocation.request import Artifact
from oci.relocation.session import Session
from oci.store import Source
from oci.units import counted

_SIMPLE_SIGNING = "application/vnd.dev.cosign.simplesigning.v1+json"
_PAYLOAD_LIMIT = 1 << 20
"""Bytes of a signature's payload: a few hundred in practice."""

_TYPES = ("application/vnd.dev.sigstore.bundle", "application/vnd.cncf.notary.signature")
"""How the artifact types of signatures begin that refer to an image as their subject."""


class HeadCache:
    """Of several stores: the source under the empty name, each destination under its own. An answer is a descriptor,
    None for a tag that isn't there, or the error that came instead; a registry that turns out to be of no use is asked
    no further."""

    def __init__(self, session: Session, stores: Mapping[str, Source], breaker: Breaker) -> None:
        self.session = session
        self.stores = stores
        self._breaker = breaker
        self._known: dict[tuple[str, str], Descriptor | TransshipError | None] = {}

    def ask(self, jobs: Iterable[tuple[str, str]]) -> None:
        """Each job is a store and a tag or digest."""
        new = [job for job in jobs if job not in self._known]
        self._known.update(zip(new, self.session.workers.map(self._head, new), strict=True))

    def get(self, job: tuple[str, str]) -> Descriptor | TransshipError | None:
        """None as well where nobody asked."""
        return self._known.get(job)

    def has(self, name: str, tag: str) -> bool:
        return (name, tag) in self._known

    def known_absent(self, name: str, tag: str) -> bool:
        return self._known.get((name, tag), tag) is None

    def _head(self, job: tuple[str, str]) -> Descriptor | TransshipError | None:
        name, tag = job
        store = self.stores[name]
        where = place("destination" if name else "source", str(store.name))
        cause = self._breaker.cause([where])
        if cause is not None:
            return cause
        try:
            found = store.head_manifest(tag)
        except TransshipError as error:
            self._breaker.failed(error)
            return error
        self._breaker.succeeded([where])
        return found


def _signs(source: Source, tag: str, digest: Digest) -> bool:
    """Whether a layer of the image under `tag` is a payload of cosign for `digest` (cosign's SIGNATURE_SPEC)."""
    try:
        layers = source.get_manifest(tag).layers
    except NotFound:
        return False
    for layer in layers:
        if layer.media_type == _SIMPLE_SIGNING and layer.size <= _PAYLOAD_LIMIT:
            try:
                body: Any = json.loads(b"".join(source.read_blob(layer)))
                if body["critical"]["image"]["docker-manifest-digest"] == digest:
                    return True
            except (ValueError, TypeError, KeyError, RecursionError):
                continue
    return False


class Below:
    """What stands below the images that tags show: signatures, what is attached, what a bundle lists. `lists` are
    the tags of each store of `heads`, None where they weren't listed."""

    def __init__(
        self,
        mirror: Mirror,
        facts: DigestCache,
        heads: HeadCache,
        lists: Mapping[str, frozenset[str] | None],
        *,
        audit: bool,
    ) -> None:
        self._session = heads.session
        self._mirror = mirror
        self._facts = facts
        self._heads = heads
        self._stores = stores = heads.stores
        self._lists = lists
        self._audit = audit
        self._source = str(stores[""].name)
        self.late = self._late()
        """Tags of cosign's that the source has and a destination hasn't, of images that may be mirrored."""

    def _late(self) -> list[str]:
        source = self._lists.get("")
        if Artifact.COSIGN not in self._mirror.artifacts or self._mirror.platforms or source is None:
            return []
        lists = [tags for name, tags in self._lists.items() if name and tags]
        late = {tag for tag in source if tagnames.is_cosign(tag) and any(tag not in tags for tags in lists)}
        return sorted(tag for tag in late if not self._facts.is_stray(self._source, tag))

    def note_strays(self, mirrored: Iterable[str]) -> None:
        """Remembers what is attached to none of the mirrored digests, so that the next run doesn't ask for it."""
        ours = {tag for digest in mirrored if digest for tag in tagnames.cosign(Digest(digest))}
        for tag in self.late:
            if tag not in ours:
                self._facts.stray(self._source, tag)

    def added(self, found: DestinationComparison) -> DestinationComparison:
        """With the tags marked as stale that show the right image, and something below it is missing: attached later,
        or, asked in an audit and a check, a listed image of a bundle."""
        if found.destination.startswith(ARCHIVE_PREFIX) or found.error is not None:
            return found
        tags = [
            self._tag(found.destination, tag) if tag.state is TagState.IN_PLACE and tag.source else tag
            for tag in found.tags
        ]
        return replace(found, tags=tuple(tags))

    def _tag(self, name: str, tag: TagComparison) -> TagComparison:
        digest = Digest(tag.source)
        source, here, below = self._stores[""], self._stores[name], ATTACHED
        there = self._lists[name]
        late = [one for one in tagnames.cosign(digest) if one in self.late and there is not None and one not in there]
        reason = f"attached later at the source: {', '.join(late)}" if late else ""
        try:
            if self._audit and Artifact.REFERRERS in self._mirror.artifacts and not reason:
                reason = _late_referrers(source, here, digest)
            if self._audit and not reason and self._is_bundle(name, digest):
                reason, below = _lost_images(self._session, here, digest), LISTED
        except TransshipError as error:
            return replace(tag, state=TagState.FAILED, reason=str(error), error=error)
        return replace(tag, state=TagState.STALE, reason=reason, below=below) if reason else tag

    def _is_bundle(self, name: str, digest: Digest) -> bool:
        """A relocated bundle has locations beside it."""
        locations, tags = tagnames.locations(digest), self._lists[name]
        if tags is not None:
            return locations in tags
        self._heads.ask([(name, locations)])
        return isinstance(self._heads.get((name, locations)), Descriptor)

    def signed(self, found: Sequence[DestinationComparison], *, in_place: bool) -> list[DestinationComparison]:
        """With the tags marked that are to move, or `in_place` as well, and have no signature at the source."""
        if not self._mirror.require_signatures:
            return list(found)
        states = {TagState.MISSING, TagState.STALE} | ({TagState.IN_PLACE} if in_place else set())
        tags = {tag.tag for one in found for tag in one.tags if tag.state in states}
        heads = {tag: head for tag in tags if isinstance(head := self._heads.get(("", tag)), Descriptor)}
        digests = sorted({head.digest for head in heads.values()})
        answers = dict(zip(digests, self._session.workers.map(self._is_signed, digests), strict=True))

        def marked(tag: TagComparison) -> TagComparison:
            if tag.state not in states or tag.tag not in heads:
                return tag
            answer = answers[heads[tag.tag].digest]
            if isinstance(answer, TransshipError):
                return replace(tag, state=TagState.FAILED, reason=str(answer), error=answer)
            return tag if answer else replace(tag, state=TagState.UNSIGNED, reason="the source has no signature of it")

        return [replace(one, tags=tuple(map(marked, one.tags))) for one in found]

    def _is_signed(self, digest: Digest) -> bool | TransshipError:
        """Whether the source has a signature that names the digest, or why that can't be known. Under cosign's tag a
        signature is read, for any image can stand there; a tag that isn't listed costs no request."""
        tag, source, listed = tagnames.cosign(digest)[0], self._stores[""], self._lists.get("")
        try:
            if (listed is None or tag in listed) and _signs(source, tag, digest):
                return True
            return any(one.artifact_type.startswith(_TYPES) for one in source.referrers(digest))
        except TransshipError as error:
            return error


def _late_referrers(source: Source, destination: Source, digest: Digest) -> str:
    """Which referrers the source has by now and the destination hasn't: a request to each. Raises what they raise."""
    here = {referrer.digest for referrer in destination.referrers(digest)}
    late = [referrer.digest for referrer in source.referrers(digest) if referrer.digest not in here]
    return f"{counted(len(late), 'referrer')} attached later at the source" if late else ""


def _lost_images(session: Session, destination: Source, bundle: Digest) -> str:
    """Which of the images that a bundle lists the destination lacks, down to the last: a HEAD for each. Blobs aren't
    asked for. Raises what reading the bundle raises."""
    manifest = destination.get_manifest(bundle)
    listed = [image.image.digest for image in reader.read_images_lock(destination, manifest).images]
    digests = [digest for digest in dict.fromkeys(listed) if digest]
    heads = dict(zip(digests, session.workers.map(destination.head_manifest, digests), strict=True))
    lost = [digest for digest, head in heads.items() if head is None]
    return f"{len(lost)} of {counted(len(digests), 'listed image')} lost, such as {lost[0]}" if lost else ""


def held_in(session: Session, name: ArchiveName) -> Archive | EmptyArchive:
    """The archive as it is; nothing where none is yet."""
    try:
        return session.archive(name, "destination")
    except NotFound:
        return EmptyArchive(name)


def compare_lock(session: Session, mirror: Mirror) -> Comparison:
    """What has to move is what a plan says: one request for each image that is there."""
    name = mirror.source.lock
    found = []
    targets: list[Target] = []
    for destination in mirror.destinations:
        item = WorkItem.of(mirror, LOCK, name, names=(name,), targets=(Target(destination=str(destination)),))
        state, error = _state(session, item, destination.store)
        tag = TagComparison(tag=name, state=state, reason=str(error or ""), error=error)
        found.append(DestinationComparison(destination=str(destination), tags=(tag,)))
        if state is TagState.STALE:
            targets.extend(item.targets)
    work = (WorkItem.of(mirror, LOCK, name, names=(name,), targets=tuple(targets)),) if targets else ()
    return Comparison(mirror=mirror.name, source=name, destinations=tuple(found), work=work)


def _state(session: Session, item: WorkItem, store: StoreName) -> tuple[TagState, TransshipError | None]:
    try:
        if isinstance(store, ArchiveName):
            archive = held_in(session, store)
            there = all(archive.head_manifest(digest) is not None for digest in _pinned(item.source))
            return TagState.IN_PLACE if there else TagState.STALE, None
        plan = make_plan(session, item.request(item.targets[0]))
    except TransshipError as error:
        return TagState.FAILED, error
    return TagState.IN_PLACE if plan.unchanged else TagState.STALE, None


def _pinned(path: str) -> list[Digest]:
    lock = read_lock(path)
    images = [image.image for image in lock.images] if isinstance(lock, ImagesLock) else [lock.image]
    return [image.digest for image in images if image.digest is not None]
