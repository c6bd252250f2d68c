from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterator
from itertools import count, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oci.files.deflate import compress
from tests.support.imgpkg_vectors import PUSHED

BLOCK = 65_535


def gzip(data: bytes) -> bytes:
    return b"".join(compress([data]))


@pytest.mark.parametrize("name", PUSHED)
def test_scenario_1_the_layer_is_the_one_imgpkg_pushes(name: str) -> None:
    assert gzip(PUSHED[name].archive) == PUSHED[name].layer


def noise(size: int) -> bytes:
    """The same incompressible bytes on every machine."""
    blocks = (hashlib.sha256(b"%d" % number).digest() for number in count())
    return b"".join(next(blocks) for _ in range(-(-size // 32)))[:size]


def text(size: int) -> bytes:
    vocabulary = [noise(20)[at : at + 3 + at % 7].hex().encode() for at in range(12)]
    return b" ".join(vocabulary[byte % 12] for byte in noise(size // 6 + 1))[:size]


def skewed(size: int) -> bytes:
    """Without repetitions, but with bytes of very different frequency."""
    return bytes((byte * byte * byte) >> 16 for byte in noise(size))


def echoes(size: int) -> bytes:
    """Repetitions from just inside, just at and just outside the 32 KiB that can be looked back."""
    fresh = noise(40_000)
    parts = [fresh]
    for distance, length in ((32_767, 300), (32_768, 258), (32_769, 500), (1, 900), (3, 4), (20_000, 17)):
        for _ in range(4):
            sofar = b"".join(parts)[-40_000:]
            parts += (sofar[-distance:] * 900)[:length], noise(len(parts) * 40)[-23:]
    return (b"".join(parts) * (size // 40_000 + 1))[:size]


@pytest.mark.parametrize(
    ("make", "size", "length", "sha256"),
    [
        # Lengths and digests of what Go's compress/gzip makes at BestSpeed of the same bytes.
        (bytes, 0, 23, "81da0491c5af5635831f6a3febb5d9bfd66987ba3ecc42e58dc3d80938c25705"),
        (text, 1, 29, "eee4b46b4b6d8bcd54b2f38d696a5d1064eb815706a59eaab5dc5d210554b135"),
        (text, 16, 44, "a58b429fb8417a61ac895513834dc963e8cd593f60b006499391206f9bb2c3df"),
        (text, 17, 45, "e4f8c7ae647a08f0ad25d3d4b6f398dc1ba0c38b3a6da45e0a5d227c7295b192"),
        (text, 127, 101, "9a8556fd2fe40589b0eeac9ca37c2f92b444057037ac24064e305f19233d0f15"),
        (text, 128, 89, "2f0501cbed54634e61362f700f223ee60b0de13e9f8d9ea63843f265e3ec1f75"),
        (text, 5_000, 784, "ebdeeafa992059d36da726b62cd985944f6a5a040e9a7ef60767dec96761cd3d"),
        (text, 65_534, 8408, "d3e7800ce980b7ace7421e853d1b7ba8596356982866001799f48fa13701208c"),
        (text, 65_535, 8409, "5cf5d94d20a1b10bf1fc965f8180b6ef614de8d6243e71e63b28fd5e091af90f"),
        (text, 65_536, 8415, "6131ff1638b9924c8e24001295a0f1a4dba21f5d565c6057b80a2fd601d55938"),
        (text, 65_551, 8430, "e8f302df166a9dd8c7d72c7b80b00fe5908359ba7d483cceaad6b4de23ef374b"),
        (text, 65_552, 8431, "ce3fa083bc7a870d5c94b3f29944871ddb480d9ff508d5c38868dcfda30aec77"),
        (text, 300_000, 37967, "6cd99502b66bfac31e57d6d69bf6e0de300a30bbc2465fa2ff7bfbba4a8f7f79"),
        (bytes, 200_000, 279, "734f4dada1c4d0356d08c8cd7c7665699f8ee73ed46c5ebd1383646fc950e295"),
        (noise, 500, 528, "53ea34bc36c56f436e7ac103219f3db04e35069456a0d68d697f6fe398dd49ed"),
        (noise, 100_000, 100033, "ab022debcbac297592f88467dc17d7c462f230eba6645e8c393db6aeb739f437"),
        (skewed, 100_000, 81811, "522d0803e0ac6418808d7ed4294c70c9ec866663bec3dca7873d6ac6b784828f"),
        (echoes, 150_000, 146639, "9c9f9f0ed5cdc9f7efadfce40f549d26c68833af7426ce0a76e22f5d945c2728"),
    ],
)
def test_the_bytes_are_those_of_go(make: Callable[[int], bytes], size: int, length: int, sha256: str) -> None:
    compressed = gzip(make(size))

    assert len(compressed) == length
    assert hashlib.sha256(compressed).hexdigest() == sha256


pieces = st.one_of(
    st.binary(max_size=400),
    st.builds(lambda byte, times: bytes([byte]) * times, st.integers(0, 255), st.integers(0, 40_000)),
    st.builds(lambda word, times: word * times, st.binary(min_size=1, max_size=40), st.integers(0, 1_000)),
    st.builds(text, st.integers(0, 30_000)),
)


@given(st.lists(pieces, max_size=12))
def test_what_is_compressed_comes_back(chunks: list[bytes]) -> None:
    assert zlib.decompress(b"".join(compress(chunks)), wbits=31) == b"".join(chunks)


@given(st.lists(st.integers(1, BLOCK + 2_000), max_size=5))
def test_how_the_input_is_cut_changes_nothing(cuts: list[int]) -> None:
    data = text(BLOCK + 2_000)
    places = [0, *sorted(cuts), len(data)]
    chunks = [data[start:end] for start, end in pairwise(places)]

    assert b"".join(compress(chunks)) == gzip(data)


def test_output_flows_while_input_comes() -> None:
    fed = []

    def chunks() -> Iterator[bytes]:
        for number in range(10):
            fed.append(number)
            yield text(BLOCK)

    output = compress(chunks())
    next(output)
    next(output)

    assert fed == [0]
