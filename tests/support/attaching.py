"""An index with everything that can be attached to it, and reads of it by plain HTTP and from disk."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.support.content import OCI_INDEX, OCI_MANIFEST, Content, artifact, compact, image, index, push

SIGSTORE = "application/vnd.dev.sigstore.bundle.v0.3+json"
NOTATION = "application/vnd.cncf.notary.signature"
SPDX = "application/spdx+json"
_ACCEPT = {"Accept": f"{OCI_MANIFEST}, {OCI_INDEX}"}


@dataclass(frozen=True, slots=True)
class Signed:
    """`tags` are cosign's, by name; `referrers` are by the digest of their subject."""

    root: Content
    tags: dict[str, Content]
    referrers: dict[str, list[Content]]

    @property
    def attached(self) -> list[Content]:
        return [*self.tags.values(), *(one for found in self.referrers.values() for one in found)]


def signed_index(seed: int) -> Signed:
    """An index with cosign's three tags, a Sigstore bundle and a signature of Notary as referrers; of its children one
    has a signature, the other an SBOM; the SBOM has a bundle of its own."""
    children = [image(seed * 100 + 1), image(seed * 100 + 2)]
    root = index(children, ["linux/amd64", "linux/arm64"])
    tags = {
        f"sha256-{root.hex}.{end}": image(seed * 100 + 10 + number) for number, end in enumerate(("sig", "att", "sbom"))
    }
    tags[f"sha256-{children[0].hex}.sig"] = image(seed * 100 + 20)
    sbom = artifact(seed * 100 + 30, artifact_type=SPDX, subject=children[1])
    referrers = {
        root.digest: [
            artifact(seed * 100 + 31, artifact_type=SIGSTORE, subject=root),
            artifact(seed * 100 + 32, artifact_type=NOTATION, subject=root),
        ],
        children[1].digest: [sbom],
        sbom.digest: [artifact(seed * 100 + 33, artifact_type=SIGSTORE, subject=sbom)],
    }
    return Signed(root, tags, referrers)


def push_signed(url: str, repository: str, signed: Signed, *names: str, api: bool) -> str:
    """Without the `api` the lists of referrers are pushed under their tags, as clients of such a registry do."""
    reference = push(url, repository, signed.root, *names)
    for tag, content in signed.tags.items():
        push(url, repository, content, tag)
    for found in signed.referrers.values():
        for content in found:
            push(url, repository, content)
    if not api:
        for subject, found in signed.referrers.items():
            push(url, repository, list_of(found), subject.replace(":", "-"))
    return reference


def list_of(referrers: list[Content]) -> Content:
    """What stands under the tag for a registry without the referrers API."""
    entries = [one.descriptor(artifactType=json.loads(one.raw)["artifactType"]) for one in referrers]
    body = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
    return Content(OCI_INDEX, compact(body), children=tuple(referrers))


def lost_at(url: str, repository: str, signed: Signed, *, api: bool) -> list[str]:
    """What of it isn't found in a registry, by plain HTTP: manifests by tag and digest, blobs, lists of referrers."""
    with httpx.Client(base_url=f"{url}/v2/{repository}", headers=_ACCEPT) as http:
        lost = [tag for tag, content in signed.tags.items() if http.get(f"/manifests/{tag}").content != content.raw]
        for content in signed.attached:
            if http.get(f"/manifests/{content.digest}").content != content.raw:
                lost.append(content.digest)
            lost += [
                digest
                for digest in (blob.descriptor()["digest"] for blob in content.blobs)
                if http.head(f"/blobs/{digest}").status_code != 200
            ]
        for subject, found in signed.referrers.items():
            where = f"/referrers/{subject}" if api else f"/manifests/{subject.replace(':', '-')}"
            answer = http.get(where)
            listed = {one["digest"]: one for one in answer.json()["manifests"]} if answer.status_code == 200 else {}
            for one in found:
                kind = json.loads(one.raw)["artifactType"]
                if listed.get(one.digest, {}).get("artifactType") != kind:
                    lost.append(f"referrer {one.digest} of {subject}")
        return lost


def lost_in_layout(folder: Path, signed: Signed) -> list[str]:
    """The same for a folder, read as image-layout.md says: names in index.json, everything in blobs."""
    listed: list[dict[str, Any]] = json.loads((folder / "index.json").read_bytes())["manifests"]
    names = {one.get("annotations", {}).get("org.opencontainers.image.ref.name"): one["digest"] for one in listed}
    lost = [tag for tag, content in signed.tags.items() if names.get(tag) != content.digest]
    for content in signed.attached:
        path = folder / "blobs" / "sha256" / content.hex
        if not path.is_file() or path.read_bytes() != content.raw:
            lost.append(content.digest)
    entries = {one["digest"] for one in listed}
    lost += [one.digest for found in signed.referrers.values() for one in found if one.digest not in entries]
    return lost
