"""Archives that aren't the whole: deltas, volumes, and those that take bytes from an older one."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from oci.archive.entry import IMGPKG, OCI_LAYOUT
from oci.archive.options import ExportOptions
from oci.errors import InvalidInput, NotFound
from oci.reference import ArchiveName
from tests.servers.docker_registry import DockerRegistry
from tests.servers.skopeo import raw_manifest
from tests.support.archiving import archived, imported
from tests.support.content import Content, bundle, digest_of, image, layer, push
from tests.support.relocating import session

MIB = 1 << 20


class Release:
    """Two versions of a bundle: the second has one more image, which shares its first layer with the old one."""

    def __init__(self, registry: DockerRegistry, repository: str, seed: int) -> None:
        self.base, self.extra = layer(seed, 3 * MIB), layer(seed + 1, MIB)
        self.old = image(seed, layers=[self.base, layer(seed + 2)])
        self.new = image(seed + 1, layers=[self.base, self.extra])
        home = f"{registry.host}/{repository}"
        old = push(registry.url, f"{repository}/old", self.old)
        new = push(registry.url, f"{repository}/new", self.new)
        self.first: Content = bundle([old])
        self.second: Content = bundle([old, new])
        push(registry.url, f"{repository}/bundle", self.first, "1.0")
        push(registry.url, f"{repository}/bundle", self.second, "2.0")
        self.reference = f"{home}/bundle"


@pytest.fixture
def release(registry: DockerRegistry, repository: str) -> Release:
    return Release(registry, repository, 60)


def names(path: Path) -> list[str]:
    with tarfile.open(path) as archive:
        return archive.getnames()


def note(path: Path) -> dict[str, object]:
    with tarfile.open(path) as archive:
        file = archive.extractfile("transship.json")
        assert file is not None
        found: dict[str, object] = json.loads(file.read())
        return found


@pytest.mark.parametrize("kind", [IMGPKG, OCI_LAYOUT])
def test_a_delta_to_an_archive_leaves_out_its_layers_and_says_which(
    release: Release, other_registry: DockerRegistry, repository: str, tmp_path: Path, kind: str
) -> None:
    first, delta = tmp_path / "first.tar", tmp_path / "delta.tar"
    archived(first, bundle=f"{release.reference}:1.0", options=ExportOptions(format=kind))
    report = archived(
        delta, bundle=f"{release.reference}:2.0", options=ExportOptions(format=kind, delta_from=str(first))
    )
    target = f"{other_registry.host}/{repository}"

    assert "transship.json" not in names(first)
    assert report.size < 2 * MIB < report.left_out
    requires = {one["digest"]: one["size"] for one in note(delta)["requires"]}  # type: ignore[attr-defined]
    assert requires[digest_of(release.base.data)] == len(release.base.data)
    assert digest_of(release.extra.data) not in requires
    assert str(note(delta)["base"]).startswith("first.tar (sha256:")
    imported(target, first)
    imported(target, delta)
    assert raw_manifest(f"{target}:2.0") == release.second.raw
    assert raw_manifest(f"{target}@{release.new.digest}") == release.new.raw


def test_what_a_delta_requires_is_asked_for_first_and_named_when_it_is_missing(
    release: Release, other_registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    first, delta = tmp_path / "first.tar", tmp_path / "delta.tar"
    archived(first, bundle=f"{release.reference}:1.0")
    archived(delta, bundle=f"{release.reference}:2.0", options=ExportOptions(delta_from=str(first)))
    target = f"{other_registry.host}/{repository}"

    with pytest.raises(NotFound) as caught:
        imported(target, delta)
    error = caught.value
    assert error.side == "destination"
    missing = {digest_of(one.data) for one in (release.base, release.old.blobs[1])}
    assert all(digest in error.message for digest in missing)
    assert error.message.startswith("2 of the 2 blobs that the archive leaves out aren't there")
    assert error.hint.startswith("it needs what first.tar (sha256:")
    assert not [one for one in other_registry.requests() if repository in one.path and one.method in ("POST", "PUT")]


def test_a_delta_to_a_repository_a_lock_and_a_list_of_blobs_is_the_same(
    release: Release, other_registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    target = f"{other_registry.host}/{repository}"
    first = tmp_path / "first.tar"
    archived(first, bundle=f"{release.reference}:1.0")
    imported(target, first)
    lock, blobs = tmp_path / "lock.yml", tmp_path / "blobs.txt"
    lock.write_text(f"bundle:\n  image: {target}@{release.first.digest}\n")
    blobs.write_text("".join(f"{digest_of(one.data)}\t{len(one.data)}\t\n" for one in release.old.blobs))
    lock_of_images = tmp_path / "images.yml"
    lock_of_images.write_text(f"images:\n- image: {target}@{release.old.digest}\n")
    left_out = []
    for number, known in enumerate((target, str(blobs), str(lock_of_images))):
        delta = tmp_path / f"{number}.tar"
        archived(delta, bundle=f"{release.reference}:2.0", options=ExportOptions(delta_from=known))
        left_out.append(note(delta)["requires"])

    assert left_out[0] == left_out[1] == left_out[2]
    imported(target, tmp_path / "0.tar")
    assert raw_manifest(f"{target}:2.0") == release.second.raw


def test_a_delta_to_a_delta_knows_what_that_one_requires(release: Release, tmp_path: Path) -> None:
    first, second, third = (tmp_path / f"{number}.tar" for number in range(3))
    archived(first, bundle=f"{release.reference}:1.0")
    archived(second, bundle=f"{release.reference}:2.0", options=ExportOptions(delta_from=str(first)))
    archived(third, bundle=f"{release.reference}:2.0", options=ExportOptions(delta_from=str(second)))

    requires = {one["digest"] for one in note(third)["requires"]}  # type: ignore[attr-defined]
    assert {digest_of(release.base.data), digest_of(release.extra.data)} <= requires


def test_what_is_nothing_to_be_a_delta_to_is_refused(release: Release, tmp_path: Path) -> None:
    empty = tmp_path / "empty.txt"
    empty.write_text("nothing here\n")
    for known, said in (
        (str(empty), "no digest"),
        ("UPPER/case", "neither an archive"),
        ("gone.tar", "check the path"),
    ):
        with pytest.raises(InvalidInput, match=said):
            archived(tmp_path / "x.tar", bundle=f"{release.reference}:2.0", options=ExportOptions(delta_from=known))


@pytest.mark.parametrize("kind", [IMGPKG, OCI_LAYOUT])
def test_volumes_are_imported_in_any_order(
    release: Release, other_registry: DockerRegistry, repository: str, tmp_path: Path, kind: str
) -> None:
    report = archived(
        tmp_path / "x.tar", bundle=f"{release.reference}:2.0", options=ExportOptions(format=kind, max_size=4 * MIB)
    )
    volumes = [Path(location) for location in report.locations]

    assert [path.name for path in volumes] == [f"x.vol00{number}.tar" for number in range(1, len(volumes) + 1)]
    assert len(volumes) >= 2
    assert all(path.stat().st_size <= 4 * MIB for path in volumes)
    target = f"{other_registry.host}/{repository}"
    imported(target, *reversed(volumes))
    assert raw_manifest(f"{target}:2.0") == release.second.raw


def test_a_volume_that_is_missing_is_named(release: Release, tmp_path: Path) -> None:
    options = ExportOptions(max_size=4 * MIB)
    one = archived(tmp_path / "x.tar", bundle=f"{release.reference}:2.0", options=options).locations
    other = archived(tmp_path / "y.tar", bundle=f"{release.reference}:1.0", options=ExportOptions()).locations
    with session() as opened:
        with pytest.raises(InvalidInput, match=f"of {len(one)} volumes these are missing: 1"):
            opened.archive(ArchiveName.of(*one[1:]))
        with pytest.raises(InvalidInput, match="not one volume of several"):
            opened.archive(ArchiveName.of(one[0], *other))


def test_volumes_of_different_archives_are_told_apart(
    registry: DockerRegistry, release: Release, repository: str, tmp_path: Path
) -> None:
    options = ExportOptions(max_size=4 * MIB)
    another = Release(registry, f"{repository}/another", 90)
    one = archived(tmp_path / "x.tar", bundle=f"{release.reference}:2.0", options=options).locations
    other = archived(tmp_path / "y.tar", bundle=f"{another.reference}:2.0", options=options).locations
    with session() as opened, pytest.raises(InvalidInput, match="different archives"):
        opened.archive(ArchiveName.of(one[0], *other[1:]))


def test_a_blob_that_fits_no_volume_is_named(release: Release, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=f"{digest_of(release.base.data)} has") as caught:
        archived(tmp_path / "x.tar", bundle=f"{release.reference}:2.0", options=ExportOptions(max_size=2 * MIB))
    assert "--max-size" in caught.value.hint


def test_an_archive_that_fits_one_volume_is_the_usual_one(release: Release, tmp_path: Path) -> None:
    archived(tmp_path / "one.tar", bundle=f"{release.reference}:2.0")
    archived(tmp_path / "two.tar", bundle=f"{release.reference}:2.0", options=ExportOptions(max_size=1 << 30))

    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()


def test_bytes_that_an_older_archive_has_are_not_fetched_again(
    registry: DockerRegistry, release: Release, tmp_path: Path
) -> None:
    first, second, want = tmp_path / "first.tar", tmp_path / "second.tar", tmp_path / "want.tar"
    archived(first, bundle=f"{release.reference}:1.0")
    archived(want, bundle=f"{release.reference}:2.0")
    before = len(registry.requests())
    report = archived(second, bundle=f"{release.reference}:2.0", options=ExportOptions(base=str(first)))

    assert second.read_bytes() == want.read_bytes()
    assert report.copied > 3 * MIB
    assert report.sent < MIB + 100_000
    base = digest_of(release.base.data)
    assert not [one for one in registry.requests()[before:] if base in one.path]


def test_wrong_bytes_in_an_older_archive_are_found_and_fetched_instead(release: Release, tmp_path: Path) -> None:
    first, second, want = tmp_path / "first.tar", tmp_path / "second.tar", tmp_path / "want.tar"
    archived(first, bundle=f"{release.reference}:1.0")
    archived(want, bundle=f"{release.reference}:2.0")
    with tarfile.open(first) as archive:
        offset = archive.getmember(f"{digest_of(release.base.data).replace(':', '-')}.tar.gz").offset_data
    with first.open("r+b") as file:
        file.seek(offset + MIB)
        file.write(bytes(64))
    archived(second, bundle=f"{release.reference}:2.0", options=ExportOptions(base=str(first)))

    assert second.read_bytes() == want.read_bytes()


def test_an_older_archive_of_the_other_format_lends_its_blobs_too(
    registry: DockerRegistry, release: Release, tmp_path: Path
) -> None:
    first, second, want = tmp_path / "first.tar", tmp_path / "second.tar", tmp_path / "want.tar"
    archived(first, bundle=f"{release.reference}:1.0", options=ExportOptions(format=OCI_LAYOUT))
    archived(want, bundle=f"{release.reference}:2.0")
    before = len(registry.requests())
    report = archived(second, bundle=f"{release.reference}:2.0", options=ExportOptions(base=str(first)))

    assert second.read_bytes() == want.read_bytes()
    assert report.copied == 0
    base = digest_of(release.base.data)
    assert not [one for one in registry.requests()[before:] if base in one.path]
