"""JSON of strangers is read in one place, and means one thing."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import cast

import pytest

from oci.archive import docker_archive
from oci.archive.open import ByteReader, Stretch
from oci.descriptor import parse_json
from oci.errors import InvalidInput, InvalidManifest
from oci.mirror.results import read_only

WRONG = {
    "levels without end": b"[" * 100_000,
    "NaN": b'{"a": NaN}',
    "infinity": b'{"a": -Infinity}',
    "a number beyond all": b'{"a": 1e999}',
    "half a character": rb'{"a": "\ud800"}',
    "half a character as a key": rb'{"\uDFFF": 1}',
    "a mark of byte order": b"\xef\xbb\xbf{}",
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "5,000 digits": b"9" * 5000,
}


@pytest.mark.parametrize("name", WRONG)
def test_what_two_readers_take_for_two_things_is_no_json(name: str) -> None:
    with pytest.raises(ValueError):
        parse_json(WRONG[name])


def test_whole_characters_and_ordinary_numbers_are_kept() -> None:
    assert parse_json(rb'{"a": "\ud83d\ude00", "b": [1.5e3, -1, null]}') == {"a": "\U0001f600", "b": [1500.0, -1, None]}
    assert parse_json('{"a": 1, "a": 2}') == {"a": 2}
    with pytest.raises(ValueError, match="twice"):
        parse_json('{"a": 1, "a": 2}', once=True)


@pytest.mark.parametrize("text", ['{"only": 5}', '{"only": null}', '{"mirrors": 5}', '{"mirrors": [[5]]}'])
def test_a_report_that_lists_nothing_is_a_typed_error(text: str) -> None:
    with pytest.raises(InvalidInput):
        read_only(text, "report.json")


def test_a_member_of_a_docker_archive_is_read_once_however_often_it_is_named() -> None:
    """Half a million images that share one config and one layer would have had both read half a million times."""
    layer = b"\x1f\x8b" + bytes(1000)
    config = b'{"rootfs": {"diff_ids": ["sha256:%s"]}}' % (b"0" * 64)
    reads: list[str] = []

    def member(name: str) -> Stretch:
        data = config if name == "c" else layer

        def read(offset: int, length: int) -> Iterator[bytes]:
            reads.append(name)
            return iter([data[offset : offset + length]])

        return Stretch(cast(ByteReader, SimpleNamespace(read=read)), 0, len(data))

    item = b'{"Config":"c","Layers":["l"]}'
    parsed = docker_archive.parse(b"[" + b",".join([item] * 1000) + b"]", member)
    assert parsed is not None
    assert (len(parsed.entries), len(parsed.manifests)) == (1000, 1)
    assert reads.count("c") == 1
    assert reads.count("l") == 2  # its first bytes, then all

    with pytest.raises(InvalidManifest, match="limit"):
        docker_archive.parse(b"[" + b",".join([item] * 60_000) + b"]", member)
