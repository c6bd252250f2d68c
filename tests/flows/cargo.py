"""What the tests of the flows move: images pushed by plain HTTP, and lock files that list them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.servers.docker_registry import DockerRegistry
from tests.support import content


@dataclass(frozen=True, slots=True)
class Image:
    """Where an image was put, and what it is."""

    repository: str
    digest: str
    layer: str

    def at(self, host: str) -> str:
        return f"{host}/{self.repository}@{self.digest}"


def push_image(registry: DockerRegistry, repository: str, *, size: int, seed: int, tag: str = "") -> Image:
    """An image of one layer of some `size` bytes."""
    layer = content.layer(seed, size)
    made = content.image(seed, layers=[layer])
    content.push(registry.url, repository, made, *([tag] if tag else []))
    return Image(repository, made.digest, content.digest_of(layer.data))


def write_lock(path: Path, references: list[str]) -> str:
    """An ImagesLock file."""
    lines = ["apiVersion: imgpkg.carvel.dev/v1alpha1", "kind: ImagesLock", "images:"]
    path.write_text("\n".join([*lines, *(f"- image: {reference}" for reference in references)]) + "\n")
    return str(path)


def delete_blob(registry: DockerRegistry, repository: str, digest: str) -> None:
    httpx.delete(f"{registry.url}/v2/{repository}/blobs/{digest}").raise_for_status()
