"""Files as one layer, byte for byte."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tarfile
import tempfile
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oci.errors import Cancelled, CancelToken, InvalidInput, TransshipError
from oci.files.pack import COMPRESSED_LIMIT, PackedLayer, check_bundle, check_duplicates, is_bundle, pack, walk
from oci.files.unpack import unpack
from tests.support.imgpkg_vectors import PUSHED


def layer_of(packed: PackedLayer) -> bytes:
    data = b"".join(packed.open(0))
    assert packed.size == len(data)
    assert packed.digest == f"sha256:{hashlib.sha256(data).hexdigest()}"
    assert packed.diff_id == f"sha256:{hashlib.sha256(gzip.decompress(data)).hexdigest()}"
    return data


def write(path: Path, text: str, mode: int = 0o644) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return str(path)


def imgpkg_input(name: str, folder: Path) -> list[str]:
    if name == "V1":
        return [write(folder / "hello.txt", "hello\n")]
    if name == "V2":
        write(folder / "hello.txt", "hello\n")
        write(folder / "sub/run.sh", "#!/bin/sh\necho hi\n", 0o755)
    if name == "V3":
        write(folder / ".imgpkg/images.yml", "apiVersion: imgpkg.carvel.dev/v1alpha1\nkind: ImagesLock\n")
    return [str(folder)] if name in ("V2", "V3") else []


@pytest.mark.parametrize("name", ["V1", "V2", "V3", "V4"])
def test_scenario_1_the_same_files_give_the_layer_that_imgpkg_pushes(name: str, tmp_path: Path) -> None:
    packed = pack(walk(imgpkg_input(name, tmp_path)))

    assert layer_of(packed) == PUSHED[name].layer
    assert packed.diff_id == PUSHED[name].diff_id


def test_a_layer_is_the_same_wherever_and_whenever_the_files_were_made(tmp_path: Path) -> None:
    made = []
    for place, when in (("one", 0), ("another/place", 1_700_000_000)):
        for name in ("b", "a", "sub/c") if when else ("sub/c", "a", "b"):
            path = write(tmp_path / place / name, name, 0o640 if when else 0o666)
            os.utime(path, (when, when))
        made.append(layer_of(pack(walk([str(tmp_path / place)]))))

    assert made[0] == made[1]


def test_permissions_are_written_as_plain_ustar(tmp_path: Path) -> None:
    write(tmp_path / "d/sub/run.sh", "x", 0o2755)
    (tmp_path / "d/sub").chmod(0o1775)
    (tmp_path / "d").chmod(0o750)
    data = layer_of(pack(walk([str(tmp_path / "d")], preserve_permissions=True)))

    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert {member.name: member.mode for member in archive} == {".": 0o750, "sub": 0o1775, "sub/run.sh": 0o2755}
    blocks = gzip.decompress(data)
    assert blocks[257:265] == b"ustar\x0000"
    assert blocks[100:108] == b"0000750\0"


def test_a_layer_is_opened_at_an_offset(tmp_path: Path) -> None:
    path = write(tmp_path / "x", "some text " * 20_000)
    for limit in (COMPRESSED_LIMIT, 0):
        packed = pack(walk([path]), compressed_limit=limit)
        whole = layer_of(packed)
        for offset in (0, 1, 10, 65_550, len(whole) - 3, len(whole)):
            assert b"".join(packed.open(offset)) == whole[offset:]


def repeating(size: int) -> bytes:
    return bytes(range(256)) * (size // 256) + bytes(range(size % 256))


@pytest.mark.parametrize(
    ("size", "sha256"),
    [
        # Of what Go's compress/gzip makes at NoCompression of the tar of one file with these bytes.
        (0, "aac60e5fe4e573750c6bc63a2f0e43904d55db71251b1572a00750e35f73094e"),
        (65_535, "78ae98edda2bb0a9d16ab6d5be4c650dc958b78ff5809b320065bcd6a43c7f23"),
        (200_000, "8da725bd9519dc3351e242b5ca0d7c57bdbe5379a15fd47de78314cd3f0222fd"),
    ],
)
def test_beyond_the_limit_the_tar_is_stored_as_go_stores_it(size: int, sha256: str, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(repeating(size))
    (tmp_path / "x").chmod(0o600)

    assert hashlib.sha256(layer_of(pack(walk([str(tmp_path / "x")]), compressed_limit=0))).hexdigest() == sha256


def test_the_limit_is_on_the_size_of_the_tar(tmp_path: Path) -> None:
    path = write(tmp_path / "x", "x" * 512)
    tar_size = 512 + 512 + 1024

    assert pack(walk([path]), compressed_limit=tar_size).size < tar_size
    assert pack(walk([path]), compressed_limit=tar_size - 1).size > tar_size


def test_a_big_file_is_packed_in_little_memory(tmp_path: Path) -> None:
    size = 192 << 20
    with (tmp_path / "big").open("wb") as file:
        file.truncate(size)
    entries = walk([str(tmp_path / "big")])
    tracemalloc.start()
    try:
        packed = pack(entries)
        read = sum(map(len, packed.open(0)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert read == packed.size > size
    assert peak < 16 << 20


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def shrink(path: Path) -> None:
    os.truncate(path, 5)


def rewrite(path: Path) -> None:
    path.write_bytes(b"y" * path.stat().st_size)
    os.utime(path, ns=(1, 1))


def replace_by_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/hostname")


@pytest.mark.parametrize("change", [grow, shrink, rewrite, replace_by_link, Path.unlink])
def test_a_file_that_changed_since_it_was_found_is_named(change: object, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"x" * 1000)
    entries = walk([str(path)])
    change(path)  # type: ignore[operator]

    with pytest.raises(InvalidInput, match=f"{path} (was changed while it was being packed|can't be read)"):
        pack(entries)


def test_a_file_that_grows_while_it_is_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(bytes(3 << 20))

    class GrowWhenAsked(CancelToken):
        asked = 0

        def check(self) -> None:
            self.asked += 1
            if self.asked == 3:
                grow(path)

    with pytest.raises(InvalidInput, match="was changed while it was being packed"):
        pack(walk([str(path)]), cancel=GrowWhenAsked())


def test_a_file_that_changes_before_the_upload_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"x" * 1000)
    packed = pack(walk([str(path)]), compressed_limit=0)
    rewrite(path)

    for offset in (0, 5):
        with pytest.raises(InvalidInput, match="was changed while it was being packed"):
            list(packed.open(offset))


def test_what_was_compressed_needs_the_files_no_more(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"x" * 1000)
    packed = pack(walk([str(path)]))
    path.unlink()

    assert layer_of(packed)


def test_packing_stops_when_cancelled(tmp_path: Path) -> None:
    path = write(tmp_path / "x", "x" * 1000)
    cancel = CancelToken()
    packed = pack(walk([path]), cancel=cancel, compressed_limit=0)
    cancel.cancel()

    with pytest.raises(Cancelled):
        pack(walk([path]), cancel=cancel)
    with pytest.raises(Cancelled):
        list(packed.open(0))


def test_a_fifo_in_the_place_of_a_file_makes_nobody_wait(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"x")
    entries = walk([str(path)])
    path.unlink()
    os.mkfifo(path)
    failures: list[TransshipError] = []

    def attempt() -> None:
        try:
            pack(entries)
        except TransshipError as error:
            failures.append(error)

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(60)
    assert [type(failure) for failure in failures] == [InvalidInput]


NAMES = (
    st.text(st.characters(exclude_characters="/\\\0", exclude_categories=["Cs"]), min_size=1, max_size=40)
    .filter(lambda name: name not in (".", "..", ".git") and not name.startswith(".wh."))
    .filter(lambda name: len(name.encode()) < 200)
)
FILES = st.dictionaries(
    st.lists(NAMES, min_size=1, max_size=4).map("/".join),
    st.tuples(st.binary(max_size=3000), st.booleans()),
    max_size=8,
)


def without_conflicts(files: dict[str, tuple[bytes, bool]]) -> dict[str, tuple[bytes, bool]]:
    """No file is also a folder."""
    folders = {"/".join(name.split("/")[:count]) for name in files for count in range(1, len(name.split("/")))}
    return {name: content for name, content in files.items() if name not in folders}


@pytest.fixture(scope="module")
def umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.mark.usefixtures("umask")
@given(files=FILES.map(without_conflicts), limit=st.sampled_from([0, COMPRESSED_LIMIT]), preserve=st.booleans())
def test_what_is_packed_is_unpacked(files: dict[str, tuple[bytes, bool]], limit: int, preserve: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "source"), Path(folder, "target")
        source.mkdir()
        for name, (data, executable) in files.items():
            path = source / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            path.chmod(0o755 if executable else 0o644)
        packed = pack(walk([str(source)], preserve_permissions=preserve), compressed_limit=limit)
        unpack([packed.open(0)], str(target))

        found = {
            str(path.relative_to(target)): (path.read_bytes(), path.stat().st_mode & 0o777, path.stat().st_mtime)
            for path in target.rglob("*")
            if path.is_file()
        }
        assert found == {name: (data, 0o755 if run else 0o644, 0) for name, (data, run) in files.items()}


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
