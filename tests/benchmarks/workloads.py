"""What is copied: sets of images with a known shape, pushed to a registry by plain HTTP."""

from __future__ import annotations

import gzip
import hashlib
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field

import httpx

KIB = 1 << 10
MIB = 1 << 20
MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"


@dataclass(frozen=True, slots=True)
class Image:
    repository: str
    layers: tuple[tuple[int, int], ...]
    """(seed, bytes) of each layer: the same pair is the same layer."""


@dataclass(frozen=True, slots=True)
class Workload:
    name: str
    says: str
    images: tuple[Image, ...]


@dataclass(slots=True)
class Pushed:
    """Where a workload stands: repository and digest of each image, all tagged `v1`."""

    host: str
    images: list[tuple[str, str]] = field(default_factory=list)


def big() -> Workload:
    layers = tuple((number, 256 * MIB) for number in range(4))
    return Workload("big", "1 image, 4 layers of 256 MiB", (Image("big/one", layers),))


def typical() -> Workload:
    images = []
    for number in range(40):
        base = number % 4
        shared = tuple((1000 + base * 3 + layer, 20 * MIB) for layer in range(3))
        own = tuple((2000 + number * 2 + layer, 2 * MIB) for layer in range(2))
        images.append(Image(f"typical/app{number:02}", shared + own))
    return Workload("typical", "40 images, 5 layers each, shared bases, 400 MiB", tuple(images))


def tiny() -> Workload:
    images = tuple(
        Image(f"tiny/app{number:03}", tuple((10_000 + number * 3 + layer, 4 * KIB) for layer in range(3)))
        for number in range(300)
    )
    return Workload("tiny", "300 images, 3 layers of 4 KiB each", images)


WORKLOADS = {"big": big, "typical": typical, "tiny": tiny}


def push(workload: Workload, url: str, host: str) -> Pushed:
    pushed = Pushed(host)
    with httpx.Client(base_url=url, timeout=120) as client:
        known: dict[tuple[int, int], tuple[dict[str, object], str, str]] = {}
        for image in workload.images:
            layers, diff_ids = [], []
            for layer in image.layers:
                if layer in known:
                    descriptor, diff_id, home = known[layer]
                    _mount(client, image.repository, str(descriptor["digest"]), home)
                else:
                    descriptor, diff_id = _push_layer(client, image.repository, layer)
                    known[layer] = (descriptor, diff_id, image.repository)
                layers.append(descriptor)
                diff_ids.append(diff_id)
            pushed.images.append((image.repository, _push_image(client, image.repository, layers, diff_ids)))
    return pushed


def _push_image(client: httpx.Client, repository: str, layers: list[dict[str, object]], diff_ids: list[str]) -> str:
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Labels": {"repository": repository}},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        }
    ).encode()
    _push_blob(client, repository, config)
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": {
                "mediaType": "application/vnd.docker.container.image.v1+json",
                "size": len(config),
                "digest": digest_of(config),
            },
            "layers": layers,
        }
    ).encode()
    answer = client.put(f"/v2/{repository}/manifests/v1", content=manifest, headers={"Content-Type": MANIFEST_TYPE})
    answer.raise_for_status()
    return digest_of(manifest)


def _push_layer(client: httpx.Client, repository: str, layer: tuple[int, int]) -> tuple[dict[str, object], str]:
    """A real gzip stream of bytes that don't compress, so that no tool is tempted to compress them."""
    seed, size = layer
    source = random.Random(seed)
    data = b"".join(source.randbytes(min(16 * MIB, size - start)) for start in range(0, size, 16 * MIB))
    blob = gzip.compress(data, compresslevel=0, mtime=0)
    _push_blob(client, repository, blob)
    descriptor: dict[str, object] = {
        "mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip",
        "size": len(blob),
        "digest": digest_of(blob),
    }
    return descriptor, digest_of(data)


def _push_blob(client: httpx.Client, repository: str, blob: bytes) -> None:
    session = client.post(f"/v2/{repository}/blobs/uploads/")
    session.raise_for_status()
    location = session.headers["Location"]
    separator = "&" if "?" in location else "?"
    done = client.put(
        f"{location}{separator}digest={digest_of(blob)}",
        content=_pieces(blob),
        headers={"Content-Length": str(len(blob)), "Content-Type": "application/octet-stream"},
    )
    done.raise_for_status()


def _mount(client: httpx.Client, repository: str, digest: str, home: str) -> None:
    client.post(f"/v2/{repository}/blobs/uploads/?mount={digest}&from={home}").raise_for_status()


def _pieces(blob: bytes) -> Iterator[bytes]:
    for start in range(0, len(blob), MIB):
        yield blob[start : start + MIB]


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
