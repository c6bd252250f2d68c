"""Whatever comes in, a parser gives a value or raises an error of ours."""

# ruff: noqa: E501 - a line is a document

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.parsers import OURS, PARSERS

INTERESTING = st.sampled_from(
    [b"", b"\0", b"\xff", b"../", b"/", b":", b"@", b'"', b"'", b"{", b"}", b"[", b"]", b"<", b">", b",", b";", b"=", b"%", b"\\", b"\n", b"\r\n", b" ", b"\t", b"-1", b"0", b"1e999", b"9" * 400, b"null", b"true", b"&a", b"*a", b"!!x", b"\xe2\x80\xae", b"\xd9\xa1", b"\\ud800", b"NaN"]
)  # fmt: skip


@st.composite
def bent(draw: Any, honest: bytes) -> bytes:
    """An honest document with up to four places replaced, doubled or cut."""
    data = honest
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        end = min(len(data), at + draw(st.sampled_from([0, 0, 1, 2, 8, 64, 1 << 20])))
        piece = draw(st.one_of(INTERESTING, st.binary(max_size=8), st.just(data[at:end] * 2)))
        data = data[:at] + piece + data[end:]
    return data


@pytest.mark.parametrize("name", PARSERS)
def test_nothing_but_errors_of_ours(name: str) -> None:
    parser = PARSERS[name]

    @settings(max_examples=_examples())
    @given(st.one_of(st.binary(max_size=200), *(bent(honest) for honest in parser.honest)))
    def check(data: bytes) -> None:
        with contextlib.suppress(OURS, *parser.own):
            parser.parse(data)

    check()


def _examples() -> int:
    """A hundred are for every run of the tests, thousands for `make fuzz`."""
    count = settings().max_examples
    return count if count > 1000 else min(count, 100)
