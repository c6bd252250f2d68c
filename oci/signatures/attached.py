"""What is attached to an image: cosign's tags, and referrers by the API and by the tag that stands in for it.

A refusal is never taken for "nothing is attached". Where a registry denies what may not exist (Artifactory, GHCR), its
list of tags decides.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field

from oci.bundle import tagnames
from oci.digest import Digest
from oci.errors import Denied, NotFound, TransshipError, Unauthorized
from oci.manifest import NESTING_LIMIT
from oci.reference import Repository, StoreName
from oci.signatures.artifacts import COSIGN_TAGS, ArtifactSelection
from oci.store import Source

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor

DEPTH = NESTING_LIMIT
"""How far attachments of attachments are followed: a signature of an SBOM of an image is two."""

LIST_FROM = 3
"""From so many images in a repository on, its tag list costs less than a request for each of their tags."""


class Attached(Struct, frozen=True, kw_only=True):
    """One manifest that is attached to a subject: under a tag of cosign's, or as a referrer without a tag."""

    digest: Digest
    tag: str = ""
    artifact_type: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict)


class Attachments:
    """Looks for what is attached to images. Safe from any thread.

    `listed` are tag lists of stores that were read before. `failed` gets what couldn't be looked for, and why; `noted`
    gets what a registry refused without saying whether there is anything.
    """

    def __init__(
        self,
        selection: ArtifactSelection,
        workers: Executor | Any,
        *,
        listed: Mapping[StoreName, frozenset[str]],
        failed: Callable[[str, TransshipError], None],
        noted: Callable[[StoreName, str], None],
    ) -> None:
        self._selection = selection
        self._workers = workers
        self._listed: dict[StoreName, frozenset[str] | None] = dict(listed)
        self._failed = failed
        self._noted = noted
        self._lock = threading.Lock()
        self.left_out: set[Digest | str] = set()
        """Tags and digests of artifacts that were seen and not wanted."""

    def of(self, source: Source, subjects: Iterable[Digest]) -> list[Attached]:
        """What is attached to some manifests of a store, without what is attached to that in turn."""
        digests = list(dict.fromkeys(subjects))
        if len(digests) >= LIST_FROM and self._selection:
            self.tags(source)
        return list(chain(*self._workers.map(lambda digest: self.of_one(source, digest), digests)))

    def tags(self, source: Source) -> frozenset[str] | None:
        """The tags of a store, asked for once; None where the list can't be had."""
        with self._lock:
            if source.name in self._listed:
                return self._listed[source.name]
        tags: frozenset[str] | None
        try:
            tags = frozenset(source.tags())
        except NotFound:
            tags = frozenset()
        except TransshipError:
            tags = None
        with self._lock:
            return self._listed.setdefault(source.name, tags)

    def count_left(self, source: Source, subjects: Iterable[Digest], *, ask: bool) -> None:
        """Counts what the store's tag list shows of artifacts that aren't wanted; reads it only with `ask`."""
        if self._selection.everything:
            return
        tags = (self.tags(source) if ask else self._listed.get(source.name)) or frozenset()
        for subject in subjects:
            for end, tag in zip(COSIGN_TAGS, tagnames.cosign(subject), strict=True):
                if tag in tags and not self._selection.tag(end):
                    self.left_out.add(tag)
            if tagnames.referrers(subject) in tags and not self._selection.referrers:
                self.left_out.add(tagnames.referrers(subject))

    def of_one(self, source: Source, subject: Digest) -> list[Attached]:
        return [*self._signatures(source, subject), *self._referrers(source, subject)]

    def _signatures(self, source: Source, subject: Digest) -> list[Attached]:
        attached = []
        listed_tags = self._listed.get(source.name)
        for end, tag in zip(COSIGN_TAGS, tagnames.cosign(subject), strict=True):
            if listed_tags is not None and tag not in listed_tags:
                continue
            if not self._selection.tag(end):
                self.left_out.update([tag] if listed_tags is not None else [])
                continue
            try:
                descriptor = source.head_manifest(tag)
            except NotFound:
                continue
            except TransshipError as error:
                self._fail(source, error, tag, "cosign's tags", f"{source.name}:{tag} (for {subject})")
                continue
            if descriptor is not None:
                attached.append(Attached(digest=descriptor.digest, tag=tag))
        return attached

    def _referrers(self, source: Source, subject: Digest) -> list[Attached]:
        if not self._selection.referrers:
            return []
        listed_tags, fallback = self._listed.get(source.name), tagnames.referrers(subject)
        if _lacks_api(source) and listed_tags is not None and fallback not in listed_tags:
            return []
        try:
            listed = source.referrers(subject)
            if (
                not listed
                and getattr(source, "has_referrers_api", False)
                and (listed_tags is None or fallback in listed_tags)
            ):
                # A registry that got the API later may not list what was attached before (distribution-spec,
                # "Enabling the Referrers API").
                shown = source.head_manifest(fallback)
                if shown is not None and shown.is_index:
                    listed = source.get_manifest(fallback).children
        except NotFound:
            return []
        except TransshipError as error:
            self._fail(
                source, error, fallback, "referrers", f"referrers of {source.name}@{subject}", tagged=_lacks_api(source)
            )
            return []
        attached = []
        for referrer in listed:
            kind = referrer.artifact_type
            if referrer.digest == subject:
                continue
            if self._selection.referrer(kind):
                attached.append(Attached(digest=referrer.digest, artifact_type=kind, annotations=referrer.annotations))
            else:
                self.left_out.add(referrer.digest)
        return attached

    def _fail(
        self, source: Source, error: TransshipError, tag: str, kind: str, subject: str, *, tagged: bool = True
    ) -> None:
        """Says what couldn't be looked for. What may not exist is denied by some (imgpkg issue 548): the list of tags
        says whether it does. Where it can't be had either, `tagged` says that nothing but a tag could be there."""
        if isinstance(error, Unauthorized | Denied):
            tags = self.tags(source)
            if tags is None and tagged:
                self._noted(source.name, f"{kind} can't be looked for: refused ({error.status})")
                return
            if tags is not None and tag not in tags:
                return
        self._failed(subject, error)


def _lacks_api(source: Source) -> bool:
    """Whether it is known of a registry that referrers are listed under tags there, and nowhere else."""
    return isinstance(source.name, Repository) and getattr(source, "has_referrers_api", None) is False
