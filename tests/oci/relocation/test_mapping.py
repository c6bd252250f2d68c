from __future__ import annotations

import pytest

from oci.digest import digest_of
from oci.errors import InvalidInput
from oci.reference import Reference
from oci.relocation.request import KBLD_ID, NameRule

DIGEST = digest_of(b"x")
ORIGIN = Reference.parse(f"registry.example/shop/team/web@{DIGEST}")


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
