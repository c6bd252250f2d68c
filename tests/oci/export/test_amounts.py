"""Sizes that a manifest states: an archive is laid out by them, so each is judged before anything is written."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from oci.archive.entry import IMGPKG, OCI_LAYOUT
from oci.archive.options import ExportOptions
from oci.errors import InvalidManifest
from oci.export.tar_plan import MOST_PARTS_OF_A_FILE, MemberContent, cut, lay_out
from tests.servers.docker_registry import DockerRegistry
from tests.support.archiving import archived
from tests.support.command import transship
from tests.support.content import Content as Made
from tests.support.content import compact, image, layer, push
from tests.support.shop import push_shop


def stating(content: Made, size: int) -> Made:
    """The same image, whose manifest says that its layer has another size."""
    body = json.loads(content.raw)
    body["layers"][0]["size"] = size
    return replace(content, raw=compact(body))


@pytest.mark.parametrize("form", [IMGPKG, OCI_LAYOUT])
@pytest.mark.parametrize(
    ("size", "said"), [(0, "isn't their digest"), (1 << 52, "--max-blob-size"), (1 << 41, "limit")]
)
def test_a_layer_of_an_impossible_size_is_refused_before_anything_is_written(
    registry: DockerRegistry, repository: str, tmp_path: Path, size: int, said: str, form: str
) -> None:
    push(registry.url, repository, stating(image(81), size), "v1")
    with pytest.raises(InvalidManifest) as caught:
        archived(tmp_path / "x.tar", image=f"{registry.host}/{repository}:v1", options=ExportOptions(format=form))

    assert said in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", [("copy",), ("archive", "plan")])
def test_the_command_says_the_same(
    registry: DockerRegistry, repository: str, tmp_path: Path, command: tuple[str, ...]
) -> None:
    push(registry.url, repository, stating(image(81), 1 << 52), "v1")
    done = transship(*command, "-i", f"{registry.host}/{repository}:v1", "--to-tar", str(tmp_path / "x.tar"))

    assert done.code == 1
    assert "4503599627370496 bytes" in done.err
    assert "--max-blob-size" in done.err


@pytest.mark.parametrize("size", [0, 7, 1 << 40])
@pytest.mark.parametrize("command", ["copy", "pull", "verify", "verify --deep"])
def test_a_layer_of_another_size_is_moved_by_no_command(
    registry: DockerRegistry, repository: str, tmp_path: Path, size: int, command: str
) -> None:
    push(registry.url, repository, stating(image(84), size), "v1")
    reference, folder = f"{registry.host}/{repository}:v1", tmp_path / "out"
    arguments = {
        "copy": ["copy", "-i", reference, "--to-repo", f"oci:{folder}"],
        "pull": ["pull", "-i", reference, "-o", str(folder)],
    }.get(command, [*command.split(), reference])

    done = transship(*arguments)

    assert done.code == 1
    assert not (folder / "index.json").exists() or not json.loads((folder / "index.json").read_text())["manifests"]
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size > 10_000]


def test_the_limit_is_a_setting(registry: DockerRegistry, repository: str, tmp_path: Path) -> None:
    push(registry.url, repository, image(82, layers=[layer(82, 5000)]), "v1")
    with pytest.raises(InvalidManifest, match="4000 are the limit"):
        archived(
            tmp_path / "x.tar", image=f"{registry.host}/{repository}:v1", options=ExportOptions(max_blob_size=4000)
        )
    archived(tmp_path / "x.tar", image=f"{registry.host}/{repository}:v1", options=ExportOptions(max_blob_size=6000))


def test_a_file_has_a_bounded_number_of_parts() -> None:
    plan = lay_out(IMGPKG, [MemberContent("a.tar.gz", 5 << 40), MemberContent("b.tar.gz", 10)])
    parts = cut(plan, smallest=1, most=MOST_PARTS_OF_A_FILE)

    assert len(parts) <= MOST_PARTS_OF_A_FILE
    assert parts[-1].end == plan.size


@pytest.mark.parametrize("form", [IMGPKG, OCI_LAYOUT])
def test_every_command_counts_the_same_blobs(
    registry: DockerRegistry, repository: str, tmp_path: Path, form: str
) -> None:
    shop = push_shop(registry.url, repository, seed=83)
    path, report = str(tmp_path / "x.tar"), tmp_path / "report.json"
    flags = ("-b", shop.reference, "--tar-format", form, "--artifacts", "cosign,referrers")
    made = transship("copy", *flags, "--to-tar", path, "--report", str(report))
    assert made.code == 0, made.err
    listed = json.loads(transship("archive", "list", path, "--blobs", "--json").out)
    blobs = len(listed["Tables"][0]["Rows"])

    assert json.loads(report.read_text())["blobs"] == blobs
    for command in (
        ("archive", "list", path),
        ("archive", "verify", path),
        ("archive", "plan", *flags, "--to-tar", path),
    ):
        done = transship(*command)
        assert f", {blobs} blobs" in done.out + done.err, (command, done.out, done.err)
    assert f", {blobs} blobs" in made.out + made.err
