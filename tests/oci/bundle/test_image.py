from __future__ import annotations

import gzip
import io
import json
import tarfile
import tracemalloc
from collections.abc import Callable, Iterator

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from oci.bundle.image import BUNDLE_LABEL, is_bundle_config, read_member, single_layer_image
from oci.descriptor import OCI_CONFIG, OCI_LAYER_GZIP, OCI_MANIFEST
from oci.digest import digest_of, parse_digest, verified
from oci.errors import IntegrityError, InvalidInput, InvalidManifest
from oci.files import tar
from tests.support.imgpkg_vectors import PUSHED

LAYER = digest_of(b"layer")
DIFF_ID = digest_of(b"tar")


@pytest.mark.parametrize("name", PUSHED)
def test_scenario_1_config_and_manifest_are_those_imgpkg_pushes(name: str) -> None:
    pushed = PUSHED[name]
    labels = {BUNDLE_LABEL: "true"} if name == "V3" else {}

    manifest, config, descriptor = single_layer_image(
        digest_of(pushed.layer), len(pushed.layer), parse_digest(pushed.diff_id), labels
    )

    assert config == pushed.config
    assert manifest.raw == pushed.manifest
    assert (descriptor.digest, descriptor.size) == (digest_of(config), len(config))
    assert manifest.config == descriptor


def test_labels_are_sorted_and_escaped_as_go_does() -> None:
    labels = {"team": "<shop> & \u2028co\u2029", BUNDLE_LABEL: "true", "Z": "caf\u00e9 \U0001f600\n\t\x01\x7f"}

    _, config, _ = single_layer_image(LAYER, 5, DIFF_ID, labels)

    assert config.decode().endswith(
        '"config":{"Labels":{"Z":"caf\u00e9 \U0001f600\\n\\t\\u0001\x7f","dev.carvel.imgpkg.bundle":"true",'
        '"team":"\\u003cshop\\u003e \\u0026 \\u2028co\\u2029"}}}'
    )


def test_oci_types_are_an_option() -> None:
    manifest, _, config = single_layer_image(LAYER, 5, DIFF_ID, {}, oci_types=True)

    assert (manifest.media_type, config.media_type) == (OCI_MANIFEST, OCI_CONFIG)
    assert [layer.media_type for layer in manifest.layers] == [OCI_LAYER_GZIP]


def test_a_label_that_is_not_unicode_is_refused() -> None:
    with pytest.raises(InvalidInput) as caught:
        single_layer_image(LAYER, 5, DIFF_ID, {"a": "\udce9"})

    assert str(caught.value) == "a label holds something that isn't Unicode"


@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"])), st.text(st.characters(exclude_categories=["Cs"]))
    )
)
def test_labels_come_back_and_the_key_alone_makes_a_bundle(labels: dict[str, str]) -> None:
    _, config, _ = single_layer_image(LAYER, 5, DIFF_ID, labels)

    assert json.loads(config)["config"].get("Labels", {}) == labels
    assert is_bundle_config(config) == (BUNDLE_LABEL in labels)


@pytest.mark.parametrize("value", ["true", "false", "", None])
def test_scenario_16_the_label_marks_a_bundle_whatever_its_value(value: str | None) -> None:
    assert is_bundle_config(json.dumps({"config": {"Labels": {BUNDLE_LABEL: value}}}).encode())


@pytest.mark.parametrize("config", ["{}", '{"config":null}', '{"config":{}}', '{"config":{"Labels":null}}'])
def test_a_config_without_the_label_is_no_bundle(config: str) -> None:
    assert not is_bundle_config(config.encode())


@pytest.mark.parametrize(
    "config",
    [
        b"",
        b"PK\x03\x04",
        b"\xff\xfe",
        b"[" * 100_000,
        b"[]",
        b'{"config":[1]}',
        b'{"config":{"Labels":"dev.carvel.imgpkg.bundle"}}',
        b'{"config":{"Labels":["dev.carvel.imgpkg.bundle"]}}',
    ],
    ids=range(8),
)
def test_what_is_no_config_is_no_bundle(config: bytes) -> None:
    assert not is_bundle_config(config)


PATH = ".imgpkg/images.yml"
LOCK = b"kind: ImagesLock\n"
LIMIT = 1 << 20


def is_lock(name: str) -> bool:
    return name == PATH


def chunked(data: bytes, size: int = 1000) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


def read(layer: bytes, *, limit: int = LIMIT, size: int = 1000) -> bytes | None:
    return read_member(chunked(layer, size), is_lock, limit)


def archive(*members: tuple[str, bytes], form: int = tarfile.USTAR_FORMAT, **more: object) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as written:
        for name, data in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            for key, value in more.items():
                setattr(entry, key, value)
            written.addfile(entry, io.BytesIO(data))
    return file.getvalue()


def test_the_lock_is_found_in_a_bundle_imgpkg_pushed() -> None:
    assert read(PUSHED["V3"].layer) == b"apiVersion: imgpkg.carvel.dev/v1alpha1\nkind: ImagesLock\n"


@pytest.mark.parametrize("name", ["V1", "V2", "V4", "V5"])
def test_other_images_have_no_lock(name: str) -> None:
    assert read(PUSHED[name].layer) is None


COMPRESSIONS: list[Callable[[bytes], bytes]] = [
    bytes,
    gzip.compress,
    lambda data: b"".join(gzip.compress(part) for part in chunked(data, 700)) + bytes(512),
    zstandard.compress,
    lambda data: b"".join(zstandard.compress(part) for part in chunked(data, 700)),
    lambda data: b"\x50\x2a\x4d\x18\x04\0\0\0skip" + zstandard.compress(data),
]


@pytest.mark.parametrize("compress", COMPRESSIONS, ids=["plain", "gzip", "members", "zstd", "frames", "skippable"])
@pytest.mark.parametrize("size", [1, 7, 1000, 1 << 20])
def test_scenario_19_any_compression_is_told_by_its_first_bytes(compress: Callable[[bytes], bytes], size: int) -> None:
    layer = compress(archive(("README", b"x" * 3000), (PATH, LOCK)))

    assert read(layer, size=size) == LOCK


@pytest.mark.parametrize(
    "name", [f"./{PATH}", f"/{PATH}", ".imgpkg//images.yml", ".imgpkg\\images.yml", ".\\.imgpkg\\images.yml"]
)
def test_names_are_cleaned(name: str) -> None:
    assert read(archive((name, LOCK))) == LOCK


@pytest.mark.parametrize("name", ["../.imgpkg/images.yml", "x/.imgpkg/images.yml", ".imgpkg/images.yml/x", ".imgpkg"])
def test_other_names_are_not_taken_for_it(name: str) -> None:
    assert read(archive((name, LOCK))) is None


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("depth", [1, 12, 60])
def test_long_names_are_read_in_every_format(form: int, depth: int) -> None:
    name = "deep/" * depth + "file"
    if form == tarfile.USTAR_FORMAT and depth > 50:
        name = f"{'d' * 150}/{'f' * 90}"
    names: list[str] = []

    def note(seen: str) -> bool:
        names.append(seen)
        return False

    read_member(chunked(archive((name, b"1"), ("after", b"2"), form=form)), note, LIMIT)

    assert names == [name, "after"]


def test_a_name_in_a_pax_header_is_read_as_unicode() -> None:
    layer = archive(("caf\u00e9/\u65e5", LOCK), form=tarfile.PAX_FORMAT)

    assert read_member(chunked(layer), "caf\u00e9/\u65e5".__eq__, LIMIT) == LOCK


def test_a_global_pax_header_is_passed_over() -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"comment": "x"}) as written:
        entry = tarfile.TarInfo(PATH)
        entry.size = len(LOCK)
        written.addfile(entry, io.BytesIO(LOCK))

    assert read(file.getvalue()) == LOCK


def test_numbers_may_be_base_256() -> None:
    layer = bytearray(archive((PATH, LOCK)))
    layer[100:108] = bytes.fromhex("80000000800001ed")
    layer[124:136] = b"\x80" + len(LOCK).to_bytes(11, "big")
    layer[148:156] = b" " * 8
    layer[148:156] = b"%06o\0 " % sum(layer[:512])

    assert read(bytes(layer)) == LOCK


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE])
def test_only_a_regular_file_is_read(kind: bytes) -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as written:
        entry = tarfile.TarInfo(PATH)
        entry.type, entry.linkname = kind, "elsewhere"
        written.addfile(entry)

    assert read(file.getvalue()) is None


def test_the_first_of_two_counts() -> None:
    assert read(archive((PATH, LOCK), (PATH, b"second"))) == LOCK


def test_nothing_is_read_beyond_the_file() -> None:
    def endless() -> Iterator[bytes]:
        yield archive((PATH, LOCK))[:1024]
        raise AssertionError("read too far")

    assert read_member(endless(), is_lock, LIMIT) == LOCK


def test_a_missing_end_is_forgiven() -> None:
    assert read(archive(("a", b"x"))[:1024]) is None
    assert read(b"") is None


def test_a_file_beyond_the_limit_is_refused() -> None:
    with pytest.raises(InvalidManifest) as caught:
        read(archive((PATH, LOCK)), limit=16)

    assert str(caught.value) == ".imgpkg/images.yml has 17 bytes, more than the limit of 16"


def pax(*records: bytes, size: int | None = None) -> bytes:
    data = b"".join(records)
    head = tar.header("PaxHeaders.0/x", mode=0, size=len(data) if size is None else size, typeflag=b"x")
    return head + data + tar.padding(len(data)) + archive((PATH, LOCK))


@pytest.mark.parametrize("compress", [gzip.compress, zstandard.compress], ids=["gzip", "zstd"])
def test_a_bomb_is_read_in_small_pieces(compress: Callable[[bytes], bytes]) -> None:
    layer = compress(tar.header("big", mode=0, size=60 << 20) + bytes(60 << 20) + archive((PATH, LOCK)))
    tracemalloc.start()

    found = read(layer, size=len(layer))

    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found == LOCK
    assert peak < 4 << 20


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (b"<html>" * 100, "the layer isn't a tar, or is damaged"),
        (b"x" * 100, "the layer's tar is cut short"),
        (archive(("a", b"x" * 5000))[:2000], "the layer's tar is cut short"),
        (archive((PATH, b"x" * 5000))[:2000], "the layer's tar is cut short"),
        (gzip.compress(archive(("a", b"x")))[:-20], "the layer's gzip data is cut short"),
        (gzip.compress(archive(("a", b"x")))[:40] + b"\xff" * 100, "the layer's gzip data is damaged"),
        (zstandard.compress(archive(("a", b"x")))[:10] + b"\xff" * 100, "the layer's zstd data is damaged"),
        (pax(b"x" * 10), "the layer isn't a tar, or is damaged"),
        (pax(b"99 path=a\n"), "the layer isn't a tar, or is damaged"),
        (pax(b"0 path=a\n"), "the layer isn't a tar, or is damaged"),
        (pax(b"11 size=-1\n"), "the layer isn't a tar, or is damaged"),
        (pax(size=1 << 30), "the layer's tar has a name of 1073741824 bytes"),
    ],
    ids=range(12),
)
def test_a_damaged_layer_is_refused(layer: bytes, message: str) -> None:
    with pytest.raises(InvalidManifest) as caught:
        read(layer)

    assert str(caught.value) == message


def test_wrong_bytes_are_blamed_before_a_damaged_layer() -> None:
    good = gzip.compress(archive(("a", b"x" * 5000), (PATH, LOCK)), compresslevel=0)
    bad = good[:40] + b"\xff" * 50 + good[90:]

    with pytest.raises(IntegrityError):
        read_member(verified(chunked(bad), digest_of(good), len(good)), is_lock, LIMIT)


@given(st.binary(max_size=2000))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    outcome = attempt(data)

    assert outcome is None or isinstance(outcome, InvalidManifest | bytes)


LAYERS = [
    compress(archive(("a" * 200, b"x" * 600), (PATH, LOCK), form=tarfile.PAX_FORMAT)) for compress in COMPRESSIONS
]


@given(st.sampled_from(LAYERS), st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 255)), max_size=8))
def test_any_damage_is_survived(layer: bytes, changes: list[tuple[int, int]]) -> None:
    data = bytearray(layer)
    for at, byte in changes:
        data[at % len(data)] = byte

    outcome = attempt(bytes(data))

    assert outcome is None or isinstance(outcome, InvalidManifest | bytes)


def attempt(layer: bytes) -> bytes | InvalidManifest | None:
    try:
        return read(layer)
    except InvalidManifest as error:
        return error
