"""Which files are packed, in which order, and what can't be."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from oci.errors import InvalidInput
from oci.files.walk import check_bundle, check_duplicates, is_bundle, walk


def make(folder: Path, *names: str) -> str:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.fsencode(name))
    folder.mkdir(parents=True, exist_ok=True)
    return str(folder)


def names(*paths: str, **options: object) -> list[str]:
    return [entry.name for entry in walk(paths, **options)]  # type: ignore[arg-type]


def test_a_folder_comes_before_its_content_and_names_in_the_order_of_their_bytes(tmp_path: Path) -> None:
    folder = make(tmp_path / "d", "b", "a/z", "a.txt", "a-b", "B", "é", "a/y/x", "z\udcff")

    expected = [".", "B", "a", "a/y", "a/y/x", "a/z", "a-b", "a.txt", "b", "z\udcff", "é"]
    assert names(folder) == expected


def test_each_given_path_comes_in_turn(tmp_path: Path) -> None:
    one, two = make(tmp_path / "one", "x"), make(tmp_path / "two", "y")
    single = tmp_path / "file.txt"
    single.write_text("hello")

    assert names(two, str(single), one) == [".", "y", "file.txt", ".", "x"]
    assert names() == []


def test_an_exclusion_is_a_whole_path_and_takes_all_below_with_it(tmp_path: Path) -> None:
    folder = make(tmp_path, ".git/config", "config/.git", "a/b/c", "a/bc", "keep")

    assert names(folder) == [".", "a", "a/b", "a/b/c", "a/bc", "config", "config/.git", "keep"]
    assert names(folder, exclusions=("a/b", "keep")) == [
        ".",
        ".git",
        ".git/config",
        "a",
        "a/bc",
        "config",
        "config/.git",
    ]
    assert names(str(tmp_path / "keep"), exclusions=("keep",)) == []


def test_only_the_owners_permissions_are_kept_unless_all_are_asked_for(tmp_path: Path) -> None:
    folder = make(tmp_path / "d", "plain", "sub/run.sh")
    os.chmod(tmp_path / "d/plain", 0o644)
    os.chmod(tmp_path / "d/sub/run.sh", 0o2755)
    os.chmod(tmp_path / "d/sub", 0o1775)
    os.chmod(tmp_path / "d", 0o750)

    assert [(entry.name, entry.mode) for entry in walk([folder])] == [
        (".", 0o700),
        ("plain", 0o600),
        ("sub", 0o700),
        ("sub/run.sh", 0o700),
    ]
    assert [(entry.name, entry.mode) for entry in walk([folder], preserve_permissions=True)] == [
        (".", 0o750),
        ("plain", 0o644),
        ("sub", 0o1775),
        ("sub/run.sh", 0o2755),
    ]


def test_a_given_link_is_followed_and_keeps_its_own_name(tmp_path: Path) -> None:
    folder = make(tmp_path / "d", "x")
    (tmp_path / "to-folder").symlink_to(folder)
    (tmp_path / "to-file").symlink_to(tmp_path / "d/x")

    assert names(str(tmp_path / "to-folder")) == [".", "x"]
    (entry,) = walk([str(tmp_path / "to-file")])
    assert (entry.name, entry.size) == ("to-file", 1)


@pytest.mark.parametrize("kind", ["link", "fifo"])
def test_what_is_neither_file_nor_folder_is_refused_unless_excluded(tmp_path: Path, kind: str) -> None:
    folder = make(tmp_path / "d", "x")
    odd = tmp_path / "d/odd"
    odd.symlink_to("x") if kind == "link" else os.mkfifo(odd)

    with pytest.raises(InvalidInput, match=f"Expected file .{odd}. to be a regular file"):
        walk([folder])
    assert names(folder, exclusions=("odd",)) == [".", "x"]


def test_a_given_fifo_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")

    with pytest.raises(InvalidInput, match="to be a regular file"):
        walk([str(tmp_path / "fifo")])


@pytest.mark.parametrize("name", [".wh.x", ".wh..wh..opq", ".wh.d/x"])
def test_a_name_that_means_deletion_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidInput, match="mean that a file is deleted"):
        walk([make(tmp_path / "d", name)])


def test_a_path_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=f"{tmp_path}/absent can't be read: no such file"):
        walk([f"{tmp_path}/absent"])
    with pytest.raises(InvalidInput, match="empty path"):
        walk([""])


def test_folders_deeper_than_the_stack_are_walked(tmp_path: Path) -> None:
    depth = 1500
    here = os.getcwd()
    try:
        os.chdir(tmp_path)
        for _ in range(depth):
            os.mkdir("d")
            os.chdir("d")
        found = names(str(tmp_path))
    finally:
        # What Python's rmtree couldn't remove, for the reason that walk doesn't recurse.
        while os.getcwd() != str(tmp_path):
            os.chdir("..")
            os.rmdir("d")
        os.chdir(here)

    assert len(found) == depth + 1


def test_the_same_name_from_two_paths_is_refused(tmp_path: Path) -> None:
    one, two = make(tmp_path / "one", "sub/x", "same"), make(tmp_path / "two", "sub/y", "same")

    with pytest.raises(InvalidInput, match="Found duplicate paths: same, sub"):
        check_duplicates(walk([one, two]))
    with pytest.raises(InvalidInput, match="Found duplicate paths: sub "):
        check_duplicates(walk([one, two], exclusions=("same",)))
    check_duplicates(walk([one, two], exclusions=("same", "sub")))


def test_a_bundle_has_one_lock_directly_in_a_given_folder(tmp_path: Path) -> None:
    bundle, other = make(tmp_path / "bundle", ".imgpkg/images.yml", "x"), make(tmp_path / "other", "y")

    for paths in ([bundle], [other, bundle]):
        check_bundle(walk(paths))
        assert is_bundle(walk(paths))


def test_files_without_a_lock_are_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"not a bundle\. It is missing \.imgpkg/images\.yml"):
        check_bundle(walk([make(tmp_path / "d", "x")]))
    with pytest.raises(InvalidInput, match=r"expected \.imgpkg/images\.yml to exist"):
        check_bundle(walk([make(tmp_path / "e", ".imgpkg/bundle.yml")]))
    with pytest.raises(InvalidInput, match="It is missing"):
        check_bundle(walk([make(tmp_path / "f", ".imgpkg")]))
    assert not is_bundle(walk([str(tmp_path / "d")]))
    assert not is_bundle(())


def test_several_bundles_are_refused_and_listed(tmp_path: Path) -> None:
    folder = make(tmp_path / "d", ".imgpkg/images.yml", ".imgpkg/bundles/sha256-1/.imgpkg/images.yml")

    with pytest.raises(
        InvalidInput, match=r"multiple bundle definitions\. .* provided .*/d/\.imgpkg, .*/sha256-1/\.imgpkg"
    ):
        check_bundle(walk([folder]))


def test_what_is_excluded_counts_for_nothing(tmp_path: Path) -> None:
    folder = make(tmp_path / "d", ".imgpkg/images.yml", ".imgpkg/bundles/sha256-1/.imgpkg/images.yml")

    check_bundle(walk([folder], exclusions=(".imgpkg/bundles",)))
    assert not is_bundle(walk([folder], exclusions=(".imgpkg",)))


def test_a_lock_that_lies_deeper_or_is_given_alone_is_refused(tmp_path: Path) -> None:
    folder = make(tmp_path / "d", "sub/.imgpkg/images.yml")

    for path in (folder, f"{folder}/sub/.imgpkg"):
        with pytest.raises(InvalidInput, match=rf"to be a direct child of one of: {path}; was {folder}/sub"):
            check_bundle(walk([path]))
