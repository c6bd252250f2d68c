"""Counting references: what is needed by something that is kept, and what goes before what."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from oci.bundle import tagnames
from oci.digest import Digest
from oci.prune.survey import Survey, Surveyor


class References:
    """Reads with `surveyor` whatever it takes to know what the kept things need, then holds `needed`."""

    def __init__(self, surveyor: Surveyor, tags: Iterable[str], digests: Iterable[Digest]) -> None:
        """`tags` and `digests` are what is kept for its own sake."""
        self.survey = surveyor.survey
        self.tags = frozenset(tags)
        self.needed: dict[Digest, str] = {}
        """Every manifest that something kept needs, and what that is, in words."""
        self._roots = {
            **dict.fromkeys(digests, "the policy"),
            **{self.survey.tags[tag]: f"tag {tag}" for tag in sorted(self.tags)},
        }
        self._settle(surveyor)

    @property
    def unwanted(self) -> list[Digest]:
        return sorted(digest for digest in self.survey.manifests if digest not in self.needed)

    def keeps_tag(self, tag: str) -> bool:
        """By itself, or because it is attached to a digest that is needed."""
        return tag in self.tags or tagnames.attached_to(tag) in self._attached_to_needed

    def _settle(self, surveyor: Surveyor) -> None:
        """Each round may find something that was unknown, and what that needs; manifests are finite."""
        survey = self.survey
        while True:
            self._count()
            before = len(survey.manifests) + len(survey.absent)
            unwanted = self.unwanted
            surveyor.read((*self.needed, *(below for digest in unwanted for below in survey.manifests[digest].lists)))
            if unwanted:
                surveyor.ask_referrers((*self.needed, *unwanted))
                surveyor.read(referrer for referrers in survey.referrers.values() for referrer in referrers)
            if len(survey.manifests) + len(survey.absent) == before:
                return

    def _count(self) -> None:
        """Marks all that the roots need: what they list, what they refer to, what is attached to them."""
        survey = self.survey
        attached = Attachments(survey)
        needed: dict[Digest, str] = {}
        pending = list(self._roots.items())
        while pending:
            digest, why = pending.pop()
            if digest in needed:
                continue
            needed[digest] = why
            manifest = survey.manifests.get(digest)
            if manifest is not None:
                pending.extend((needed, why) for needed in (*manifest.lists, *filter(None, (manifest.subject,))))
            pending.extend((needed, why) for needed in attached.to(digest))
        self.needed = needed
        self._attached_to_needed = frozenset(map(tagnames.referrers, needed))


class Attachments:
    """What is attached to a digest by a tag's name or as a referrer, whether or not the digest itself is here."""

    def __init__(self, survey: Survey) -> None:
        self._by_name: dict[str, list[Digest]] = {}
        for tag, shown in survey.tags.items():
            if name := tagnames.attached_to(tag):
                self._by_name.setdefault(name, []).append(shown)
        self._by_subject = {subject: list(manifest) for subject, manifest in survey.referrers.items()}
        for manifest in survey.manifests.values():
            if manifest.subject:
                self._by_subject.setdefault(manifest.subject, []).append(manifest.digest)

    def to(self, subject: Digest) -> list[Digest]:
        return [*self._by_name.get(tagnames.referrers(subject), ()), *self._by_subject.get(subject, ())]


def order(survey: Survey, digests: Collection[Digest]) -> dict[Digest, tuple[Digest, ...]]:
    """Returns the given manifests, each after those of them that list it or that it is attached to, which come with it.

    Whatever is interrupted between two of them leaves no manifest that lacks something it lists. Lists can't run in
    circles, for they are made of digests; names of tags can, and a circle of attachments is cut open.
    """
    listed: dict[Digest, set[Digest]] = {digest: set() for digest in digests}
    attached: dict[Digest, set[Digest]] = {digest: set() for digest in digests}
    attachments = Attachments(survey)
    for digest in digests:
        for below in survey.manifests[digest].lists:
            if below in listed:
                listed[below].add(digest)
        for attachment in attachments.to(digest):
            if attachment in attached and attachment != digest:
                attached[attachment].add(digest)
    ordered: dict[Digest, tuple[Digest, ...]] = {}
    pending = sorted(digests)
    while pending:
        free = [unplaced for unplaced in pending if not (listed[unplaced] | attached[unplaced]) - ordered.keys()]
        free = free or [unplaced for unplaced in pending if not listed[unplaced] - ordered.keys()][:1]
        ordered.update(
            {unplaced: tuple(sorted(listed[unplaced] | (attached[unplaced] & ordered.keys()))) for unplaced in free}
        )
        pending = [unplaced for unplaced in pending if unplaced not in ordered]
    return ordered
