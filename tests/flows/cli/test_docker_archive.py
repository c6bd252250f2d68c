"""docker-archive: and oci-archive:, both ways, with what skopeo writes and reads; and archives as `docker save` and
other programs write them."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

import oci
from flows.cli.output import ExitCode
from tests.servers.docker_registry import DockerRegistry
from tests.support.command import Done, transship
from tests.support.content import OCI_CONFIG, OCI_MANIFEST, Blob, Content, compact, image, index, push

SKOPEO = ("skopeo", "--insecure-policy")


def skopeo(*words: str) -> str:
    plain = ("--src-tls-verify=false", "--dest-tls-verify=false") if words[0] == "copy" else ()
    done = subprocess.run([*SKOPEO, words[0], *plain, *words[1:]], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def layer(seed: int) -> bytes:
    """An unpacked layer."""
    with io.BytesIO() as data:
        with tarfile.open(fileobj=data, mode="w") as packed:
            member = tarfile.TarInfo(f"file-{seed}")
            member.size = 40 * seed
            packed.addfile(member, io.BytesIO(bytes(40 * seed)))
        return data.getvalue()


def saved(path: Path, layers: list[bytes], *, names: list[str], change: dict[str, Any] | None = None) -> str:
    """As `docker save` up to 24 writes it: layers in folders of their own, those that are there already as links."""
    diff_ids = [f"sha256:{hashlib.sha256(one).hexdigest()}" for one in layers]
    rootfs = {"type": "layers", "diff_ids": diff_ids}
    config = json.dumps({"os": "linux", "architecture": "amd64", "rootfs": rootfs} | (change or {})).encode()
    written: dict[bytes, str] = {}
    with tarfile.open(path, "w") as packed:

        def add(name: str, data: bytes) -> None:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            packed.addfile(member, io.BytesIO(data))

        files = [f"{number:064x}/layer.tar" for number in range(len(layers))]
        for name, data in zip(files, layers, strict=True):
            if data in written:
                link = tarfile.TarInfo(name)
                link.type, link.linkname = tarfile.SYMTYPE, f"../{written[data]}"
                packed.addfile(link)
            else:
                written[data] = name
                add(name, data)
        add("config.json", config)
        add("manifest.json", json.dumps([{"Config": "config.json", "RepoTags": names, "Layers": files}]).encode())
    return str(path)


def listed(tar: str) -> list[dict[str, Any]]:
    done = transship("archive", "list", tar, "--json")
    assert done.code == ExitCode.DONE, done.err
    images: list[dict[str, Any]] = json.loads(done.out)["Result"]["images"]
    return images


@pytest.fixture
def web(registry: DockerRegistry, repository: str) -> Content:
    content = image(51)
    push(registry.url, repository, content, "1.0")
    return content


def test_what_is_written_skopeo_reads_and_back(
    web: Content, registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    tar, name = str(tmp_path / "web.tar"), f"{registry.host}/{repository}"

    done = transship("copy", "-i", f"{name}:1.0", "--to-repo", f"docker-archive:{tar}:shop/web:2.0", "--json")

    assert done.code == ExitCode.DONE, done.err
    assert json.loads(done.out)["Result"]["names"] == ["shop/web:2.0"]
    skopeo("copy", f"docker-archive:{tar}:shop/web:2.0", f"docker://{name}:by-skopeo")
    config = json.loads(skopeo("inspect", "--config", "--tls-verify=false", f"docker://{name}:by-skopeo"))
    assert config["rootfs"] == json.loads(next(one.data for one in web.blobs if "config" in one.media_type))["rootfs"]
    assert transship("copy", "-i", f"docker-archive:{tar}", "--to-repo", name).code == ExitCode.DONE
    assert "2.0" in transship("tag", "list", "-i", name).out.split()
    assert transship("verify", f"{name}:2.0", "--deep").code == ExitCode.DONE


def test_what_skopeo_writes_is_read(web: Content, registry: DockerRegistry, repository: str, tmp_path: Path) -> None:
    tar, name = str(tmp_path / "web.tar"), f"{registry.host}/{repository}"
    skopeo("copy", f"docker://{name}:1.0", f"docker-archive:{tar}:shop/web:3.0")

    assert [(one["tag"], one["kind"]) for one in listed(tar)] == [("3.0", "image")]
    assert transship("archive", "verify", tar, "--deep").code == ExitCode.DONE
    copied = transship(
        "copy", "-i", f"docker-archive:{tar}:shop/web:3.0", "--to-repo", f"{registry.host}/{repository}/to"
    )
    assert copied.code == ExitCode.DONE, copied.err
    again = json.loads(transship("inspect", f"{registry.host}/{repository}/to:3.0", "--json").out)["Result"]
    there = json.loads(transship("inspect", f"docker-archive:{tar}", "--json").out)["Result"]
    assert again["digest"] == there["digest"]
    missing = transship(
        "copy", "-i", f"docker-archive:{tar}:shop/web:4.0", "--to-repo", f"{registry.host}/{repository}/to"
    )
    assert missing.code == ExitCode.FAILED


def test_several_images_share_layers_in_one_file(registry: DockerRegistry, repository: str, tmp_path: Path) -> None:
    lock, tar = tmp_path / "images.yml", str(tmp_path / "all.tar")
    references = [push(registry.url, f"{repository}/{n}", image(60 + n)) for n in (1, 2)]
    images = "".join(f"- image: {one}\n" for one in [*references, references[0]])
    lock.write_text(f"apiVersion: imgpkg.carvel.dev/v1alpha1\nkind: ImagesLock\nimages:\n{images}")

    done = transship("copy", "--lock", str(lock), "--to-repo", f"docker-archive:{tar}")

    assert done.code == ExitCode.DONE, done.err
    assert len(listed(tar)) == 2
    named = transship("copy", "--lock", str(lock), "--to-repo", f"docker-archive:{tar}:web:1")
    assert named.code == ExitCode.USAGE


def test_an_index_needs_a_platform(registry: DockerRegistry, repository: str, tmp_path: Path) -> None:
    content = index([image(71), image(72)], ["linux/amd64", "linux/arm64"])
    push(registry.url, repository, content, "1.0")
    words = ("copy", "-i", f"{registry.host}/{repository}:1.0", "--to-repo", f"docker-archive:{tmp_path}/web.tar")

    refused = transship(*words)
    assert (refused.code, "--platform" in refused.err) == (ExitCode.USAGE, True)
    assert list(tmp_path.iterdir()) == []
    assert transship(*words, "--platform", "linux/arm64").code == ExitCode.DONE
    assert [one["tag"] for one in listed(f"{tmp_path}/web.tar")] == ["1.0"]


def test_links_and_compressed_layers_are_followed(registry: DockerRegistry, repository: str, tmp_path: Path) -> None:
    one, two = layer(1), layer(2)
    linked = saved(tmp_path / "linked.tar", [one, two, one], names=["web:1.0", "web:latest"])

    assert [entry["tag"] for entry in listed(linked)] == ["1.0", "latest"]
    assert transship("archive", "verify", linked, "--deep").code == ExitCode.DONE
    to = f"{registry.host}/{repository}"
    assert transship("copy", "--tar", linked, "--to-repo", to).code == ExitCode.DONE
    found = json.loads(transship("inspect", f"{to}:1.0", "--json").out)["Result"]
    sizes = [each["size"] for each in found["images"][0]["layers"]]
    assert sizes == [len(one), len(two), len(one)]
    packed = gzip.compress(two)
    rootfs = {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(two).hexdigest()}"]}
    kaniko = saved(tmp_path / "packed.tar", [packed], names=["web:2.0"], change={"rootfs": rootfs})
    assert transship("archive", "verify", kaniko, "--deep").code == ExitCode.DONE
    (read,) = json.loads(transship("inspect", "--tar", kaniko, "--json").out)["Result"]["images"]
    assert read["layers"][0]["digest"] == f"sha256:{hashlib.sha256(packed).hexdigest()}"
    assert read["layers"][0]["media_type"].endswith("+gzip")


@pytest.mark.parametrize(
    "change",
    [
        {"rootfs": {"diff_ids": []}},
        {"rootfs": {"diff_ids": ["sha256:../../../etc"]}},
        {"rootfs": {"diff_ids": [7]}},
        {"rootfs": 7},
        {"rootfs": {"diff_ids": ["sha256:" + "0" * 64]}},
    ],
)
def test_a_forged_archive_never_arrives(
    change: dict[str, Any], registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    tar = saved(tmp_path / "forged.tar", [layer(3)], names=["web:1.0"], change=change)

    done = transship("copy", "--tar", tar, "--to-repo", f"{registry.host}/{repository}")

    assert done.code == ExitCode.FAILED
    assert transship("tag", "list", "-i", f"{registry.host}/{repository}").out.strip() == ""


@pytest.mark.parametrize("name", ["../../../admin/manifests/latest", "web:..", "UPPER/web:1", "web@sha256:1"])
def test_a_name_that_is_none_is_refused(name: str, tmp_path: Path) -> None:
    tar = saved(tmp_path / "named.tar", [layer(4)], names=[name])

    assert transship("archive", "list", tar).code == ExitCode.FAILED


def test_a_layer_that_is_not_what_the_config_says_is_not_written(
    registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    rootfs = {"type": "layers", "diff_ids": ["sha256:" + "0" * 64]}
    packed = gzip.compress(layer(5))
    tar = saved(tmp_path / "other.tar", [packed], names=["web:1.0"], change={"rootfs": rootfs})
    assert transship("copy", "--tar", tar, "--to-repo", f"oci:{tmp_path}/folder").code == ExitCode.DONE

    done = transship("copy", "-i", f"oci:{tmp_path}/folder:1.0", "--to-repo", f"docker-archive:{tmp_path}/out.tar")

    assert done.code == ExitCode.FAILED
    assert not [path for path in tmp_path.iterdir() if "out.tar" in path.name]


def test_an_image_whose_config_says_nothing_of_layers_is_not_written(
    registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    config = Blob(OCI_CONFIG, b"{}")
    body = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config.descriptor(), "layers": []}
    push(registry.url, repository, Content(OCI_MANIFEST, compact(body), (config,)), "1.0")

    done = transship("copy", "-i", f"{registry.host}/{repository}:1.0", "--to-repo", f"docker-archive:{tmp_path}/a.tar")

    assert done.code == ExitCode.USAGE, done.err
    assert "--tar-format oci-layout" in done.err
    assert list(tmp_path.iterdir()) == []


def test_layers_with_long_digests_keep_their_bytes(tmp_path: Path) -> None:
    """The name of a member with all 128 digits takes three blocks of a tar, and one is left free for it."""
    data = layer(6)
    rootfs = {"type": "layers", "diff_ids": [f"sha512:{hashlib.sha512(data).hexdigest()}"]}
    tar = saved(tmp_path / "a.tar", [gzip.compress(data)], names=["web:1.0"], change={"rootfs": rootfs})
    out = tmp_path / "out.tar"

    assert transship("copy", "--tar", tar, "--to-repo", f"oci:{tmp_path}/folder").code == ExitCode.DONE

    done = transship("copy", "-i", f"oci:{tmp_path}/folder:1.0", "--to-repo", f"docker-archive:{out}")

    assert done.code == ExitCode.DONE, done.err
    with tarfile.open(out) as written:
        assert data in [written.extractfile(member).read() for member in written]  # type: ignore[union-attr]


def wrong(*more: str) -> Done:
    return transship("copy", "-i", "127.0.0.1:1/web:1.0", *more)


def test_what_such_an_archive_can_not_have_is_refused_before_any_request(tmp_path: Path) -> None:
    place = f"docker-archive:{tmp_path}/web.tar"

    for more in ("--resume", "--plan", "--verify=head"):
        assert wrong("--to-repo", place, more).code == ExitCode.USAGE, more
    assert wrong("--to-repo", "docker-archive:").code == ExitCode.USAGE
    assert wrong("--to-repo", place, "--to-tar", "x.tar").code == ExitCode.USAGE
    assert wrong("--to-repo", f"docker-archive:{tmp_path}/none/web.tar").code == ExitCode.USAGE


def test_a_pipe_is_not_replaced(web: Content, registry: DockerRegistry, repository: str, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    done = transship("copy", "-i", f"{registry.host}/{repository}:1.0", "--to-repo", f"docker-archive:{pipe}")

    assert done.code == ExitCode.FAILED, done.err
    assert str(pipe) in done.err
    assert pipe.is_fifo()
    assert list(tmp_path.iterdir()) == [pipe]


def test_oci_archives_have_skopeos_names_too(
    web: Content, registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    name = f"{registry.host}/{repository}"
    written = transship("copy", "-i", f"{name}:1.0", "--to-repo", f"oci-archive:{tmp_path}/ours.tar:5.0")
    assert written.code == ExitCode.DONE, written.err
    assert json.loads(skopeo("inspect", f"oci-archive:{tmp_path}/ours.tar:5.0"))["Digest"] == web.digest
    skopeo("copy", f"docker://{name}:1.0", f"oci-archive:{tmp_path}/theirs.tar:6.0")
    read = transship("copy", "-i", f"oci-archive:{tmp_path}/theirs.tar:6.0", "--to-repo", f"{name}/to")
    assert read.code == ExitCode.DONE, read.err
    assert transship("tag", "resolve", "-i", f"{name}/to:6.0").out.endswith(web.digest)


def test_the_library_has_both_names_too(
    web: Content, registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    source = f"{registry.host}/{repository}:1.0"
    oci.copy(source, f"docker-archive:{tmp_path}/docker.tar:shop/web:2.0")
    oci.copy(f"docker-archive:{tmp_path}/docker.tar:shop/web:2.0", f"oci:{tmp_path}/from-docker")
    oci.copy(source, f"oci-archive:{tmp_path}/oci.tar:2.0")
    oci.copy(f"oci-archive:{tmp_path}/oci.tar", f"oci:{tmp_path}/from-oci")

    assert (
        json.loads(skopeo("inspect", f"docker-archive:{tmp_path}/docker.tar:shop/web:2.0"))["Architecture"] == "amd64"
    )
    assert oci.tags(f"oci:{tmp_path}/from-docker") == ("2.0",)
    assert json.loads(skopeo("inspect", f"oci:{tmp_path}/from-oci:2.0"))["Digest"] == web.digest
