"""`transship inspect`: any image, in a registry, a folder or an archive."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from flows.cli.output import ExitCode
from tests.servers.docker_registry import DockerRegistry
from tests.support.command import Done, transship
from tests.support.content import OCI_CONFIG, OCI_INDEX, OCI_MANIFEST, Blob, Content, image, push, signature_tag
from tests.support.shop import Shop, push_shop


@pytest.fixture(scope="module")
def shop(registry: DockerRegistry) -> Shop:
    return push_shop(registry.url, "cli/inspected", seed=83)


def result(*arguments: str) -> dict[str, Any]:
    done = transship("inspect", *arguments, "--json")
    assert done.code == ExitCode.DONE, done.err
    found: dict[str, Any] = json.loads(done.out)["Result"]
    return found


def test_an_image_with_what_is_attached_to_it(shop: Shop, registry: DockerRegistry) -> None:
    found = result(f"{registry.host}/cli/inspected/web:v1")

    assert (found["kind"], found["digest"]) == ("image", shop.web.digest)
    (one,) = found["images"]
    layers = [blob.descriptor() for blob in shop.web.blobs if "diff" in blob.media_type]
    assert [layer["digest"] for layer in one["layers"]] == [layer["digest"] for layer in layers]
    assert found["size"] == one["size"] == sum(len(blob.data) for blob in shop.web.blobs)
    assert one["config"]["rootfs"]["type"] == "layers"
    attached = {item["digest"]: item for item in found["attached"]}
    assert attached[shop.signature.digest]["tag"] == signature_tag(shop.web)
    assert attached[shop.referrer.digest]["artifact_type"]
    assert {item["subject"] for item in attached.values()} == {shop.web.digest}


def test_an_index_shows_its_platforms_and_one_of_them_on_request(shop: Shop, registry: DockerRegistry) -> None:
    name = f"{registry.host}/cli/inspected/tools:v1"

    assert [one["platform"] for one in result(name)["images"]] == ["linux/amd64", "linux/arm64"]
    (one,) = result(name, "--platform", "linux/arm64")["images"]
    assert one["digest"] == shop.tools.children[1].digest
    refused = transship("inspect", name, "--platform", "windows/amd64")
    assert refused.code == ExitCode.USAGE
    assert "linux/amd64, linux/arm64" in refused.err


def test_a_bundle_and_an_artifact_are_called_so(shop: Shop, registry: DockerRegistry) -> None:
    assert result(shop.reference)["kind"] == "bundle"
    chart = result(f"{registry.host}/cli/inspected/chart:v1")
    assert chart["kind"] == "artifact"
    assert chart["images"][0]["artifact_type"]


def test_folders_and_archives_show_the_same_image(shop: Shop, registry: DockerRegistry, tmp_path: Path) -> None:
    name, tar = f"{registry.host}/cli/inspected/web:v1", str(tmp_path / "web.tar")
    assert transship("copy", "-i", name, "--to-repo", f"oci:{tmp_path}/folder").code == ExitCode.DONE
    assert transship("copy", "-i", name, "--to-tar", tar).code == ExitCode.DONE
    there = result(name)

    for found in (result(f"oci:{tmp_path}/folder:v1"), result("--tar", tar), result("v1", "--tar", tar)):
        assert found["images"] == there["images"]


def test_text_has_no_control_of_a_stranger(registry: DockerRegistry, repository: str) -> None:
    body = {"os": "linux", "architecture": "amd64", "config": {"Labels": {"a": "\x1b[2J\nKind: forged"}}, "rootfs": {}}
    config = Blob(OCI_CONFIG, json.dumps(body).encode())
    raw = json.dumps({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config.descriptor(), "layers": []})
    push(registry.url, repository, Content(OCI_MANIFEST, raw.encode(), (config,)), "v1")

    shown = transship("inspect", f"{registry.host}/{repository}:v1").out

    assert "\x1b" not in shown
    assert shown.count("\nKind: ") == 1


def test_nothing_named_is_wrong_usage_and_what_is_not_there_a_failure(registry: DockerRegistry) -> None:
    assert transship("inspect").code == ExitCode.USAGE
    assert transship("inspect", f"{registry.host}/cli/inspected/web:none").code == ExitCode.FAILED


def strange(registry: DockerRegistry, repository: str, config: bytes, **more: Any) -> Done:
    one = Blob(OCI_CONFIG, config)
    body = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": one.descriptor(), "layers": [], **more}
    push(registry.url, repository, Content(OCI_MANIFEST, json.dumps(body).encode(), (one,)), "v1")
    return transship("inspect", f"{registry.host}/{repository}:v1", "--tty")


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        (b'{"config": {"User": 5, "Cmd": 7, "Volumes": true, "Env": {"a": 1}, "Labels": [1]}}', "image"),
        (b'{"a": ' + b"[" * 900 + b"]" * 900 + b"}", "artifact"),
        (b'{"config": {"User": "\\ud800"}, "a": 1}', "artifact"),
        (b'{"a": 1e999}', "artifact"),
    ],
)
def test_a_config_of_any_shape_is_shown_or_none(
    registry: DockerRegistry, repository: str, config: bytes, kind: str
) -> None:
    done = strange(registry, repository, config)

    assert done.code == ExitCode.DONE, done.err
    assert f"Kind: {kind} " in done.out


def test_a_stranger_has_no_line_of_his_own(registry: DockerRegistry, repository: str) -> None:
    created = strange(registry, repository, b'{"created": "2020\\nDigest: forged"}')
    artifact = strange(registry, repository, b"[]", artifactType="x\nDigest: forged")

    assert "\nDigest: forged" not in created.out + artifact.out
    assert "Created: 2020" in created.out
    assert "Artifact type: x" in artifact.out


def test_an_index_of_many_times_an_index_is_walked_once(registry: DockerRegistry, repository: str) -> None:
    """Eight levels of twelve are 400 million images, to whoever opens each as often as it is listed."""
    shown = image(1)
    for _ in range(8):
        places = [{**shown.descriptor(), "platform": {"os": "linux", "architecture": f"a{n}"}} for n in range(12)]
        body = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": places}
        shown = Content(OCI_INDEX, json.dumps(body).encode(), (), (shown,))
    push(registry.url, repository, shown, "v1")

    assert len(result(f"{registry.host}/{repository}:v1")["images"]) == 12
