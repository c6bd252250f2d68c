"""Comparing a mirror's source with its destinations: HEAD against HEAD, and not even that for tags declared immutable.

Nothing is read that a worker's quota or a registry's "last pulled" would show, but where a rule needs to know when an
image was made, or where platforms are chosen; both are facts of a digest, and asked once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from oci.archive.source import ArchiveSource
from oci.bundle import tagnames
from oci.descriptor import Descriptor
from oci.digest import Digest
from oci.errors import Denied, NotFound, Refused, TransshipError, Unauthorized, Unavailable
from oci.mirror import selection
from oci.mirror.comparison import Comparison, DestinationComparison, TagComparison, TagState, changes
from oci.mirror.config import Mirror
from oci.mirror.head_cache import Below, HeadCache, StoreTags, compare_lock, held_in
from oci.mirror.policy import TagRule
from oci.mirror.run_state import Shared
from oci.mirror.selection import Selection
from oci.prune.policy import matches
from oci.reference import ArchiveName, StoreName
from oci.relocation.session import Session
from oci.store import Source
from oci.units import counted


class TooFewTags(Refused):
    """The rules take fewer tags than `min_tags`. `listed` and `selection` say why, as those of a Comparison do."""

    listed: frozenset[str] | None = None
    selection: Selection | None = None


def compare(session: Session, mirror: Mirror, shared: Shared) -> Comparison:
    """Raises when the source can't be listed, or when a registry is of no use; a destination or a tag that can't be
    asked is part of the result."""
    if shared.only and not mirror.concerns(shared.only):
        return Comparison(mirror=mirror.name, source=str(mirror.source), destinations=())
    if str(mirror.source) in shared.only:
        shared = replace(shared, only=frozenset())
    if mirror.source.lock:
        return compare_lock(session, mirror, audit=shared.audit)
    store = mirror.source.store
    if store is None:  # a namespace whose repositories couldn't be listed before
        selection.repositories_of(session, mirror)
        raise Unavailable("the list of its repositories came late", subject=mirror.name, hint="run it again")
    return _Look(session, mirror, store, shared).compare()


class _Look:
    """One comparison. What was asked is kept, so that ages, platforms and signatures find it."""

    def __init__(self, session: Session, mirror: Mirror, store: StoreName, shared: Shared) -> None:
        self._session = session
        self._mirror = mirror
        self._shared = shared
        self._facts = shared.facts
        self._breaker = shared.breaker
        self._settles = not shared.audit
        self._names = selection.names_alone(mirror.tags) if mirror.source.repository else []
        self._required = frozenset(selection.required(mirror.tags)) if mirror.source.repository else frozenset()
        self._now = shared.now or datetime.now(UTC)
        self._source_name = store
        self._broken: dict[StoreName, TransshipError] = {}
        """The destinations that can't be compared, by name."""
        opened = {each.store: self._opened(each.store) for each in mirror.destinations}
        stores = {name: destination for name, destination in opened.items() if destination is not None}
        self._heads = HeadCache(session, session.source(store), stores, shared.breaker)
        self._source = self._heads.source
        self._destinations = self._heads.destinations
        self._below = Below(mirror, shared, self._heads, self._now)
        self._unread: dict[str, TransshipError] = {}
        """Why the age of a tag's image isn't known, where it could not be read."""
        self._expected: dict[str, Digest | TransshipError] = {}
        """What each tag should show; with platforms, the digest of the index with fewer."""

    def compare(self) -> Comparison:
        tags_listed = self._list_source()
        listed = self._source.listed = frozenset(tags_listed) if tags_listed is not None else None
        self._list_destinations()
        candidates = self._candidates(tags_listed)
        self._ask([tag for tag in candidates if not self._settled(tag)])
        if self._mirror.source.bundle and any(map(self._vanished, candidates)):
            hint = "check the name and the tag, and that this identity may read it"
            raise self._absent(candidates[0], "there is no such bundle", hint)
        self._narrow(candidates)
        rules = self._mirror.tags if self._mirror.source.repository else []
        chosen = self._selected(candidates, rules) if rules else None
        tags = [tag for tag in (chosen.tags if chosen else candidates) if not self._vanished(tag)]
        ageless = sorted(self._unread)
        tags += ageless
        if not self._shared.only:
            self._check_enough(tags, chosen)
        lost = [tag for tag in candidates if tag in self._required and self._vanished(tag)]
        tags = [*tags, *lost]
        kept_out = chosen.too_young if chosen else {}
        too_young = {tag: reason for tag, reason in kept_out.items() if tag not in (*lost, *ageless)}
        results = self._compared(tags, too_young)
        if any(isinstance(result.destination, ArchiveName) and result.has_to_be_written for result in results):
            # All of it is written again, so nothing is settled: an immutable tag may have moved.
            self._settles = False
            self._ask(tags)
            self._narrow(tags)
            tags = [tag for tag in tags if tag in lost or not self._vanished(tag)]
            results = self._compared(tags, too_young)
        results = self._below.added(results)
        if not self._shared.only:
            self._below.note_strays(tag.source for result in results for tag in result.tags)
        results = self._dated(self._below.admitted(results))
        if any(rule.minimum_age for rule in self._mirror.tags):
            self._facts.looked(str(self._source_name), self._now)
        digests = {tag: head.digest for tag in tags if (head := self._source.shown(tag))}
        fresh = {name for name, destination in self._destinations.items() if destination.listed == frozenset()}
        work = changes(self._mirror, results, digests, fresh, archives=not self._shared.only)
        most = self._mirror.limits.images_per_run
        return Comparison(
            mirror=self._mirror.name,
            source=str(self._mirror.source),
            destinations=tuple(results),
            work=tuple(work[: most or None]),
            too_young=too_young,
            waiting=max(0, len(work) - most) if most else 0,
            listed=listed,
            selection=chosen,
            narrowed=bool(self._shared.only),
        )

    def _selected(self, candidates: Sequence[str], rules: Sequence[TagRule]) -> Selection:
        """Without the tags whose age could not be read, unless a rule takes them that asks for none: each is a failure,
        and not an image that has no age."""
        chosen = selection.select(candidates, rules, self, self._now)
        plain = [rule for rule in rules if not rule.asks_for_times]
        for tag in selection.select(candidates, plain, self, self._now).tags if plain else ():
            self._unread.pop(tag, None)
        unread = {tag: f"its age can't be read: {error}" for tag, error in self._unread.items()}
        return Selection(
            tuple(tag for tag in chosen.tags if tag not in unread),
            {**chosen.too_young, **unread},
            {tag: rule for tag, rule in chosen.by.items() if tag not in unread},
        )

    def _check_enough(self, tags: Sequence[str], chosen: Selection | None) -> None:
        if len(tags) >= self._mirror.min_tags:
            return
        error = TooFewTags(
            f"the rules take {counted(len(tags), 'tag')}, and min_tags asks for {self._mirror.min_tags}",
            side="source",
            store=str(self._mirror.source),
            subject=self._mirror.name,
            operation="selecting tags",
            hint="check the source and the rules; nothing was copied",
        )
        error.listed, error.selection = self._source.listed, chosen
        raise error

    # What there is.

    def _opened(self, store: StoreName) -> Source | None:
        """None for an archive that can't even be opened."""
        if not isinstance(store, ArchiveName):
            return self._session.destination(store)
        try:
            return held_in(self._session, store)
        except TransshipError as error:
            self._breaker.failed(error)
            self._broken[store] = error
            return None

    def _list_source(self) -> list[str] | None:
        """None where no list is needed: a bundle, plain names of tags, or some tags and no rule that ranks them. With
        plain names a list that is refused is done without."""
        self._heads.check(self._source)
        if self._mirror.source.bundle:
            return None
        if self._shared.only and not any(rule.latest for rule in self._mirror.tags):
            return None
        if self._names and not self._below.needs_lists(self._names):
            return None
        try:
            return sorted(self._heads.list(self._source))
        except TransshipError as error:
            self._breaker.failed(error)
            if self._names and isinstance(error, Refused):
                return None
            raise

    def _list_destinations(self) -> None:
        immutable = sum(map(self._immutable, self._names))
        unlisted = self._names and not self._shared.thorough and immutable < 2
        needs_none = unlisted and not self._below.needs_lists(self._names)
        for name, destination in self._destinations.items():
            if self._shared.only or self._mirror.source.bundle:
                continue
            if needs_none and not isinstance(destination.store, ArchiveSource):
                continue
            try:
                self._heads.check(destination)
                destination.listed = frozenset(self._heads.list(destination))
            except NotFound:
                destination.listed = frozenset()
            except (Denied, Unauthorized):
                pass  # each tag is asked for, and the write itself says what this login may do
            except TransshipError as error:
                self._breaker.failed(error)
                if not (self._names and isinstance(error, Refused)):
                    self._broken[name] = error
        if len(self._broken) == len(self._mirror.destinations):
            raise next(iter(self._broken.values()))

    def _comparable(self) -> list[StoreTags]:
        """Returns the destinations that could be opened and listed, or need no list."""
        return [tags for name, tags in self._destinations.items() if name not in self._broken]

    def _candidates(self, listed: Sequence[str] | None) -> list[str]:
        """Tags that may be taken as far as their names say; the one name of a bundle."""
        reference = self._mirror.source.reference
        if reference is not None:
            covered = not self._shared.only or self._mirror.name_of(reference.identifier) in self._shared.only
            return [reference.identifier] if covered else []
        prefix = f"{self._source_name}:"
        only = [name.removeprefix(prefix) for name in sorted(self._shared.only) if name.startswith(prefix)]
        pool = only if self._shared.only and listed is None else self._names or listed or []
        pool = [tag for tag in pool if not matches(tag, self._mirror.never)]
        tags = selection.named(pool, self._mirror.tags)
        tags += [tag for tag in sorted(self._required) if tag not in tags and not matches(tag, self._mirror.never)]
        return [tag for tag in tags if tag in only] if self._shared.only else tags

    def _settled(self, tag: str) -> bool:
        """An immutable tag that every destination has is nothing to ask for."""
        return (
            self._settles
            and not self._below.late
            and self._immutable(tag)
            and not self._below.is_due(tag)
            and all(tag in (destination.listed or ()) for destination in self._comparable())
        )

    def _immutable(self, tag: str) -> bool:
        return matches(tag, self._mirror.immutable)

    def _absent(self, tag: str, message: str, hint: str) -> NotFound:
        subject, store = self._mirror.name_of(tag), str(self._source_name)
        return NotFound(message, side="source", store=store, subject=subject, operation="comparing", hint=hint)

    def _vanished(self, tag: str) -> bool:
        """Says whether the source listed the tag and has it no more."""
        return self._source.lacks(tag)

    # What it shows.

    def _ask(self, tags: Sequence[str]) -> None:
        jobs = [(self._source, tag) for tag in tags]
        jobs += [
            (store, tag) for store in self._comparable() for tag in tags if store.listed is None or tag in store.listed
        ]
        self._heads.ask(jobs)
        self._heads.confirm([job for job in jobs if self._is_expected(*job)])
        if self._shared.thorough:  # one tag that nothing lists: the others are answered in the same way
            absent = {store: tag for store, tag in reversed(jobs) if store is not self._source and store.lacks(tag)}
            self._heads.confirm(absent.items())

    def _is_expected(self, store: StoreTags, tag: str) -> bool:
        """Whether a store should have the tag: it lists it, or the rules name it. An immutable one may be there."""
        if store.listed is not None:
            return tag in store.listed
        if store is self._source:
            return tag in self._required or bool(self._mirror.source.bundle)
        return self._immutable(tag)

    def _narrow(self, tags: Sequence[str]) -> None:
        heads = {tag: head for tag in tags if (head := self._source.shown(tag))}
        if not self._mirror.platforms:
            self._expected.update({tag: head.digest for tag, head in heads.items()})
            return

        def narrowed(head: Descriptor) -> Digest | TransshipError:
            try:
                return self._facts.narrowed(self._session, self._source.store, head, self._mirror.platforms)
            except TransshipError as error:
                return error

        self._expected.update(zip(heads, self._session.workers.map(narrowed, heads.values()), strict=True))

    # Ages, for the selection.

    def in_place(self, tag: str) -> bool:
        if self._shared.thorough:
            return False
        if self._settled(tag):
            return True
        expected = self._expected.get(tag)
        return bool(self._destinations) and all(each.shows(tag, expected) for each in self._destinations.values())

    def created(self, tags: Sequence[str]) -> Mapping[str, datetime | None]:
        """None for one that can't be read, so that its tag fails, and no other."""
        self._ask([tag for tag in tags if tag not in self._source.answers])
        return dict(zip(tags, self._session.workers.map(self._created, tags), strict=True))

    def _created(self, tag: str) -> datetime | None:
        """Reads it where that costs no quota: at a destination that has the same image."""
        head = self._source.answers.get(tag)
        if not isinstance(head, Descriptor):
            self._unread.update({tag: head} if head is not None else {})
            return None
        here = next((each for each in self._destinations.values() if each.shows(tag, head.digest)), self._source)
        try:
            return self._facts.created(self._session, here.store, head.digest)
        except TransshipError as error:
            self._unread[tag] = error
            return None

    def first_seen(self, tag: str) -> datetime | None:
        head = self._source.shown(tag)
        return self._facts.first_seen(str(self._source_name), head.digest, self._now) if head else None

    # What follows.

    def _compared(self, tags: Sequence[str], too_young: Mapping[str, str]) -> list[DestinationComparison]:
        results = []
        for name in (each.store for each in self._mirror.destinations):
            if name in self._broken:
                results.append(DestinationComparison(destination=name, error=self._broken[name]))
                continue
            destination = self._destinations[name]
            extra = sorted(set(selection.visible(destination.listed or ())) - set(tags) - too_young.keys())
            compared = tuple(self._tag(destination, tag) for tag in tags)
            results.append(DestinationComparison(destination=name, tags=compared, extra=tuple(extra)))
        return results

    def _tag(self, destination: StoreTags, tag: str) -> TagComparison:
        if self._settled(tag):
            return TagComparison(tag=tag, state=TagState.IN_PLACE)
        head, expected = self._source.answers.get(tag), self._expected.get(tag)
        shown = destination.answers.get(tag)
        answers = (head, expected, shown, self._unread.get(tag))
        error = next((answer for answer in answers if isinstance(answer, TransshipError)), None)
        if error is None and tag in self._required and self._vanished(tag):
            hint = "correct the name, or write `optional: true` in its rule"
            error = self._absent(tag, "there is no such tag", hint)
        if error is not None or not isinstance(expected, str):
            return TagComparison(tag=tag, state=TagState.FAILED, reason=str(error or ""), error=error)
        shown_digest = shown.digest if isinstance(shown, Descriptor) else ""
        compared = TagComparison(tag=tag, state=TagState.IN_PLACE, source=expected, destination=shown_digest)
        if not shown_digest:
            denial = destination.denial
            return replace(compared, state=TagState.MISSING, reason=f"not there, or hidden: {denial}" if denial else "")
        if shown_digest == expected:
            return compared if self._has_locations(destination) else replace(compared, state=TagState.STALE)
        if self._immutable(tag):
            reason = f"declared immutable, and the source shows {expected} by now; {shown_digest} is kept"
            return replace(compared, state=TagState.MUTATED, reason=reason)
        return replace(compared, state=TagState.STALE)

    def _has_locations(self, destination: StoreTags) -> bool:
        """Whether a bundle without a tag is whole: its locations are written last. All else needs none."""
        reference = self._mirror.source.reference
        if reference is None or reference.digest is None:
            return True
        locations = tagnames.locations(reference.digest)
        self._heads.ask([(destination, locations)])
        return bool(destination.answers.get(locations))

    def _dated(self, results: Sequence[DestinationComparison]) -> list[DestinationComparison]:
        """How long a destination has been behind is part of a check, not of a run."""
        behind = {
            tag.tag
            for destination in results
            for tag in destination.tags
            if tag.state in (TagState.MISSING, TagState.STALE)
        }
        if not self._shared.thorough or not behind:
            return list(results)
        times = self.created(sorted(behind))
        return [
            replace(destination, tags=tuple(replace(tag, created=times.get(tag.tag)) for tag in destination.tags))
            for destination in results
        ]
