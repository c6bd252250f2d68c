from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oci.digest import Chunk, Digest, digest_of, parse_digest, verified
from oci.errors import IntegrityError, InvalidReference


@pytest.mark.parametrize("text", [None, 3, "", "sha256:", "sha256:" + "g" * 64, "sha1:" + "a" * 40, "a" * 64])
def test_only_sha256_and_sha512_are_digests(text: object) -> None:
    with pytest.raises(InvalidReference, match="is not a digest"):
        parse_digest(text)


@given(st.lists(st.binary(max_size=50)))
def test_good_bytes_pass_through_unchanged(chunks: list[bytes]) -> None:
    data = b"".join(chunks)
    for digest in (digest_of(data), Digest(f"sha512:{hashlib.sha512(data).hexdigest()}")):
        assert b"".join(verified(iter(chunks), digest, len(data))) == data


@pytest.mark.parametrize("given_chunks", [[b"ab"], [b"abc", b"x"], [b"abcx"], [b"ab", b"d"], []])
def test_wrong_bytes_are_never_given_in_full(given_chunks: list[bytes]) -> None:
    seen: list[Chunk] = []
    with pytest.raises(IntegrityError):
        seen.extend(verified(iter(given_chunks), digest_of(b"abc"), 3))

    assert len(b"".join(seen)) < 3
