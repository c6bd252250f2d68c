"""Pulling the plug: whatever the moment, no name shows something incomplete, and nothing is sent twice."""

from __future__ import annotations

import json
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from urllib.parse import unquote

import httpx
import pytest

from tests.servers.docker_registry import DockerRegistry
from tests.support.content import bundle, image, index, layer, push
from tests.support.waiting import until

ACCEPT = {
    "Accept": "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, "
    "application/vnd.docker.distribution.manifest.v2+json"
}
IMAGES = 40
KILLS = 10


@pytest.fixture(scope="module")
def source(registry: DockerRegistry) -> str:
    """A bundle of some 40 images and an index, 36 MB in all, with a nested bundle."""
    images = [image(5000 + n, layers=[layer(6000 + n * 3 + one, 300_000) for one in range(3)]) for n in range(IMAGES)]
    contents = [index(images[:3]), *images[3:]]
    references = [push(registry.url, f"interrupted/app{number}", one) for number, one in enumerate(contents)]
    nested = push(registry.url, "interrupted/nested", bundle(references[:5]))
    push(registry.url, "interrupted/bundle", bundle([*references[5:], nested]), "1.0")
    return f"{registry.host}/interrupted/bundle:1.0"


def start(source: str, destination: str) -> subprocess.Popen[bytes]:
    program = Path(sys.executable).with_name("transship")
    return subprocess.Popen(
        [program, "copy", "-b", source, "--to-repo", destination, "--quiet"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def what_is_named(registry: DockerRegistry, repository: str) -> set[str]:
    """Every tag, after proving that all below what it names is there: children, blobs, and what a bundle lists."""
    tags = set(registry.repository_tags(repository))
    with httpx.Client(base_url=registry.url) as http:
        proven: set[str] = set()
        for tag in tags:
            prove(http, repository, tag, proven)
    return tags


def prove(http: httpx.Client, repository: str, identifier: str, proven: set[str]) -> None:
    if identifier in proven:
        return
    proven.add(identifier)
    answer = http.get(f"/v2/{repository}/manifests/{identifier}", headers=ACCEPT)
    assert answer.status_code == 200, f"{identifier} is listed or named, and isn't there"
    body = answer.json()
    for child in body.get("manifests", []):
        prove(http, repository, child["digest"], proven)
    blobs = [*body.get("layers", []), *([body["config"]] if body.get("config") else [])]
    for blob in blobs:
        if blob["digest"] not in proven:
            proven.add(blob["digest"])
            assert http.head(f"/v2/{repository}/blobs/{blob['digest']}").status_code == 200
    if body.get("config"):
        config = http.get(f"/v2/{repository}/blobs/{body['config']['digest']}").content
        labels = (json.loads(config).get("config") or {}).get("Labels") or {}
        if "dev.carvel.imgpkg.bundle" in labels:
            for digest in listed_by(http, repository, body):
                prove(http, repository, digest, proven)


def listed_by(http: httpx.Client, repository: str, manifest: dict[str, list[dict[str, str]]]) -> list[str]:
    import gzip

    data = gzip.decompress(http.get(f"/v2/{repository}/blobs/{manifest['layers'][0]['digest']}").content)
    return re.findall(r"image: \S+@(sha256:[0-9a-f]{64})", data.decode(errors="replace"))


def stored_blobs(registry: DockerRegistry) -> Counter[str]:
    """How often each blob was stored, by the registry's own log."""
    found = Counter[str]()
    for seen in registry.requests():
        if seen.method == "PUT" and "/blobs/uploads/" in seen.path and seen.status == 201:
            found[unquote(seen.path.partition("digest=")[2])] += 1
    return found


def wait_for_blobs(destination: DockerRegistry, process: subprocess.Popen[bytes], count: int) -> None:
    """Until the destination has so many, or the process has ended."""
    until(
        f"{count} blobs at the destination",
        lambda: process.poll() is not None or len(stored_blobs(destination)) >= count,
        every=0.005,
    )


@pytest.mark.slow
def test_ten_kills_leave_no_name_for_something_incomplete_and_nothing_is_sent_twice(
    source: str, tmp_path: Path
) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    moments = random.Random(seed)
    with DockerRegistry(tmp_path / "destination") as destination:
        target = f"{destination.host}/mirror/set"
        killed = 0
        for _ in range(KILLS):
            enough = len(stored_blobs(destination)) + moments.randrange(IMAGES * 3 // KILLS)
            process = start(source, target)
            wait_for_blobs(destination, process, enough)
            time.sleep(moments.uniform(0, 0.05))  # between two blobs, and within any
            killed += process.poll() is None
            process.send_signal(signal.SIGKILL)
            process.communicate()
            what_is_named(destination, "mirror/set")
        process = start(source, target)
        _, errors = process.communicate(timeout=1200)

        assert process.returncode == 0, errors.decode()
        assert killed >= 3
        assert "1.0" in what_is_named(destination, "mirror/set")
        twice = {digest: count for digest, count in stored_blobs(destination).items() if count > 1}
        assert len(twice) <= killed * 8  # what was in flight, at most one for each thread at each kill
        assert sum(stored_blobs(destination).values()) >= IMAGES * 4


def test_an_interrupt_ends_the_command_within_seconds_and_says_how_to_go_on(source: str, tmp_path: Path) -> None:
    with DockerRegistry(tmp_path / "destination") as destination:
        process = start(source, f"{destination.host}/mirror/set")
        until("a blob at the destination", lambda: stored_blobs(destination), every=0.01)
        process.send_signal(signal.SIGINT)
        started = time.monotonic()
        _, errors = process.communicate(timeout=60)

        assert process.returncode == 130
        assert b"run the same again to go on" in errors
        assert time.monotonic() - started < 60
        assert "1.0" not in what_is_named(destination, "mirror/set")
