from __future__ import annotations

import hashlib
import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oci.digest import digest_of
from oci.errors import InvalidInput
from oci.files import tar
from tests.support.imgpkg_vectors import PUSHED

GIB8 = 8 << 30

SCRIPT = b"#!/bin/sh\necho hi\n"
LOCK = b"apiVersion: imgpkg.carvel.dev/v1alpha1\nkind: ImagesLock\n"
LOCATIONS = b"---\napiVersion: imgpkg.carvel.dev/v1alpha1\nimages: null\nkind: ImageLocations\n"


def folder(name: str) -> bytes:
    return tar.header(name, mode=0o700, size=0, typeflag=tar.FOLDER)


def file(name: str, data: bytes, mode: int = 0o600) -> bytes:
    return tar.header(name, mode=mode, size=len(data)) + data + tar.padding(len(data))


ARCHIVES = {
    "V1": file("hello.txt", b"hello\n"),
    "V2": folder(".") + file("hello.txt", b"hello\n") + folder("sub") + file("sub/run.sh", SCRIPT, 0o700),
    "V3": folder(".") + folder(".imgpkg") + file(".imgpkg/images.yml", LOCK),
    "V4": b"",
    "V5": folder(".") + file("image-locations.yml", LOCATIONS),
}


@pytest.mark.parametrize("name", PUSHED)
def test_scenario_1_the_archive_is_the_one_imgpkg_pushes(name: str) -> None:
    archive = ARCHIVES[name] + tar.END

    assert archive == PUSHED[name].archive
    assert digest_of(archive) == PUSHED[name].diff_id


@pytest.mark.parametrize(
    ("name", "entry", "blocks", "sha256"),
    [
        # Digests of what Go's archive/tar writes for the same entry.
        ("a" * 100, (0o644, 5, tar.REGULAR), 1, "4a6ec0850c39763eb3876e5ae42947820f1bfaf7cc266396ae090ca105935b3e"),
        ("a" * 101, (0o644, 5, tar.REGULAR), 3, "df0933e864a01e7ddf3411006561f04dd85f780c6d1ad804ee68da796e39bc68"),
        (
            f"{'d' * 120}/{'f' * 60}",
            (0o600, 5, tar.REGULAR),
            1,
            "93980b69b8b85e1971c2a1256a9ebd73ad3d6229f833a5ed8f396ca59855c712",
        ),
        (
            f"{'d' * 155}/{'f' * 100}",
            (0o600, 5, tar.REGULAR),
            1,
            "0f1218ae3126776358eb988855751c306fccb56c2ca8bfdc3796e107af70ea0f",
        ),
        (
            f"{'d' * 156}/{'f' * 10}",
            (0o600, 5, tar.REGULAR),
            3,
            "da63b6a3d63ea00bc8456da96797d911e1d9dbed70b959d096a809c3ca6fba1f",
        ),
        (
            f"{'d/' * 90}f",
            (0o600, 5, tar.REGULAR),
            1,
            "275f8cdcc009ba9b0c57bf9af5988d6ed05241025cf99b9745167d05e2607bd6",
        ),
        (
            f"{'d/' * 90}d",
            (0o700, 0, tar.FOLDER),
            1,
            "c9285240f6f3166c89744475907864384f0de94a54173880ac890290663809a8",
        ),
        (
            "caf\u00e9/\u65e5\u672c.txt",
            (0o600, 5, tar.REGULAR),
            3,
            "e0f6622891a867bad5e3dff1e00ede2621c7ce3fa8341da0f4644da49973fe35",
        ),
        ("\u00e9", (0o700, 0, tar.FOLDER), 3, "e2f698bcf2675584cf84418324634b64a7501b880b9b0f9d470fafb7708a0467"),
        ("big", (0o600, GIB8, tar.REGULAR), 3, "0e2513b185ddc4225c74a8e9063fdbea77b79e2f2e449358b784cbee5043013f"),
        ("big", (0o600, GIB8 - 1, tar.REGULAR), 1, "ab6efcd0b495f0240a9777a6c2fc418d164bea6af95935fc0c91d95e58f483ff"),
        (
            f"{'d' * 120}/{'f' * 60}",
            (0o600, GIB8, tar.REGULAR),
            3,
            "2997660667f9e0f2dfc08af61ce9399635622ea5d0a941bcf855b1a6ba26fe2b",
        ),
    ],
)
def test_headers_are_those_of_go(name: str, entry: tuple[int, int, bytes], blocks: int, sha256: str) -> None:
    mode, size, typeflag = entry

    written = tar.header(name, mode=mode, size=size, typeflag=typeflag)

    assert len(written) == blocks * tar.BLOCK
    assert hashlib.sha256(written).hexdigest() == sha256


def first_entry(written: bytes) -> tarfile.TarInfo:
    with tarfile.open(fileobj=io.BytesIO(written + tar.END), mode="r:") as archive:
        entry = archive.next()
    assert entry is not None
    return entry


names = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=300).filter(
    lambda name: not name.endswith("/")
)


@given(names, st.integers(0, 0o7777), st.integers(0, 1 << 40))
def test_other_readers_understand_every_header(name: str, mode: int, size: int) -> None:
    entry = first_entry(tar.header(name, mode=mode, size=size))

    assert (entry.name, entry.mode, entry.size) == (name, mode, size)
    assert (entry.uid, entry.gid, entry.uname, entry.gname, entry.mtime) == (0, 0, "", "", 0)


def test_a_name_that_is_not_utf_8_keeps_its_bytes() -> None:
    name = b"caf\xe9".decode("utf-8", "surrogateescape")

    assert b"13 path=caf\xe9\n" in tar.header(name, mode=0o600, size=0)


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513])
def test_padding_fills_the_last_block(size: int) -> None:
    assert (size + len(tar.padding(size))) % tar.BLOCK == 0
    assert len(tar.padding(size)) < tar.BLOCK


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "'' can't be a name in a tar"),
        ("a\0b", r"'a\x00b' can't be a name in a tar"),
        ("a/", "'a/' can't be a name in a tar"),
        ("\ud800", r"'\ud800' can't be a name in a tar: it isn't Unicode"),
    ],
)
def test_a_name_no_tar_can_hold_is_refused(name: str, message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        tar.header(name, mode=0o600, size=0)

    assert str(caught.value) == message


def test_a_mode_with_more_than_permission_bits_is_refused() -> None:
    with pytest.raises(InvalidInput) as caught:
        tar.header("a", mode=0o100644, size=0)

    assert str(caught.value) == "'a': mode 100644 has more than permission bits"
