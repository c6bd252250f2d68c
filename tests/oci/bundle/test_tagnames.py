from __future__ import annotations

import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oci.bundle import tagnames
from oci.bundle.tagnames import KBLD_ID, NameRule
from oci.digest import Digest, parse_digest
from oci.errors import InvalidInput
from oci.reference import Reference, parse_tag
from oci.relocation.request import RelocationRequest

HEX = "3" * 64
DIGEST = parse_digest(f"sha256:{HEX}")
ORIGIN = Reference.parse(f"registry.example/shop/team/web@{DIGEST}")

hexadecimal = st.text("0123456789abcdef", min_size=64, max_size=64)
digests = hexadecimal.map("sha256:{}".format).map(parse_digest)


def test_each_kind_of_tag_is_the_one_others_look_for() -> None:
    assert tagnames.keep_alive(DIGEST) == f"sha256-{HEX}.imgpkg"
    assert tagnames.locations(DIGEST) == f"sha256-{HEX}.image-locations.imgpkg"
    assert tagnames.cosign(DIGEST) == (f"sha256-{HEX}.sig", f"sha256-{HEX}.att", f"sha256-{HEX}.sbom")
    assert tagnames.referrers(DIGEST) == f"sha256-{HEX}"


def test_a_sha512_digest_is_cut_to_what_a_tag_holds() -> None:
    digest = parse_digest(f"sha512:{'ab' * 64}")

    assert tagnames.referrers(digest) == f"sha512-{'ab' * 32}"
    assert parse_tag(tagnames.locations(digest))


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        (
            "reg.example/very-long-organization-name/some.sub_project/team-a/component--x/image-name-v2",
            "ome.sub_project-team-a-component--x-image-name-v2-",
        ),
        ("index.docker.io/library/nginx", "library-nginx-"),
        ("localhost:5000/app", "app-"),
        ("reg.example/-app", "app-"),
        ("reg.example/a+b/c", "ab-c-"),
        ("reg.example/.hidden/_x", "hidden-_x-"),
        (f"reg.example/{'a' * 40}/.{'b' * 48}", f"{'b' * 48}-"),
        ("app", ""),
        ("reg.example/---", ""),
        ("oci:/srv/layout", "srv-layout-"),
    ],
)
def test_a_repo_based_tag_ends_like_the_repository(reference: str, name: str) -> None:
    assert tagnames.repo_based(f"{reference}@{DIGEST}", DIGEST) == f"{name}sha256-{HEX}.imgpkg"


@given(st.text(), digests)
def test_every_repo_based_tag_is_a_tag(path: str, digest: Digest) -> None:
    tag = tagnames.repo_based(f"reg.example/{path}@{digest}", digest)

    assert parse_tag(tag) == tag
    assert re.match(r"[A-Za-z0-9_]", tag)
    assert tag.endswith(tagnames.keep_alive(digest))
    assert tagnames.is_internal(tag)


@given(st.lists(st.text(string.ascii_lowercase + string.digits, min_size=1), min_size=2, max_size=5), digests)
def test_a_plain_repository_keeps_its_last_49_characters(segments: list[str], digest: Digest) -> None:
    tag = tagnames.repo_based(f"reg.example/{'/'.join(segments)}@{digest}", digest)

    assert tag == f"{'-'.join(segments)[-49:].lstrip('-')}-{tagnames.keep_alive(digest)}"


@given(digests, digests)
def test_tags_of_different_digests_differ(one: Digest, other: Digest) -> None:
    assert (tagnames.keep_alive(one) == tagnames.keep_alive(other)) == (one == other)
    assert (tagnames.locations(one) == tagnames.locations(other)) == (one == other)


@given(digests)
def test_only_imgpkg_tags_are_internal(digest: Digest) -> None:
    assert tagnames.is_internal(tagnames.keep_alive(digest))
    assert tagnames.is_internal(tagnames.locations(digest))
    assert not any(map(tagnames.is_internal, (*tagnames.cosign(digest), tagnames.referrers(digest), "1.0", "imgpkg")))


def test_the_tag_of_a_reference_does_not_show() -> None:
    reference = Reference.parse(f"nginx:1.27@{DIGEST}")

    assert tagnames.repo_based(str(reference), DIGEST) == f"library-nginx-sha256-{HEX}.imgpkg"


@pytest.mark.parametrize(
    ("rule", "annotations", "tag"),
    [
        ("{name}-{short}", {}, f"web-{DIGEST[7:19]}"),
        ("{path}", {}, "shop-team-web"),
        ("registry.example/shop/*=shop-{name}", {}, "shop-web"),
        ("other.example/*={name}", {}, ""),
        ("{name}-{tag}", {KBLD_ID: "docker.io/acme/web:2.3"}, "web-2.3"),
        ("{name}-{tag}", {}, ""),
        ("{name}-{tag}", {KBLD_ID: "no: reference"}, ""),
        ("*=fixed", {}, "fixed"),
    ],
)
def test_rules_make_tags(rule: str, annotations: dict[str, str], tag: str) -> None:
    assert NameRule.parse(rule).tag_of(ORIGIN, DIGEST, annotations) == tag


@pytest.mark.parametrize(
    "text", ["", "{other}", "a b", "{", "x=", "{0}", "{name:>9999999999}", "{name!r}", "{tag.__class__}", "{{name}}"]
)
def test_what_makes_no_tag_is_no_rule(text: str) -> None:
    with pytest.raises(InvalidInput, match="is no rule for names"):
        NameRule.parse(text)
    with pytest.raises(InvalidInput, match="is no rule for names"):  # before the first request
        RelocationRequest(bundle="registry.example/shop:1", to="registry.corp.example/shop", names=(text,))
