from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from oci.output import write_output


def test_a_file_is_replaced_and_a_link_to_one_stays_a_link(tmp_path: Path) -> None:
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_text("old")
    link.symlink_to(file)

    write_output(str(link), b"new")

    assert link.is_symlink()
    assert file.read_text() == "new"
    assert sorted(os.listdir(tmp_path)) == ["file", "link"]


def test_a_pipe_is_written_to_and_stays_one(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(path.read_bytes()))
    reader.start()

    write_output(str(path), b"a plan")
    reader.join()

    assert got == [b"a plan"]
    assert stat.S_ISFIFO(path.stat().st_mode)


def test_a_device_is_written_to_and_never_replaced(tmp_path: Path) -> None:
    link = tmp_path / "device"
    link.symlink_to("/dev/full")

    with pytest.raises(OSError, match="No space left"):
        write_output(str(link), b"a plan")

    assert stat.S_ISCHR(link.stat().st_mode)
