"""Archives as sources: of imgpkg's making and of others', whole and damaged; the origin is never asked."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest

from oci.archive.entry import OCI_LAYOUT
from oci.archive.options import ExportOptions
from oci.bundle import tagnames
from oci.digest import Digest
from oci.errors import Incomplete, IntegrityError, InvalidInput, InvalidManifest, NotFound, TransshipError
from oci.reference import ArchiveName
from oci.relocation.report import result_lock
from oci.relocation.request import RelocationRequest
from tests.servers.docker_registry import DockerRegistry
from tests.servers.skopeo import raw_manifest
from tests.support.archiving import archived, imported
from tests.support.content import FOREIGN_LAYER, Blob, bundle, digest_of, image, layer, push, push_blob, signature_tag
from tests.support.relocating import copied, session
from tests.support.shop import Shop, push_shop


@pytest.fixture(scope="module")
def gone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Shop, Path]:
    """A shop and its archive, made from a registry that is no more."""
    folder = tmp_path_factory.mktemp("origin")
    with DockerRegistry(folder / "registry") as origin:
        shop = push_shop(origin.url, "origin/shop", seed=41)
        archived(folder / "shop.tar", bundle=shop.reference, artifacts=("all",))
        options = ExportOptions(format=OCI_LAYOUT)
        archived(folder / "layout.tar", bundle=shop.reference, options=options)
    return shop, folder / "shop.tar"


def rewritten(path: Path, target: Path, *, reverse: bool = False, format: int = tarfile.USTAR_FORMAT) -> Path:  # noqa: A002
    """The same members as another program would write them."""
    with tarfile.open(path) as archive, tarfile.open(target, "w", format=format) as out:
        members = archive.getmembers()
        for member in reversed(members) if reverse else members:
            data = archive.extractfile(member)
            assert data is not None
            if format == tarfile.PAX_FORMAT:
                member.mtime = 1700000000.5
                member.pax_headers = {"comment": "é"}
            out.addfile(member, data)
    return target


def with_member(path: Path, target: Path, name: str, data: bytes | None) -> Path:
    """The same archive with other bytes in one member, or without it."""
    with tarfile.open(path) as archive, tarfile.open(target, "w") as out:
        for member in archive.getmembers():
            file = archive.extractfile(member)
            assert file is not None
            content = file.read()
            if member.name == name:
                if data is None:
                    continue
                content, member.size = data, len(data)
            out.addfile(member, io.BytesIO(content))
    return target


def test_scenario_7_the_origin_is_not_needed_and_the_lock_is_a_bundles(
    gone: tuple[Shop, Path], other_registry: DockerRegistry, repository: str
) -> None:
    shop, path = gone
    target = f"{other_registry.host}/{repository}"
    result = imported(target, path)

    for content in (*shop.listed, shop.signature, shop.referrer, shop.bundle):
        assert raw_manifest(f"{target}@{content.digest}") == content.raw
    assert raw_manifest(f"{target}:1.4.0") == shop.bundle.raw
    assert len(result.published.locations) == 2
    with session() as one:
        lock = result_lock(one, RelocationRequest(archive=(str(path),), to=target), result.plan)
    assert lock.to_yaml() == (
        "---\napiVersion: imgpkg.carvel.dev/v1alpha1\nbundle:\n"
        f"  image: {target}@{shop.bundle.digest}\n  tag: 1.4.0\nkind: BundleLock\n"
    )


def test_an_import_leaves_what_a_copy_leaves(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    shop = push_shop(registry.url, repository, seed=42)
    path, target = tmp_path / "shop.tar", f"{other_registry.host}/{repository}"
    archived(path, bundle=shop.reference)
    imported(f"{target}/imported", path)
    copied(f"{target}/copied", bundle=shop.reference)

    with session() as one:
        stores = [
            one.source(RelocationRequest(image="x.example/y", to=f"{target}/{name}").destination)
            for name in ("imported", "copied")
        ]
        tags = [sorted(store.tags()) for store in stores]
        assert tags[0] == tags[1]
        assert all(stores[0].head_manifest(tag) == stores[1].head_manifest(tag) for tag in tags[0])


def test_a_second_import_moves_nothing(
    gone: tuple[Shop, Path], other_registry: DockerRegistry, repository: str
) -> None:
    _, path = gone
    imported(f"{other_registry.host}/{repository}", path)
    again = imported(f"{other_registry.host}/{repository}", path)

    assert again.receipt.bytes_written == 0
    assert again.receipt.total_requests < 12
    assert all(outcome.status == "present" for outcome in again.outcomes)
    assert not again.published.tags


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_scenario_8_other_orders_and_other_headers_are_read(
    gone: tuple[Shop, Path],
    other_registry: DockerRegistry,
    repository: str,
    tmp_path: Path,
    format: int,  # noqa: A002
) -> None:
    shop, path = gone
    imported(
        f"{other_registry.host}/{repository}", rewritten(path, tmp_path / "other.tar", reverse=True, format=format)
    )

    assert raw_manifest(f"{other_registry.host}/{repository}:1.4.0") == shop.bundle.raw


def test_the_image_layout_form_is_read_as_well(
    gone: tuple[Shop, Path], other_registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    shop, path = gone
    layout = path.with_name("layout.tar")
    result = imported(f"{other_registry.host}/{repository}", layout)

    assert raw_manifest(f"{other_registry.host}/{repository}:1.4.0") == shop.bundle.raw
    assert result.published.tags == ("1.4.0",)
    assert len(result.published.locations) == 2
    reverse = rewritten(layout, tmp_path / "reverse.tar", reverse=True)
    assert imported(f"{other_registry.host}/{repository}", reverse).receipt.bytes_written == 0


def test_scenario_12_a_foreign_layer_that_was_left_out_is_asked_for_in_vain(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    foreign = Blob(FOREIGN_LAYER, layer(6).data, urls=("https://foreign.invalid/layer",), absent=True)
    made = image(6, layers=[foreign, layer(7)])
    push(registry.url, repository, made, "v1")
    path, target = tmp_path / "x.tar", f"{other_registry.host}/{repository}"
    archived(path, image=f"{registry.host}/{repository}:v1")

    with pytest.raises(NotFound) as caught:
        imported(target, path, include_non_distributable=True)
    assert "without --include-non-distributable-layers" in caught.value.hint
    assert not [one for one in other_registry.requests() if repository in one.path and one.method in ("POST", "PUT")]


def test_a_foreign_layer_that_was_left_out_is_mounted_from_where_the_image_came_from(
    registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    """As imgpkg does: the archive lacks the layer, and another repository of the same registry has it."""
    foreign = Blob(FOREIGN_LAYER, layer(6).data, urls=("https://foreign.invalid/layer",))
    made = image(6, layers=[foreign, layer(7)])
    push(registry.url, repository, made, "v1")
    path, target = tmp_path / "x.tar", f"{registry.host}/{repository}/new"
    archived(path, image=f"{registry.host}/{repository}:v1")
    result = imported(target, path, include_non_distributable=True)

    assert raw_manifest(f"{target}:v1") == made.raw
    assert result.receipt.blobs_mounted >= 1
    with session() as one:
        store = one.source(RelocationRequest(image="x.example/y", to=target).destination)
        assert store.blob_size(Digest(digest_of(foreign.data))) == len(foreign.data)


@pytest.mark.parametrize("artifacts", [frozenset({"cosign"}), frozenset()])
def test_scenario_13_signatures_travel_when_they_were_asked_for(
    registry: DockerRegistry,
    other_registry: DockerRegistry,
    repository: str,
    tmp_path: Path,
    artifacts: frozenset[str],
) -> None:
    from tests.support.content import signature

    made = image(14)
    push(registry.url, repository, made, "v1")
    push(registry.url, repository, signature(made), signature_tag(made))
    path, target = tmp_path / "x.tar", f"{other_registry.host}/{repository}"
    archived(path, image=f"{registry.host}/{repository}:v1", artifacts=artifacts)
    result = imported(target, path)

    assert result.published.tags == ((signature_tag(made), "v1") if artifacts else ("v1",))
    assert raw_manifest(f"{target}:v1") == made.raw
    with session() as one:
        found = one.source(RelocationRequest(image="x.example/y", to=target).destination)
        assert (found.head_manifest(signature_tag(made)) is not None) == bool(artifacts)


def test_zeros_that_imgpkg_leaves_behind_are_found_before_anything_has_a_name(
    gone: tuple[Shop, Path], other_registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    shop, path = gone
    web = next(blob for blob in shop.web.blobs if "rootfs" in blob.media_type)
    name = f"{digest_of(web.data).replace(':', '-')}.tar.gz"
    zeros = with_member(path, tmp_path / "zeros.tar", name, bytes(len(web.data)))
    target = f"{other_registry.host}/{repository}"

    with pytest.raises(Incomplete) as caught:
        imported(target, zeros)
    assert f"expected {digest_of(web.data)}" in str(caught.value.failures[0])
    with session() as one:
        found = one.source(RelocationRequest(image="x.example/y", to=target).destination)
        assert found.head_manifest("1.4.0") is None


def test_a_blob_of_another_size_or_none_at_all_is_told(
    gone: tuple[Shop, Path], other_registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    shop, path = gone
    digest = digest_of(shop.database.blobs[0].data)
    name = f"{digest.replace(':', '-')}.tar.gz"
    target = f"{other_registry.host}/{repository}"

    with pytest.raises(NotFound, match=digest):
        imported(target, with_member(path, tmp_path / "without.tar", name, None))
    with pytest.raises(Incomplete) as caught:
        imported(target, with_member(path, tmp_path / "short.tar", name, b"short"))
    assert "has 5 bytes in the archive" in str(caught.value.failures[0])


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_an_archive_that_is_cut_short_is_refused(gone: tuple[Shop, Path], tmp_path: Path, share: float) -> None:
    _, path = gone
    data = path.read_bytes()
    short = tmp_path / "short.tar"
    short.write_bytes(data[: int(len(data) * share)])

    with pytest.raises((InvalidManifest, IntegrityError), match=r"short\.tar"):
        imported("registry.invalid/xx", short)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"no tar at all" * 100, "no tarball"),
        (b"\x1f\x8b" + bytes(2000), "gunzip"),
        (bytes(10240), "neither manifest.json nor an image layout"),
    ],
)
def test_what_is_no_archive_is_refused(tmp_path: Path, data: bytes, said: str) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(data)

    with pytest.raises(InvalidManifest, match=said):
        imported("registry.invalid/xx", path)


def test_what_docker_save_writes_and_is_cut_is_refused_with_a_way_out(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    body = json.dumps([{"Config": "c.json", "RepoTags": ["a:b"], "Layers": ["l.tar"]}]).encode()
    with tarfile.open(path, "w") as archive:
        info = tarfile.TarInfo("manifest.json")
        info.size = len(body)
        archive.addfile(info, io.BytesIO(body))

    with pytest.raises(InvalidManifest, match="save the image again"):
        imported("registry.invalid/xx", path)


def test_an_archive_without_the_label_is_copied_without_locations_and_has_no_lock(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    made = bundle([push(registry.url, repository, image(16))])
    push(registry.url, repository, made, "v1")
    whole, path = tmp_path / "whole.tar", tmp_path / "old.tar"
    archived(whole, bundle=f"{registry.host}/{repository}:v1")
    with tarfile.open(whole) as archive:
        document = json.loads(archive.extractfile("manifest.json").read())  # type: ignore[union-attr]
    for entry in document:
        for key in ("Labels", "Tag", "OrigRef"):
            del entry["Image"][key]
    with_member(whole, path, "manifest.json", json.dumps(document).encode())
    target = f"{other_registry.host}/{repository}"
    result = imported(target, path)

    assert raw_manifest(f"{target}@{made.digest}") == made.raw
    assert result.published.locations == ()
    for plan in (result.plan, imported(target, path).plan):
        with session() as one, pytest.raises(InvalidInput, match="no lock for it"):
            result_lock(one, RelocationRequest(archive=(str(path),), to=target), plan)


def test_the_lock_of_images_is_sorted_by_where_they_came_from_whatever_is_there_already(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    first, second = sorted((image(17), image(18)), key=lambda content: content.digest, reverse=True)
    lock, path = tmp_path / "lock.yml", tmp_path / "images.tar"
    lock.write_text(
        "apiVersion: imgpkg.carvel.dev/v1alpha1\nkind: ImagesLock\nimages:\n"
        f"- image: {push(registry.url, f'{repository}/bb', second)}\n"
        f"- image: {push(registry.url, f'{repository}/aa', first)}\n"
    )
    archived(path, lock=str(lock))
    target = f"{other_registry.host}/{repository}"
    request = RelocationRequest(archive=(str(path),), to=target)

    for _ in range(2):
        plan = imported(target, path).plan
        with session() as one:
            images = result_lock(one, request, plan).to_yaml()
        assert images.index(first.digest) < images.index(second.digest)


def test_keys_in_any_case_and_unknown_ones_are_read(
    gone: tuple[Shop, Path], other_registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    shop, path = gone

    def lowered(value: object) -> object:
        if isinstance(value, dict):
            kept = {key if "." in key else key.lower(): lowered(one) for key, one in value.items()}
            return {**kept, "unknown": [1, {"more": None}]} if "." not in "".join(value) else kept
        return [lowered(one) for one in value] if isinstance(value, list) else value

    with tarfile.open(path) as archive:
        document = json.loads(archive.extractfile("manifest.json").read())  # type: ignore[union-attr]
    changed = with_member(path, tmp_path / "x.tar", "manifest.json", json.dumps(lowered(document), indent=2).encode())
    imported(f"{other_registry.host}/{repository}", changed)

    assert raw_manifest(f"{other_registry.host}/{repository}:1.4.0") == shop.bundle.raw


def test_a_manifest_that_was_tampered_with_is_refused_with_its_place(gone: tuple[Shop, Path], tmp_path: Path) -> None:
    _, path = gone
    with tarfile.open(path) as archive:
        document = json.loads(archive.extractfile("manifest.json").read())  # type: ignore[union-attr]
    number = next(number for number, entry in enumerate(document) if entry["Image"])
    document[number]["Image"]["Manifest"]["Raw"] += " "
    changed = with_member(path, tmp_path / "x.tar", "manifest.json", json.dumps(document).encode())

    with pytest.raises(InvalidManifest, match=rf"\[{number}\].Image.Manifest: the text has"):
        imported("registry.invalid/xx", changed)


@pytest.mark.parametrize("how", ["digest", "reference", "origin's repository", "relocated reference"])
def test_one_image_out_of_many(
    gone: tuple[Shop, Path], other_registry: DockerRegistry, repository: str, how: str
) -> None:
    shop, path = gone
    home = shop.reference.rpartition("/")[0]
    named = {
        "digest": shop.web.digest,
        "reference": f"{home}/web@{shop.web.digest}",
        "origin's repository": f"{home}/web",
        "relocated reference": f"somewhere.example/else@{shop.web.digest}",
    }[how]
    target = f"{other_registry.host}/{repository}"
    result = imported(target, path, only=(named,), tags=() if how == "origin's repository" else ("mine",))

    assert raw_manifest(f"{target}@{shop.web.digest}") == shop.web.raw
    assert raw_manifest(f"{target}:{signature_tag(shop.web)}") == shop.signature.raw
    with session() as one:
        store = one.source(RelocationRequest(image="x.example/y", to=target).destination)
        assert store.head_manifest(shop.tools.digest) is None
    if how != "origin's repository":
        assert "mine" in result.published.tags


def test_a_bundle_of_many_comes_with_what_it_lists(
    gone: tuple[Shop, Path], other_registry: DockerRegistry, repository: str
) -> None:
    shop, path = gone
    target = f"{other_registry.host}/{repository}"
    result = imported(target, path, only=(shop.nested.digest,))

    assert raw_manifest(f"{target}@{shop.database.digest}") == shop.database.raw
    assert raw_manifest(f"{target}:{tagnames.locations(Digest(shop.nested.digest))}")
    assert {outcome.digest for outcome in result.outcomes} == {shop.nested.digest, shop.database.digest}


def test_an_image_that_is_not_there_is_told(gone: tuple[Shop, Path]) -> None:
    with pytest.raises(NotFound, match="no image of the archive is called so") as caught:
        imported("registry.invalid/xx", gone[1], only=("nothing:v1",))
    assert "archive list" in caught.value.hint


def test_an_image_that_the_archive_lacks_is_not_looked_for_at_the_origin(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    listed = image(15)
    reference = push(registry.url, f"{repository}/listed", listed)
    made = bundle([reference])
    push(registry.url, f"{repository}/bundle", made, "v1")
    whole, path = tmp_path / "whole.tar", tmp_path / "x.tar"
    archived(whole, bundle=f"{registry.host}/{repository}/bundle:v1")
    with tarfile.open(whole) as archive:
        document = json.loads(archive.extractfile("manifest.json").read())  # type: ignore[union-attr]
    kept = [entry for entry in document if entry["Image"]["Manifest"]["Digest"] == made.digest]
    with_member(whole, path, "manifest.json", json.dumps(kept).encode())
    before = len(registry.requests())

    with pytest.raises(Incomplete) as caught:
        imported(f"{other_registry.host}/{repository}", path)
    assert "isn't in the archive" in str(caught.value.failures[0])
    assert len(registry.requests()) == before


def test_what_an_archive_lacks_may_be_at_the_destination(
    gone: tuple[Shop, Path], other_registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    import httpx

    shop, path = gone
    blob = shop.database.blobs[0]
    with httpx.Client(base_url=other_registry.url) as http:
        push_blob(http, repository, blob.data)
    name = f"{digest_of(blob.data).replace(':', '-')}.tar.gz"
    imported(f"{other_registry.host}/{repository}", with_member(path, tmp_path / "x.tar", name, None))

    assert raw_manifest(f"{other_registry.host}/{repository}:1.4.0") == shop.bundle.raw


def test_an_archive_becomes_another_archive(gone: tuple[Shop, Path], tmp_path: Path) -> None:
    shop, path = gone
    layout, back = tmp_path / "layout.tar", tmp_path / "back.tar"
    archived(layout, archive=(str(path),), options=ExportOptions(format=OCI_LAYOUT))
    archived(back, archive=(str(layout),))

    with tarfile.open(path) as one, tarfile.open(back) as other:
        assert one.getnames() == other.getnames()
    with session() as opened:
        stored = opened.archive(ArchiveName.of(str(back)))
        assert stored.get_manifest("1.4.0").digest == shop.bundle.digest


def test_a_path_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"none\.tar") as caught:
        imported("registry.invalid/xx", tmp_path / "none.tar")
    assert caught.value.side == "source"


def test_an_archive_that_is_gone_the_second_time_closes_no_file_of_others(
    gone: tuple[Shop, Path], tmp_path: Path
) -> None:
    path = tmp_path / "shop.tar"
    path.write_bytes(gone[1].read_bytes())
    with session() as opened:
        opened.archive(ArchiveName.of(str(path)))
        path.unlink()
        with pytest.raises(TransshipError):
            opened.archive(ArchiveName.of(str(path)), anew=True)
        with (tmp_path / "other").open("wb") as other:  # which gets the number of the archive's file
            opened.close()
            other.write(b"x")


def test_only_is_for_archives() -> None:
    with pytest.raises(TransshipError, match="only an archive"):
        RelocationRequest(image="a.example/b", to="a.example/c", only=("x",))
