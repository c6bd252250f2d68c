"""`transship verify`: what is complete, and what is said of what isn't."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.flows.cargo import delete_blob, write_lock
from tests.servers.docker_registry import DockerRegistry
from tests.support.command import transship
from tests.support.content import FOREIGN_LAYER, Blob, digest_of, image, index, push
from tests.support.relocating import copied
from tests.support.shop import Shop, push_shop


@pytest.fixture(scope="module")
def shop(registry: DockerRegistry) -> Shop:
    return push_shop(registry.url, "cli/verified", seed=41)


@pytest.fixture
def mirror(shop: Shop, other_registry: DockerRegistry, repository: str) -> str:
    where = f"{other_registry.host}/{repository}"
    copied(where, bundle=shop.reference, artifacts=("all",))
    return where


def layer_of(shop: Shop) -> str:
    """Of an image that is two indexes deep."""
    return digest_of(shop.deep_tools.children[0].children[0].blobs[0].data)


def test_a_bundle_is_followed_to_its_last_blob(mirror: str, shop: Shop) -> None:
    by_head = transship("verify", f"{mirror}:1.4.0")
    # With the signature and the SBOM that are attached to one of the images.
    assert (by_head.code, by_head.out) == (0, f"{mirror}\t1.4.0\t14\t22\t0\t\n"), by_head.err
    assert by_head.err.startswith("complete: 14 manifests, 22 blobs, asked for by HEAD, ")

    deep = transship("verify", f"{mirror}@{shop.bundle.digest}", "--deep")
    assert deep.code == 0
    assert "KiB hashed" in deep.err


def test_a_blob_that_is_lost_is_found_missing(
    mirror: str, shop: Shop, other_registry: DockerRegistry, repository: str
) -> None:
    delete_blob(other_registry, repository, layer_of(shop))

    done = transship("verify", "--all-tags", mirror, "--json")

    assert done.code == 1
    document = json.loads(done.out)
    (failure,) = document["Error"]["Failures"]
    assert failure["Message"] == f"{mirror}@{layer_of(shop)}: the blob is missing"
    assert document["Tables"][0]["Rows"][0]["problems"] == 1
    assert "--repair" in document["Error"]["Hint"]


def test_a_byte_that_is_wrong_is_found_by_a_deep_look_only(shop: Shop, tmp_path: Path) -> None:
    folder = f"oci:{tmp_path}/layout"
    copied(folder, bundle=shop.reference)
    blob = tmp_path / "layout" / "blobs" / "sha256" / layer_of(shop).removeprefix("sha256:")
    data = bytearray(blob.read_bytes())
    data[len(data) // 2] ^= 1
    blob.write_bytes(data)

    assert transship("verify", f"{folder}:1.4.0").code == 0
    deep = transship("verify", f"{folder}:1.4.0", "--deep")
    assert deep.code == 1
    assert layer_of(shop) in deep.err


def test_what_a_lock_pins_is_looked_for_where_it_says(
    shop: Shop, registry: DockerRegistry, mirror: str, tmp_path: Path
) -> None:
    web = f"{registry.host}/cli/verified/web@{shop.web.digest}"
    lock = write_lock(tmp_path / "images.yml", [web, f"{mirror}@{shop.database.digest}"])
    done = transship("verify", "--lock", lock)
    assert (done.code, len(done.out.splitlines())) == (0, 2), done.err

    lock = write_lock(tmp_path / "images.yml", [web, f"{mirror}@{image(9999).digest}"])
    done = transship("verify", "--lock", lock)
    assert done.code == 1
    assert f"{mirror}: there is no {image(9999).digest}" in done.err


def test_layers_that_may_not_be_distributed_may_be_absent(registry: DockerRegistry, tmp_path: Path) -> None:
    foreign = Blob(FOREIGN_LAYER, b"windows", urls=("https://example.com/layer",), absent=True)
    with DockerRegistry(tmp_path, foreign_urls=True) as server:
        push(server.url, "windows", index([image(1, layers=[foreign], docker=True)]), "1.0")
        done = transship("verify", f"{server.host}/windows:1.0", "--deep")

    assert done.code == 0, done.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Expected something to verify"),
        (["HTTP://x/y"], "HTTP://x/y"),
        (["--all-tags", "registry.example/shop:1.0"], "it carries a tag or a digest"),
        (["--lock", "/nowhere.yml"], "reading the lock file /nowhere.yml"),
    ],
)
def test_what_can_not_be_meant_is_an_error(arguments: list[str], said: str) -> None:
    done = transship("verify", *arguments)

    assert done.code == 2
    assert said in done.err


def test_a_tag_or_a_repository_that_is_not_there_is_no_proof(mirror: str, other_registry: DockerRegistry) -> None:
    assert f"{mirror}: there is no tag 9.9" in transship("verify", f"{mirror}:9.9").err
    absent = transship("verify", "--all-tags", f"{other_registry.host}/no/such")
    assert absent.code == 1
    assert "404" in absent.err
