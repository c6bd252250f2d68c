from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from oci.errors import InvalidManifest
from oci.files.decompress import decompressed

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


def test_garbage_after_a_gzip_member_is_refused() -> None:
    with pytest.raises(InvalidManifest) as caught:
        list(decompressed([gzip.compress(b"a"), b"\0\0garbage"]))

    assert str(caught.value) == "the layer's gzip data is damaged"
