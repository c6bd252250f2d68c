from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oci.errors import InvalidReference
from oci.reference import ArchiveName, LayoutFolder, Reference, Repository, parse_any, parse_store

HEX = "a" * 64
DIGEST = f"sha256:{HEX}"


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("nginx", "index.docker.io/library/nginx:latest"),
        ("nginx:1.2", "index.docker.io/library/nginx:1.2"),
        ("docker.io/nginx", "index.docker.io/library/nginx:latest"),
        ("docker.io/acme/web:1", "index.docker.io/acme/web:1"),
        ("Docker.IO/acme/web:1", "index.docker.io/acme/web:1"),
        ("Registry.EXAMPLE:5000/acme/web:V1", "registry.example:5000/acme/web:V1"),
        ("localhost/x", "index.docker.io/localhost/x:latest"),
        ("localhost:5000/xy", "localhost:5000/xy:latest"),
        ("reg.example/a/b/c:v1", "reg.example/a/b/c:v1"),
        (f"reg.example/a/b@{DIGEST}", f"reg.example/a/b@{DIGEST}"),
        (f"reg.example/a/b:v1@{DIGEST}", f"reg.example/a/b@{DIGEST}"),
        (f"nginx@{DIGEST}", f"index.docker.io/library/nginx@{DIGEST}"),
        ("127.0.0.1:5000/ab", "127.0.0.1:5000/ab:latest"),
        ("[::1]:5000/ab", "[::1]:5000/ab:latest"),
    ],
)
def test_references_have_one_canonical_rendering(text: str, canonical: str) -> None:
    assert str(Reference.parse(text)) == canonical
    assert str(Reference.parse(canonical)) == canonical


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("https://reg.example/a", "starts with a scheme"),
        ("http://reg.example/a", "starts with a scheme"),
        ("reg.example/Upper/x", "repository can only contain"),
        ("reg.example/a:" + "t" * 129, "is not a tag"),
        ("reg.example/a:bad tag", "is not a tag"),
        (f"reg.example/a@sha256:{HEX[:-1]}", "is not a digest"),
        (f"reg.example/a@sha256:{HEX.upper()}", "is not a digest"),
        (f"reg.example/a@md5:{HEX}", "is not a digest"),
        ("reg.example/", "repository can only contain"),
        ("reg.example/a/../b", "'..' path segment"),
        ("reg.example/a//b", "'..' path segment"),
        ("", "path segment"),
        ("reg.ex ample/ab", "is not a registry host"),
        ("user@reg.example/ab", "is not a digest"),
        ("oci-archive:web.tar", "transship copy -i 'oci-archive:web.tar'"),
        ("docker-archive:/srv/web.tar:v1", "is an archive"),
        ("docker-daemon:web:1", "docker-archive:FILE"),
        ("containers-storage:web:1", "podman save"),
        ("web.tar", "oci-archive:web.tar"),
    ],
)
def test_what_is_no_reference_says_why(text: str, said: str) -> None:
    with pytest.raises(InvalidReference) as caught:
        Reference.parse(text)

    assert said in str(caught.value)


def test_a_destination_repository_carries_no_tag_and_no_digest() -> None:
    assert str(Repository.parse("reg.example:5000/a/b")) == "reg.example:5000/a/b"
    for text in ("oci-archive:web.tar", "docker-archive:web.tar"):
        with pytest.raises(InvalidReference, match="is an archive"):
            Repository.parse(text)
    for text in ("reg.example/a:v1", f"reg.example/a@{DIGEST}"):
        with pytest.raises(InvalidReference, match="carries a tag or a digest"):
            Repository.parse(text)


@pytest.mark.parametrize(
    ("text", "tag", "digest"),
    [
        ("oci:/some/where", "latest", None),
        ("oci:/some/where:1.0", "1.0", None),
        (f"oci:/some/where@{DIGEST}", "", DIGEST),
    ],
)
def test_layout_references(text: str, tag: str, digest: str | None) -> None:
    reference = parse_any(text)

    assert (reference.repository, reference.tag, reference.digest) == (LayoutFolder("/some/where"), tag, digest)


def test_a_registry_reference_may_have_the_transport_of_skopeo_before_it() -> None:
    assert parse_any("docker://reg.example/a/b:1") == parse_any("reg.example/a/b:1")
    assert parse_store("docker://reg.example/a/b") == parse_store("reg.example/a/b")


def test_a_layout_needs_a_path() -> None:
    with pytest.raises(InvalidReference, match="names no folder"):
        parse_store("oci:")


SEGMENT = st.from_regex(r"[a-z0-9]([a-z0-9_.\-]{0,10}[a-z0-9])?", fullmatch=True)
PATH = st.lists(SEGMENT, min_size=2, max_size=4).map("/".join)
TAG = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,127}", fullmatch=True)


@given(path=PATH, tag=TAG)
def test_rendering_and_parsing_are_inverse(path: str, tag: str) -> None:
    reference = Reference(Repository("reg.example:5000", path), tag)

    assert Reference.parse(str(reference)) == reference


@given(st.text(max_size=80))
def test_any_text_parses_or_is_refused_as_invalid(text: str) -> None:
    try:
        reference = Reference.parse(text)
    except InvalidReference:
        return
    assert Reference.parse(str(reference)) == reference


@pytest.mark.parametrize("parse", [Reference.parse, parse_any, parse_store])
def test_an_error_does_not_repeat_a_text_without_end(parse: Callable[[str], object]) -> None:
    with pytest.raises(InvalidReference) as caught:
        parse("X" * 500_000)

    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("key", ["/a.tar", "a//b.tar", "../a.tar", "a/../b.tar", "./a.tar", "a/.", "a/..", "a" * 1025])
def test_a_key_that_stores_read_in_two_ways_is_refused_with_a_next_step(key: str) -> None:
    with pytest.raises(InvalidReference) as caught:
        ArchiveName.of(f"s3://archives/{key}")
    assert caught.value.hint


@pytest.mark.parametrize("key", ["a b.tar", "a%2Fb.tar", "ä/…/x.tar", "..a/b../c...tar", "+ &?#=.tar", "a" * 1024])
def test_any_other_key_is_one_and_survives_as_text(key: str) -> None:
    name = ArchiveName.of(f"s3://my.bucket/{key}")

    assert name.location == f"s3://my.bucket/{key}"
    assert parse_store(str(name)) == name


def test_the_name_of_a_file_may_have_bytes_that_are_not_utf_8(tmp_path: Path) -> None:
    name = ArchiveName.of(str(tmp_path / "a\udcff.tar"), str(tmp_path / "ä.tar"))

    assert str(name).isascii()
    assert parse_store(str(name)) == name


@pytest.mark.parametrize("location", ["s3://archives/a\udcff.tar", "s3://archives\udcff/a.tar"])
def test_the_name_of_an_object_may_not(location: str) -> None:
    with pytest.raises(InvalidReference, match="UTF-8"):
        ArchiveName.of(location)


@pytest.mark.parametrize("location", ["oci-archive:web.tar", "docker-archive:/srv/web.tar:v1"])
def test_no_file_is_called_as_a_transport_is(location: str) -> None:
    with pytest.raises(InvalidReference, match=r"leave out (oci|docker)-archive:"):
        ArchiveName.of(location)
    assert ArchiveName.of(f"./{location}").location.endswith(location)
