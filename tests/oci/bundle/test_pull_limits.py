"""What a pull refuses because of its amount."""

from __future__ import annotations

import gzip
from pathlib import Path

from tests.servers.docker_registry import DockerRegistry
from tests.support.command import transship
from tests.support.content import Blob, image, layer, push, tar_of


def test_a_layer_that_is_listed_thousands_of_times_is_refused(
    registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    same = layer(3)
    push(registry.url, repository, image(3, layers=[same] * 5000), "v1")
    done = transship("pull", "-i", f"{registry.host}/{repository}:v1", "-o", str(tmp_path / "out"))

    assert done.code == 1
    assert "lists the layer" in done.err
    assert not (tmp_path / "out").exists()


def test_a_layer_that_unpacks_to_far_too_much_is_refused_unless_it_is_allowed(
    registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    bomb = gzip.compress(tar_of({"zeros": bytes(100 << 20)}))
    push(registry.url, repository, image(4, layers=[Blob(layer(4).media_type, bomb)]), "v1")
    reference, out = f"{registry.host}/{repository}:v1", str(tmp_path / "out")
    done = transship("pull", "-i", reference, "-o", out)

    assert done.code == 1
    assert "--max-unpacked-ratio" in done.err
    assert f"{registry.host}/{repository}@sha256:" in done.err
    assert transship("pull", "-i", reference, "-o", out, "--max-unpacked-ratio", "5000").code == 0
    allowed = ("--max-unpacked-ratio", "5000", "--max-unpacked-size", "1MiB")
    too_many = transship("pull", "-i", reference, "-o", out, *allowed)
    assert too_many.code == 1
    assert "--max-unpacked-size" in too_many.err
