"""Layers as files: the mode rule, deletions, hostile names, damaged data."""

from __future__ import annotations

import bz2
import gzip
import io
import os
import random
import stat
import tarfile
import tempfile
import tracemalloc
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from oci.digest import digest_of, verified
from oci.errors import Cancelled, CancelToken, IntegrityError, InvalidManifest, NotFound, Refused, TransshipError
from oci.files import tar
from oci.files.decompress import UnpackLimits
from oci.files.unpack import DEPTH_LIMIT, unpack

FORMATS = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)


def entry(
    name: str,
    data: bytes = b"",
    *,
    mode: int = 0o644,
    kind: bytes = tarfile.REGTYPE,
    mtime: float = 0,
    target: str = "",
    pax: dict[str, str] | None = None,
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.type, info.mtime, info.linkname = len(data), mode, kind, int(mtime), target
    info.pax_headers = pax or {}
    return info, data


def folder_entry(name: str) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, kind=tarfile.DIRTYPE, mode=0o700)


def tar_of(*entries: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form) as archive:
        for info, data in entries:
            archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def chunked(data: bytes, size: int = 1000) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


def unpacked(folder: Path, *layers: bytes) -> dict[str, bytes]:
    unpack([chunked(layer) for layer in layers], str(folder))
    return files_of(folder)


def files_of(folder: Path) -> dict[str, bytes]:
    """Empty folders too, with a slash behind."""
    found = {}
    for path in folder.rglob("*"):
        name = str(path.relative_to(folder))
        if path.is_dir() and not path.is_symlink():
            if not any(path.iterdir()):
                found[f"{name}/"] = b""
        else:
            found[name] = path.read_bytes()
    return found


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture(autouse=True)
def umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


TWO_FILES = tar_of(folder_entry("."), folder_entry("sub"), entry("sub/a", b"A" * 5000), entry("b", b"B"))


@pytest.mark.parametrize(
    "layer",
    [
        TWO_FILES,
        gzip.compress(TWO_FILES),
        gzip.compress(TWO_FILES[:700]) + gzip.compress(TWO_FILES[700:]),
        zstandard.compress(TWO_FILES),
        zstandard.compress(TWO_FILES[:700]) + zstandard.compress(TWO_FILES[700:]),
    ],
    ids=["plain", "gzip", "gzip in two members", "zstd", "zstd in two frames"],
)
@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_every_compression_is_recognised_however_the_bytes_arrive(out: Path, layer: bytes, size: int) -> None:
    unpack([chunked(layer, size)], str(out))

    assert files_of(out) == {"sub/a": b"A" * 5000, "b": b"B"}


def test_folders_appear_only_as_parents_of_files(out: Path) -> None:
    found = unpacked(out, tar_of(folder_entry("empty"), folder_entry("a"), entry("a/b/c", b"x")))

    assert found == {"a/b/c": b"x"}
    assert stat.S_IMODE((out / "a").stat().st_mode) == 0o755


@pytest.mark.parametrize(
    ("stored", "mode"),
    [(0o600, 0o644), (0o700, 0o755), (0o400, 0o444), (0o640, 0o640), (0o755, 0o755), (0o666, 0o644), (0o4755, 0o755)],
)
def test_the_owners_bits_count_for_all_when_there_are_no_others(out: Path, stored: int, mode: int) -> None:
    unpacked(out, tar_of(entry("x", mode=stored)))

    assert stat.S_IMODE((out / "x").stat().st_mode) == mode


def test_a_mode_in_base_256_as_imgpkg_writes_it_is_read(out: Path) -> None:
    block = bytearray(tar.header("x", mode=0, size=0))
    block[100:108] = bytes.fromhex("80000000800001ed")
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    unpacked(out, bytes(block) + tar.END)

    assert stat.S_IMODE((out / "x").stat().st_mode) == 0o755


@pytest.mark.parametrize(
    ("mtime", "pax", "expected"),
    [
        (0, {}, 0),
        (1_700_000_000, {}, 1_700_000_000 * 10**9),
        (1, {"mtime": "1700000000.25"}, 1_700_000_000_250_000_000),
        (1, {"mtime": "-1.5"}, -1_500_000_000),
    ],
)
def test_times_are_those_of_the_header(out: Path, mtime: float, pax: dict[str, str], expected: int) -> None:
    unpacked(out, tar_of(entry("x", mtime=mtime, pax=pax)))

    assert (out / "x").stat().st_mtime_ns == expected


@pytest.mark.parametrize("mtime", ["99999999999999999", "-9999999999999"])
def test_times_that_nobody_has_do_no_harm(out: Path, mtime: str) -> None:
    assert unpacked(out, tar_of(entry("x", b"x", pax={"mtime": mtime}))) == {"x": b"x"}


@pytest.mark.parametrize("form", FORMATS)
def test_long_names_are_read_in_every_format(out: Path, form: int) -> None:
    names = ["d/" * 40 + "x" * 60, "y" * 100]
    if form != tarfile.USTAR_FORMAT:
        names += ["z" * 250, "é" * 120, "e/" * 200 + "f"]

    assert unpacked(out, tar_of(*(entry(name, b"x") for name in names), form=form)) == dict.fromkeys(names, b"x")


def test_links_devices_and_fifos_are_passed_over(out: Path) -> None:
    odd = [
        entry(f"odd{kind.decode()}", kind=kind, target="/etc/passwd")
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE)
    ]

    assert unpacked(out, tar_of(*odd, entry("x", b"x"))) == {"x": b"x"}


@pytest.mark.parametrize("kind", [b"S", b"7", b"Z"])
def test_any_other_type_is_refused(out: Path, kind: bytes) -> None:
    with pytest.raises(InvalidManifest, match=f"'x': unsupported tar entry type '{kind.decode()}'"):
        unpacked(out, tar_of(entry("x", kind=kind)))


def test_a_sparse_file_in_pax_form_is_refused(out: Path) -> None:
    with pytest.raises(InvalidManifest, match="unsupported tar entry type"):
        unpacked(out, tar_of(entry("x", b"x", pax={"GNU.sparse.major": "1"})))


def test_global_pax_headers_are_passed_over(out: Path) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", pax_headers={"comment": "a commit", "path": "evil"}) as archive:
        archive.addfile(*(entry("x")[0], io.BytesIO()))

    assert unpacked(out, stream.getvalue()) == {"x": b""}


@pytest.mark.parametrize(
    "name", ["../evil", "a/../../evil", "..", "/../evil", "..\\evil", "a\\..\\..\\evil", "./../evil", "\\..\\evil"]
)
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE])
def test_scenario_23_a_name_that_leads_out_is_refused(out: Path, name: str, kind: bytes) -> None:
    with pytest.raises(InvalidManifest, match="leads out of the output folder"):
        unpacked(out, tar_of(entry(name, kind=kind)))
    assert os.listdir(out.parent) == ["out"]


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("/etc/passwd", "etc/passwd"),
        ("//x", "x"),
        ("./a//b/./c", "a/b/c"),
        ("a/../b", "b"),
        ("a\\b\\c", "a/b/c"),
        ("C:\\x", "C:/x"),
        ("...", "..."),
    ],
)
def test_odd_names_find_their_place_inside(out: Path, name: str, place: str) -> None:
    assert unpacked(out, tar_of(entry(name, b"x"))) == {place: b"x"}


def test_names_that_are_not_utf_8_are_kept(out: Path) -> None:
    assert unpacked(out, tar_of(entry("b\udcffd", b"x"), form=tarfile.GNU_FORMAT)) == {"b\udcffd": b"x"}


def test_names_that_no_file_can_have_are_refused(out: Path) -> None:
    deep = "d/" * (DEPTH_LIMIT + 1) + "x"
    for name in (deep, "x" * 5000, "d/" * 3000 + "x"):
        with pytest.raises(InvalidManifest, match="the layer has a name"):
            unpacked(out, tar_of(entry(name)))
    with pytest.raises(InvalidManifest, match="a file with the name"):
        unpacked(out, tar_of(entry(".")))
    with pytest.raises(Refused, match="file name too long"):
        unpacked(out, tar_of(entry("x" * 300)))


def test_the_last_of_several_files_of_one_name_stays(out: Path) -> None:
    layer = tar_of(entry("x", b"1" * 100), entry("./x", b"2"), entry("y", b"1"), entry("y/z", b"2"), entry("y", b"3"))

    assert unpacked(out, layer) == {"x": b"2", "y": b"3"}


def test_a_link_that_stands_in_the_folder_is_never_followed(out: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_bytes(b"kept")
    out.mkdir()
    (out / "folder").symlink_to(outside)
    (out / "file").symlink_to(outside / "kept")
    unpack([chunked(tar_of(entry("folder/x", b"x"), entry("file", b"y")))], str(out))

    assert files_of(out) == {"folder/x": b"x", "file": b"y"}
    assert files_of(outside) == {"kept": b"kept"}


def test_deletions_do_not_follow_links_either(out: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_bytes(b"kept")
    out.mkdir()
    (out / "folder").symlink_to(outside)
    (out / "other").symlink_to(outside)
    layer = tar_of(entry("folder/.wh.kept"), entry("folder/.wh..wh..opq"), entry(".wh.other"))
    unpack([iter(()), chunked(layer)], str(out))

    assert files_of(outside) == {"kept": b"kept"}
    assert not (out / "other").is_symlink()


LOWER = tar_of(
    entry("a", b"lower"), entry("d/x", b"lower"), entry("d/y", b"lower"), entry("d/e/z", b"lower"), entry("k", b"lower")
)


@pytest.mark.parametrize(
    ("upper", "expected"),
    [
        ([entry("a", b"upper")], {"a": b"upper", "d/x": 1, "d/y": 1, "d/e/z": 1, "k": 1}),
        ([entry(".wh.a")], {"d/x": 1, "d/y": 1, "d/e/z": 1, "k": 1}),
        ([entry("d/.wh.x")], {"a": 1, "d/y": 1, "d/e/z": 1, "k": 1}),
        ([entry(".wh.d")], {"a": 1, "k": 1}),
        ([entry("d/e/.wh.z")], {"a": 1, "d/x": 1, "d/y": 1, "k": 1}),
        ([entry("d/.wh..wh..opq"), entry("d/n", b"n")], {"a": 1, "k": 1, "d/n": b"n"}),
        ([entry("d/n", b"n"), entry("d/.wh..wh..opq")], {"a": 1, "k": 1, "d/n": b"n"}),
        ([folder_entry("d"), entry("d/e/n", b"n"), entry(".wh.d")], {"a": 1, "k": 1, "d/e/n": b"n"}),
        ([entry("a", b"upper"), entry(".wh.a")], {"a": b"upper", "d/x": 1, "d/y": 1, "d/e/z": 1, "k": 1}),
        ([entry(".wh..wh..opq")], {}),
        ([entry("d", b"a file")], {"a": 1, "k": 1, "d": b"a file"}),
        ([entry("a/b", b"below")], {"a/b": b"below", "d/x": 1, "d/y": 1, "d/e/z": 1, "k": 1}),
        ([entry("a", kind=tarfile.SYMTYPE, target="k")], {"d/x": 1, "d/y": 1, "d/e/z": 1, "k": 1}),
        ([entry("d", kind=tarfile.SYMTYPE, target="k")], {"a": 1, "k": 1}),
        ([folder_entry("a"), folder_entry("d")], {"d/x": 1, "d/y": 1, "d/e/z": 1, "k": 1}),
        ([entry(".wh.absent"), entry("absent/.wh.x"), entry("a/.wh.x"), entry("no/.wh..wh..opq")], None),
        ([entry(".wh..wh.plnk/1", b"aufs"), entry(".wh..wh.aufs", b"aufs")], None),
    ],
)
def test_upper_layers_replace_and_delete_what_is_below(
    out: Path, upper: Sequence[tuple[tarfile.TarInfo, bytes]], expected: dict[str, bytes | int] | None
) -> None:
    found = unpacked(out, LOWER, tar_of(*upper))

    everything: dict[str, bytes | int] = dict.fromkeys(("a", "d/x", "d/y", "d/e/z", "k"), 1)
    wanted = everything if expected is None else expected
    assert found == {name: b"lower" if data == 1 else data for name, data in wanted.items()}


def test_a_deleted_file_comes_back_with_a_later_layer(out: Path) -> None:
    layers = (LOWER, tar_of(entry(".wh.a")), tar_of(entry("a", b"back")), tar_of(entry("d/.wh..wh..opq")))

    assert unpacked(out, *layers) == {"a": b"back", "k": b"lower"}


@pytest.mark.parametrize("name", [".wh.", ".wh..", ".wh...", "d/.wh..."])
def test_a_deletion_never_leaves_the_folder(out: Path, name: str) -> None:
    (out.parent / "kept").write_bytes(b"kept")
    with pytest.raises(InvalidManifest, match="the layer deletes"):
        unpacked(out, LOWER, tar_of(entry(name)))
    assert (out.parent / "kept").exists()


def test_what_is_decompressed_is_limited(out: Path) -> None:
    bomb = gzip.compress(tar_of(entry("zeros", bytes(64 << 20))), 9)
    tracemalloc.start()
    try:
        with pytest.raises(InvalidManifest, match="more than the 1000000 bytes that are allowed"):
            unpack([chunked(bomb)], str(out), limits=UnpackLimits(max_unpacked_size=1_000_000))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert sum(map(len, files_of(out).values())) <= 1_000_000
    assert peak < 8 << 20


def test_the_limit_is_for_all_layers_together(out: Path) -> None:
    layer = tar_of(entry("x", bytes(10_000)))
    unpack([chunked(layer), chunked(layer)], str(out), limits=UnpackLimits(max_unpacked_size=2 * len(layer)))
    with pytest.raises(InvalidManifest, match="are allowed"):
        unpack([chunked(layer), chunked(layer)], str(out), limits=UnpackLimits(max_unpacked_size=15_000))


def test_a_big_file_is_unpacked_in_little_memory(out: Path) -> None:
    size = 128 << 20

    def layer() -> Iterator[bytes]:
        yield tar.header("big", mode=0o600, size=size)
        for _ in range(size >> 20):
            yield bytes(1 << 20)
        yield tar.END

    tracemalloc.start()
    try:
        unpack([layer()], str(out))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert (out / "big").stat().st_size == size
    assert peak < 8 << 20


@pytest.mark.parametrize(
    "layer",
    [
        b"not a tar" * 200,
        TWO_FILES[:1000],
        TWO_FILES[:1700],
        TWO_FILES[:512] + b"x" * 512 + TWO_FILES[1024:],
        TWO_FILES[:-5000] + bytes(512) + TWO_FILES[512:1024],
        gzip.compress(TWO_FILES)[:-20],
        gzip.compress(TWO_FILES)[:60] + b"xxxx" + gzip.compress(TWO_FILES)[64:],
        zstandard.compress(TWO_FILES)[:40] + b"xxxx" + zstandard.compress(TWO_FILES)[44:],
        bz2.compress(TWO_FILES),
    ],
    ids=[
        "text",
        "header cut",
        "data cut",
        "header spoilt",
        "half an end",
        "gzip cut",
        "gzip spoilt",
        "zstd spoilt",
        "bz2",
    ],
)
def test_a_damaged_layer_is_refused(out: Path, layer: bytes) -> None:
    with pytest.raises(InvalidManifest):
        unpacked(out, layer)


def test_wrong_bytes_are_blamed_before_a_damaged_layer_is(out: Path) -> None:
    right = gzip.compress(TWO_FILES)
    wrong = right[:60] + b"xxxx" + right[64:]

    with pytest.raises(IntegrityError):
        unpack([verified(chunked(wrong), digest_of(right), len(right))], str(out))


def test_a_layer_is_read_to_its_end_so_that_it_is_proven(out: Path) -> None:
    layer = TWO_FILES + b"\0" * 100_000

    with pytest.raises(IntegrityError):
        unpack([verified(chunked(layer + b"more"), digest_of(layer), len(layer))], str(out))


def test_unpacking_stops_when_cancelled(out: Path) -> None:
    cancel = CancelToken()

    def layer() -> Iterator[bytes]:
        yield TWO_FILES[:600]
        cancel.cancel()
        yield TWO_FILES[600:]

    with pytest.raises(Cancelled):
        unpack([layer()], str(out), cancel=cancel)


def test_names_longer_than_any_memory_are_refused(out: Path) -> None:
    block = bytearray(tar.header("x", mode=0, size=8 << 30 >> 1))
    block[156:157] = b"L"
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)

    with pytest.raises(InvalidManifest, match="a name of 4294967296 bytes"):
        unpacked(out, bytes(block) + bytes(10_000))


def test_any_number_of_extension_headers_costs_no_memory_and_no_stack(out: Path) -> None:
    extension = tar_of(entry("x", pax={"comment": "c" * 1000}))[:2048]
    extension = extension[: len(extension) - 512]
    tracemalloc.start()
    try:
        unpack([(extension for _ in range(20_000))], str(out))
    except InvalidManifest:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()

    assert peak < 4 << 20


def test_a_source_that_fails_is_reported_as_it_is(out: Path) -> None:
    def layer() -> Iterator[bytes]:
        yield TWO_FILES[:600]
        raise NotFound("gone", side="source")

    with pytest.raises(NotFound, match="gone"):
        unpack([layer()], str(out))


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(TransshipError, match=f"{tmp_path}/file/out: extracting"):
        unpack([], str(tmp_path / "file/out"))


def test_no_file_handles_are_left_open(out: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    unpacked(out, LOWER, tar_of(entry("d/.wh..wh..opq"), entry(".wh.a"), entry("k/x", b"x"), entry("absent/.wh.x")))
    with pytest.raises(InvalidManifest):
        unpacked(out, LOWER, tar_of(entry("d/x", b"x"), entry("../x")))

    assert len(os.listdir("/proc/self/fd")) == before


@given(seed=st.integers(0, 1 << 32), cuts=st.lists(st.tuples(st.integers(0, 20_000), st.integers(0, 255)), max_size=6))
def test_a_hostile_layer_is_unpacked_inside_or_refused(seed: int, cuts: list[tuple[int, int]]) -> None:
    chance = random.Random(seed)
    names = [".", "..", "a", "b", "/", "\\", "a/b", "../x", ".wh.a", ".wh..wh..opq", ".wh...", "a/../..", "a/.wh.b"]
    kinds = [tarfile.REGTYPE] * 4 + [tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE]
    layers = []
    for _ in range(3):
        entries = [
            entry("/".join(chance.choices(names, k=chance.randint(1, 2))), b"x", kind=chance.choice(kinds), target="..")
            for _ in range(chance.randint(0, 8))
        ]
        for info, _ in entries:
            info.size = 1 if info.isreg() else 0
        layers.append(tar_of(*entries, form=chance.choice(FORMATS)))
    spoilt = bytearray(layers[-1])
    for at, value in cuts:
        spoilt[at % len(spoilt)] = value
    layers[-1] = bytes(spoilt)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "kept").write_bytes(b"kept")
        with suppress(TransshipError):
            unpack(
                [chunked(layer) for layer in layers],
                str(Path(folder, "out")),
                limits=UnpackLimits(max_unpacked_size=1 << 20),
            )
        assert sorted(os.listdir(folder)) in (["kept"], ["kept", "out"])
        assert (Path(folder) / "kept").read_bytes() == b"kept"
        assert not any(path.is_symlink() for path in Path(folder).rglob("*"))
