"""`transship push` and `transship pull`: imgpkg's acceptance scenarios, against a real registry."""

from __future__ import annotations

import gzip
import io
import json
import os
import resource
import tarfile
from pathlib import Path

import httpx
import pytest

from tests.servers.docker_registry import DockerRegistry
from tests.servers.skopeo import raw_manifest
from tests.support.command import imgpkg, transship
from tests.support.content import DOCKER_LAYER, Blob, bundle, digest_of, image, index, layer, push
from tests.support.imgpkg_vectors import PUSHED
from tests.support.shop import Shop, push_shop


@pytest.fixture(scope="module")
def shop(registry: DockerRegistry) -> Shop:
    return push_shop(registry.url, "cli/pulled", seed=9)


def written(folder: Path, files: dict[str, tuple[bytes, int]]) -> Path:
    for name, (data, mode) in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        path.chmod(mode)
    return folder


LOCK = b"apiVersion: imgpkg.carvel.dev/v1alpha1\nkind: ImagesLock\n"
FILES: dict[str, dict[str, tuple[bytes, int]]] = {
    "V1": {"hello.txt": (b"hello\n", 0o644)},
    "V2": {"dir/hello.txt": (b"hello\n", 0o644), "dir/sub/run.sh": (b"#!/bin/sh\necho hi\n", 0o755)},
    "V3": {"d/.imgpkg/images.yml": (LOCK, 0o644)},
    "V4": {},
}


@pytest.mark.parametrize(
    ("vector", "arguments"),
    [("V1", ["-i", "-f", "hello.txt"]), ("V2", ["-i", "-f", "dir"]), ("V3", ["-b", "-f", "d"]), ("V4", ["-i"])],
)
def test_scenario_1_the_same_files_give_imgpkgs_digests(
    vector: str, arguments: list[str], registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    written(tmp_path, FILES[vector])
    reference = f"{registry.host}/{repository}:v1"
    kind, *files = arguments
    paths = [str(tmp_path / one) if not one.startswith("-") else one for one in files]

    done = imgpkg("push", kind, reference, *paths)

    assert done.code == 0, done.err
    assert raw_manifest(reference) == PUSHED[vector].manifest
    tags = registry.repository_tags(repository)
    assert len(tags) == 2
    assert "v1" in tags


def test_push_says_what_it_did_and_writes_a_lock(registry: DockerRegistry, repository: str, tmp_path: Path) -> None:
    written(tmp_path, {**FILES["V3"], "d/.git/x": (b"", 0o600), "d/config/.git": (b"kept", 0o600)})
    reference, lock = f"{registry.host}/{repository}", tmp_path / "lock.yml"
    done = transship(
        "push",
        "-b",
        reference,
        "-f",
        str(tmp_path / "d"),
        "-l",
        "team=shop,empty=",
        "--lock-output",
        str(lock),
        "--tty",
    )

    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert lines[:6] == [
        "dir: .", "dir: .imgpkg", "file: .imgpkg/images.yml", "dir: config", "file: config/.git", lines[5],
    ]  # fmt: skip
    digest = lines[5].partition("@")[2].rstrip("'")
    assert lines[5] == f"Pushed '{reference}@{digest}'"
    assert lock.read_text() == (
        "---\napiVersion: imgpkg.carvel.dev/v1alpha1\nbundle:\n"
        f"  image: {reference}@{digest}\n  tag: latest\nkind: BundleLock\n"
    )
    config = json.loads(raw_manifest(f"{reference}:latest"))["config"]["digest"]
    labels = httpx.get(f"{registry.url}/v2/{repository}/blobs/{config}").json()["config"]["Labels"]
    assert labels == {"dev.carvel.imgpkg.bundle": "true", "empty": "", "team": "shop"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-b", "r.example/aa", "-l", "dev.carvel.imgpkg.bundle=x"], "is reserved"),
        (["-b", "r.example/aa", "-i", "r.example/aa"], "Expected only one of image or bundle"),
        ([], "Expected either image or bundle"),
        (["-i", "r.example/aa", "--lock-output", "x"], "Lock output is not compatible with image"),
        (["-b", f"r.example/aa@sha256:{'1' * 64}"], "is a digest reference"),
        (["-i", "r.example/aa", "-f", "d"], "use -b instead of -i"),
        (["-b", "r.example/aa", "-f", "plain"], ".imgpkg"),
        (["-b", "r.example/aa", "-f", "d", "-f", "deep"], "multiple bundle"),
        (["-b", "r.example/aa", "-f", "above"], "direct"),
        (["-i", "r.example/aa", "-f", "plain", "-f", "plain"], "uplicate paths"),
        (["-i", "r.example/aa", "-f", "links"], "regular file"),
        (["-i", "r.example/aa", "-f", "missing"], "missing"),
    ],
)
def test_push_refuses_before_anything_is_sent(arguments: list[str], said: str, tmp_path: Path) -> None:
    written(
        tmp_path,
        {
            "d/.imgpkg/images.yml": (LOCK, 0o644),
            "plain/a": (b"", 0o644),
            "deep/.imgpkg/images.yml": (LOCK, 0o644),
            "above/x/.imgpkg/images.yml": (LOCK, 0o644),
            "links/a": (b"", 0o644),
        },
    )
    (tmp_path / "links" / "link").symlink_to("a")
    paths = [
        str(tmp_path / one) if position and arguments[position - 1] == "-f" else one
        for position, one in enumerate(arguments)
    ]
    done = transship("push", *paths)

    assert done.code == 2
    assert said.lower() in done.err.lower()


def test_a_bundle_goes_to_a_folder_and_on_to_a_registry(
    registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    written(tmp_path, FILES["V3"])
    folder = f"oci:{tmp_path}/layout"
    assert transship("push", "-b", f"{folder}:v1", "-f", str(tmp_path / "d")).code == 0
    assert transship("copy", "-b", f"{folder}:v1", "--to-repo", f"{registry.host}/{repository}").code == 0

    assert raw_manifest(f"{registry.host}/{repository}:v1") == PUSHED["V3"].manifest


def test_scenario_4_a_relocated_bundle_is_pulled_with_its_nested_one(
    shop: Shop, other_registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    target = f"{other_registry.host}/{repository}"
    assert transship("copy", "-b", shop.reference, "--to-repo", target).code == 0
    out = tmp_path / "out"
    done = transship("pull", "-b", f"{target}:1.4.0", "-r", "-o", str(out), "--tty")

    assert done.code == 0, done.err
    layer_digest = shop.bundle.blobs[0].descriptor()["digest"]
    nested_layer = shop.nested.blobs[0].descriptor()["digest"]
    assert done.out.splitlines()[:9] == [
        f"Pulling bundle '{target}@{shop.bundle.digest}'",
        f"  Extracting layer '{layer_digest}' (1/1)",
        "",
        "Nested bundles",
        f"  Pulling nested bundle '{target}@{shop.nested.digest}'",
        f"    Extracting layer '{nested_layer}' (1/1)",
        "",
        "Locating image lock file images...",
        (
            f"The bundle repo ({target}) is hosting every image specified in the bundle's Images Lock file "
            "(.imgpkg/images.yml)"
        ),
    ]
    lock = (out / ".imgpkg" / "images.yml").read_text()
    assert lock.startswith("---\napiVersion:")
    assert lock.count(f"image: {target}@sha256:") == 5
    nested = out / ".imgpkg" / "bundles" / f"sha256-{shop.nested.hex}"
    assert f"image: {target}@{shop.database.digest}" in (nested / ".imgpkg" / "images.yml").read_text()
    assert (out / "config.yml").read_text() == "kind: Shop\n"
    assert shop.nested.digest in (out / ".imgpkg" / "nested-bundles.md").read_text()


def test_scenario_5_from_its_source_the_lock_stays(shop: Shop, tmp_path: Path) -> None:
    done = transship("pull", "-b", shop.reference, "-o", str(tmp_path / "out"), "--tty")

    assert done.code == 0, done.err
    assert "One or more images not found in bundle repo; skipping lock file update" in done.out
    assert "/web@sha256:" in (tmp_path / "out" / ".imgpkg" / "images.yml").read_text()


def test_locations_that_are_wrong_are_not_believed(
    shop: Shop, other_registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    target = f"{other_registry.host}/{repository}"
    transship("copy", "-b", shop.reference, "--to-repo", target)
    httpx.delete(f"{other_registry.url}/v2/{repository}/manifests/{shop.chart.digest}")
    done = transship("pull", "-b", f"{target}:1.4.0", "-o", str(tmp_path / "out"), "--json")

    assert "skipping lock file update" in done.out


def test_scenarios_14_to_16_and_18_bundles_of_every_kind_are_pulled(
    registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    kinds = (
        bundle([], oci_types=True),
        bundle([], extra_layers=[layer(5, media_type=DOCKER_LAYER)]),
        bundle([], label="false"),
        bundle([]),
    )
    for number, content in enumerate(kinds):
        push(registry.url, f"{repository}/{number}", content, "v1")
        out = tmp_path / str(number)
        done = transship("pull", "-b", f"{registry.host}/{repository}/{number}:v1", "-o", str(out))

        assert done.code == 0, done.err
        assert "lock updated" in done.err
        assert (out / ".imgpkg" / "images.yml").read_text().startswith("---\n")


def test_scenario_23_a_path_that_leads_out_is_refused_and_nothing_is_written(
    registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        entry = tarfile.TarInfo("../evil.txt")
        entry.size = 4
        archive.addfile(entry, io.BytesIO(b"evil"))
    evil = image(1, layers=[Blob(DOCKER_LAYER, gzip.compress(stream.getvalue(), mtime=0))], docker=True)
    push(registry.url, repository, evil, "v1")
    out = tmp_path / "a" / "out"
    done = transship("pull", "-i", f"{registry.host}/{repository}:v1", "-o", str(out))

    assert done.code == 1
    assert "../evil.txt" in done.err
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert not out.exists()


def test_layers_are_applied_bottom_up_with_their_deletions(
    registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    def packed(files: dict[str, bytes]) -> Blob:
        from tests.support.content import tar_of

        return Blob(DOCKER_LAYER, gzip.compress(tar_of(files), mtime=0))

    content = image(
        1,
        layers=[packed({"a": b"old", "b": b"gone", "c": b"kept"}), packed({"a": b"new", ".wh.b": b""})],
        docker=True,
    )
    push(registry.url, repository, content, "v1")
    out = tmp_path / "out"
    assert transship("pull", "-i", f"{registry.host}/{repository}:v1", "-o", str(out)).code == 0

    assert {path.name: path.read_bytes() for path in out.iterdir()} == {"a": b"new", "c": b"kept"}


def test_lines_end_as_imgpkgs_do_on_a_terminal_and_in_json(
    registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    written(tmp_path, FILES["V1"])
    push = ("push", "-i", f"{registry.host}/{repository}:v1", "-f", str(tmp_path / "hello.txt"))
    pushed = f"Pushed '{registry.host}/{repository}@{digest_of(PUSHED['V1'].manifest)}'"

    assert transship(*push, "--tty").out == f"file: hello.txt\n{pushed}\nSucceeded\n"
    assert json.loads(transship(*push, "--json").out)["Lines"] == ["file: hello.txt\n", pushed, "Succeeded"]
    pulled = transship("pull", "-i", f"{registry.host}/{repository}:v1", "-o", str(tmp_path / "out"), "--tty")
    assert pulled.out.endswith("' (1/1)\n\nSucceeded\n")


def test_an_error_on_a_terminal_stands_apart_from_the_lines_before(tmp_path: Path) -> None:
    written(tmp_path, FILES["V1"])
    done = transship("push", "-i", "127.0.0.1:1/un/reachable", "-f", str(tmp_path / "hello.txt"), "--tty")

    assert (done.code, done.out) == (1, "file: hello.txt\n\n")
    assert "Connection refused" in done.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-b", "r.example/aa", "-i", "r.example/aa", "-o", "x"], "Expected only one of image, bundle, or lock"),
        (["-o", "x"], "Expected either image or bundle reference"),
        (["-b", "r.example/aa"], 'required flag(s) "output" not set'),
        (["-b", "r.example/aa", "-o", ""], "expected --output to be non-empty"),
        (["-b", "r.example/aa", "-o", "/"], "/"),
        (["-b", "r.example/aa", "-o", "."], "."),
        (["-b", "r.example/aa", "-o", ".."], ".."),
        (["-i", "r.example/aa", "-r", "-o", "x"], "Cannot use --recursive (-r)"),
        (["-b", "r.example/aa", "--image-is-bundle-check=false", "-o", "x"], "Cannot set --image-is-bundle-check"),
    ],
)
def test_pull_refuses_before_anything_is_asked(arguments: list[str], said: str) -> None:
    done = transship("pull", *arguments)

    assert done.code == 2
    assert said in done.err


def test_kinds_that_are_not_what_was_asked_for(registry: DockerRegistry, repository: str, tmp_path: Path) -> None:
    host, out = registry.host, str(tmp_path / "out")
    push(registry.url, f"{repository}/image", image(1), "v1")
    push(registry.url, f"{repository}/index", index([image(2)], ["linux/amd64"]), "v1")
    push(registry.url, f"{repository}/bundle", bundle([]), "v1")

    for flag, name, said in (
        ("-b", "image", "Did you use -i instead of -b?"),
        ("-b", "index", "Did you use -i instead of -b?"),
        ("-i", "bundle", "Expected bundle flag when pulling a bundle (hint: Use -b instead of -i for bundles)"),
        ("-i", "index", f"linux/amd64: {image(2).digest}"),
    ):
        done = transship("pull", flag, f"{host}/{repository}/{name}:v1", "-o", out)
        assert done.code == 2
        assert said in done.err
    assert not os.path.exists(out)
    raw = transship("pull", "-i", f"{host}/{repository}/bundle:v1", "--image-is-bundle-check=false", "-o", out)
    assert raw.code == 0, raw.err
    assert not Path(out, ".imgpkg", "images.yml").read_text().startswith("---")


def test_a_bundle_lock_is_pulled_and_an_imageslock_is_not(
    registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    reference = push(registry.url, repository, bundle([]), "v1")
    lock = tmp_path / "lock.yml"
    lock.write_text(
        f"apiVersion: imgpkg.carvel.dev/v1alpha1\nkind: BundleLock\nbundle:\n  image: {reference}\n  tag: v1\n"
    )
    assert transship("pull", "--lock", str(lock), "-o", str(tmp_path / "out")).code == 0

    lock.write_text("apiVersion: imgpkg.carvel.dev/v1alpha1\nkind: ImagesLock\n")
    done = transship("pull", "--lock", str(lock), "-o", str(tmp_path / "out"))
    assert done.code == 1
    assert "expected BundleLock" in done.err


def test_a_folder_that_no_pull_made_is_left_alone_and_a_failed_pull_leaves_the_old_one(
    registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    push(registry.url, repository, bundle([]), "v1")
    reference, out = f"{registry.host}/{repository}:v1", tmp_path / "out"
    written(out, {"mine.txt": (b"precious", 0o600)})
    done = transship("pull", "-b", reference, "-o", str(out))
    assert done.code == 2
    assert (out / "mine.txt").read_bytes() == b"precious"

    assert transship("pull", "-b", reference, "-o", str(out), "--replace").code == 0
    assert not (out / "mine.txt").exists()
    assert transship("pull", "-b", reference, "-o", str(out)).code == 0
    assert transship("pull", "-b", f"{reference}x", "-o", str(out)).code == 1
    assert (out / "config.yml").exists()


def test_what_a_pull_costs(registry: DockerRegistry, repository: str, tmp_path: Path) -> None:
    """A bound for noisy machines; what it takes is measured by the benchmarks."""
    push(registry.url, repository, bundle([]), "v1")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert transship("pull", "-b", f"{registry.host}/{repository}:v1", "-o", str(tmp_path / "out")).code == 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)

    assert (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime) < 1.5
