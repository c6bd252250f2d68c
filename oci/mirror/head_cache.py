"""What stores show, asked by HEAD, several at a time, each once; and what more is asked where a mirror wants it:
whether an image is signed, what is attached to it, whether all that a bundle or a lock lists is there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import cached_property

import msgspec

from oci.archive.source import ArchiveSource, EmptyArchive
from oci.bundle import tagnames
from oci.bundle.lockfile import pinned_by, read_lock
from oci.descriptor import INDEX_TYPES, Descriptor
from oci.digest import Digest
from oci.errors import Denied, NotFound, TransshipError
from oci.meter import PartThreads
from oci.mirror.comparison import (
    ATTACHED,
    LISTED,
    LOCK,
    MOVED,
    Comparison,
    DestinationComparison,
    TagComparison,
    TagState,
    Target,
    WorkItem,
)
from oci.mirror.config import Mirror
from oci.mirror.run_state import Breaker, Shared, place
from oci.reference import ArchiveName, Reference, StoreName
from oci.relocation.planner import make_plan
from oci.relocation.session import Session
from oci.relocation.verify import heads_of, lost_below
from oci.signatures.attached import Attached, Attachments
from oci.signatures.proofs import PREDICATE_ANNOTATION, RECEIPT_TYPE, this_type
from oci.store import Source
from oci.units import counted


class StoreTags:
    """What one store shows: the tags that it lists, None where they weren't listed, and its answers: for each tag or
    digest that was asked for a descriptor, None for what isn't there, or the error that came instead."""

    def __init__(self, store: Source, side: str) -> None:
        self.store = store
        self.place = place(side, store.name)
        self.listed: frozenset[str] | None = None
        self.answers: dict[str, Descriptor | TransshipError | None] = {}
        self.denial: TransshipError | None = None
        """How it denied a tag, which may mean that there is none."""

    def shown(self, tag: str) -> Descriptor | None:
        answer = self.answers.get(tag)
        return answer if isinstance(answer, Descriptor) else None

    def shows(self, tag: str, digest: object) -> bool:
        head = self.shown(tag)
        return head is not None and head.digest == digest

    def lacks(self, tag: str) -> bool:
        """Says whether the tag was asked for and isn't there."""
        return self.answers.get(tag, tag) is None


class HeadCache:
    """The source and the destinations of a mirror, by their names. Each is asked once for a tag; a registry that turns
    out to be of no use is asked no further."""

    def __init__(
        self, session: Session, source: Source, destinations: Mapping[StoreName, Source], breaker: Breaker
    ) -> None:
        self.session = session
        self.source = StoreTags(source, "source")
        self.destinations = {name: StoreTags(store, "destination") for name, store in destinations.items()}
        self._breaker = breaker

    def check(self, tags: StoreTags) -> None:
        """Raises the cause for which nothing more is asked of the registry."""
        cause = self._breaker.cause([tags.place])
        if cause is not None:
            raise cause

    def list(self, tags: StoreTags) -> list[str]:
        listed = list(tags.store.tags())
        self._breaker.succeeded([tags.place])
        return listed

    def ask(self, jobs: Iterable[tuple[StoreTags, str]]) -> None:
        """Each job is a store and a tag or digest."""
        new = [(tags, tag) for tags, tag in jobs if tag not in tags.answers]
        for (tags, tag), answer in zip(new, self.session.workers.map(self._head, new), strict=True):
            tags.answers[tag] = answer

    def confirm(self, jobs: Iterable[tuple[StoreTags, str]]) -> None:
        """Asks by GET for tags that should be there and that HEAD doesn't find: behind some proxies HEAD is 404 for
        everything. When one turns up, all that HEAD didn't find there are asked for again. A login that is refused is
        the answer for all of them."""
        for tags, tag in jobs:
            if not tags.lacks(tag) or tags.denial is not None:
                continue
            absent = list(filter(tags.lacks, tags.answers))
            try:
                tags.store.get_manifest(tag)
            except NotFound:
                continue
            except Denied as error:
                tags.denial = error
            except TransshipError as error:
                self._breaker.failed(error)
                tags.answers.update(dict.fromkeys(absent, error))
            else:
                for name in absent:
                    del tags.answers[name]
                self.ask((tags, name) for name in absent)

    def _head(self, job: tuple[StoreTags, str]) -> Descriptor | TransshipError | None:
        tags, tag = job
        try:
            self.check(tags)
        except TransshipError as cause:
            return cause
        try:
            descriptor = tags.store.head_manifest(tag)
        except TransshipError as error:
            self._breaker.failed(error)
            return error
        self._breaker.succeeded([tags.place])
        return descriptor


class Below:
    """What stands below the images that tags show: signatures, what is attached, what a bundle lists. In an audit it is
    also asked whether what bundles list is there; in a check, what destinations have beyond the source."""

    def __init__(self, mirror: Mirror, shared: Shared, heads: HeadCache, now: datetime) -> None:
        self._session = heads.session
        self._mirror = mirror
        self._shared = shared
        self._facts = shared.facts
        self._heads = heads
        self._now = now
        self._selected = mirror.wanted_artifacts
        self._source = str(heads.source.store.name)

    def is_due(self, tag: str) -> bool:
        """Whether it is time to ask again what was attached to an image in place: as a referrer, or, where no tags are
        listed, under a tag. In an audit, and where only some tags are looked at, it is time for each."""
        if not self._selected or self._shared.audit or self._shared.only:
            return bool(self._selected)
        every = self._mirror.referrers_every
        return any(self._facts.attached_due(key, every, self._now) for key in self._keys(tag))

    def needs_lists(self, names: Iterable[str]) -> bool:
        """Whether plain names need lists of tags."""
        return bool(self._selected.tags) and any(map(self.is_due, names))

    @cached_property
    def late(self) -> frozenset[str]:
        """Tags of cosign's that the source has and a destination hasn't, of images that may be mirrored. Known when
        the tags are listed."""
        source = self._heads.source.listed
        destinations = [destination.listed for destination in self._heads.destinations.values()]
        ends = tuple(f".{end}" for end in self._selected.tags)
        if not ends or self._mirror.platforms or source is None:
            return frozenset()
        return frozenset(
            tag
            for tag in source
            if tag.endswith(ends)
            and tagnames.is_cosign(tag)
            and any(tag not in tags for tags in destinations if tags)
            and not self._facts.is_stray(self._source, tag)
        )

    def note_strays(self, mirrored: Iterable[str]) -> None:
        """Remembers what is attached to none of the mirrored digests, so that the next run doesn't ask for it."""
        ours = {tag for digest in mirrored if digest for tag in tagnames.cosign(Digest(digest))}
        for tag in sorted(self.late - ours):
            self._facts.stray(self._source, tag)

    def added(self, results: Sequence[DestinationComparison]) -> list[DestinationComparison]:
        """With the tags marked that show the right image, and something that belongs to it is missing: attached later,
        or, asked in an audit and a check, a listed image of a bundle. Referrers are asked for where they are due."""
        due = {tag.tag for result in results for tag in result.tags if self.is_due(tag.tag)}
        jobs = [
            (result.destination, tag)
            for result in results
            if result.error is None and not isinstance(result.destination, ArchiveName)
            for tag in result.tags
            if tag.state is TagState.IN_PLACE and tag.source
        ]
        marked = list(self._session.workers.map(lambda job: self._with_late(*job, due=job[1].tag in due), jobs))
        if self._shared.audit and jobs:
            # In threads of their own: each waits for what the session's threads ask.
            with PartThreads(min(len(jobs), self._session.concurrency), thread_name_prefix="below") as threads:
                marked = list(threads.map(self._with_lost, [name for name, _ in jobs], marked))
        by_name = {(name, tag.tag): compared for (name, tag), compared in zip(jobs, marked, strict=True)}
        for key in (key for tag in due for key in self._keys(tag)):
            self._facts.attached_asked(key, self._mirror.referrers_every, self._now)
        return [
            replace(result, tags=tuple(by_name.get((result.destination, tag.tag), tag) for tag in result.tags))
            for result in results
        ]

    def _keys(self, tag: str) -> list[str]:
        """The image at each destination, as the facts name it."""
        return [f"{self._mirror.name_of(tag)} {name}" for name in self._heads.destinations]

    def _with_late(self, name: StoreName, tag: TagComparison, *, due: bool) -> TagComparison:
        digest, listed = Digest(tag.source), self._heads.destinations[name].listed
        late = [
            mark for mark in tagnames.cosign(digest) if mark in self.late and listed is not None and mark not in listed
        ]
        more: list[str] = []
        if due and not late:
            try:
                late, more = self._attached(name, digest)
            except TransshipError as error:
                return tag.failed(error)
        if late:
            reason = f"attached later at the source: {', '.join(late)}"
            return replace(tag, state=TagState.UNSIGNED_HERE, reason=reason, below=ATTACHED)
        if more:
            return replace(tag, state=TagState.MORE_THERE, reason=f"not at the source: {', '.join(more)}")
        return tag

    def _with_lost(self, name: StoreName, tag: TagComparison) -> TagComparison:
        """Marked as stale where it is in place and lacks an image that a bundle or an index lists. Asks in all threads
        itself."""
        if tag.state not in (TagState.IN_PLACE, TagState.MORE_THERE):
            return tag
        digest, destination = Digest(tag.source), self._heads.destinations[name]
        shown = destination.shown(tag.tag)
        try:
            is_bundle = self._is_bundle(destination, digest)
            if is_bundle or (shown is not None and shown.is_index):
                lost = _lost_below(self._session, destination.store, {digest: is_bundle})
            else:
                lost = f"the locations of the bundle are lost; {_REPAIRED}" if self._mirror.source.bundle else ""
        except TransshipError as error:
            return tag.failed(error)
        return replace(tag, state=TagState.STALE, reason=lost, below=LISTED) if lost else tag

    def _attached(self, name: StoreName, digest: Digest) -> tuple[list[str], list[str]]:
        """What is attached to an image at the source and not here, and the other way round: names of tags, digests of
        referrers. A tag counts as missing here when it shows something else. Raises what the stores raise."""
        source = self._attached_in(self._heads.source, digest)
        if not (source or self._shared.thorough):
            return [], []
        here = self._attached_in(self._heads.destinations[name], digest)
        late = [name for name, artifact in source.items() if name not in here or here[name].digest != artifact.digest]
        more = [
            name
            for name, artifact in here.items()
            if name not in source
            # A receipt is written for a destination: the source has none of them.
            and this_type(artifact.annotations.get(PREDICATE_ANNOTATION, "")) != RECEIPT_TYPE
        ]
        return late, more if self._shared.thorough else []

    def _attached_in(self, tags: StoreTags, digest: Digest) -> dict[str, Attached]:
        """What is attached to an image in a store, by the name of its tag or by its digest."""
        attached = self._attachments.of_one(tags.store, digest)
        return {artifact.tag or str(artifact.digest): artifact for artifact in attached}

    @cached_property
    def _attachments(self) -> Attachments:
        def failed(_: str, error: TransshipError) -> None:
            raise error

        stores = (self._heads.source, *self._heads.destinations.values())
        lists = {tags.store.name: tags.listed for tags in stores if tags.listed is not None}
        return Attachments(
            self._selected,
            self._session.workers,
            listed=lists,
            failed=failed,
            noted=lambda where, text: self._session.meter.fallback(str(where.registry or where), text),
        )

    def _is_bundle(self, destination: StoreTags, digest: Digest) -> bool:
        """A relocated bundle has locations beside it."""
        locations = tagnames.locations(digest)
        if destination.listed is not None:
            return locations in destination.listed
        self._heads.ask([(destination, locations)])
        return destination.shown(locations) is not None

    def admitted(self, results: Sequence[DestinationComparison]) -> list[DestinationComparison]:
        """With the tags marked that are to move, in a check also those in place, and that the policy of signatures
        refuses."""
        if not self._mirror.policy:
            return list(results)
        gate = self._session.gate(self._mirror.policy, signed=self._mirror.require_signatures)
        states = MOVED | ({TagState.IN_PLACE, TagState.MORE_THERE} if self._shared.thorough else set())
        source, reference = self._heads.source, self._mirror.source.reference
        ages_count = gate.policy.has_minimum_age

        def marked(job: tuple[StoreName, TagComparison]) -> TagComparison:
            store, tag = job
            head = source.shown(tag.tag)
            if tag.state not in states or head is None:
                return tag
            tag_name = "" if reference is not None and reference.digest else tag.tag
            image = Reference(source.store.name, tag_name, head.digest)
            age = self._facts.age(self._source, head.digest, self._now) if ages_count else None
            try:
                decision = gate.decide(source.store, image, store, age=age)
            except TransshipError as error:
                return tag.failed(error)
            return tag if decision.accepted else replace(tag, state=TagState.UNSIGNED, reason=decision.reason)

        jobs = [(result.destination, tag) for result in results for tag in result.tags]
        answers = iter(list(self._session.workers.map(marked, jobs)))
        if ages_count:
            self._facts.looked(self._source, self._now)
        return [replace(result, tags=tuple(next(answers) for _ in result.tags)) for result in results]


_REPAIRED = "`mirror run --audit` brings what is lost"


def _lost_below(session: Session, store: Source, roots: Mapping[Digest, bool]) -> str:
    """Which images are lost that bundles and indexes list, in words; empty when none is. `roots` as in `lost_below`."""
    lost, count = lost_below(session, store, roots)
    return f"{len(lost)} of {counted(count, 'listed image')} lost, such as {lost[0]}; {_REPAIRED}" if lost else ""


def held_in(session: Session, name: ArchiveName) -> ArchiveSource:
    """The archive as it is; nothing where none is yet."""
    try:
        return session.archive(name, "destination")
    except NotFound:
        return EmptyArchive(name)


def compare_lock(session: Session, mirror: Mirror, *, audit: bool) -> Comparison:
    """What has to move is what a plan says: one request for each image that is there. With `audit` also what its
    indexes and its bundle list."""
    name = mirror.source.lock
    item = WorkItem.of(mirror, kind=LOCK, source=name, names=(name,), targets=())
    results = []
    targets: list[Target] = []
    for destination in mirror.destinations:
        target = Target(destination=destination.store)
        tag = _compared_lock(session, item.alone(target), destination.store, audit=audit)
        results.append(DestinationComparison(destination=target.destination, tags=(tag,)))
        if tag.state is TagState.STALE:
            targets.append(msgspec.structs.replace(target, repair=bool(tag.below)))
    work = (msgspec.structs.replace(item, targets=tuple(targets)),) if targets else ()
    return Comparison(mirror=mirror.name, source=name, destinations=tuple(results), work=work)


def _compared_lock(session: Session, item: WorkItem, store: StoreName, *, audit: bool) -> TagComparison:
    tag = TagComparison(tag=item.source, state=TagState.IN_PLACE)
    stale = replace(tag, state=TagState.STALE)
    try:
        if isinstance(store, ArchiveName):
            archive = held_in(session, store)
            whole = all(archive.head_manifest(digest) is not None for digest in pinned_by(read_lock(item.source)))
            return tag if whole else stale
        plan = make_plan(session, item.request(item.targets[0]))
        if audit and (not plan.unchanged or plan.failures):
            heads = heads_of(session, session.destination(store), pinned_by(read_lock(item.source)))
            missing = [digest for digest, head in heads.items() if head is None]
            if missing:
                images = counted(len(heads), "listed image")
                return replace(stale, reason=f"{len(missing)} of {images} missing, such as {missing[0]}")
            plan = make_plan(session, item.request(item.targets[0]))  # HEAD may have been wrong
        if not plan.unchanged or plan.failures:  # what the source hasn't is no part of a plan, and missing all the same
            return replace(stale, reason=plan.failures[0].message if plan.failures else "")
        roots = {
            node.digest: node.is_bundle for node in plan.manifests if node.is_bundle or node.media_type in INDEX_TYPES
        }
        lost = _lost_below(session, session.destination(store), roots) if audit else ""
    except TransshipError as error:
        return tag.failed(error)
    return replace(stale, reason=lost, below=LISTED) if lost else tag
