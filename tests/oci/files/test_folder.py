"""The output folder: what is never deleted, what is replaced, and that it is replaced as a whole."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from oci.errors import InvalidInput, StoreError
from oci.files import folder as folder_module
from oci.files.folder import ABANDONED_AFTER, check_folder, output_folder
from oci.output import os_errors


def pull(path: Path | str, text: str = "new", *, replace: bool = False) -> None:
    fill(path, lambda made: Path(made, "file").write_text(text), replace=replace)


def fill(path: Path | str, write: Callable[[str], object], *, replace: bool = False) -> None:
    with output_folder(str(path), replace=replace) as made:
        write(made)


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def test_a_folder_that_is_not_there_is_made_with_its_parents(tmp_path: Path) -> None:
    pull(tmp_path / "a/b/out")

    assert names(tmp_path / "a/b") == ["out"]
    assert names(tmp_path / "a/b/out") == ["file"]


def test_an_empty_folder_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    pull(tmp_path / "out")

    assert names(tmp_path / "out") == ["file"]


def test_a_folder_that_was_pulled_is_replaced_as_a_whole(tmp_path: Path) -> None:
    pull(tmp_path / "out", "old")
    (tmp_path / "out/more").write_text("by hand")
    pull(tmp_path / "out", "new")

    assert names(tmp_path / "out") == ["file"]
    assert (tmp_path / "out/file").read_text() == "new"
    assert names(tmp_path) == ["out"]


def test_a_bundle_is_replaced_whoever_pulled_it(tmp_path: Path) -> None:
    (tmp_path / "out/.imgpkg").mkdir(parents=True)
    (tmp_path / "out/config.yml").write_text("x")
    pull(tmp_path / "out")

    assert names(tmp_path / "out") == ["file"]


def test_a_folder_with_other_files_is_kept_unless_it_may_go(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.txt").write_text("x")
    for _ in range(2):
        with pytest.raises(InvalidInput, match=r"has files that weren't pulled.*remove the folder first"):
            pull(tmp_path / "out")
    assert names(tmp_path / "out") == ["thesis.txt"]
    assert names(tmp_path) == ["out"]

    pull(tmp_path / "out", replace=True)
    assert names(tmp_path / "out") == ["file"]


def test_files_that_appear_while_pulling_are_kept(tmp_path: Path) -> None:
    def meanwhile(made: str) -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out/thesis.txt").write_text("x")

    with pytest.raises(InvalidInput, match="weren't pulled"):
        fill(tmp_path / "out", meanwhile)
    assert names(tmp_path) == ["out"]
    assert names(tmp_path / "out") == ["thesis.txt"]


def test_a_link_called_like_a_bundles_folder_is_no_bundle(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/.imgpkg").symlink_to(tmp_path)

    with pytest.raises(InvalidInput, match="weren't pulled"):
        check_folder(str(tmp_path / "out"))


@pytest.mark.parametrize("replace", [False, True])
def test_what_must_not_be_replaced_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, replace: bool
) -> None:
    home, work = tmp_path / "h/home", tmp_path / "w/work"
    for folder in (home, work):
        folder.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(work)
    (tmp_path / "link").symlink_to(home)
    (tmp_path / "to-above").symlink_to(tmp_path)
    (tmp_path / "file").write_text("x")
    refused = ["/", "", ".", "..", "../..", str(work), f"{work}/", str(home), str(home.parent), "../../link"]
    refused += ["../../link/", "../../file", "../../to-above/w", "/proc", f"{tmp_path}/h/../w/work"]

    for path in refused:
        with pytest.raises(InvalidInput, match="output"):
            check_folder(path, replace=replace)
        with pytest.raises(InvalidInput, match="output"):
            pull(path, replace=replace)
    assert check_folder("below") == str(work / "below")
    assert check_folder("../../link/out") == str(home / "out")


def test_a_failed_pull_leaves_what_was_there(tmp_path: Path) -> None:
    pull(tmp_path / "out", "old")

    def fail(made: str) -> None:
        Path(made, "half").write_text("half")
        raise KeyboardInterrupt

    for path in (tmp_path / "out", tmp_path / "absent"):
        with pytest.raises(KeyboardInterrupt):
            fill(path, fail)
    assert names(tmp_path) == ["out"]
    assert (tmp_path / "out/file").read_text() == "old"


def test_without_the_exchange_of_linux_two_renames_do_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_module, "_exchange", lambda *_: False)
    pull(tmp_path / "out", "old")
    pull(tmp_path / "out", "new")

    assert names(tmp_path) == ["out"]
    assert (tmp_path / "out/file").read_text() == "new"


def test_the_folder_is_there_at_every_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pull(tmp_path / "out", "old")
    moved: list[str] = []
    rename = os.rename

    def watched(one: str, other: str) -> None:
        moved.append(one)
        rename(one, other)

    monkeypatch.setattr(os, "rename", watched)
    pull(tmp_path / "out", "new")

    assert (tmp_path / "out/file").read_text() == "new"
    assert str(tmp_path / "out") not in moved


def test_no_file_is_added_to_what_was_pulled(tmp_path: Path) -> None:
    with output_folder(str(tmp_path / "out")):
        pass

    assert names(tmp_path / "out") == []
    assert names(tmp_path) == ["out"]


def test_what_a_killed_pull_left_is_swept_once_it_is_old(tmp_path: Path) -> None:
    old, young = (tmp_path / f".out.{number * 16}.partial" for number in "01")
    other = tmp_path / f".other.{'0' * 16}.partial"
    for folder in (old, young, other):
        folder.mkdir()
        (folder / "half").write_text("x")
    long_ago = time.time() - ABANDONED_AFTER - 60
    for folder in (old, other):
        os.utime(folder, (long_ago, long_ago))
    pull(tmp_path / "out")

    assert names(tmp_path) == sorted([young.name, other.name, "out"])


@pytest.mark.parametrize("below", ["", "/", "/.imgpkg/bundles/one"])
def test_an_error_names_the_folder_that_was_asked_for(tmp_path: Path, below: str) -> None:
    def write(made: str) -> None:
        with os_errors(store=f"{made}{below}", operation="extracting"):
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))

    with pytest.raises(StoreError) as caught:
        fill(tmp_path / "out", write)

    assert caught.value.store == f"{tmp_path}/out{below}".rstrip("/")
    assert names(tmp_path) == []


def test_the_umask_decides_who_may_read(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        pull(tmp_path / "out")
    finally:
        os.umask(before)

    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o750
