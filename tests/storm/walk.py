"""What stands in a registry, by plain HTTP and hashlib: no line of the client under test."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence

import httpx

from tests.support.content import DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST

ACCEPT = {"Accept": f"{OCI_MANIFEST}, {OCI_INDEX}, {DOCKER_MANIFEST}, */*"}


class Walker:
    """`listed` says which images a bundle lists, by the digest of the bundle: they belong to it."""

    def __init__(self, url: str, listed: Mapping[str, Sequence[str]]) -> None:
        self.http = httpx.Client(base_url=url, timeout=60)
        self._listed = listed

    def tags(self, repository: str) -> dict[str, str]:
        """The digest of each tag."""
        answer = self.http.get(f"/v2/{repository}/tags/list?n=1000")
        names = json.loads(answer.content).get("tags") or [] if answer.status_code == 200 else []
        return {name: self._digest(repository, name) for name in names}

    def has_blob(self, repository: str, digest: str) -> bool:
        return self.http.head(f"/v2/{repository}/blobs/{digest}").status_code == 200

    def has_manifest(self, repository: str, name: str) -> bool:
        return self.http.get(f"/v2/{repository}/manifests/{name}", headers=ACCEPT).status_code == 200

    def missing(self, repository: str, digest: str, seen: set[str] | None = None) -> Iterator[str]:
        """Everything below a manifest that isn't there, or has other bytes than its digest says."""
        seen = set() if seen is None else seen
        if digest in seen:
            return
        seen.add(digest)
        answer = self.http.get(f"/v2/{repository}/manifests/{digest}", headers=ACCEPT)
        if answer.status_code != 200 or _sha256(answer.content) != digest:
            yield f"manifest {digest}"
            return
        body = json.loads(answer.content)
        for blob in (*body.get("layers", ()), *([body["config"]] if "config" in body else ())):
            if blob["digest"] not in seen:
                seen.add(blob["digest"])
                read = self.http.get(f"/v2/{repository}/blobs/{blob['digest']}")
                if read.status_code != 200 or _sha256(read.content) != blob["digest"]:
                    yield f"blob {blob['digest']}"
        for child in (*(entry["digest"] for entry in body.get("manifests", ())), *self._listed.get(digest, ())):
            yield from self.missing(repository, child, seen)

    def half_made(self, repository: str) -> list[str]:
        """Tags that show something incomplete."""
        seen: set[str] = set()
        return [
            f"{tag} lacks {problem}"
            for tag, digest in self.tags(repository).items()
            for problem in self.missing(repository, digest, seen)
        ]

    def _digest(self, repository: str, tag: str) -> str:
        return _sha256(self.http.get(f"/v2/{repository}/manifests/{tag}", headers=ACCEPT).content)


def _sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
