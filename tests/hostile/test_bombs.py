"""A hundred manifests that are hundreds of millions to whoever opens each as often as it is listed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from flows.cli.output import ExitCode
from tests.servers.strict_registry import StrictRegistry
from tests.support.command import transship
from tests.support.content import OCI_INDEX, Content, bundle, image, push

WIDTH, LEVELS = 12, 8


@pytest.fixture(scope="module")
def registry() -> Iterator[StrictRegistry]:
    """Under shop/bomb:v1 an index of twelve indexes, each of which lists the same twelve, and so on; under
    shop/bundles:v1 the same of bundles."""
    with StrictRegistry() as server, httpx.Client(base_url=server.url) as http:
        below = [image(number) for number in range(WIDTH)]
        for one in below:
            push(server.url, "shop/bomb", one, client=http)
        for level in range(LEVELS):
            count = WIDTH if level < LEVELS - 1 else 1
            below = [_index(below, f"{level}.{number}") for number in range(count)]
            for one in below:
                push(server.url, "shop/bomb", one, "v1" if count == 1 else one.digest, client=http)
        listed = [push(server.url, "shop/bundles", image(1), client=http)]
        for level in range(LEVELS - 3):
            count = WIDTH if level < LEVELS - 4 else 1
            bundles = [bundle(listed, label=f"{level}.{number}") for number in range(count)]
            listed = [push(server.url, "shop/bundles", one, "v1", one.digest, client=http) for one in bundles]
        yield server


def _index(children: list[Content], name: str) -> Content:
    listed = [
        child.descriptor(platform={"os": "linux", "architecture": f"a{number}"})
        for number, child in enumerate(children)
    ]
    body = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": listed, "annotations": {"name": name}}
    return Content(OCI_INDEX, json.dumps(body).encode())


def test_each_is_copied_once_into_a_folder_and_an_archive_and_back(registry: StrictRegistry, tmp_path: Path) -> None:
    name, tar = f"{registry.host}/shop/bomb:v1", str(tmp_path / "a.tar")
    commands = (
        ("copy", "-i", name, "--to-repo", f"oci:{tmp_path}/folder", "--verify", "deep"),
        ("copy", "-i", name, "--to-repo", f"oci:{tmp_path}/one", "--platform", "linux/a0"),
        ("copy", "-i", name, "--to-tar", tar, "--tar-format", "oci-layout"),
        ("archive", "list", tar),
        ("archive", "verify", "--deep", tar),
        ("copy", "--tar", tar, "--to-repo", f"{registry.host}/other/bomb"),
        ("inspect", name),
        ("verify", f"{registry.host}/other/bomb:v1"),
    )
    for command in commands:
        done = transship(*command)
        assert done.code == ExitCode.DONE, (command, done.err)


def test_imgpkgs_format_which_writes_each_where_it_is_listed_is_refused(
    registry: StrictRegistry, tmp_path: Path
) -> None:
    done = transship("copy", "-i", f"{registry.host}/shop/bomb:v1", "--to-tar", str(tmp_path / "a.tar"))

    assert done.code == ExitCode.FAILED
    assert "bytes in manifest.json" in done.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_bundles_of_bundles_of_the_same_bundles(registry: StrictRegistry, tmp_path: Path) -> None:
    name = f"{registry.host}/shop/bundles:v1"

    described = transship("describe", "-b", name)
    copied = transship("copy", "-b", name, "--to-repo", f"oci:{tmp_path}/folder")

    assert (described.code, copied.code) == (ExitCode.FAILED, ExitCode.DONE), described.err + copied.err
    assert "10000 images" in described.err
