from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oci.mirror.policy import TagRule
from oci.mirror.reader import make
from oci.mirror.selection import explain, named, select
from oci.prune.policy import Keep, in_ranges, read_version

NOW = datetime(2026, 11, 24, tzinfo=UTC)


@dataclass
class Days:
    """Images so many days old; those of `placed` are at the destinations already."""

    old: Mapping[str, int | None] = field(default_factory=dict)
    placed: frozenset[str] = frozenset()
    seen: Mapping[str, int] = field(default_factory=dict)
    """Days since an image was first seen, where it wasn't there from the beginning."""
    asked: list[str] = field(default_factory=list)

    def created(self, tags: Sequence[str]) -> Mapping[str, datetime | None]:
        self.asked.extend(tags)
        return {tag: None if self.old.get(tag) is None else NOW - timedelta(days=self.old[tag] or 0) for tag in tags}

    def in_place(self, tag: str) -> bool:
        return tag in self.placed

    def first_seen(self, tag: str) -> datetime | None:
        return None if self.seen.get(tag) is None else NOW - timedelta(days=self.seen[tag])


def taken(tags: Sequence[str], *rules: dict[str, object], ages: Days | None = None) -> list[str]:
    return list(select(tags, [make(TagRule, rule) for rule in rules], ages or Days(), NOW).tags)


VERSIONS = ["1.3.9", "v1.4.0", "1.4.1-rc.1", "1.4.1", "1.4", "2.0.0", "2.1.0-alpine", "latest", "nightly", "7"]


def test_without_rules_every_tag_is_taken_but_for_those_of_tools() -> None:
    digest = "sha256-" + "a" * 64
    tools = [digest, f"{digest}.sig", f"{digest}.att", f"{digest}.sbom", f"{digest}.imgpkg", f"app-{digest}.imgpkg"]

    assert taken(["1.0", *tools, "sha256-abc"]) == ["1.0", "sha256-abc"]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"allow": ["1.4"]}, ["1.4"]),
        ({"allow": ["1.4.*"]}, ["1.4.1-rc.1", "1.4.1", "1.4"]),
        ({"allow": [".*"], "deny": [r"\d.*", "v.*"]}, ["latest", "nightly"]),
        ({"semver": ["^1.4"]}, ["v1.4.0", "1.4.1", "1.4"]),
        ({"semver": [">=1.4.1 <3"]}, ["1.4.1", "2.0.0"]),
        ({"semver": ["1.x", "2.x"], "deny": ["1.3.*"]}, ["v1.4.0", "1.4.1", "1.4", "2.0.0"]),
        ({"semver": ["^2"], "prereleases": True}, ["2.0.0", "2.1.0-alpine"]),
        ({"semver": [">=1.4.1-rc.1 <2"]}, ["1.4.1-rc.1", "1.4.1"]),
        ({"latest": 2}, ["1.4.1", "2.0.0"]),
        ({"latest": 2, "prereleases": True}, ["2.0.0", "2.1.0-alpine"]),
        ({"latest": 2, "semver": ["1.x"]}, ["v1.4.0", "1.4.1"]),
        ({"latest": 3, "allow": ["latest", "nightly"]}, []),
    ],
)
def test_rules_by_name_and_version(rule: dict[str, object], expected: list[str]) -> None:
    assert taken(VERSIONS, rule) == expected


def test_a_tag_is_taken_when_one_of_the_rules_takes_it() -> None:
    assert taken(VERSIONS, {"latest": 1}, {"allow": ["latest"]}) == ["2.0.0", "latest"]


def test_a_pattern_matches_from_end_to_end() -> None:
    assert taken(["v1", "v1\n", "xv1", "v12"], {"allow": ["v1|xv"]}) == ["v1"]


@pytest.mark.parametrize(
    ("tag", "version"),
    [
        ("1.4.0", "1.4.0"),
        ("v1.4.0", "1.4.0"),
        ("22.04", "22.4.0"),
        ("1.4.0-rc.1", "1.4.0-rc.1"),
        ("1.4.0_build.7", "1.4.0"),
        ("3.19-alpine", "3.19.0-alpine"),
        ("7", ""),
        ("1.4.0-", ""),
        ("1.4.0-rc..1", ""),
        ("1.4.0-01", ""),
        ("1.2.3.4", ""),
        ("latest", ""),
    ],
)
def test_which_tags_are_versions(tag: str, version: str) -> None:
    read = read_version(tag)
    assert str(read.version if read else "") == version


@pytest.mark.parametrize(
    ("text", "builds"),
    [
        ("1.25.5-r3", [3]),
        (">=1.25.5-r3", [3, 10]),
        (">1.25.5-r3", [10]),
        ("<1.25.5-r3", [0, 1]),
        ("<=1.25.5-r3", [0, 1, 3]),
        ("~1.25.5-r3", [3, 10]),
        ("^1.25.5-r3", [3, 10]),
        ("1.25.5-r1 - 1.25.5-r3", [1, 3]),
        ("1.25.5", [0, 1, 3, 10]),
        ("<1.25.5", []),
    ],
)
def test_a_range_may_name_a_build(text: str, builds: list[int]) -> None:
    tags = ["1.25.5" if number == 0 else f"1.25.5-r{number}" for number in (0, 1, 3, 10)]
    rule = make(TagRule, {"semver": [text]})

    assert select(tags, [rule], Days({})).tags == tuple(
        tag for tag, number in zip(tags, (0, 1, 3, 10), strict=True) if number in builds
    )
    assert Keep(versions=(text,)).chosen(tags) == {
        tag for tag, number in zip(tags, (0, 1, 3, 10), strict=True) if number in builds
    }


@pytest.mark.parametrize(
    ("tag", "version", "counter", "variant"),
    [
        ("1.25.5-r3", "1.25.5", 3, ""),
        ("1.25.5-r13-alpine", "1.25.5", 13, "alpine"),
        ("3.12-alpine", "3.12.0", 0, "alpine"),
        ("3.12.1-rc.1-alpine", "3.12.1-rc.1", 0, "alpine"),
        ("1.25.5-debian-12-r4", "1.25.5", 4, "debian-12"),
        ("1.4.0_build.7", "1.4.0", 7, ""),
        ("1.4.0_r2", "1.4.0", 2, ""),
        ("3.12-slim", "3.12.0-slim", 0, ""),
        ("1.4.0-rc.2", "1.4.0-rc.2", 0, ""),
        ("1.4.0-build", "1.4.0-build", 0, ""),
    ],
)
def test_builds_and_variants_of_a_version(tag: str, version: str, counter: int, variant: str) -> None:
    found = read_version(tag, ("alpine", r"debian-\d+"))

    assert found is not None
    assert (str(found.version), found.counter, found.variant) == (version, counter, variant)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"latest": 2}, ["1.25.5-r9", "1.25.5-r10"]),
        ({"semver": ["1.25.5"]}, ["1.25.5", "1.25.5-r9", "1.25.5-r10"]),
        ({"latest": 1, "variants": ["alpine", "slim"]}, ["1.25.5-r10", "1.25.4-alpine-r2", "1.25.3-slim"]),
        ({"latest": 1, "variants": ["alpine"], "allow": [".*-alpine.*"]}, ["1.25.4-alpine-r2"]),
        ({"latest": 1, "variants": ["alpine"], "minimum_age": "1d"}, ["1.25.5-r9", "1.25.4-alpine-r1"]),
    ],
)
def test_the_latest_are_those_their_publisher_means(rule: dict[str, object], expected: list[str]) -> None:
    builds = ["1.25.5", "1.25.5-r9", "1.25.5-r10"]
    variants = ["1.25.4-alpine", "1.25.4-alpine-r1", "1.25.4-alpine-r2", "1.25.3-slim", "1.26.0-rc.1"]
    ages = Days(dict.fromkeys([*builds, *variants], 9) | {"1.25.5-r10": 0, "1.25.4-alpine-r2": 0})

    assert taken([*builds, *variants], rule, ages=ages) == expected


def test_what_each_rule_made_of_a_tag_can_be_told() -> None:
    rules = [
        make(TagRule, {"semver": ["1.x"], "latest": 1, "deny": ["1.3.*"]}),
        make(TagRule, {"allow": ["nightly", "old"], "minimum_age": "7d"}),
    ]
    tags = ["1.4.0", "1.4.1", "1.3.0", "1.5.0-rc.1", "2.0.0", "nightly", "old", "dev", "sha256-" + "a" * 64]
    never = ["dev"]
    ages = Days({"nightly": 2, "old": 30})

    chosen = select([tag for tag in tags if tag not in never], rules, ages, NOW)
    found = {verdict.tag: verdict for verdict in explain(tags, rules, never, chosen)}

    assert {tag: one.rule for tag, one in found.items() if one.taken} == {"1.4.1": 1, "old": 2}
    kept_out = {"1.4.0": "latest", "1.3.0": "deny", "1.5.0-rc.1": "prerelease", "2.0.0": "semver", "dev": "never"}
    for tag, part in kept_out.items():
        assert part in found[tag].reason, tag
    assert found["nightly"].reason == chosen.too_young["nightly"]
    assert found[tags[-1]].reason


def test_without_rules_all_but_the_tags_of_tools_are_taken_and_no_rule_is_named() -> None:
    found = explain(["1.0", "sha256-" + "a" * 64], [], [], None)

    assert [(one.taken, one.rule) for one in found] == [(True, 0), (False, 0)]


def test_the_latest_by_creation_are_those_that_say_when_they_were_made() -> None:
    ages = Days({"a": 3, "b": 1, "c": None, "d": 2})

    assert taken(["a", "b", "c", "d"], {"latest": 2, "latest_by": "created"}, ages=ages) == ["b", "d"]


def test_a_young_tag_waits_and_says_so() -> None:
    ages = Days({"old": 30, "young": 2, "silent": None})
    rule = make(TagRule, {"minimum_age": "7d"})

    selection = select(["old", "young", "silent"], [rule], ages, NOW)

    assert selection.tags == ("old",)
    assert selection.too_young["young"] == "made 2 days ago, younger than 7d"
    assert "doesn't say when" in selection.too_young["silent"]


def test_an_old_tag_is_not_taken() -> None:
    assert taken(["a", "b"], {"maximum_age": "10d"}, ages=Days({"a": 5, "b": 11})) == ["a"]


def test_what_is_in_place_is_not_asked_for_its_age() -> None:
    ages = Days({"new": 30}, placed=frozenset({"there"}))

    assert taken(["there", "new"], {"minimum_age": "7d"}, ages=ages) == ["there", "new"]
    assert ages.asked == ["new"]


def test_the_latest_are_counted_among_those_that_are_old_enough() -> None:
    tags = [f"1.{minor}.0" for minor in range(100)]
    ages = Days({tag: 100 - number for number, tag in enumerate(tags)})

    assert taken(tags, {"latest": 2, "minimum_age": "3d"}, ages=ages) == ["1.96.0", "1.97.0"]
    assert len(ages.asked) <= 16


def test_no_age_is_asked_for_without_a_rule_that_needs_it() -> None:
    ages = Days()

    taken(VERSIONS, {"semver": ["*"], "latest": 2, "deny": ["x"]}, ages=ages)

    assert ages.asked == []


TAGS = st.lists(st.from_regex(r"v?[0-9]{1,2}\.[0-9]{1,2}(\.[0-9]{1,2})?(-rc\.[0-9])?", fullmatch=True), max_size=30)


@given(tags=TAGS, latest=st.integers(0, 5), prereleases=st.booleans())
def test_selected_tags_are_some_of_the_given_in_their_order(tags: list[str], latest: int, prereleases: bool) -> None:
    rule = {"semver": [">=1"], "latest": latest, "prereleases": prereleases}

    found = taken(tags, rule)

    assert [tag for tag in tags if tag in found] == found
    assert set(found) <= set(named(tags, [make(TagRule, rule)]))
    if latest:
        assert len(set(found)) <= latest


@given(tags=TAGS, count=st.integers(1, 5))
def test_no_tag_that_is_left_out_is_newer_than_one_of_the_latest(tags: list[str], count: int) -> None:
    found = taken(tags, {"latest": count})

    newest = [read.version for tag in found if (read := read_version(tag))]
    left = [
        read.version
        for tag in tags
        if tag not in found and (read := read_version(tag)) and in_ranges(read.version, [], prereleases=False)
    ]
    assert not newest or all(one <= min(newest) for one in left)


@given(tags=st.lists(st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1), max_size=20))
def test_deny_takes_away_exactly_what_allow_gives(tags: list[str]) -> None:
    pattern = "[a-m0-4].*"
    allowed, denied = taken(tags, {"allow": [pattern]}), taken(tags, {"deny": [pattern]})

    assert sorted([*allowed, *denied]) == sorted(tags)


@given(
    days=st.dictionaries(st.from_regex(r"[a-z]{1,4}", fullmatch=True), st.one_of(st.none(), st.integers(0, 60))),
    least=st.integers(1, 30),
)
def test_a_tag_is_taken_or_held_and_never_both(days: dict[str, int | None], least: int) -> None:
    rule = make(TagRule, {"minimum_age": f"{least}d"})

    selection = select(list(days), [rule], Days(days), NOW)

    assert set(selection.tags) | selection.too_young.keys() == set(days)
    assert not set(selection.tags) & selection.too_young.keys()
    assert all((age := days[tag]) is not None and age >= least for tag in selection.tags)
