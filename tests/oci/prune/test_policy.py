from __future__ import annotations

import pytest
from semantic_version import Version

from oci.prune.policy import parse_range

FACTS = [
    # Each row was asked of npm's own semver 7: the range, what it holds, what it doesn't.
    ("1.2.1", "1.2.1", "1.2.0 1.2.2 1.2.1-rc.1"),
    ("=1.2.1", "1.2.1", "1.2.2"),
    ("v1.2.1+build", "1.2.1", "1.2.2"),
    ("1.2.1-rc.1", "1.2.1-rc.1", "1.2.1 1.2.1-rc.2"),
    ("*", "0.0.1 3.0.0", "1.0.0-rc.1"),
    ("", "0.0.1 3.0.0", "1.0.0-rc.1"),
    ("<*", "", "0.0.0 0.0.1 1.0.0"),
    ("1", "1.0.0 1.4.2", "0.4.2 2.0.0 1.4.0-rc.1 2.0.0-alpha"),
    ("1.x", "1.0.0 1.4.2", "2.0.0 2.0.0-alpha"),
    ("1.2.*", "1.2.0 1.2.2", "1.1.2 1.4.0"),
    ("^1.2.1", "1.2.1 1.4.0", "1.2.0 2.0.0 2.0.0-rc.1 1.4.0-rc.1"),
    ("^1.2.1-beta.2", "1.2.1-beta.2 1.2.1-rc.1 1.2.1 1.4.0", "1.2.1-alpha 1.4.0-beta.2 2.0.0-alpha"),
    ("^0", "0.0.0 0.4.2", "1.0.0"),
    ("^0.0", "0.0.0 0.0.2", "0.1.0"),
    ("^0.0.1", "0.0.1", "0.0.0 0.0.2"),
    ("^0.1.2", "0.1.2", "0.1.1 0.2.0"),
    ("~1", "1.0.0 1.4.2", "2.0.0"),
    ("~1.2", "1.2.0 1.2.2", "1.1.2 1.4.0"),
    ("~1.2.1", "1.2.1 1.2.2", "1.2.0 1.4.0"),
    ("~>1.2", "1.2.2", "1.4.0"),
    ("~1.2.1-beta.2", "1.2.1-beta.2 1.2.1 1.2.2", "1.2.1-alpha 1.2.2-rc.1"),
    (">1", "2.0.0", "1.0.0 1.4.2 2.0.0-rc.1"),
    (">1.2", "1.4.0", "1.2.2"),
    (">=1.2", "1.2.0 3.0.0", "1.1.2 1.2.0-rc.1"),
    ("<2", "1.4.2", "2.0.0 2.0.0-rc.1"),
    ("<1.2", "1.1.2", "1.2.0"),
    ("<=1", "1.4.2", "2.0.0"),
    ("<=1.2", "1.2.2", "1.4.0"),
    ("<1.4.1", "1.4.0 0.0.1", "1.4.1 1.4.1-rc.1"),
    ("<2.0.0-rc.2", "1.4.2 2.0.0-rc.1 2.0.0-alpha", "2.0.0 2.0.0-rc.2 1.4.2-rc.1"),
    (">=1.4.1-rc.1 <1.4.1", "1.4.1-rc.1 1.4.1-rc.2", "1.4.1 1.4.0 1.4.1-beta.2"),
    (">1.4.1-rc.1 <=1.4.1", "1.4.1-rc.2 1.4.1", "1.4.1-rc.1 1.4.2"),
    (">1.4.1-alpha <1.4.1-rc.2", "1.4.1-rc.1 1.4.1-beta.2", "1.4.1-alpha 1.4.1-rc.2 1.4.1 1.4.0"),
    (">=1.4.1-rc.1 <2.0.0-rc.1", "1.4.1-rc.1 1.4.2 2.0.0-beta.2", "2.0.0-rc.1 1.4.2-rc.1 2.0.0"),
    (">= 2 < 3", "2.0.0 2.4.2", "1.4.2 3.0.0"),
    ("1.2 - 2.1", "1.2.0 2.1.2", "1.1.2 2.2.0"),
    ("1.2.1 - 2", "1.2.1 2.4.2", "1.2.0 3.0.0"),
    ("1.2.1-rc.1 - 1.4.0", "1.2.1-rc.2 1.4.0", "1.2.1-beta.2 1.4.1"),
    ("^1 || ^3", "1.4.2 3.0.0", "2.0.0 0.4.2"),
    ("1.2.1||>=2.1.0-rc.1", "1.2.1 2.1.0-rc.2 3.0.0", "1.2.2 2.0.0 2.1.0-alpha"),
]


@pytest.mark.parametrize(("text", "held", "others"), FACTS)
def test_a_range_holds_what_npm_says(text: str, held: str, others: str) -> None:
    found = parse_range(text)

    assert [one for one in held.split() if not found.holds(Version(one))] == []
    assert [one for one in others.split() if found.holds(Version(one))] == []


@pytest.mark.parametrize(
    "text",
    [
        "latest",
        "1.2.3.4",
        "01.2.3",
        "1.2-beta",
        "1.2.3-",
        ">=",
        "^",
        "1..2",
        "=>1.2",
        "!1.2",
        ">>1",
        "1.x.3",
        "1.2.3-01",
    ],
)
def test_what_npm_does_not_take_for_a_range_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_range(text)


@pytest.mark.parametrize(
    ("text", "held", "others"),
    [
        ("^1.2.1", "1.2.1-alpha 1.4.0-rc.1", "2.0.0-rc.1 1.2.0-rc.1"),
        ("<2", "1.4.2-rc.1", "2.0.0-rc.1"),
        (">=1.4.1-rc.1", "1.4.1-rc.2 1.4.2-alpha 1.4.1", "1.4.1-beta.2 1.4.0-rc.2"),
    ],
)
def test_with_prereleases_one_counts_as_its_version_unless_the_range_names_one(
    text: str, held: str, others: str
) -> None:
    found = parse_range(text)

    assert [one for one in held.split() if not found.holds(Version(one), prereleases=True)] == []
    assert [one for one in others.split() if found.holds(Version(one), prereleases=True)] == []
