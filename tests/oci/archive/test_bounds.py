"""Amounts that a stranger's archive states: each passes a bound before memory or time is spent on it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oci.archive import index as contents
from oci.archive import index_json, manifest_json
from oci.archive.manifest_json import parse
from oci.errors import InvalidDocument, InvalidManifest, TransshipError
from tests.support.content import image, index
from tests.support.imgpkg_tarball import _header
from tests.support.imgpkg_tarball import image as imgpkg_image
from tests.support.imgpkg_tarball import index as imgpkg_index

ROOT = Path(__file__).parents[3]
BASELINE = """
import resource, sys
from oci.errors import TransshipError
from oci.reference import ArchiveName
from tests.support.relocating import session
with session() as one:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        one.archive(ArchiveName.of(sys.argv[1]))
    except TransshipError as error:
        print(type(error).__name__, error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)
"""


def opened_elsewhere(path: Path) -> tuple[str, int]:
    """What opening an archive says, and how many MiB of memory that took."""
    ran = subprocess.run(
        [sys.executable, "-c", BASELINE, str(path)], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    *said, memory = ran.stdout.splitlines()
    return " ".join(said), int(memory)


def archive_of(path: Path, name: str, size: int, begin: bytes = b"", fill: bytes = b"") -> Path:
    """An archive of one member, sparse after its beginning, or filled with what repeats."""
    with path.open("wb") as file:
        file.write(_header(name, size) + begin)
        left = size - len(begin)
        while fill and left > 0:
            block = fill * max(1, (1 << 20) // len(fill))
            file.write(block[:left])
            left -= len(block)
        os.truncate(path, 512 + size + -size % 512 + 1024)
    return path


@pytest.mark.parametrize("begin", [b"", b"[", b"[{", b'[{"Image": {"x": "'])
def test_a_sparse_description_of_900_mib_takes_no_memory(tmp_path: Path, begin: bytes) -> None:
    said, memory = opened_elsewhere(archive_of(tmp_path / "x.tar", "manifest.json", 900 << 20, begin))

    assert said.startswith("InvalidManifest")
    assert memory < 150


@pytest.mark.parametrize(
    "fill",
    [b" ", b"[", b'{"a":', b"[" * 9999 + b"]" * 9999 + b",", b"{},", b'{"Image":{"Labels":{},"Layers":[]}},'],
)
def test_a_description_of_the_same_over_and_over_takes_bounded_memory(tmp_path: Path, fill: bytes) -> None:
    path = archive_of(tmp_path / "x.tar", "manifest.json", 60 << 20, b"[", fill)
    said, memory = opened_elsewhere(path)

    assert said.startswith("InvalidManifest")
    assert memory < 200


@pytest.mark.parametrize("name", ["manifest.json", "index.json", "transship.json"])
def test_a_description_beyond_the_limit_is_refused_by_its_size(tmp_path: Path, name: str) -> None:
    path = tmp_path / "x.tar"
    size = 2 << 30
    with path.open("wb") as file:
        if name == "index.json":
            file.write(_header("oci-layout", 0))
        file.write(_header(name, size))
        os.truncate(path, file.tell() + size + 1024)
    said, memory = opened_elsewhere(path)

    assert said.startswith("InvalidManifest")
    assert "are the limit" in said
    assert memory < 50


def test_what_is_written_is_what_can_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    from oci.archive.entry import ArchiveEntry
    from oci.digest import parse_digest
    from oci.manifest import parse_manifest

    content = image(1)
    manifest = parse_manifest(content.raw)
    entry = ArchiveEntry(digest=manifest.digest, reference=f"registry.example/a@{manifest.digest}")
    config = {parse_digest(manifest.config.digest if manifest.config else ""): content.blobs[-1].data}
    manifests = {manifest.digest: manifest}
    required = contents.RequiredBlob(manifest.digest, 1)
    renderings: list[tuple[ModuleType, str, Callable[[], bytes]]] = [
        (manifest_json, "ENTRY_LIMIT", lambda: manifest_json.render([entry], manifests, config)),
        (manifest_json, "LIMIT", lambda: manifest_json.render([entry], manifests, config)),
        (index_json, "LIMIT", lambda: index_json.render([entry], manifests)),
        (contents, "TRANSSHIP_JSON_LIMIT", contents.TransshipJson(requires=(required,)).to_json),
    ]
    for module, name, render in renderings:
        assert render()
        with monkeypatch.context() as patch:
            patch.setattr(module, name, 40)
            with pytest.raises((InvalidManifest, InvalidDocument), match=r"40 are the limit|more than 40 bytes"):
                render()


@given(st.integers(1, 5000), st.booleans())
def test_a_description_is_read_however_it_is_cut(size: int, spaced: bool) -> None:
    entries = [imgpkg_image(image(1), "a.example/é"), imgpkg_index(index([image(2), image(3)]), "a.example/bb"), {}]
    entries[0]["Image"]["Refs"] = [f"a.example/bb@{image(1).digest}"]
    entries[0]["Image"]["Unknown"] = "\u2028 é 😀 ]}"
    data = json.dumps(entries, indent=2 if spaced else None, ensure_ascii=False).encode()
    parsed = parse(data[start : start + size] for start in range(0, len(data), size))

    assert [entry.digest for entry in parsed.entries] == [image(1).digest, index([image(2), image(3)]).digest]
    assert len(parsed.manifests) == 4


@pytest.mark.parametrize(
    "text",
    [b"", b"[", b"{}", b"[]x", b"[{}] {}", b"[{},]", b"[,]", b"[{} {}]", b"[1]", b"null", b'["x"]', b"[{}",
     b'[{"a":1]', b"\xff", b"[{}]\xff", b'[{"Image":{"Manifest":{"Raw":"\\ud800"}}}]', b'[{"Image":{"Tag":"\\ud800"}}]',
     b"[" * 100_000,
     b'[{"Image":' * 50_000, b'[{"Image":{"Refs":"x"}}]', b'[{"Image":{"Layers":{}}}]', b'[{"Image":1}]', b"[{}]"],
)  # fmt: skip
def test_what_is_no_description_is_one_kind_of_error(text: bytes) -> None:
    with pytest.raises(InvalidManifest, match=r"manifest\.json"):
        parse([text])


@given(st.binary(max_size=200))
def test_no_bytes_lead_to_an_error_of_another_kind(data: bytes) -> None:
    for text in (data, b"[" + data, b'[{"Image":' + data, b'[{"Image":{"Manifest":' + data):
        with suppress(TransshipError):
            parse([text])


def test_an_empty_list_is_an_archive_of_nothing() -> None:
    assert parse([b" [ ] \n"]).entries == []
