"""Images that are pushed with plain HTTP, so that what the flows move wasn't made by the code under test."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path

import httpx

from oci.descriptor import OCI_CONFIG, OCI_LAYER_GZIP, OCI_MANIFEST
from oci.digest import Digest, digest_of
from tests.servers.docker_registry import DockerRegistry


@dataclass(frozen=True, slots=True)
class Image:
    """Where an image was put, and what it is."""

    repository: str
    digest: Digest
    layer: Digest

    def at(self, host: str) -> str:
        return f"{host}/{self.repository}@{self.digest}"


def push_image(registry: DockerRegistry, repository: str, *, size: int, seed: int, tag: str = "") -> Image:
    """One layer of `size` bytes that nothing compresses."""
    layer = random.Random(seed).randbytes(size)
    config = json.dumps({"architecture": "amd64", "os": "linux", "seed": seed}).encode()
    with httpx.Client(base_url=registry.url) as client:
        for blob in (config, layer):
            begun = client.post(f"/v2/{repository}/blobs/uploads/")
            client.put(f"{begun.headers['location']}&digest={digest_of(blob)}", content=blob).raise_for_status()
        manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": OCI_MANIFEST,
                "config": {"mediaType": OCI_CONFIG, "digest": digest_of(config), "size": len(config)},
                "layers": [{"mediaType": OCI_LAYER_GZIP, "digest": digest_of(layer), "size": len(layer)}],
            }
        ).encode()
        digest = digest_of(manifest)
        client.put(
            f"/v2/{repository}/manifests/{tag or digest}", content=manifest, headers={"content-type": OCI_MANIFEST}
        ).raise_for_status()
    return Image(repository, digest, digest_of(layer))


def write_lock(path: Path, references: list[str]) -> str:
    """An ImagesLock file."""
    lines = ["apiVersion: imgpkg.carvel.dev/v1alpha1", "kind: ImagesLock", "images:"]
    path.write_text("\n".join([*lines, *(f"- image: {reference}" for reference in references)]) + "\n")
    return str(path)


def delete_blob(registry: DockerRegistry, repository: str, digest: Digest) -> None:
    httpx.delete(f"{registry.url}/v2/{repository}/blobs/{digest}").raise_for_status()
