"""Archives made from real registries: imgpkg's bytes, at any concurrency, in every form."""

from __future__ import annotations

import hashlib
import json
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from oci import ReceiptOptions, copy
from oci.archive import manifest_json
from oci.archive.entry import OCI_LAYOUT
from oci.archive.options import ExportOptions
from oci.errors import Incomplete, InvalidInput, InvalidManifest
from oci.export.export import ArchiveReport, sums_of, write_archive, write_sums
from tests.servers.docker_registry import DockerRegistry
from tests.servers.skopeo import raw_manifest, skopeo
from tests.support import imgpkg_tarball as imgpkg
from tests.support.archiving import archived, imported, planned
from tests.support.command import transship
from tests.support.content import (
    FOREIGN_LAYER,
    OCI_LAYER,
    Blob,
    Content,
    artifact,
    bundle,
    compact,
    digest_of,
    image,
    index,
    layer,
    push,
    signature_tag,
)
from tests.support.relocating import session
from tests.support.shop import Shop, push_shop


@pytest.fixture(scope="module")
def shop(registry: DockerRegistry) -> Shop:
    return push_shop(registry.url, "archives/shop", seed=31)


def expected(shop: Shop) -> bytes:
    """What imgpkg writes for the shop with its signatures."""
    home = shop.reference.rpartition("/")[0]
    root = f"{home}/bundle@{shop.bundle.digest}"

    def at(name: str, content: Content) -> tuple[str, str]:
        return f"{home}/{name}", f"{home}/{name}@{content.digest}"

    elements = [
        imgpkg.image(shop.web, *at("web", shop.web)),
        imgpkg.image(shop.signature, f"{home}/web", tag=signature_tag(shop.web)),
        imgpkg.index(shop.tools, *at("tools", shop.tools)),
        imgpkg.index(shop.deep_tools, *at("deep-tools", shop.deep_tools)),
        imgpkg.image(shop.chart, *at("chart", shop.chart)),
        imgpkg.image(shop.database, *at("database", shop.database)),
        imgpkg.image(shop.nested, *at("nested", shop.nested)),
        imgpkg.image(shop.bundle, f"{home}/bundle", origin=root, tag="1.4.0", root=True),
    ]
    contents = [*shop.listed, shop.signature, shop.bundle]
    layers = {
        digest_of(blob.data): blob
        for content in contents
        for one in content.everything()
        for blob in one.blobs
        if "config" not in blob.media_type and "container.image" not in blob.media_type
    }
    return imgpkg.tarball(elements, list(layers.values()))


@pytest.mark.parametrize("concurrency", [1, 4, 16])
def test_scenario_6_the_archive_is_byte_for_byte_imgpkgs_at_any_concurrency(
    shop: Shop, tmp_path: Path, concurrency: int
) -> None:
    path = tmp_path / "shop.tar"
    report = archived(path, bundle=shop.reference, artifacts=("cosign",), concurrency=concurrency)

    assert path.read_bytes() == expected(shop)
    assert report.sizes == (path.stat().st_size,)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["shop.tar"]


def test_an_archive_of_many_parts_is_the_same_bytes(registry: DockerRegistry, repository: str, tmp_path: Path) -> None:
    blobs = [layer(seed, size) for seed, size in enumerate((12 << 20, 1000, 6 << 20))]
    made = image(1, layers=blobs)
    reference = push(registry.url, repository, made, "v1")
    source = f"{registry.host}/{repository}"
    want = imgpkg.tarball([imgpkg.image(made, source, tag="v1")], blobs)
    for concurrency in (1, 4, 16):
        path = tmp_path / f"{concurrency}.tar"
        report = archived(path, image=f"{source}:v1", concurrency=concurrency, options=ExportOptions(part_size=5 << 20))

        assert path.read_bytes() == want
        assert report.parts >= 4
    assert reference.endswith(made.digest)


def test_an_image_by_digest_has_neither_tag_nor_origin(
    registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    made = image(3)
    reference = push(registry.url, repository, made)
    archived(tmp_path / "x.tar", image=reference)

    want = imgpkg.tarball([imgpkg.image(made, f"{registry.host}/{repository}")], list(made.blobs[:1]))
    assert (tmp_path / "x.tar").read_bytes() == want


def test_texts_are_escaped_as_go_escapes_them(registry: DockerRegistry, repository: str, tmp_path: Path) -> None:
    made = image(4, labels={"odd": "<a href='x'>&\u2028\u2029é\U0001f6a2\"\\\x7f"})
    push(registry.url, repository, made, "v1")
    archived(tmp_path / "x.tar", image=f"{registry.host}/{repository}:v1")

    want = imgpkg.tarball([imgpkg.image(made, f"{registry.host}/{repository}", tag="v1")], list(made.blobs[:1]))
    assert (tmp_path / "x.tar").read_bytes() == want


def test_scenario_10_a_layer_that_is_listed_twice_is_there_once(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    twice = layer(5)
    made = image(5, layers=[twice, twice])
    push(registry.url, repository, made, "v1")
    path = tmp_path / "x.tar"
    archived(path, image=f"{registry.host}/{repository}:v1")

    with tarfile.open(path) as archive:
        assert len(archive.getnames()) == 2
        file = archive.extractfile("manifest.json")
        assert file is not None
        listed = json.loads(file.read())[0]["Image"]["Layers"]
    assert [one["Digest"] for one in listed] == [digest_of(twice.data)] * 2
    imported(f"{other_registry.host}/{repository}", path)
    assert raw_manifest(f"{other_registry.host}/{repository}:v1") == made.raw


def test_scenario_11_a_foreign_layer_is_listed_and_left_out(
    registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    foreign = Blob(FOREIGN_LAYER, layer(6).data, urls=("https://foreign.invalid/layer",), absent=True)
    made = image(6, layers=[foreign, layer(7)])
    push(registry.url, repository, made, "v1")
    path = tmp_path / "x.tar"
    with session() as one:
        plan = planned(one, path, image=f"{registry.host}/{repository}:v1")
    archived(path, image=f"{registry.host}/{repository}:v1")

    with tarfile.open(path) as archive:
        assert archive.getnames() == ["manifest.json", manifest_json.member_name(plan.blobs[0].digest)]
        file = archive.extractfile("manifest.json")
        assert file is not None
        listed = json.loads(file.read())[0]["Image"]["Layers"]
    assert [one["Digest"] for one in listed] == [digest_of(foreign.data), digest_of(layer(7).data)]


def test_scenario_19_a_zstd_layer_has_the_usual_name_and_keeps_its_digest(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    zstd = Blob("application/vnd.oci.image.layer.v1.tar+zstd", b"\x28\xb5\x2f\xfd" + bytes(200))
    made = image(8, layers=[zstd])
    push(registry.url, repository, made, "v1")
    path = tmp_path / "x.tar"
    archived(path, image=f"{registry.host}/{repository}:v1")

    with tarfile.open(path) as archive:
        assert archive.getnames()[1] == f"{digest_of(zstd.data).replace(':', '-')}.tar.gz"
    imported(f"{other_registry.host}/{repository}", path)
    assert raw_manifest(f"{other_registry.host}/{repository}:v1") == made.raw


def test_skopeo_copies_images_out_of_an_image_layout(
    shop: Shop, other_registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    path = tmp_path / "layout.tar"
    archived(path, bundle=shop.reference, options=ExportOptions(format=OCI_LAYOUT), artifacts=("referrers",))

    with tarfile.open(path) as archive:
        names = archive.getnames()
        listed = json.loads(archive.extractfile("index.json").read())["manifests"]  # type: ignore[union-attr]
        assert names[:2] == ["oci-layout", "index.json"]
        assert archive.extractfile("oci-layout").read() == b'{"imageLayoutVersion":"1.0.0"}'  # type: ignore[union-attr]
        assert len(names) == len(set(names))
        for name in names[2:]:
            assert hashlib.sha256(archive.extractfile(name).read()).hexdigest() == name.rpartition("/")[2]  # type: ignore[union-attr]
    assert shop.referrer.digest in {one["digest"] for one in listed}
    # Not the bundle, for skopeo passes over Docker's types in a layout, nor an index of indexes, which it can't copy.
    for content in (shop.tools, shop.database):
        target = f"{other_registry.host}/{repository}:copied-{content.hex[:8]}"
        name = f"sha256-{content.hex}.imgpkg"
        skopeo("copy", "--all", "--dest-tls-verify=false", f"oci-archive:{path}:{name}", f"docker://{target}")
        assert raw_manifest(target) == content.raw


def test_skopeo_copies_an_image_out_of_an_image_layout_by_its_tag(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    made = image(13)
    push(registry.url, repository, made, "v1")
    path = tmp_path / "layout.tar"
    archived(path, image=f"{registry.host}/{repository}:v1", options=ExportOptions(format=OCI_LAYOUT))
    target = f"{other_registry.host}/{repository}:copied"
    skopeo("copy", "--dest-tls-verify=false", f"oci-archive:{path}:v1", f"docker://{target}")

    assert raw_manifest(target) == made.raw


def test_an_image_of_skopeos_own_archive_is_read(
    shop: Shop, other_registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    path = tmp_path / "skopeo.tar"
    home = shop.reference.rpartition("/")[0]
    skopeo("copy", "--all", "--src-tls-verify=false", f"docker://{home}/tools:v1", f"oci-archive:{path}:v1")
    imported(f"{other_registry.host}/{repository}", path)

    assert raw_manifest(f"{other_registry.host}/{repository}:v1") == shop.tools.raw


@pytest.mark.parametrize("kind", ["imgpkg", "oci-layout"])
def test_a_second_session_makes_the_same_plan(shop: Shop, tmp_path: Path, kind: str) -> None:
    plans = []
    for _ in range(2):
        with session() as one:
            plans.append(planned(one, tmp_path / "x.tar", bundle=shop.reference, options=ExportOptions(format=kind)))

    assert plans[0] == plans[1]
    assert plans[0].fingerprint == plans[1].fingerprint


def test_an_archive_has_everything_or_is_not_made(registry: DockerRegistry, repository: str, tmp_path: Path) -> None:
    missing = f"{registry.host}/{repository}/gone@sha256:{'1' * 64}"
    push(registry.url, repository, bundle([missing]), "v1")

    with pytest.raises(Incomplete, match="an archive has everything") as caught:
        archived(tmp_path / "x.tar", bundle=f"{registry.host}/{repository}:v1")
    assert missing in str(caught.value.failures[0])
    assert not list(tmp_path.iterdir())


def test_a_config_that_is_no_text_needs_the_other_format(
    registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    made = artifact(9, config=Blob("application/octet-stream", b"\xff\xfe\x00"))
    push(registry.url, repository, made, "v1")
    reference = f"{registry.host}/{repository}:v1"

    with pytest.raises(InvalidManifest, match="isn't UTF-8") as caught:
        archived(tmp_path / "x.tar", image=reference)
    assert "--tar-format oci-layout" in caught.value.hint
    archived(tmp_path / "x.tar", image=reference, options=ExportOptions(format=OCI_LAYOUT))
    assert (tmp_path / "x.tar").exists()


def test_an_empty_list_makes_an_archive_of_nothing(
    other_registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    lock = tmp_path / "images.yml"
    lock.write_text("apiVersion: imgpkg.carvel.dev/v1alpha1\nkind: ImagesLock\n")
    archived(tmp_path / "x.tar", lock=str(lock))

    assert (tmp_path / "x.tar").read_bytes() == imgpkg.tarball([], [])
    assert not imported(f"{other_registry.host}/{repository}", tmp_path / "x.tar").outcomes


def test_the_library_proves_an_archive_that_it_has_written(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A layer is spoiled on the disk, right after it was written."""
    source, receipt = shop.reference, tmp_path / "receipt.json"
    copy(source, f"archive:{tmp_path}/good.tar", verify="deep", receipts=ReceiptOptions(receipt=str(receipt)))
    assert json.loads(receipt.read_text())["predicate"]["verification"]["bytes_hashed"]

    def write_and_spoil(*args: Any, **more: Any) -> ArchiveReport:
        report = write_archive(*args, **more)
        path = Path(report.locations[0])
        data = shop.web.blobs[0].data
        path.write_bytes(path.read_bytes().replace(data, b"x" * len(data)))
        return report

    monkeypatch.setattr("oci.export.export.write_archive", write_and_spoil)
    copy(source, f"archive:{tmp_path}/unproven.tar")
    with pytest.raises(Incomplete, match="1 problem in "):
        copy(source, f"archive:{tmp_path}/bad.tar", verify="deep")
    with pytest.raises(InvalidInput, match="can't be written with verify"):
        copy(source, f"docker-archive:{tmp_path}/docker.tar", verify="head")


def test_sums_are_those_of_sha256sum(shop: Shop, tmp_path: Path) -> None:
    path = tmp_path / "shop.tar"
    report = archived(path, bundle=shop.reference)
    with session() as one:
        sums = sums_of(one, report.locations)
        write_sums(one, sums, str(path))

    want = hashlib.sha256(path.read_bytes()).hexdigest()
    assert sums == {str(path): want}
    assert (tmp_path / "shop.tar.SHA256SUMS").read_text() == f"{want}  shop.tar\n"
    assert len(list(tmp_path.iterdir())) == 2


def test_an_index_that_lists_a_blob_brings_it_along(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    cache = Blob("application/vnd.buildkit.cacheconfig.v0", b'{"layers":[]}')
    child = image(10)
    body = json.loads(index([child]).raw)
    body["manifests"].append(cache.descriptor())
    made = Content("application/vnd.oci.image.index.v1+json", compact(body), (cache,), (child,))
    push(registry.url, repository, made, "v1")
    path = tmp_path / "x.tar"
    archived(path, image=f"{registry.host}/{repository}:v1")
    imported(f"{other_registry.host}/{repository}", path)

    assert raw_manifest(f"{other_registry.host}/{repository}:v1") == made.raw


def test_options_that_make_no_sense_are_refused() -> None:
    for options in ({"format": "zip"}, {"part_size": 1000}, {"max_size": -1}):
        with pytest.raises(InvalidInput):
            ExportOptions(**options)


def test_layers_of_other_kinds_have_no_diff_id(registry: DockerRegistry, repository: str, tmp_path: Path) -> None:
    made = image(11, layers=[Blob("application/vnd.example.data", b"data"), Blob(OCI_LAYER, layer(12).data)])
    push(registry.url, repository, made, "v1")
    path = tmp_path / "x.tar"
    archived(path, image=f"{registry.host}/{repository}:v1")

    want = imgpkg.tarball([imgpkg.image(made, f"{registry.host}/{repository}", tag="v1")], list(made.blobs[:2]))
    assert path.read_bytes() == want


def test_an_archive_says_which_tags_skopeo_does_not_find(
    registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    """What it says is what skopeo does: it finds the OCI image by its tag, and not Docker's."""
    for name, docker in (("oci", False), ("docker", True)):
        push(registry.url, repository, image(90, docker=docker), name)
        path = tmp_path / f"{name}.tar"
        flags = ("-i", f"{registry.host}/{repository}:{name}", "--tar-format", "oci-layout", "--to-tar", str(path))
        done = transship("copy", *flags)
        assert done.code == 0, done.err
        inspected = subprocess.run(
            ["skopeo", "inspect", "--raw", f"oci-archive:{path}:{name}"], capture_output=True, check=False
        )
        assert (inspected.returncode == 0) == (not docker)
        assert ("skopeo doesn't find" in done.err + done.out) == docker


@pytest.mark.parametrize("name", ["a b.tar", "a\nb.tar", "back\\slash.tar", "a\udcff.tar"])
def test_the_checksums_name_any_file_as_sha256sum_reads_it(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"archive")
    with session() as one:
        write_sums(one, sums_of(one, [str(path)]), str(path))
    checked = subprocess.run(
        ["sha256sum", "--check", f"{name}.SHA256SUMS"], cwd=tmp_path, capture_output=True, check=False
    )

    assert checked.returncode == 0, checked.stderr
