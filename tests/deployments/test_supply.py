"""What a release says it is made of, and what images of other people are pinned to."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from tests.servers.docker_registry import DockerRegistry
from tests.support.content import image, push

ROOT = Path(__file__).parent.parent.parent
BY_TAG = {"prefecthq/prefect:3.8.8-python3.12-kubernetes"}
"""Whose registry nobody could ask yet."""


def program(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "deployments" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def bill(*flags: str) -> dict[str, Any]:
    command = [sys.executable, str(ROOT / "deployments" / "sbom.py"), *flags]
    found: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return found


@pytest.mark.parametrize("flags", [(), ("--image",)], ids=["package", "image"])
def test_the_bill_of_materials_names_what_the_lock_pins_with_every_hash(flags: tuple[str, ...]) -> None:
    lock = (ROOT / "deployments" / "requirements.lock").read_text()
    found = bill(*flags)

    pinned = {f"{name}@{version}" for name, version in re.findall(r"^([^\s=]+)==([^\s;\\]+)", lock, re.MULTILINE)}
    packages = [one for one in found["components"] if one["type"] == "library"]
    assert {f"{one['name']}@{one['version']}" for one in packages} == pinned
    assert sum(len(one["hashes"]) for one in packages) == lock.count("--hash=")
    assert all(one["hashes"] for one in found["components"])
    assert found == bill(*flags)  # nothing of it depends on when or where


def test_the_form_is_cyclonedx() -> None:
    found = bill("--image")

    assert (found["bomFormat"], found["specVersion"], found["version"]) == ("CycloneDX", "1.6", 1)
    assert re.fullmatch(r"urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", found["serialNumber"])
    references = [one["bom-ref"] for one in (found["metadata"]["component"], *found["components"])]
    assert len(set(references)) == len(references)
    assert {one for entry in found["dependencies"] for one in (entry["ref"], *entry["dependsOn"])} <= set(references)
    for component in found["components"]:
        assert component["type"] in ("library", "container")
        assert re.fullmatch(r"pkg:(pypi|oci)/[a-z0-9._-]+@[^\s/]+", component["purl"])


def test_the_bill_of_the_image_begins_with_its_base() -> None:
    base = bill("--image")["components"][0]

    assert base["type"] == "container"
    assert f"FROM {base['name']}:{base['version']}@sha256:{base['hashes'][0]['content']}\n" in (
        ROOT / "deployments" / "Dockerfile"
    ).read_text().replace(" AS build", "")


def test_every_direct_dependency_is_in_the_bill() -> None:
    project = (ROOT / "pyproject.toml").read_text().partition("\n]\n")[0]
    direct = re.findall(r'^  "([a-z0-9-]+)[><]', project, re.MULTILINE)
    named = {one["name"] for one in bill()["components"]}

    assert direct
    assert set(direct) <= named


def test_images_of_other_people_are_pinned() -> None:
    pins = program("pins")
    by_tag = set()
    for name in pins.FILES:
        for _, image_name, tag, digest in pins.IMAGE.findall((ROOT / name).read_text()):
            by_tag |= set() if digest else {f"{image_name}:{tag}"}

    assert by_tag == BY_TAG
    every = (path for path in (ROOT / "deployments").rglob("*.yaml") if path.parent.name != "templates")
    others = [path for path in every if f"deployments/{path.name}" not in pins.FILES]
    named = {str(one) for path in others for one in _images(list(yaml.safe_load_all(path.read_text())))}
    assert named - BY_TAG == {"transship"}


def _images(node: Any) -> list[str]:
    if isinstance(node, dict):
        here = [node["image"]] if isinstance(node.get("image"), str) else []
        return [*here, *(name for value in node.values() for name in _images(value))]
    return [name for value in node for name in _images(value)] if isinstance(node, list) else []


def test_digests_are_renewed_and_a_tag_that_moved_is_told(
    registry: DockerRegistry, repository: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pins = program("pins")
    name = f"{registry.host}/{repository}:v1"
    first, second = image(1), image(2)
    push(registry.url, repository, first, "v1")
    compose, dockerfile = tmp_path / "compose.yaml", tmp_path / "Dockerfile"
    compose.write_text(f"services:\n  web:\n    image: {name}\n  ours:\n    image: transship\n")
    dockerfile.write_text(f"FROM {name} AS build\nRUN x\n")

    assert pins.main([str(compose), str(dockerfile)]) == 0
    assert compose.read_text() == (
        f"services:\n  web:\n    image: {name}@{first.digest}\n  ours:\n    image: transship\n"
    )
    assert dockerfile.read_text() == f"FROM {name}@{first.digest} AS build\nRUN x\n"
    assert pins.main(["--check", str(compose)]) == 0

    push(registry.url, repository, second, "v1")
    assert pins.main(["--check", str(compose)]) == 1
    assert second.digest in capsys.readouterr().err
    assert first.digest in compose.read_text()
    assert pins.main([str(compose)]) == 0
    assert second.digest in compose.read_text()


def test_an_image_that_can_not_be_asked_for_stays_as_it_is(registry: DockerRegistry, tmp_path: Path) -> None:
    pins = program("pins")
    path = tmp_path / "compose.yaml"
    path.write_text(f"    image: {registry.host}/none/such:v1@sha256:{'a' * 64}\n")
    before = path.read_text()

    assert pins.main([str(path)]) == 1
    assert path.read_text() == before
