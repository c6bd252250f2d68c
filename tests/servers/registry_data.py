"""Content put where docker-registry keeps it, without a request: a thousand tags in less than a second."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tests.servers.docker_registry import DockerRegistry
from tests.support.content import Content, digest_of


def seed(registry: DockerRegistry, repository: str, tags: Mapping[str, Content]) -> None:
    """Each tag with its manifest, what is below it, and all blobs but those that are `absent`."""
    store = registry.folder / "data" / "docker" / "registry" / "v2"
    home = store / "repositories" / repository
    written: set[str] = set()
    for tag, content in tags.items():
        for one in content.everything():
            for blob in one.blobs:
                if not blob.absent:
                    _blob(store, blob.data, written)
                    _link(home / "_layers" / _path(digest_of(blob.data)), digest_of(blob.data), written)
            _blob(store, one.raw, written)
            _link(home / "_manifests" / "revisions" / _path(one.digest), one.digest, written)
        _link(home / "_manifests" / "tags" / tag / "current", content.digest, set())
        _link(home / "_manifests" / "tags" / tag / "index" / _path(content.digest), content.digest, written)


def blob_file(registry: DockerRegistry, digest: str) -> Path:
    """Where a blob's bytes are, for who wants to break them."""
    store = registry.folder / "data" / "docker" / "registry" / "v2"
    return store / "blobs" / "sha256" / digest[7:9] / digest[7:] / "data"


def _path(digest: str) -> str:
    return digest.replace(":", "/")


def _blob(store: Path, data: bytes, written: set[str]) -> None:
    digest = digest_of(data)
    if digest in written:
        return
    written.add(digest)
    folder = store / "blobs" / "sha256" / digest[7:9] / digest[7:]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "data").write_bytes(data)


def _link(folder: Path, digest: str, written: set[str]) -> None:
    if str(folder) in written:
        return
    written.add(str(folder))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "link").write_text(digest)
