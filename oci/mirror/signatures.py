"""Whether the source shows a signature of an image. Whose it is, and whether it is right, isn't looked at here."""

from __future__ import annotations

from collections.abc import Sequence

from oci.bundle import tagnames
from oci.digest import Digest
from oci.errors import TransshipError
from oci.relocation.session import Session
from oci.store import Source

_TYPES = ("application/vnd.dev.sigstore.bundle", "application/vnd.cncf.notary.signature")
"""How the artifact types of signatures begin that refer to an image as their subject."""


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
