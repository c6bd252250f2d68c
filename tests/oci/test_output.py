"""Outputs: whole or not at all, never through a link, never in place of a device, with a mode by the umask."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from oci.errors import InvalidReference, StoreError, UnusableFile
from oci.output import (
    check_no_pipe,
    check_output,
    check_outputs,
    lock_file,
    merge_own,
    open_own,
    open_regular,
    read_file,
    read_named,
    read_own,
    replace_file,
    write_json,
    write_output,
)
from oci.reference import absolute


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("old")
    with file.open() as reader:
        write_output(str(file), b"new")
        assert reader.read() == "old"

    assert file.read_text() == "new"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("target", ["file", "missing", "/dev/null", "pipe"])
def test_a_link_is_not_followed_and_stays(tmp_path: Path, target: str) -> None:
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_text("old")
    os.mkfifo(tmp_path / "pipe")
    link.symlink_to(target if target.startswith("/") else tmp_path / target)

    for write in (write_output, lambda path, _: check_output(path)):
        with pytest.raises(OSError, match="symbolic link") as caught:
            write(str(link), b"new")
        assert caught.value.errno == errno.ELOOP
    assert link.is_symlink()
    assert file.read_text() == "old"
    assert sorted(os.listdir(tmp_path)) == ["file", "link", "pipe"]


def test_a_folder_that_is_a_link_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")

    write_output(str(tmp_path / "link" / "file"), b"new")

    assert (tmp_path / "folder" / "file").read_bytes() == b"new"


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


@pytest.mark.parametrize("device", ["/dev/full", "/dev/null", "/dev/stdout", "/dev/fd/1"])
def test_a_device_is_written_to_and_never_replaced(device: str) -> None:
    before = os.lstat(device).st_mode
    if device == "/dev/full":
        with pytest.raises(OSError, match="No space left"):
            write_output(device, b"a plan\n")
    else:
        write_output(device, b"a plan\n")

    assert os.lstat(device).st_mode == before


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("", errno.EISDIR),
        (".", errno.EISDIR),
        ("none/", errno.EISDIR),
        ("none/file", errno.ENOENT),
        ("file/x", errno.ENOTDIR),
    ],
)
def test_what_can_not_be_written_is_told_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, code: int
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r".") as caught:
        check_output(path)
    assert caught.value.errno == code


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_the_umask_gives_the_mode(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        write_output(str(tmp_path / "file"), b"x")
        replace_file(str(tmp_path / "own"), b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == mode
    assert stat.S_IMODE((tmp_path / "own").stat().st_mode) == 0o600


def test_a_planted_link_under_the_name_of_a_partial_file_is_not_written_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("oci.output.secrets.token_hex", lambda _: "0" * 16)
    victim = tmp_path / "victim"
    victim.write_text("old")
    (tmp_path / f".file.{'0' * 16}.partial").symlink_to(victim)

    with pytest.raises(FileExistsError):
        replace_file(str(tmp_path / "file"), b"new")
    assert victim.read_text() == "old"


def test_a_link_in_a_folder_of_everybody_is_none_of_the_system(tmp_path: Path) -> None:
    """/dev/shm is below /dev, and anybody may put a link there."""
    if not os.path.isdir("/dev/shm"):
        pytest.skip("this system has no /dev/shm")
    victim = tmp_path / "victim"
    victim.write_text("old")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        link = os.path.join(folder, "link")
        os.symlink(victim, link)
        with pytest.raises(OSError, match="symbolic link"):
            write_output(link, b"new")
        with pytest.raises(OSError, match="symbolic link"):
            check_output(link)
        replace_file(link, b"own")
        assert not os.path.islink(link)
    assert victim.read_text() == "old"


def test_what_a_program_left_for_itself_is_a_file_of_its_user_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    (tmp_path / "link").symlink_to(file)
    os.mkfifo(tmp_path / "pipe")
    os.close(open_own(str(file)))
    (tmp_path / "folder").mkdir()
    for name in ("link", "pipe", "folder"):
        for flags in (os.O_RDONLY, os.O_WRONLY | os.O_CREAT):
            with pytest.raises(OSError, match=r"no regular file|symbolic links|Is a directory"):
                open_own(str(tmp_path / name), flags)
    monkeypatch.setattr("oci.output.os.geteuid", lambda: os.stat(file).st_uid + 1)
    with pytest.raises(OSError, match="no regular file of this user"):
        open_own(str(file))
    monkeypatch.undo()
    (tmp_path / "twice").hardlink_to(file)
    with pytest.raises(OSError, match="no regular file of this user"):
        open_own(str(file))


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oci.output.PATIENCE", 0.2)


@pytest.mark.usefixtures("impatient")
def test_a_pipe_that_nobody_reads_or_writes_ends_in_an_error(tmp_path: Path) -> None:
    path = tmp_path / "Pipe"
    os.mkfifo(path)

    for use in (lambda: write_output(str(path), b"x"), lambda: read_file(str(path), 100)):
        with pytest.raises(TimeoutError, match=f"the pipe {path}"):
            use()
    with pytest.raises(UnusableFile, match=f"no process has written to the pipe {path}") as caught:
        read_named(str(path), "reading it", limit=100)
    assert "run it again" in caught.value.hint
    with pytest.raises(StoreError, match=f"no process has read the pipe {path}"):
        write_json(str(path), {})


@pytest.mark.usefixtures("impatient")
def test_a_reader_that_takes_nothing_ends_in_an_error(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with pytest.raises(TimeoutError, match="no process has read"):
            write_output(str(path), bytes(1 << 20))
    finally:
        os.close(reader)


def test_a_pipe_is_read_until_its_writer_ends(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(b"x" * 300_000,))
    writer.start()

    assert read_named(str(path), "reading it", limit=300_000) == b"x" * 300_000
    writer.join()


def test_what_the_shell_opened_may_take_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """`--lock <(program)` is a pipe, too, and its writer is there as long as it is open."""
    monkeypatch.setattr("oci.output.PATIENCE", 0.0)
    reader, writer = os.pipe()

    def write() -> None:
        os.write(writer, b"late")
        os.close(writer)

    late = threading.Timer(0.3, write)
    late.start()
    try:
        assert read_file(f"/dev/fd/{reader}", 100) == b"late"
    finally:
        os.close(reader)
        late.join()


def test_a_lock_that_somebody_holds_is_waited_for_and_not_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "Lock"
    held, wanted = (os.open(path, os.O_RDWR | os.O_CREAT) for _ in range(2))
    fcntl.flock(held, fcntl.LOCK_SH)
    with pytest.raises(TimeoutError, match=f"another process has held the lock {path}"):
        lock_file(wanted, str(path), 0.1)

    freed = threading.Timer(0.1, os.close, (held,))
    freed.start()
    lock_file(wanted, str(path))
    freed.join()
    os.close(wanted)


@pytest.mark.parametrize("path", ["a\0b", "\ud800", "x/a\0b"])
def test_what_can_be_no_name_of_a_file_is_an_error_of_ours(tmp_path: Path, path: str) -> None:
    """JSON and YAML can write such names, and Python's functions raise ValueError for them."""
    name = f"{tmp_path}/{path}"
    uses: tuple[Callable[[str], object], ...] = (
        lambda path: read_named(path, "reading it", limit=1),
        lambda path: write_output(path, b""),
        check_outputs,
        open_own,
        open_regular,
        check_no_pipe,
        absolute,
    )
    for use in uses:
        with pytest.raises(InvalidReference, match="can't be the name of a file"):
            use(name)


def test_a_name_that_is_too_long_is_told_before_the_work_and_one_that_is_not_is_written(tmp_path: Path) -> None:
    for long in ("x" * 250, "\u00fc" * 120):
        check_output(str(tmp_path / long))
        write_output(str(tmp_path / long), b"new")
        assert (tmp_path / long).read_bytes() == b"new"
    with pytest.raises(OSError, match=os.strerror(errno.ENAMETOOLONG)):
        check_output(str(tmp_path / ("x" * 256)))


def test_a_file_that_processes_share_is_merged_under_the_lock_of_its_folder(tmp_path: Path) -> None:
    path = str(tmp_path / "made" / "state")
    began = threading.Barrier(4)

    def add(number: int) -> None:
        def merged() -> bytes:
            before = read_own(path, 100) if os.path.exists(path) else b""
            return before + bytes([number])

        began.wait()
        for _ in range(5):
            merge_own(path, merged)

    threads = [threading.Thread(target=add, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(read_own(path, 100)) == sorted([0, 1, 2, 3] * 5)
    assert read_own(path, 3) == read_own(path, 100)[:3]
    assert os.listdir(tmp_path / "made") == ["state"]
