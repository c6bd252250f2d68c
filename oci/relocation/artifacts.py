"""What is attached to an image: cosign's tags beside it, and manifests that refer to it as their subject."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial

from oci.bundle import tagnames
from oci.digest import Digest
from oci.errors import Denied, NotFound, TransshipError, Unauthorized
from oci.reference import StoreName
from oci.relocation.graph import Entry, Node
from oci.relocation.plan import PlanFailure, Role
from oci.relocation.request import COSIGN, REFERRERS
from oci.relocation.session import Session
from oci.store import Source

_LIST_FROM = 3
"""Images in one repository from which one tag list is cheaper than asking for each of their tags."""


class Attachments:
    """Looks for attachments of nodes, where each node was found or, when the destination has it, where it came from.

    A registry that answers 403 for a tag that doesn't exist counts as having none (imgpkg issue 548).
    """

    def __init__(
        self,
        session: Session,
        destination: Source,
        wanted: frozenset[str],
        *,
        listed: Mapping[StoreName, frozenset[str]],
    ) -> None:
        """`listed` are tag lists of sources that somebody has read already."""
        self._session = session
        self._destination = destination
        self._wanted = wanted
        self._listed = listed
        self.failures: list[PlanFailure] = []

    def of(self, nodes: Iterable[Node]) -> list[Entry]:
        by_store: dict[StoreName, list[Node]] = {}
        for node in nodes:
            store = node.places[0] if node.present else node.store
            by_store.setdefault(store, []).append(node)
        entries: list[Entry] = []
        for store, there in by_store.items():
            source = self._session.source(store)
            if COSIGN in self._wanted:
                known = self._listed.get(store)
                if known is None and len(there) >= _LIST_FROM:
                    known = self._tags(source)
                looked = self._session.workers.map(partial(self._signatures, source, known), there)
                entries.extend(entry for found in looked for entry in found)
            if REFERRERS in self._wanted:
                looked = self._session.workers.map(partial(self._referrers, source), there)
                entries.extend(entry for found in looked for entry in found)
        return entries

    def _tags(self, source: Source) -> frozenset[str] | None:
        """None where the tag list can't be had: each tag is asked for then."""
        try:
            return frozenset(source.tags())
        except NotFound:
            return frozenset()
        except TransshipError:
            return None

    def _signatures(self, source: Source, known: frozenset[str] | None, node: Node) -> list[Entry]:
        if node.role in (Role.SIGNATURE, Role.REFERRER):
            return []
        entries = []
        for tag in tagnames.cosign(node.digest):
            if known is not None and tag not in known:
                continue
            digest = self._resolve(source, tag, node.digest)
            if digest is not None:
                there = self._destination.head_manifest(tag)
                moved = there is None or there.digest != digest
                entries.append(
                    Entry(digest=digest, places=(source.name,), role=Role.SIGNATURE, tags=(tag,) if moved else ())
                )
        return entries

    def _resolve(self, source: Source, tag: str, subject: Digest) -> Digest | None:
        try:
            found = source.head_manifest(tag)
        except (NotFound, Unauthorized, Denied):
            return None
        except TransshipError as error:
            self._failed(f"{source.name}:{tag} (for {subject})", error)
            return None
        return found.digest if found else None

    def _referrers(self, source: Source, node: Node) -> list[Entry]:
        try:
            found = source.referrers(node.digest)
        except (NotFound, Unauthorized, Denied):
            return []
        except TransshipError as error:
            self._failed(f"referrers of {source.name}@{node.digest}", error)
            return []
        return [
            Entry(digest=referrer.digest, places=(source.name,), role=Role.REFERRER, annotations=referrer.annotations)
            for referrer in found
        ]

    def _failed(self, subject: str, error: TransshipError) -> None:
        self.failures.append(PlanFailure(subject=subject, message=str(error), retryable=error.retryable))
