"""Images, bundles and what hangs on them, made and pushed by plain HTTP: independent of the client under test."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import random
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
FOREIGN_LAYER = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
BUNDLE_LABEL = "dev.carvel.imgpkg.bundle"


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@dataclass(frozen=True, slots=True)
class Blob:
    media_type: str
    data: bytes = field(repr=False)
    urls: tuple[str, ...] = ()
    absent: bool = False
    """Listed, but not pushed."""

    def descriptor(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "mediaType": self.media_type,
            "digest": digest_of(self.data),
            "size": len(self.data),
        }
        return found | ({"urls": list(self.urls)} if self.urls else {})


@dataclass(frozen=True, slots=True)
class Content:
    """A manifest's bytes, the blobs it needs and the manifests below it."""

    media_type: str
    raw: bytes = field(repr=False)
    blobs: tuple[Blob, ...] = ()
    children: tuple[Content, ...] = ()

    @property
    def digest(self) -> str:
        return digest_of(self.raw)

    @property
    def hex(self) -> str:
        return self.digest.removeprefix("sha256:")

    def descriptor(self, **more: Any) -> dict[str, Any]:
        return {"mediaType": self.media_type, "digest": self.digest, "size": len(self.raw), **more}

    def everything(self) -> list[Content]:
        return [*(below for child in self.children for below in child.everything()), self]


def compact(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()


def tar_of(files: Mapping[str, bytes], *, behind: bytes = b"") -> bytes:
    """Returns an archive with these files, `behind` the members of another archive."""
    stream = io.BytesIO(behind)
    with tarfile.open(fileobj=stream, mode="a" if behind else "w") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return stream.getvalue()


def layer(seed: int, size: int = 2000, media_type: str = OCI_LAYER) -> Blob:
    data = tar_of({f"data-{seed}": random.Random(seed).randbytes(size)})
    return Blob(media_type, gzip.compress(data, 1, mtime=0))


def noise(seed: int, size: int) -> Blob:
    """A layer of exactly `size` bytes that nobody unpacks: made in no time, however big."""
    return Blob(OCI_LAYER, random.Random(seed).randbytes(size))


def image(
    seed: int, *, layers: Sequence[Blob] = (), docker: bool = False, labels: Mapping[str, str] | None = None
) -> Content:
    own = tuple(layers) or (layer(seed, media_type=DOCKER_LAYER if docker else OCI_LAYER),)
    config = Blob(
        DOCKER_CONFIG if docker else OCI_CONFIG,
        compact(
            {
                "architecture": "amd64",
                "os": "linux",
                "config": {"Labels": dict(labels or {"seed": str(seed)})},
                "rootfs": {"type": "layers", "diff_ids": [digest_of(_plain(one.data)) for one in own]},
            }
        ),
    )
    kind = DOCKER_MANIFEST if docker else OCI_MANIFEST
    body = {
        "schemaVersion": 2,
        "mediaType": kind,
        "config": config.descriptor(),
        "layers": [one.descriptor() for one in own],
    }
    return Content(kind, compact(body), (*own, config))


def _plain(data: bytes) -> bytes:
    return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data


def index(children: Sequence[Content], platforms: Sequence[str] = ()) -> Content:
    entries = []
    for number, child in enumerate(children):
        more: dict[str, Any] = {}
        if number < len(platforms) and platforms[number]:
            os, architecture = platforms[number].split("/")
            more["platform"] = {"os": os, "architecture": architecture}
        entries.append(child.descriptor(**more))
    body = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
    return Content(OCI_INDEX, compact(body), (), tuple(children))


def artifact(
    seed: int,
    *,
    artifact_type: str = "application/vnd.example.sbom",
    subject: Content | None = None,
    config: Blob | None = None,
    content: Blob | None = None,
) -> Content:
    """ORAS-style: an empty config; with a `subject`, a referrer."""
    own = config or Blob("application/vnd.oci.empty.v1+json", b"{}")
    data = content or Blob("application/json", compact({"seed": seed}))
    body: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": artifact_type,
        "config": own.descriptor(),
        "layers": [data.descriptor()],
        "annotations": {"seed": str(seed)},
    }
    if subject is not None:
        body["subject"] = subject.descriptor()
    return Content(OCI_MANIFEST, compact(body), (data, own))


def helm_chart(seed: int) -> Content:
    config = Blob("application/vnd.cncf.helm.config.v1+json", compact({"name": f"chart{seed}", "version": "1.0.0"}))
    chart = Blob(
        "application/vnd.cncf.helm.chart.content.v1.tar+gzip",
        gzip.compress(tar_of({"chart/Chart.yaml": b"name: chart\n"}), mtime=0),
    )
    body = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": config.descriptor(),
        "layers": [chart.descriptor()],
    }
    return Content(OCI_MANIFEST, compact(body), (chart, config))


def bundle(
    references: Sequence[str], *, label: str = "true", oci_types: bool = False, extra_layers: Sequence[Blob] = ()
) -> Content:
    lines = ["apiVersion: imgpkg.carvel.dev/v1alpha1", "kind: ImagesLock"]
    if references:
        lines += ["images:", *(f"- image: {reference}" for reference in references)]
    files = {".imgpkg/images.yml": "\n".join([*lines, ""]).encode(), "config.yml": b"kind: Shop\n"}
    kind = OCI_LAYER if oci_types else DOCKER_LAYER
    own = Blob(kind, gzip.compress(tar_of(files), 1, mtime=0))
    return image(0, layers=(*extra_layers, own), docker=not oci_types, labels={BUNDLE_LABEL: label})


def signature_tag(content: Content, kind: str = "sig") -> str:
    return f"sha256-{content.hex}.{kind}"


def signature(content: Content) -> Content:
    payload = Blob(
        "application/vnd.dev.cosign.simplesigning.v1+json",
        compact({"critical": {"image": {"docker-manifest-digest": content.digest}}}),
    )
    return image(1, layers=(payload,))


def push(url: str, repository: str, content: Content, *tags: str, client: httpx.Client | None = None) -> str:
    """Pushes blobs, children, then the manifest under each tag, or by digest; gives `HOST/REPOSITORY@DIGEST`."""
    with httpx.Client(base_url=url, timeout=60) if client is None else _kept(client) as http:
        for one in content.everything():
            for blob in one.blobs:
                if not blob.absent:
                    push_blob(http, repository, blob.data)
            names = tags if one is content and tags else (one.digest,)
            for name in names:
                answer = http.put(
                    f"/v2/{repository}/manifests/{name}", content=one.raw, headers={"Content-Type": one.media_type}
                )
                assert answer.status_code == 201, answer.text
    return f"{httpx.URL(url).netloc.decode()}/{repository}@{content.digest}"


def push_blob(http: httpx.Client, repository: str, data: bytes) -> None:
    if http.head(f"/v2/{repository}/blobs/{digest_of(data)}").status_code == 200:
        return
    started = http.post(f"/v2/{repository}/blobs/uploads/")
    assert started.status_code == 202, started.text
    location = started.headers["Location"]
    separator = "&" if "?" in location else "?"
    done = http.put(f"{location}{separator}digest={digest_of(data)}", content=data)
    assert done.status_code == 201, done.text


class _kept:  # noqa: N801 - a context manager that closes nothing
    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def __enter__(self) -> httpx.Client:
        return self._client

    def __exit__(self, *error: object) -> None:
        return
