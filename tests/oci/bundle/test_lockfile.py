from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from oci.bundle.lockfile import BundleLock, ImagesLock, LockedImage, read_lock, write_lock
from oci.errors import InvalidDocument, NotFound, StoreError
from oci.reference import Reference

IMAGE = Reference.parse(f"ghcr.io/acme/web@sha256:{'1' * 64}")


@pytest.mark.parametrize("lock", [ImagesLock((LockedImage(IMAGE, {"a": "b"}),)), BundleLock(IMAGE, "1.0")])
def test_either_kind_is_written_and_read(tmp_path: Path, lock: ImagesLock | BundleLock) -> None:
    path = tmp_path / "lock.yml"

    write_lock(str(path), lock)

    assert read_lock(str(path)) == lock
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["lock.yml"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind: Deployment\n", "PATH: kind: neither ImagesLock nor BundleLock but 'Deployment'"),
        ("apiVersion: v1\n", "PATH: kind: not given; expected ImagesLock or BundleLock"),
        ("kind: [ImagesLock]\n", "PATH: kind: expected text, got a list"),
        ("hello\n", "PATH: expected a mapping, got 'hello'"),
        ("{\n", "PATH: line 2: not YAML: did not find expected node content"),
        (
            "kind: ImagesLock\n",
            "PATH: apiVersion: expected imgpkg.carvel.dev/v1alpha1, got nothing",
        ),
        (
            "apiVersion: imgpkg.carvel.dev/v1alpha1\nkind: ImagesLock\nextra: 1\n",
            "PATH: extra: unknown key (hint: known here: apiVersion, images, kind)",
        ),
    ],
)
def test_a_file_that_is_no_lock_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "lock.yml"
    path.write_text(text)

    with pytest.raises(InvalidDocument) as caught:
        read_lock(str(path))

    assert str(caught.value) == message.replace("PATH", str(path))


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    path = str(tmp_path / "none.yml")

    with pytest.raises(NotFound) as caught:
        read_lock(path)

    assert str(caught.value) == f"reading the lock file {path}: no such file or directory (hint: check the path)"


def test_a_folder_is_no_lock_file(tmp_path: Path) -> None:
    with pytest.raises(StoreError) as caught:
        read_lock(str(tmp_path))

    assert str(caught.value) == f"reading the lock file {tmp_path}: is a directory (hint: check the path)"


def test_a_missing_folder_is_not_made(tmp_path: Path) -> None:
    path = str(tmp_path / "none" / "lock.yml")

    with pytest.raises(NotFound) as caught:
        write_lock(path, ImagesLock())

    assert str(caught.value) == f"writing the lock file {path}: no such file or directory (hint: make the folder first)"


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "lock.yml"
    path.write_text("old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError) as caught:
        write_lock(str(path), ImagesLock())

    assert str(caught.value) == f"writing the lock file {path}: the disk is full (hint: make room and run it again)"
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["lock.yml"]


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    target, link = tmp_path / "real.yml", tmp_path / "lock.yml"
    target.write_text("old")
    link.symlink_to(target)

    with pytest.raises(StoreError, match="symbolic link"):
        write_lock(str(link), ImagesLock())

    assert link.is_symlink()
    assert target.read_text() == "old"


def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(path.read_text()))
    reader.start()

    write_lock(str(path), ImagesLock())
    reader.join()

    assert read == [ImagesLock().to_yaml()]
    assert stat.S_ISFIFO(path.stat().st_mode)
