"""An image-layout folder as a source and a destination."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import random
import shutil
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from oci.descriptor import OCI_INDEX, OCI_MANIFEST, Descriptor
from oci.digest import Chunk, Digest, Verifier, digest_of
from oci.errors import (
    Cancelled,
    CancelToken,
    Denied,
    IntegrityError,
    InvalidManifest,
    NotFound,
    Refused,
    Unavailable,
)
from oci.layout.store import ABANDONED_AFTER, LayoutStore
from oci.manifest import parse_manifest
from oci.meter import Meter
from oci.reference import LayoutFolder
from oci.store import BlobOutcome, reader_of
from tests.servers.docker_registry import DockerRegistry
from tests.support import content
from tests.support.content import Content
from tests.support.waiting import until

ROOT = Path(__file__).parents[3]
REF_NAME = "org.opencontainers.image.ref.name"


def open_layout(path: Path, *, cancel: CancelToken | None = None, meter: Meter | None = None) -> LayoutStore:
    return LayoutStore(
        LayoutFolder(str(path)), side="destination", meter=meter or Meter(), cancel=cancel or CancelToken()
    )


def put(layout: LayoutStore, one: Content, *tags: str) -> Digest:
    for part in one.everything():
        for blob in part.blobs:
            layout.put_blob(described(blob.data), reader_of(blob.data))
        for tag in (tags or ("",)) if part is one else ("",):
            layout.put_manifest(parse_manifest(part.raw, part.media_type), tag)
    return Digest(one.digest)


def described(data: bytes) -> Descriptor:
    return Descriptor("", digest_of(data), len(data))


def blob_file(path: Path, digest: str) -> Path:
    return path / "blobs" / digest.replace(":", "/")


def listed(path: Path) -> list[dict[str, Any]]:
    return list(json.loads((path / "index.json").read_bytes())["manifests"])


def write_index(path: Path, *entries: dict[str, Any], **more: Any) -> None:
    body = {"schemaVersion": 2, "manifests": entries, **more}
    (path / "index.json").write_text(json.dumps(body))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "layout"


@pytest.fixture
def layout(folder: Path) -> LayoutStore:
    return open_layout(folder)


def test_what_was_written_is_read_back_by_tag_and_by_digest(layout: LayoutStore) -> None:
    image = content.image(1)
    digest = put(layout, image, "1.0")

    for identifier in ("1.0", digest):
        assert layout.get_manifest(identifier).raw == image.raw
        assert layout.head_manifest(identifier) == Descriptor(image.media_type, digest, len(image.raw))
    for blob in image.blobs:
        assert b"".join(layout.read_blob(described(blob.data))) == blob.data


def test_the_first_write_makes_the_files_of_a_layout(layout: LayoutStore, folder: Path) -> None:
    put(layout, content.image(1), "1.0")

    assert json.loads((folder / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    index = json.loads((folder / "index.json").read_text())
    assert (index["schemaVersion"], index["mediaType"]) == (2, OCI_INDEX)


def test_a_manifest_without_tag_is_found_by_digest_and_not_listed(layout: LayoutStore, folder: Path) -> None:
    image = content.image(1, docker=True)
    digest = put(layout, image)

    assert listed(folder) == []
    assert layout.head_manifest(digest) == Descriptor(image.media_type, digest, len(image.raw))


def test_reading_a_folder_that_is_no_layout_says_what_is_expected(layout: LayoutStore, folder: Path) -> None:
    for read in (lambda: layout.get_manifest("1.0"), layout.tags):
        with pytest.raises(NotFound, match=r"this is no image layout.*oci-layout and index.json") as caught:
            read()
        assert (caught.value.side, caught.value.store) == ("destination", f"oci:{folder}")
    assert layout.head_manifest("1.0") is None
    assert layout.referrers(digest_of(b"")) == ()
    with pytest.raises(NotFound):
        layout.delete_tag("1.0")
    assert not folder.exists()


def test_a_layout_without_its_marker_file_is_no_layout(layout: LayoutStore, folder: Path) -> None:
    put(layout, content.image(1), "1.0")
    (folder / "oci-layout").unlink()

    with pytest.raises(NotFound, match="this is no image layout"):
        open_layout(folder).get_manifest("1.0")


def test_a_layout_of_another_version_is_refused(folder: Path) -> None:
    folder.mkdir()
    write_index(folder)
    (folder / "oci-layout").write_text('{"imageLayoutVersion":"2.0.0"}')

    with pytest.raises(InvalidManifest, match=r"version '2\.0\.0'"):
        open_layout(folder).get_manifest("1.0")
    with pytest.raises(InvalidManifest, match=r"version '2\.0\.0'"):
        put(open_layout(folder), content.image(1), "1.0")


def test_moving_a_tag_replaces_its_entry(layout: LayoutStore, folder: Path) -> None:
    put(layout, content.image(1), "1.0", "stable")
    second = put(layout, content.image(2), "stable")

    assert list(layout.tags()) == ["1.0", "stable"]
    assert layout.get_manifest("stable").digest == second
    assert len(listed(folder)) == 2


def test_several_tags_on_one_digest_are_several_entries(layout: LayoutStore, folder: Path) -> None:
    digest = put(layout, content.image(1), "b", "a")

    assert [(entry["annotations"][REF_NAME], entry["digest"]) for entry in listed(folder)] == [
        ("a", digest),
        ("b", digest),
    ]


def test_the_same_content_gives_the_same_index_in_whatever_order_it_came(tmp_path: Path) -> None:
    image = content.image(1)
    referrers = [content.artifact(seed, subject=image) for seed in (2, 3)]
    work = [(image, "1.0"), (image, "latest"), (referrers[0], ""), (referrers[0], "sbom"), (referrers[1], "")]
    seen = set()
    for turn in range(4):
        path = tmp_path / str(turn)
        random.Random(turn).shuffle(work)
        for one, tag in work:
            put(open_layout(path), one, tag)
        seen.add((path / "index.json").read_bytes())

    assert len(seen) == 1


def test_writing_what_is_there_changes_and_reads_nothing(layout: LayoutStore, folder: Path) -> None:
    image = content.image(1)
    put(layout, image, "1.0")
    before = (folder / "index.json").stat()
    meter = Meter()
    again = open_layout(folder, meter=meter)

    def never(offset: int) -> Iterator[bytes]:
        raise AssertionError(f"read from {offset}")

    blob = described(image.blobs[0].data)
    assert again.put_blob(blob, never) is BlobOutcome.SKIPPED
    again.put_manifest(parse_manifest(image.raw), "1.0")

    after = (folder / "index.json").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    receipt = meter.receipt()
    assert (receipt.blobs_skipped, receipt.bytes_skipped, receipt.bytes_written) == (1, blob.size, 0)


def test_bytes_are_counted(layout: LayoutStore, folder: Path) -> None:
    meter = Meter()
    data = random.Random(1).randbytes(3 << 20)
    counted = open_layout(folder, meter=meter)

    assert counted.put_blob(described(data), reader_of(data)) is BlobOutcome.WRITTEN
    assert b"".join(counted.read_blob(described(data))) == data
    receipt = meter.receipt()
    assert (receipt.bytes_written, receipt.blobs_written, receipt.bytes_read) == (len(data), 1, len(data))
    assert receipt.requests == {}


@pytest.mark.parametrize(
    ("offset", "length"), [(0, 10), (5, None), (5, 3), (2_000_000, None), (3_000_000, None), (2_999_999, 100)]
)
def test_ranges_are_read(layout: LayoutStore, offset: int, length: int | None) -> None:
    data = random.Random(2).randbytes(3_000_000)
    layout.put_blob(described(data), reader_of(data))

    end = None if length is None else offset + length
    assert b"".join(layout.read_blob(described(data), offset, length)) == data[offset:end]


def test_a_whole_blob_is_verified_when_read(layout: LayoutStore, folder: Path) -> None:
    data = bytes(3 << 20)
    layout.put_blob(described(data), reader_of(data))
    with blob_file(folder, digest_of(data)).open("r+b") as file:
        file.write(b"x")

    given: list[Chunk] = []
    with pytest.raises(IntegrityError, match="destination oci:") as raised:
        given.extend(layout.read_blob(described(data)))
    assert sum(map(len, given)) < len(data)
    assert not raised.value.retryable


@pytest.mark.parametrize("change", [b"", b"longer"])
def test_a_blob_of_another_length_is_never_served_not_even_in_part(
    layout: LayoutStore, folder: Path, change: bytes
) -> None:
    layout.put_blob(described(b"blob"), reader_of(b"blob"))
    blob_file(folder, digest_of(b"blob")).write_bytes(change)

    with pytest.raises(IntegrityError, match=f"has {len(change)} bytes, not 4") as raised:
        list(layout.read_blob(described(b"blob"), 1))
    assert not raised.value.retryable


def test_a_blob_that_is_not_the_promised_one_never_gets_its_name(layout: LayoutStore, folder: Path) -> None:
    for data in (b"wrong", b"longer than promised", b""):
        with pytest.raises(IntegrityError):
            layout.put_blob(described(b"right"), reader_of(data))
    assert layout.blob_size(digest_of(b"right")) is None
    assert os.listdir(folder / "blobs" / "sha256") == []


def test_a_blob_of_the_wrong_size_is_written_again(layout: LayoutStore, folder: Path) -> None:
    layout.put_blob(described(b"right"), reader_of(b"right"))
    blob_file(folder, digest_of(b"right")).write_bytes(b"r")

    assert layout.put_blob(described(b"right"), reader_of(b"right")) is BlobOutcome.WRITTEN
    assert b"".join(layout.read_blob(described(b"right"))) == b"right"


@pytest.mark.parametrize("tag", ["", "1.0"])
def test_a_spoilt_manifest_counts_as_absent_and_is_mended(layout: LayoutStore, folder: Path, tag: str) -> None:
    image = content.image(1)
    digest = put(layout, image, tag)
    blob_file(folder, digest).write_bytes(image.raw + b" ")

    assert layout.head_manifest(tag or digest) is None
    with pytest.raises(IntegrityError):
        layout.get_manifest(digest)
    layout.put_manifest(parse_manifest(image.raw), tag)
    assert layout.get_manifest(tag or digest).raw == image.raw


def test_a_manifest_is_refused_while_something_it_lists_is_missing(layout: LayoutStore, folder: Path) -> None:
    image = content.image(1)
    with pytest.raises(Refused, match="isn't there") as caught:
        layout.put_manifest(parse_manifest(image.raw), "1.0")
    assert caught.value.code == "MANIFEST_BLOB_UNKNOWN"
    assert not folder.exists()


def test_a_manifest_needs_no_non_distributable_layer(layout: LayoutStore) -> None:
    foreign = content.Blob(content.FOREIGN_LAYER, b"windows", ("https://example.com/layer",))
    image = content.image(1, layers=(content.layer(1, media_type=content.DOCKER_LAYER), foreign), docker=True)
    for blob in image.blobs:
        if blob is not foreign:
            layout.put_blob(described(blob.data), reader_of(blob.data))

    layout.put_manifest(parse_manifest(image.raw), "1.0")
    assert layout.head_manifest("1.0") is not None


def test_sha512_blobs_have_a_folder_of_their_own(layout: LayoutStore, folder: Path) -> None:
    digest = Digest(f"sha512:{hashlib.sha512(b'data').hexdigest()}")
    layout.put_blob(Descriptor("", digest, 4), reader_of(b"data"))

    assert blob_file(folder, digest).read_bytes() == b"data"
    assert b"".join(layout.read_blob(Descriptor("", digest, 4))) == b"data"


def test_a_cancelled_write_leaves_nothing(folder: Path) -> None:
    cancel = CancelToken()
    data = random.Random(3).randbytes(100_000)

    def read(offset: int) -> Iterator[bytes]:
        yield data[:50_000]
        cancel.cancel()
        yield data[50_000:]

    with pytest.raises(Cancelled):
        open_layout(folder, cancel=cancel).put_blob(described(data), read)
    assert os.listdir(folder / "blobs" / "sha256") == []


def test_a_cancelled_read_stops(folder: Path) -> None:
    data = bytes(4 << 20)
    cancel = CancelToken()
    layout = open_layout(folder, cancel=cancel)
    layout.put_blob(described(data), reader_of(data))
    stream = layout.read_blob(described(data))
    next(stream)
    cancel.cancel()

    with pytest.raises(Cancelled):
        list(stream)


def test_a_failing_source_is_reported_as_it_is_and_leaves_nothing(layout: LayoutStore, folder: Path) -> None:
    def read(offset: int) -> Iterator[bytes]:
        yield b"ab"
        raise NotFound("gone", side="source")

    with pytest.raises(NotFound, match="gone"):
        layout.put_blob(described(b"abcd"), read)
    assert os.listdir(folder / "blobs" / "sha256") == []


def test_partial_files_of_dead_writers_are_swept_once_they_are_old(layout: LayoutStore, folder: Path) -> None:
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    old, young = (blobs / f".{'a' * 64}.{number * 16}.partial" for number in "01")
    old_index = folder / ".index.json.abc123.partial"
    foreign = folder / ".notes.txt.partial"
    for path in (old, young, old_index, foreign):
        path.write_bytes(b"half")
    long_ago = time.time() - ABANDONED_AFTER - 60
    for path in (old, old_index, foreign):
        os.utime(path, (long_ago, long_ago))

    layout.put_blob(described(b"data"), reader_of(b"data"))
    assert not old.exists()
    assert not old_index.exists()
    assert young.exists()
    assert foreign.exists()


def test_a_full_disk_is_said_to_be_full_and_leaves_nothing(
    layout: LayoutStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout.put_blob(described(b"kept"), reader_of(b"kept"))

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Refused, match=r"the disk is full.*make room") as caught:
        layout.put_blob(described(b"data"), reader_of(b"data"))
    assert not caught.value.retryable
    assert os.listdir(folder / "blobs" / "sha256") == [digest_of(b"kept").removeprefix("sha256:")]


def test_a_disk_that_fills_while_writing_is_one_clear_error(folder: Path) -> None:
    """A process that may write files of 100 KB only stands for a disk with that much room."""
    code = f"""
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from tests.oci.layout.test_store import *
layout = open_layout(Path({str(folder)!r}))
layout.put_blob(described(b"kept"), reader_of(b"kept"))
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
data = bytes(300_000)
try:
    layout.put_blob(described(data), lambda _: iter((data[:70_000], data[70_000:])))
except Refused as error:
    print(error)
"""
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False, timeout=240
    )
    assert ran.stderr == ""
    assert "writing sha256:" in ran.stdout
    assert "file too large" in ran.stdout
    assert len(os.listdir(folder / "blobs" / "sha256")) == 1


def test_missing_rights_are_said_to_be_missing(
    layout: LayoutStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(layout, content.image(1), "1.0")

    def forbidden(*_: Any, **__: Any) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "open", forbidden)
    with pytest.raises(Denied, match="permission denied") as caught:
        layout.get_manifest("1.0")
    assert caught.value.side == "destination"
    assert caught.value.store == f"oci:{folder}"
    with pytest.raises(Denied, match=r"deleting the tag 1\.0"):
        layout.delete_tag("1.0")


def test_a_file_where_the_folder_should_be_is_a_clear_error(folder: Path) -> None:
    folder.write_text("a file")

    with pytest.raises(NotFound, match="this is no image layout"):
        open_layout(folder).get_manifest("1.0")
    with pytest.raises(Refused, match="file exists"):
        open_layout(folder).put_blob(described(b"x"), reader_of(b"x"))


def test_blobs_that_are_links_fifos_or_folders_are_not_read(layout: LayoutStore, folder: Path, tmp_path: Path) -> None:
    layout.put_blob(described(b"here"), reader_of(b"here"))
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    path = blob_file(folder, digest_of(b"secret"))

    makers: tuple[Callable[[], None], ...] = (
        lambda: path.symlink_to(secret),
        lambda: os.mkfifo(path),
        path.mkdir,
    )
    for make in makers:
        make()
        assert layout.blob_size(digest_of(b"secret")) is None
        with pytest.raises(Refused, match="not a regular file"):
            list(layout.read_blob(described(b"secret")))
        if path.is_symlink() or path.is_fifo():
            path.unlink()


def test_no_file_takes_the_place_of_a_pipe(layout: LayoutStore, folder: Path) -> None:
    layout.put_blob(described(b"here"), reader_of(b"here"))
    path = blob_file(folder, digest_of(b"data"))
    os.mkfifo(path)

    with pytest.raises(Refused, match="a pipe or a device is there"):
        layout.put_blob(described(b"data"), reader_of(b"data"))
    assert path.is_fifo()
    assert len(os.listdir(path.parent)) == 2


@pytest.mark.parametrize("name", ["index.json", "oci-layout"])
def test_a_fifo_in_a_layout_is_not_waited_for(layout: LayoutStore, folder: Path, name: str) -> None:
    image = content.image(1)
    put(layout, image, "1.0")
    (folder / name).unlink()
    os.mkfifo(folder / name)
    other = open_layout(folder)

    for ask in (other.tags, lambda: other.get_manifest("1.0"), lambda: put(other, image, "2.0")):
        with pytest.raises(Refused, match="no regular file"):
            ask()


def _no_create(path: str, flags: int) -> bool:
    return bool(flags & os.O_CREAT)


def _no_writing(path: str, flags: int) -> bool:
    return bool(flags & (os.O_CREAT | os.O_RDWR))


@pytest.mark.parametrize("forbidden", [_no_create, _no_writing])
@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS])
def test_the_lock_of_another_user_is_locked_all_the_same(
    layout: LayoutStore,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    forbidden: Callable[[str, int], bool],
    code: int,
) -> None:
    """A folder that two users fill: the lock belongs to the first of them, and the second may only read it."""
    put(layout, content.image(1), "1.0")
    really = os.open

    def as_another_user(path: str, flags: int, *rest: Any, **more: Any) -> int:
        if str(path).endswith(".lock") and forbidden(path, flags):
            raise OSError(code, os.strerror(code), path)
        return really(path, flags, *rest, **more)

    monkeypatch.setattr(os, "open", as_another_user)
    put(open_layout(folder), content.image(2), "2.0")
    assert set(open_layout(folder).tags()) == {"1.0", "2.0"}


def test_a_lock_that_can_not_be_opened_or_is_held_for_ever_is_named(
    layout: LayoutStore, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(layout, content.image(1), "1.0")
    lock = folder / "index.json.lock"
    monkeypatch.setattr("oci.output.PATIENCE", 0.2)
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(Unavailable, match=f"another process has held the lock {lock}"):
            put(open_layout(folder), content.image(2), "2.0")
    makers: tuple[Callable[[], object], ...] = (
        lambda: os.mkfifo(lock),
        lambda: lock.symlink_to(tmp_path / "elsewhere"),
        lock.mkdir,
    )
    for make in makers:
        lock.unlink()
        make()
        with pytest.raises(Refused, match=f"{lock}"):
            put(open_layout(folder), content.image(2), "2.0")
        if lock.is_dir():
            lock.rmdir()
            lock.touch()
    assert not (tmp_path / "elsewhere").exists()
    really = os.open

    def forbidden(path: str, *rest: Any, **more: Any) -> int:
        if str(path).endswith(".lock"):
            raise OSError(errno.EACCES, os.strerror(errno.EACCES), path)
        return really(path, *rest, **more)

    monkeypatch.setattr(os, "open", forbidden)
    with pytest.raises(Denied, match=f"the lock {lock} can't be opened"):
        put(open_layout(folder), content.image(2), "2.0")


def test_a_link_in_the_place_of_a_blob_is_replaced_and_not_written_through(
    layout: LayoutStore, folder: Path, tmp_path: Path
) -> None:
    layout.put_blob(described(b"here"), reader_of(b"here"))
    outside = tmp_path / "outside"
    outside.write_bytes(b"kept")
    path = blob_file(folder, digest_of(b"data"))
    path.symlink_to(outside)

    assert layout.put_blob(described(b"data"), reader_of(b"data")) is BlobOutcome.WRITTEN
    assert outside.read_bytes() == b"kept"
    assert not path.is_symlink()


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"{", b'{"manifests": 3}', b'{"manifests": [3]}', b"[" * 100_000, b'{"manifests": [{}]}']
)
def test_a_broken_index_is_named(layout: LayoutStore, folder: Path, raw: bytes) -> None:
    put(layout, content.image(1), "1.0")
    (folder / "index.json").write_bytes(raw)

    with pytest.raises(InvalidManifest, match=f"destination oci:{folder}: "):
        layout.get_manifest("1.0")


def test_a_broken_index_is_no_answer_to_whether_a_manifest_is_there(layout: LayoutStore, folder: Path) -> None:
    one = content.image(1)
    put(layout, one, "v1")
    (folder / "index.json").write_bytes(b'{"manifests": [{"digest": "sha256:../x"}]}')

    for identifier in ("v1", one.digest):
        with pytest.raises(InvalidManifest, match=r"manifests\[0\]"):
            open_layout(folder).head_manifest(identifier)


def test_a_broken_index_is_not_written_over(layout: LayoutStore, folder: Path) -> None:
    image = content.image(1)
    put(layout, image, "1.0")
    (folder / "index.json").write_bytes(b'{"manifests": ')

    with pytest.raises(InvalidManifest):
        layout.put_manifest(parse_manifest(image.raw), "2.0")
    assert (folder / "index.json").read_bytes() == b'{"manifests": '


@pytest.mark.parametrize(
    "annotations",
    [
        {REF_NAME: "1.0"},
        {REF_NAME: "docker.io/library/web:1.0"},
        {REF_NAME: "localhost:5000/web:1.0"},
        {"io.containerd.image.name": "docker.io/library/web:1.0"},
        {"io.containerd.image.name": "docker.io/library/web:1.0", REF_NAME: "1.0"},
    ],
)
def test_names_as_other_tools_write_them_are_found(
    layout: LayoutStore, folder: Path, annotations: dict[str, str]
) -> None:
    image = content.image(1)
    put(layout, image, "x")
    write_index(folder, image.descriptor(annotations=annotations))

    assert layout.get_manifest("1.0").raw == image.raw
    assert list(layout.tags()) == ["1.0"]
    assert layout.head_manifest("0") is None
    layout.delete_tag("1.0")
    assert layout.head_manifest("1.0") is None


def test_the_exact_name_comes_before_the_end_of_a_full_one(layout: LayoutStore, folder: Path) -> None:
    images = [content.image(seed) for seed in (1, 2)]
    for image in images:
        put(layout, image, "x")
    write_index(
        folder,
        images[0].descriptor(annotations={REF_NAME: "docker.io/library/web:1.0"}),
        images[1].descriptor(annotations={REF_NAME: "1.0"}),
    )

    assert layout.get_manifest("1.0").raw == images[1].raw


def test_a_name_that_several_manifests_have_is_refused(layout: LayoutStore, folder: Path) -> None:
    images = [content.image(seed) for seed in (1, 2)]
    for image in images:
        put(layout, image, "x")
    write_index(folder, *(image.descriptor(annotations={REF_NAME: "1.0"}) for image in images))

    with pytest.raises(Refused, match=r"this name to 2 manifests.*by its digest"):
        layout.get_manifest("1.0")
    assert layout.get_manifest(images[1].digest).raw == images[1].raw


def test_the_only_entry_is_latest_when_it_has_no_name(layout: LayoutStore, folder: Path) -> None:
    image = content.index([content.image(1), content.image(2)], ["linux/amd64", "linux/arm64"])
    put(layout, image, "x")
    write_index(folder, image.descriptor())

    assert layout.get_manifest("latest").raw == image.raw
    assert list(layout.tags()) == ["latest"]
    assert layout.head_manifest("1.0") is None


def test_an_entry_that_is_no_manifest_disturbs_nobody(layout: LayoutStore, folder: Path) -> None:
    image = content.image(1)
    put(layout, image, "x")
    layout.put_blob(described(b"<xml/>"), reader_of(b"<xml/>"))
    odd = {"mediaType": "application/xml", "digest": digest_of(b"<xml/>"), "size": 6, "annotations": {REF_NAME: "o"}}
    write_index(folder, image.descriptor(annotations={REF_NAME: "1.0"}), odd)

    assert layout.referrers(Digest(image.digest)) == ()
    assert layout.get_manifest("1.0").raw == image.raw
    with pytest.raises(InvalidManifest):
        layout.get_manifest("o")


def test_what_other_tools_said_in_the_index_is_kept(layout: LayoutStore, folder: Path) -> None:
    put(layout, content.image(1), "x")
    other = content.image(2).descriptor(annotations={"team": "shop"}, platform={"os": "linux", "architecture": "s390x"})
    write_index(folder, other, annotations={"made": "elsewhere"})

    put(layout, content.image(1), "1.0")
    assert other in listed(folder)
    assert json.loads((folder / "index.json").read_bytes())["annotations"] == {"made": "elsewhere"}


def test_referrers_are_listed_in_the_index_and_found_by_subject_and_type(layout: LayoutStore, folder: Path) -> None:
    image, other = content.image(1), content.image(2)
    put(layout, image, "1.0")
    put(layout, other, "2.0")
    sbom = content.artifact(3, subject=image)
    note = content.artifact(4, subject=image, artifact_type="application/vnd.example.note")
    for one in (sbom, note, content.artifact(5, subject=other)):
        put(layout, one)

    found = layout.referrers(Digest(image.digest))
    assert sorted(one.digest for one in found) == sorted([sbom.digest, note.digest])
    (typed,) = layout.referrers(Digest(image.digest), "application/vnd.example.note")
    assert (typed.digest, typed.media_type, typed.size) == (note.digest, OCI_MANIFEST, len(note.raw))
    assert (typed.artifact_type, typed.annotations) == ("application/vnd.example.note", {"seed": "4"})
    assert {sbom.digest, note.digest} <= {entry["digest"] for entry in listed(folder)}
    layout.delete_manifest(Digest(note.digest))
    assert [one.digest for one in layout.referrers(Digest(image.digest))] == [sbom.digest]


def test_a_referrer_stays_one_when_its_tag_goes(layout: LayoutStore) -> None:
    image = content.image(1)
    put(layout, image, "1.0")
    sbom = put(layout, content.artifact(2, subject=image), "sbom")

    layout.delete_tag("sbom")
    assert [one.digest for one in layout.referrers(Digest(image.digest))] == [sbom]
    assert list(layout.tags()) == ["1.0"]


def test_referrers_under_the_fallback_tag_are_found(layout: LayoutStore, folder: Path) -> None:
    image = content.image(1)
    put(layout, image, "1.0")
    sbom = content.artifact(2, subject=image)
    put(layout, content.index([sbom]), f"sha256-{image.hex}")
    write_index(folder, *(entry for entry in listed(folder) if entry["digest"] != sbom.digest))

    assert [one.digest for one in layout.referrers(Digest(image.digest))] == [sbom.digest]


def test_deleting_a_tag_removes_the_name_and_nothing_else(layout: LayoutStore, folder: Path) -> None:
    digest = put(layout, content.image(1), "a", "b")

    layout.delete_tag("a")
    assert list(layout.tags()) == ["b"]
    assert blob_file(folder, digest).exists()
    with pytest.raises(NotFound, match="deleting the tag a"):
        layout.delete_tag("a")


def test_deleting_a_manifest_removes_its_names_and_its_file(layout: LayoutStore, folder: Path) -> None:
    digest = put(layout, content.image(1), "a", "b")
    other = put(layout, content.image(2), "c")

    layout.delete_manifest(digest)
    assert [entry["digest"] for entry in listed(folder)] == [other]
    assert not blob_file(folder, digest).exists()
    with pytest.raises(NotFound):
        layout.delete_manifest(digest)


def test_files_can_be_read_by_whom_the_umask_allows(layout: LayoutStore, folder: Path) -> None:
    before = os.umask(0o022)
    try:
        digest = put(layout, content.image(1), "1.0")
    finally:
        os.umask(before)
    for path in (folder / "oci-layout", folder / "index.json", blob_file(folder, digest)):
        assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_another_writers_entries_are_seen(layout: LayoutStore, folder: Path) -> None:
    put(layout, content.image(1), "1.0")
    put(open_layout(folder), content.image(2), "2.0")

    assert list(layout.tags()) == ["1.0", "2.0"]


def test_threads_writing_the_same_blob_and_many_tags_lose_nothing(layout: LayoutStore) -> None:
    image = content.image(1, layers=(content.layer(1, 200_000),))
    threads = [threading.Thread(target=put, args=(layout, image, f"t{number}")) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert len(list(layout.tags())) == 16


WRITER = """
import sys
from tests.oci.layout.test_store import *
folder, worker, turns = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
layout = open_layout(folder)
for turn in range(turns):
    put(layout, content.image(turn, layers=(content.layer(turn, 50_000),)), f"w{worker}-{turn}", "shared")
"""


def start_writer(folder: Path, worker: int, turns: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder), str(worker), str(turns)], cwd=ROOT, start_new_session=True
    )


def test_eight_processes_writing_tags_at_once_keep_every_entry(folder: Path) -> None:
    writers = [start_writer(folder, worker, 10) for worker in range(8)]
    assert [writer.wait(60) for writer in writers] == [0] * 8

    expected = {f"w{worker}-{turn}" for worker in range(8) for turn in range(10)}
    assert set(open_layout(folder).tags()) == expected | {"shared"}
    assert_sound(folder)


@pytest.mark.slow
def test_a_killed_writer_never_leaves_a_wrong_blob_or_a_broken_index(folder: Path) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    for turn in range(8):
        writer = start_writer(folder, turn, 10_000)
        until("a new file", partial(has_other_count, folder, count_files(folder)), every=0.001)
        time.sleep(chance.uniform(0, 0.06))
        writer.kill()
        writer.wait()
        assert_sound(folder)
    put(open_layout(folder), content.image(77), "after")
    assert "after" in open_layout(folder).tags()


def has_other_count(folder: Path, before: int) -> bool:
    return count_files(folder) != before


def count_files(folder: Path) -> int:
    return sum(len(names) for _, _, names in os.walk(folder))


def assert_sound(folder: Path) -> None:
    """Every file has the bytes of its name, and everything that is named is there in full."""
    blobs = folder / "blobs" / "sha256"
    for name in os.listdir(blobs) if blobs.exists() else ():
        if not name.startswith("."):
            assert hashlib.sha256((blobs / name).read_bytes()).hexdigest() == name
    if (folder / "index.json").exists():
        layout = open_layout(folder)
        for tag in layout.tags():
            for blob in layout.get_manifest(tag).blobs:
                assert layout.blob_size(blob.digest) == blob.size


def skopeo(*arguments: str) -> bytes:
    assert shutil.which("skopeo"), "skopeo is not installed: apt-get install skopeo"
    ran = subprocess.run(["skopeo", "--insecure-policy", *arguments], capture_output=True, check=False, timeout=240)
    assert ran.returncode == 0, ran.stderr.decode()
    return ran.stdout


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    with DockerRegistry(tmp_path_factory.mktemp("registry")) as server:
        yield server


def test_skopeo_reads_what_we_write(layout: LayoutStore, folder: Path, registry: DockerRegistry) -> None:
    image = content.image(1)
    put(layout, image, "1.0")
    put(layout, content.image(2), "2.0")
    put(layout, content.artifact(3, subject=image))

    assert skopeo("inspect", "--raw", f"oci:{folder}:1.0") == image.raw
    target = f"docker://{registry.host}/skopeo/image"
    skopeo("copy", "--preserve-digests", "--dest-tls-verify=false", f"oci:{folder}:1.0", f"{target}:1.0")
    assert skopeo("inspect", "--raw", "--tls-verify=false", f"{target}:1.0") == image.raw


def test_skopeo_reads_a_whole_index_that_we_write(layout: LayoutStore, folder: Path, registry: DockerRegistry) -> None:
    index = content.index([content.image(1), content.image(2)], ["linux/amd64", "linux/arm64"])
    put(layout, index, "1.0")

    target = f"docker://{registry.host}/skopeo/index:1.0"
    skopeo("copy", "--all", "--preserve-digests", "--dest-tls-verify=false", f"oci:{folder}:1.0", target)
    assert skopeo("inspect", "--raw", "--tls-verify=false", target) == index.raw


def test_we_read_what_skopeo_writes_and_it_keeps_what_we_wrote(
    layout: LayoutStore, folder: Path, registry: DockerRegistry
) -> None:
    mine = put(layout, content.image(1), "mine")
    index = content.index([content.image(2), content.image(3)], ["linux/amd64", "linux/arm64"])
    content.push(registry.url, "from/registry", index, "1.0")
    source = f"docker://{registry.host}/from/registry:1.0"
    skopeo("copy", "--all", "--preserve-digests", "--src-tls-verify=false", source, f"oci:{folder}:theirs")

    assert layout.get_manifest("theirs").raw == index.raw
    for child in layout.get_manifest("theirs").children:
        for blob in layout.get_manifest(child.digest).blobs:
            assert len(b"".join(layout.read_blob(blob))) == blob.size
    assert layout.get_manifest("mine").digest == mine
    layout.delete_tag("mine")
    assert list(layout.tags()) == ["theirs"]


def test_we_read_the_nameless_image_that_skopeo_writes(folder: Path, registry: DockerRegistry) -> None:
    image = content.image(4)
    content.push(registry.url, "from/nameless", image, "1.0")
    skopeo("copy", "--src-tls-verify=false", f"docker://{registry.host}/from/nameless:1.0", f"oci:{folder}")

    assert open_layout(folder).get_manifest("latest").raw == image.raw


ACTS: dict[str, Callable[[LayoutStore], object]] = {
    "get": lambda layout: layout.get_manifest("1.0"),
    "head": lambda layout: layout.head_manifest("1.0"),
    "read": lambda layout: list(layout.read_blob(described(content.image(1).blobs[0].data))),
    "put blob": lambda layout: layout.put_blob(described(b"new"), reader_of(b"new")),
    "put manifest": lambda layout: layout.put_manifest(parse_manifest(content.image(1).raw), "2.0"),
    "tags": lambda layout: list(layout.tags()),
    "referrers": lambda layout: layout.referrers(digest_of(b"")),
    "delete tag": lambda layout: layout.delete_tag("1.0"),
    "delete manifest": lambda layout: layout.delete_manifest(Digest(content.image(1).digest)),
}


@pytest.mark.parametrize("act", ACTS)
def test_a_failing_disk_is_always_reported_as_ours(layout: LayoutStore, folder: Path, act: str) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    put(layout, content.image(1), "1.0")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("open", "lstat", "stat"):
            patch.setattr(os, name, broken)
        with pytest.raises(Unavailable, match="input/output error") as caught:
            ACTS[act](open_layout(folder))
    assert (caught.value.side, caught.value.store) == ("destination", f"oci:{folder}")


def test_a_blob_with_other_bytes_of_the_same_size_is_written_again(layout: LayoutStore, folder: Path) -> None:
    made = content.image(1)
    digest = put(layout, made, "1.0")
    data = made.blobs[0].data
    path = blob_file(folder, content.digest_of(data))
    path.write_bytes(bytes(len(data)))
    again = open_layout(folder)

    assert again.put_blob(described(data), reader_of(data)) is BlobOutcome.WRITTEN
    assert path.read_bytes() == data
    assert again.put_blob(described(data), reader_of(data)) is BlobOutcome.SKIPPED
    blob_file(folder, digest).write_bytes(bytes(len(made.raw)))
    assert again.head_manifest("1.0") is None


def test_a_blob_that_is_there_is_read_once(layout: LayoutStore, monkeypatch: pytest.MonkeyPatch) -> None:
    data = content.image(1).blobs[0].data
    layout.put_blob(described(data), reader_of(data))
    reads: list[object] = []
    real = Verifier.finish

    def noted(verifier: Verifier) -> None:
        reads.append(verifier)
        real(verifier)

    monkeypatch.setattr(Verifier, "finish", noted)

    for _ in range(3):
        assert layout.put_blob(described(data), reader_of(data)) is BlobOutcome.SKIPPED
    assert len(reads) == 1


ARTIFACT_MANIFEST = "application/vnd.oci.artifact.manifest.v1+json"
STRANGE = "application/vnd.example.manifest.v9+json"
SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1+prettyjws"


def strange_documents(blob: str) -> dict[str, bytes]:
    """Manifests that can't be read here, by media type."""
    return {
        ARTIFACT_MANIFEST: json.dumps(
            {"mediaType": ARTIFACT_MANIFEST, "blobs": [{"digest": blob, "size": 3}]}
        ).encode(),
        SCHEMA_1: json.dumps({"schemaVersion": 1, "fsLayers": [{"blobSum": blob}]}).encode(),
        STRANGE: json.dumps({"mediaType": STRANGE, "needs": {"deep": [blob]}}).encode(),
    }


@pytest.mark.parametrize("name", ["tag", "digest", "child"])
@pytest.mark.parametrize("media_type", strange_documents(""))
def test_a_manifest_that_can_not_be_read_keeps_what_it_names(media_type: str, name: str, tmp_path: Path) -> None:
    layout = open_layout(tmp_path)
    put(layout, content.image(1), "1.0")
    blob = described(b"abc")
    raw = strange_documents(blob.digest)[media_type]
    for data in (b"abc", raw):
        layout.put_blob(described(data), reader_of(data))
    entry = {"mediaType": media_type, "digest": digest_of(raw), "size": len(raw)}
    if name == "child":
        index = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]}).encode()
        layout.put_manifest(parse_manifest(index), "all")
    else:
        listing = json.loads((tmp_path / "index.json").read_bytes())
        listing["manifests"].append(entry | ({"annotations": {REF_NAME: "strange"}} if name == "tag" else {}))
        (tmp_path / "index.json").write_text(json.dumps(listing))
    for path in (tmp_path / "blobs" / "sha256").iterdir():
        os.utime(path, (time.time() - 2 * ABANDONED_AFTER,) * 2)

    layout.sweep({blob.digest, digest_of(raw)})
    assert layout.blob_size(blob.digest) == 3
    assert layout.blob_size(digest_of(raw)) == len(raw)
    shown = layout.head_manifest(digest_of(raw))
    assert shown is not None
    assert (shown.digest, shown.size) == (digest_of(raw), len(raw))

    layout.delete_manifest(parse_manifest(index).digest if name == "child" else digest_of(raw))
    layout.sweep({blob.digest, digest_of(raw)})
    assert layout.blob_size(blob.digest) is None


def test_what_an_index_lists_and_is_a_blob_is_no_manifest(tmp_path: Path) -> None:
    """Build caches list their layers so."""
    layout = open_layout(tmp_path)
    layer = described(b"\x1f\x8b a layer")
    layout.put_blob(layer, reader_of(b"\x1f\x8b a layer"))
    put(layout, content.image(1), "1.0")

    assert layout.head_manifest(layer.digest) is None
    layout.sweep({layer.digest})
    assert layout.blob_size(layer.digest) is None
