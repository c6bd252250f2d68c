from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from oci.errors import InvalidManifest
from oci.files.decompress import UnpackLimits, decompressed

COMPRESSIONS: list[Callable[[bytes], bytes]] = [gzip.compress, zstandard.compress]


def chunked(data: bytes, size: int) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


@given(st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=4), st.integers(1, 100))
def test_members_and_frames_follow_one_another(parts: list[bytes], size: int) -> None:
    for compress in COMPRESSIONS:
        layer = b"".join(map(compress, parts))

        assert b"".join(decompressed(chunked(layer, size))) == b"".join(parts)


@given(st.lists(st.binary(max_size=9), max_size=6))
def test_what_is_not_compressed_passes_as_it_is(chunks: list[bytes]) -> None:
    data = b"tar " + b"".join(chunks)

    assert b"".join(decompressed([b"t", b"", b"ar ", *chunks])) == data


def test_pieces_stay_small_however_much_a_few_bytes_stand_for() -> None:
    for compress in COMPRESSIONS:
        pieces = list(decompressed([compress(bytes(5 << 20))]))

        assert sum(map(len, pieces)) == 5 << 20
        assert max(map(len, pieces)) <= 256 << 10


@pytest.mark.parametrize("cut", [2, 5, 15, 40])
def test_gzip_data_that_is_cut_short_is_refused(cut: int) -> None:
    layer = gzip.compress(bytes(range(256)) * 9)

    with pytest.raises(InvalidManifest) as caught:
        list(decompressed([layer[:cut]]))

    assert str(caught.value) == "the layer's gzip data is cut short"


ZSTD_LAYERS = {
    "blocks": zstandard.compress(b"".join(bytes([n % 251]) * (n % 7) for n in range(200_000)), 1),
    "checksum": zstandard.ZstdCompressor(write_checksum=True).compress(bytes(range(256)) * 9),
    "raw": zstandard.ZstdCompressor(write_content_size=False).compress(bytes(range(256))),
    "frames": zstandard.compress(b"a" * 300) + zstandard.compress(b"") + zstandard.compress(b"b"),
    "skippable": zstandard.compress(b"c") + b"\x50\x2a\x4d\x18\x64\0\0\0" + bytes(100),
    "long block": b"\x28\xb5\x2f\xfd\x20\x64" + (100 << 3 | 1).to_bytes(3, "little") + b"d" * 100,
}


FRAMES = {"frames": (19, 28), "skippable": (10,)}
"""Where one ends and the next begins."""


@pytest.mark.parametrize("name", ZSTD_LAYERS)
def test_zstd_data_that_is_cut_short_anywhere_is_refused(name: str) -> None:
    layer = ZSTD_LAYERS[name]
    whole = b"".join(decompressed([layer]))
    for cut in {*range(4, min(len(layer), 600)), *range(max(4, len(layer) - 40), len(layer))}:
        pieces: list[bytes] = []
        problem = ""
        try:
            pieces.extend(decompressed(chunked(layer[:cut], 100)))
        except InvalidManifest as error:
            problem = str(error)
        between_frames = cut in FRAMES.get(name, ())
        assert (cut, problem) == (cut, "" if between_frames else "the layer's zstd data is cut short")
        assert whole.startswith(b"".join(pieces))


def test_damage_in_zstd_data_is_no_cut() -> None:
    layer = ZSTD_LAYERS["checksum"]
    for changed in (layer[:-1] + bytes([layer[-1] ^ 1]), layer + b"\0\0garbage"):
        with pytest.raises(InvalidManifest) as caught:
            list(decompressed(chunked(changed, 100)))
        assert str(caught.value) == "the layer's zstd data is damaged"


def test_garbage_after_a_gzip_member_is_refused() -> None:
    with pytest.raises(InvalidManifest) as caught:
        list(decompressed([gzip.compress(b"a"), b"\0\0garbage"]))

    assert str(caught.value) == "the layer's gzip data is damaged"


@pytest.mark.parametrize("compress", COMPRESSIONS)
def test_what_unpacks_to_far_more_than_it_has_is_refused_early(compress: Callable[[bytes], bytes]) -> None:
    bomb = compress(bytes(200 << 20))
    pieces: list[int] = []
    with pytest.raises(InvalidManifest, match="over 100 times") as caught:
        pieces.extend(map(len, decompressed(chunked(bomb, 4096))))
    assert sum(pieces) <= 64 << 20
    assert "--max-unpacked-ratio" in caught.value.hint
    allowed = UnpackLimits(max_unpacked_ratio=100_000)
    assert sum(map(len, decompressed(chunked(bomb, 4096), allowed))) == 200 << 20


@pytest.mark.parametrize("compress", [*COMPRESSIONS, lambda data: data])
def test_the_bytes_that_may_come_out_are_a_setting(compress: Callable[[bytes], bytes]) -> None:
    layer = compress(b"x" * 5000)
    assert sum(map(len, decompressed([layer], UnpackLimits(max_unpacked_size=5000)))) == 5000
    with pytest.raises(InvalidManifest, match="more than the 4999 bytes") as caught:
        list(decompressed([layer], UnpackLimits(max_unpacked_size=4999)))
    assert "--max-unpacked-size" in caught.value.hint


def test_a_small_layer_of_zeros_is_no_bomb() -> None:
    assert sum(map(len, decompressed([gzip.compress(bytes(64 << 20))]))) == 64 << 20


def test_many_members_take_time_in_proportion_to_their_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts the bytes that zlib is given and hands back as a copy, for members of 20 bytes in chunks of 1 MiB."""

    class Counting:
        given = 0

        def __init__(self, wbits: int) -> None:
            self._inner = decompressobj(wbits=wbits)

        def decompress(self, data: bytes, most: int) -> bytes:
            Counting.given += len(data)
            return self._inner.decompress(data, most)

        def __getattr__(self, name: str) -> object:
            return getattr(self._inner, name)

    decompressobj = zlib.decompressobj
    monkeypatch.setattr("oci.files.decompress.zlib.decompressobj", Counting)
    costs = []
    for count in (25_000, 50_000, 100_000):
        Counting.given = 0
        layer = gzip.compress(b"") * count
        assert b"".join(decompressed(chunked(layer, 1 << 20))) == b""
        costs.append(Counting.given / len(layer))
    assert max(costs) < 1.1 * min(costs)
    assert max(costs) < 40
