"""Archives on disk, by hook or by crook: killed, corrupted, reset, two at once, no room; by several processes."""

from __future__ import annotations

import builtins
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from oci.archive.options import ExportOptions
from oci.errors import Cancelled, CancelToken, IntegrityError, InvalidInput, NotFound, Refused, StoreError, Unavailable
from oci.export.export import begin_archive, finish_archive, write_archive, write_parts
from oci.export.file_writer import FileWriter
from oci.export.tar_plan import Part
from oci.relocation.session import Session
from tests.faults.proxy import Fault, FaultProxy
from tests.servers.docker_registry import DockerRegistry
from tests.support.archiving import archived, planned
from tests.support.content import Content, digest_of, image, layer, push
from tests.support.relocating import anonymous, session
from tests.support.slow_link import SlowLink
from tests.support.tarballs import MIB, PART, Tarball
from tests.support.waiting import until

OPTIONS = ExportOptions(part_size=PART)
WORKERS = 4
PARTS_OF_FIRST = 4
"""Parts that have a piece of the largest layer."""

_EXPORT = """
import sys
from pathlib import Path
from oci.archive.options import ExportOptions
from tests.support.archiving import archived
archived(Path(sys.argv[1]), image=sys.argv[2], options=ExportOptions(part_size=int(sys.argv[3])), concurrency=4,
         resume=sys.argv[4] == "resume")
"""


@pytest.fixture(scope="module")
def big(registry: DockerRegistry) -> tuple[str, Content]:
    """An image of some 30 MiB, one layer of it cut into parts."""
    made = image(70, layers=[layer(70 + number, size * MIB) for number, size in enumerate((16, 5, 4, 3, 1, 1))])
    push(registry.url, "disk/big", made, "v1")
    return "disk/big:v1", made


@pytest.fixture(scope="module")
def whole(big: tuple[str, Content], registry: DockerRegistry, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("whole") / "x.tar"
    archived(path, image=f"{registry.host}/{big[0]}", options=OPTIONS)
    return path.read_bytes()


@contextmanager
def exporting(path: Path, reference: str, mode: str = "fresh") -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-c", _EXPORT, str(path), reference, str(PART), mode],
        stderr=subprocess.PIPE,
        cwd=Path(__file__).parents[3],
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_nothing_of_one_system_is_asked_for(
    big: tuple[str, Content], registry: DockerRegistry, tmp_path: Path, whole: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """/proc is Linux's."""
    really = os.open, builtins.open

    def refused(path: Any, *rest: Any, **more: Any) -> Any:
        if str(path).startswith("/proc"):
            raise FileNotFoundError(path)
        return really[0](path, *rest, **more)

    def refused_too(path: Any, *rest: Any, **more: Any) -> Any:
        if str(path).startswith("/proc"):
            raise FileNotFoundError(path)
        return really[1](path, *rest, **more)

    monkeypatch.setattr(os, "open", refused)
    monkeypatch.setattr(builtins, "open", refused_too)
    for resume in (False, True):
        archived(tmp_path / "x.tar", image=f"{registry.host}/{big[0]}", options=OPTIONS, resume=resume)

    assert (tmp_path / "x.tar").read_bytes() == whole


def journalled(path: Path) -> int:
    """Parts that the journal lists."""
    journal = path.with_name(f"{path.name}.partial.journal")
    return max(0, journal.read_bytes().count(b"\n") - 1) if journal.exists() else 0


@pytest.mark.slow
@pytest.mark.parametrize("moment", range(10))
def test_killed_at_any_moment_it_goes_on_where_it_was(
    big: tuple[str, Content], whole: bytes, registry: DockerRegistry, tmp_path: Path, moment: int
) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(b"the archive of yesterday")
    # A slow link, so that there is a middle to be killed in; the moment is a number of bytes, not of seconds.
    with SlowLink(registry.host, 30 * MIB) as link:
        address = link.address
        enough = random.Random(moment).randrange(MIB // 2, len(whole) - MIB)
        with exporting(path, f"{address}/{big[0]}") as process:
            until("enough to kill it", lambda: link.passed >= enough or process.poll() is not None, every=0.002)
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert path.read_bytes() == b"the archive of yesterday"
        path.unlink()  # --resume would take it for an archive to reuse, through the command line
        before, link.bytes_per_second = link.passed, 0
        report = archived(path, image=f"{address}/{big[0]}", options=OPTIONS, resume=True)

    assert path.read_bytes() == recorded(whole, registry.host, address)
    assert report.sent + report.kept == len(whole)
    assert before + report.sent <= len(whole) + (WORKERS + 1) * PART
    assert sorted(one.name for one in tmp_path.iterdir()) == ["x.tar"]


def test_volumes_that_are_complete_are_kept(registry: DockerRegistry, repository: str, tmp_path: Path) -> None:
    made = image(71, layers=[layer(number, 500_000) for number in (711, 712, 713)])
    push(registry.url, repository, made, "v1")
    reference, options = f"{registry.host}/{repository}:v1", ExportOptions(max_size=800_000)
    archived(tmp_path / "x.tar", image=reference, options=options)
    volumes = sorted(tmp_path.glob("x.vol*.tar"))
    bytes_of = [volume.read_bytes() for volume in volumes]
    volumes[1].write_bytes(bytes_of[1].replace(b"\0" * 512, b"\1" * 512, 1))
    volumes[2].unlink()

    report = archived(tmp_path / "x.tar", image=reference, options=options, resume=True)

    assert [volume.read_bytes() for volume in volumes] == bytes_of
    assert (report.kept, report.sent) == (len(bytes_of[0]), len(bytes_of[1]) + len(bytes_of[2]))


def recorded(whole: bytes, host: str, other: str) -> bytes:
    """The same archive, made through another address: references in manifest.json differ, and nothing else."""
    assert len(host) == len(other)
    return whole.replace(host.encode(), other.encode())


def test_a_second_run_waits_for_nothing_and_takes_nothing(
    big: tuple[str, Content], registry: DockerRegistry, tmp_path: Path
) -> None:
    path = tmp_path / "x.tar"
    with SlowLink(registry.host, 4 * MIB) as link, exporting(path, f"{link.address}/{big[0]}") as process:
        until("the journal", lambda: journalled(path) or process.poll() is not None, every=0.01)
        assert process.poll() is None
        with pytest.raises(Refused, match="another run is writing this archive"):
            archived(path, image=f"{registry.host}/{big[0]}", options=OPTIONS)
        link.bytes_per_second = 0
        assert process.wait(60) == 0
    assert path.exists()


def test_processes_write_one_archive_together(
    big: tuple[str, Content], whole: bytes, registry: DockerRegistry, tmp_path: Path
) -> None:
    path = tmp_path / "x.tar"
    with session() as one:
        plan = planned(one, path, image=f"{registry.host}/{big[0]}", options=OPTIONS)
        tickets = begin_archive(one, plan)
    written = []
    groups = plan.groups(3)
    for group in reversed(groups):
        with session() as one:
            anew = planned(one, path, image=f"{registry.host}/{big[0]}", options=OPTIONS)
            assert anew.fingerprint == plan.fingerprint
            written.append(write_parts(one, anew, group, tickets[group.volume]))
            again = write_parts(one, plan, group, tickets[group.volume])
            assert (again.sent, again.kept) == (0, written[-1].sent)
    with session() as one:
        assert not path.exists()
        report = finish_archive(one, plan, tickets, written)

    assert len(groups) > 1
    assert path.read_bytes() == whole
    assert report.sent == len(whole)


def test_an_archive_with_a_missing_part_gets_no_name(
    big: tuple[str, Content], registry: DockerRegistry, tmp_path: Path
) -> None:
    path = tmp_path / "x.tar"
    with session() as one:
        plan = planned(one, path, image=f"{registry.host}/{big[0]}", options=OPTIONS)
        tickets = begin_archive(one, plan)
        groups = plan.groups(6)
        write_parts(one, plan, groups[0], tickets[0])
        assert len(groups) > 1
        with pytest.raises(IntegrityError, match="isn't in place"):
            finish_archive(one, plan, tickets, [])
        with pytest.raises(NotFound):
            write_parts(one, plan, groups[1], "a ticket of another archive")
        one_part = type(groups[0])(volume=0, numbers=(2,))
        with pytest.raises(InvalidInput, match="share a blob"):
            write_parts(one, plan, one_part, tickets[0])
    assert not path.exists()


def test_a_byte_that_is_corrupted_on_the_way_is_read_again(
    big: tuple[str, Content], whole: bytes, registry: DockerRegistry, tmp_path: Path
) -> None:
    reference, made = big
    path = tmp_path / "x.tar"
    with FaultProxy(registry.port) as proxy:
        for blob in made.blobs[:2]:  # one that is cut into parts, and one that is read whole
            proxy.rules.append(
                Fault(method="GET", path=f"blobs/{digest_of(blob.data)}", first=2, last=2, corrupt_at=1000)
            )
            proxy.rules.append(
                Fault(method="GET", path=f"blobs/{digest_of(blob.data)}", first=1, last=1, reset_after=5000)
            )
        archived(path, image=f"{proxy.host}/{reference}", options=OPTIONS)

    assert path.read_bytes() == recorded(whole, registry.host, proxy.host)


def test_a_part_that_is_written_late_is_read_again_with_its_blob(
    big: tuple[str, Content], whole: bytes, registry: DockerRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last part of a blob shows that a byte is wrong while the part that has it is still being written."""
    reference, made = big
    put = FileWriter.put

    def put_late(writer: FileWriter, part: Part, data: bytearray) -> None:
        time.sleep(0.5)
        put(writer, part, data)

    monkeypatch.setattr(FileWriter, "put", put_late)
    with FaultProxy(registry.port) as proxy:
        path = f"blobs/{digest_of(made.blobs[0].data)}"
        proxy.rules.append(Fault(method="GET", path=path, first=2, last=2, corrupt_at=1000))
        archived(tmp_path / "x.tar", image=f"{proxy.host}/{reference}", options=OPTIONS)
        reads = sum(span.path.endswith(path) for span in proxy.spans)

    assert (tmp_path / "x.tar").read_bytes() == recorded(whole, registry.host, proxy.host)
    assert reads == 2 * PARTS_OF_FIRST, "all of it twice, and no part a third time"


def test_a_blob_that_stays_wrong_fails_the_archive_and_leaves_the_old_one(
    big: tuple[str, Content], registry: DockerRegistry, tmp_path: Path
) -> None:
    reference, made = big
    path = tmp_path / "x.tar"
    path.write_bytes(b"the archive of yesterday")
    digest = digest_of(made.blobs[0].data)
    with FaultProxy(registry.port) as proxy:
        proxy.rules.append(Fault(method="GET", path=f"blobs/{digest}", corrupt_at=1000))
        with pytest.raises(IntegrityError, match=digest):
            archived(path, image=f"{proxy.host}/{reference}", options=OPTIONS)

    assert path.read_bytes() == b"the archive of yesterday"


def test_a_source_that_goes_away_leaves_what_can_be_resumed(
    big: tuple[str, Content], whole: bytes, registry: DockerRegistry, tmp_path: Path
) -> None:
    reference, made = big
    path = tmp_path / "x.tar"
    settings = {"retries": 0}
    with FaultProxy(registry.port) as proxy:
        fault = Fault(method="GET", path=f"blobs/{digest_of(made.blobs[5].data)}", status=503)
        proxy.rules.append(fault)
        with pytest.raises(Unavailable) as caught:
            archived(path, image=f"{proxy.host}/{reference}", options=OPTIONS, settings=settings)
        assert caught.value.side == "source"
        assert not path.exists()
        fault.last = 0
        report = archived(path, image=f"{proxy.host}/{reference}", options=OPTIONS, resume=True)

    assert path.read_bytes() == recorded(whole, registry.host, proxy.host)
    assert report.sent + report.kept == len(whole)


def test_a_cancelled_export_ends_at_once(big: tuple[str, Content], registry: DockerRegistry, tmp_path: Path) -> None:
    path, cancel = tmp_path / "x.tar", CancelToken()
    with SlowLink(registry.host, 8 * MIB) as link:
        access = anonymous()
        one = Session(source=access, destination=access, cancel=cancel)
        with one:
            plan = planned(one, path, image=f"{link.address}/{big[0]}", options=OPTIONS)
            with pytest.raises(Cancelled):
                write_archive(one, plan, on_part=lambda _: cancel.cancel())
    assert not path.exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with 8 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a file system")
def test_a_disk_without_room_is_told_before_anything_is_fetched(
    big: tuple[str, Content], registry: DockerRegistry, small_disk: Path
) -> None:
    path = small_disk / "x.tar"
    path.write_bytes(b"the archive of yesterday")
    with pytest.raises(Refused, match=r"the archive has \d+ bytes, and the disk has room for") as caught:
        archived(path, image=f"{registry.host}/{big[0]}", options=OPTIONS)

    assert "straight to s3://" in caught.value.hint
    assert path.read_bytes() == b"the archive of yesterday"
    assert os.listdir(small_disk) == ["x.tar"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a file system")
def test_a_disk_that_fills_up_meanwhile_is_told_and_resumed_when_there_is_room(small_disk: Path) -> None:
    tarball = Tarball.of(7, [5 * MIB, MIB])
    path, rival = small_disk / "x.tar", small_disk / "rival"
    parts = tarball.parts()
    writer = FileWriter(str(path))
    writer.begin(parts, tarball.plan.fingerprint, resume=False)
    rival.write_bytes(bytes(3 * MIB))
    data = bytearray(tarball.data[parts[0].start : parts[0].end])
    with pytest.raises(StoreError, match="the disk is full") as caught:
        writer.put(parts[0], data)
    writer.leave()
    assert "make room and run it again" in caught.value.hint
    rival.unlink()
    tarball.write(FileWriter(str(path)), resume=True)

    assert path.read_bytes() == tarball.data


def test_what_a_power_failure_lost_is_written_again(tmp_path: Path) -> None:
    tarball = Tarball.of(8, [12 * MIB, MIB])
    path, parts = tmp_path / "x.tar", tarball.parts()
    writer = FileWriter(str(path))
    writer.begin(parts, tarball.plan.fingerprint, resume=False)
    for part in parts:
        writer.put(part, bytearray(tarball.data[part.start : part.end]))
    writer.leave()
    partial = tmp_path / "x.tar.partial"
    with partial.open("r+b") as file:
        file.seek(parts[1].start + 100)
        file.write(bytes(100))
    report = tarball.write(FileWriter(str(path)), resume=True)

    assert path.read_bytes() == tarball.data
    assert report.sent == parts[1].size


@pytest.mark.parametrize("damage", ["cut", "garbage", "empty", "other"])
def test_a_journal_that_is_damaged_costs_no_more_than_what_it_lists(tmp_path: Path, damage: str) -> None:
    tarball = Tarball.of(9, [12 * MIB, MIB])
    path, parts = tmp_path / "x.tar", tarball.parts()
    writer = FileWriter(str(path))
    writer.begin(parts, tarball.plan.fingerprint, resume=False)
    for part in parts:
        writer.put(part, bytearray(tarball.data[part.start : part.end]))
    writer.leave()
    journal = tmp_path / "x.tar.partial.journal"
    data = journal.read_bytes()
    journal.write_bytes(
        {
            "cut": data[:-3],
            "garbage": data + b"\xff\xfe garbage\n\n12345678 [1,2]\n",
            "empty": b"",
            "other": data.replace(data[9:20], b"01234567890"),
        }[damage]
    )
    report = tarball.write(FileWriter(str(path)), resume=True)

    assert path.read_bytes() == tarball.data
    assert report.sent == {"cut": parts[-1].size, "garbage": 0}.get(damage, tarball.plan.size)


def test_stretches_count_whatever_parts_they_were(tmp_path: Path) -> None:
    tarball = Tarball.of(10, [12 * MIB, MIB])
    path = tmp_path / "x.tar"
    writer = FileWriter(str(path))
    size = tarball.plan.size
    writer.begin([Part(1, 0, size)], tarball.plan.fingerprint, resume=False)
    for start in range(0, 11 * MIB, MIB):
        writer.put(Part(1, start, start + MIB), bytearray(tarball.data[start : start + MIB]))
    writer.leave()
    report = tarball.write(FileWriter(str(path)), resume=True)

    assert path.read_bytes() == tarball.data
    kept = [part.size for part in tarball.parts() if part.end <= 11 * MIB]
    assert kept
    assert report.kept == sum(kept)


def test_no_archive_is_written_through_a_link(tmp_path: Path) -> None:
    tarball = Tarball.of(11, [MIB])
    real, link = tmp_path / "real.tar", tmp_path / "link.tar"
    real.write_bytes(b"old")
    link.symlink_to(real)

    with pytest.raises(Refused, match="symbolic link"):
        tarball.write(FileWriter(str(link)))
    assert link.is_symlink()
    assert real.read_bytes() == b"old"
    assert sorted(os.listdir(tmp_path)) == ["link.tar", "real.tar"]


@pytest.mark.parametrize("suffix", [".partial", ".partial.journal"])
@pytest.mark.parametrize("kind", ["link", "dangling link", "hard link", "pipe", "folder", "another user's"])
@pytest.mark.parametrize("resume", [False, True])
def test_an_unfinished_archive_is_a_file_of_this_user_alone(
    tmp_path: Path, suffix: str, kind: str, resume: bool
) -> None:
    tarball = Tarball.of(11, [MIB])
    path, victim = tmp_path / "x.tar", tmp_path / "victim"
    victim.write_bytes(b"precious")
    planted = tmp_path / f"x.tar{suffix}"
    if kind == "link":
        planted.symlink_to(victim)
    elif kind == "dangling link":
        planted.symlink_to(tmp_path / "none")
    elif kind == "hard link":
        planted.hardlink_to(victim)
    elif kind == "pipe":
        os.mkfifo(planted)
    elif kind == "folder":
        planted.mkdir()
    else:
        if os.geteuid() != 0:
            pytest.skip("only root can give a file to another user")
        planted.touch()
        os.chown(planted, 12345, -1)

    with pytest.raises(Refused) as caught:
        tarball.write(FileWriter(str(path)), resume=resume)
    assert str(planted) in caught.value.message
    assert victim.read_bytes() == b"precious"
    assert not (tmp_path / "none").exists()
    assert not path.exists()


def test_what_a_forged_journal_lists_is_hashed_before_it_is_kept(tmp_path: Path) -> None:
    """Its checksums are those of the wrong bytes, so that only the digests of the plan can tell."""
    tarball = Tarball.of(13, [12 * MIB, MIB, 2 * MIB])
    path, parts = tmp_path / "x.tar", tarball.parts()
    writer = FileWriter(str(path))
    writer.begin(parts, tarball.plan.fingerprint, resume=False)
    for part in parts:
        data = bytearray(tarball.data[part.start : part.end])
        data[-600] ^= 1
        writer.put(part, data)
    writer.leave()
    report = tarball.write(FileWriter(str(path)), resume=True)

    assert path.read_bytes() == tarball.data
    assert (report.sent, report.kept) == (tarball.plan.size, 0)


def test_what_was_kept_is_read_and_counted_once(tmp_path: Path) -> None:
    tarball = Tarball.of(14, [12 * MIB, MIB, 2 * MIB])
    path, parts = tmp_path / "x.tar", tarball.parts()
    writer = FileWriter(str(path))
    writer.begin(parts, tarball.plan.fingerprint, resume=False)
    for part in parts[1:]:
        writer.put(part, bytearray(tarball.data[part.start : part.end]))
    writer.leave()
    report = tarball.write(FileWriter(str(path)), resume=True)

    assert path.read_bytes() == tarball.data
    assert (report.sent, report.kept, report.unread) == (parts[0].size, tarball.plan.size - parts[0].size, 0)


def test_what_is_no_file_and_a_folder_that_is_not_there_are_told(tmp_path: Path) -> None:
    tarball = Tarball.of(12, [MIB])
    with pytest.raises(Refused, match="is a directory"):
        tarball.write(FileWriter(str(tmp_path)))
    os.mkfifo(pipe := tmp_path / "pipe")
    with pytest.raises(Refused, match="no regular file"):
        tarball.write(FileWriter(str(pipe)))
    assert pipe.is_fifo()
    with pytest.raises(NotFound) as caught:
        tarball.write(FileWriter(str(tmp_path / "none" / "x.tar")))
    assert caught.value.hint == "make the folder first"
