"""What tags show, asked by HEAD, several at a time, each once; and whether the source shows a signature of an image."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from oci.bundle import tagnames
from oci.descriptor import Descriptor
from oci.digest import Digest
from oci.errors import TransshipError
from oci.mirror.work import Breaker, place
from oci.relocation.session import Session
from oci.store import Source

_TYPES = ("application/vnd.dev.sigstore.bundle", "application/vnd.cncf.notary.signature")
"""How the artifact types of signatures begin that refer to an image as their subject."""


class HeadCache:
    """Of several stores: the source under the empty name, each destination under its own. An answer is a descriptor,
    None for a tag that isn't there, or the error that came instead; a registry that turns out to be of no use is asked
    no further."""

    def __init__(self, session: Session, stores: Mapping[str, Source], breaker: Breaker) -> None:
        self._session = session
        self._stores = stores
        self._breaker = breaker
        self._known: dict[tuple[str, str], Descriptor | TransshipError | None] = {}

    def ask(self, jobs: Iterable[tuple[str, str]]) -> None:
        """Each job is a store and a tag or digest."""
        new = [job for job in jobs if job not in self._known]
        self._known.update(zip(new, self._session.workers.map(self._head, new), strict=True))

    def get(self, job: tuple[str, str]) -> Descriptor | TransshipError | None:
        """None as well where nobody asked."""
        return self._known.get(job)

    def has(self, name: str, tag: str) -> bool:
        return (name, tag) in self._known

    def known_absent(self, name: str, tag: str) -> bool:
        return self._known.get((name, tag), tag) is None

    def _head(self, job: tuple[str, str]) -> Descriptor | TransshipError | None:
        name, tag = job
        store = self._stores[name]
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


def signed(
    session: Session, source: Source, digests: Sequence[Digest], listed: frozenset[str] | None
) -> dict[Digest, bool | TransshipError]:
    """For each digest, or why it can't be told. A signature under cosign's tag costs no request where the tags of the
    source are `listed`."""

    def look(digest: Digest) -> bool | TransshipError:
        tag = tagnames.cosign(digest)[0]
        try:
            if tag in listed if listed is not None else source.head_manifest(tag) is not None:
                return True
            return any(one.artifact_type.startswith(_TYPES) for one in source.referrers(digest))
        except TransshipError as error:
            return error

    return dict(zip(digests, session.workers.map(look, digests), strict=True))
