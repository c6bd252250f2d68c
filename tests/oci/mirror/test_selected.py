"""What mirrors select and look at, against real registries: plain names, limits, what came late, what was lost."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from oci.mirror.compare import compare
from oci.mirror.run_state import DigestCache, Shared
from tests.faults.proxy import Fault, FaultProxy
from tests.servers.docker_registry import DockerRegistry
from tests.servers.quirky_registry import Quirky
from tests.servers.registry_data import seed
from tests.servers.strict_registry import StrictRegistry
from tests.support.content import artifact, bundle, image, index, push, signature, signature_tag
from tests.support.mirroring import AUDIT, CHECK, compared, mirror_of, run, session_of, states, variant
from tests.support.pruning import has

NO_LISTS = Fault(path="/tags/list", status=403)


def rules(*sets: dict[str, Any]) -> dict[str, Any]:
    return {"tags": list(sets)}


def test_plain_names_need_no_list_and_two_requests_each(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str
) -> None:
    seed(registry, repository, {"1.25": image(1), "latest": image(2), "other": image(3)})
    with FaultProxy(registry.port, NO_LISTS) as source, FaultProxy(other_registry.port, NO_LISTS) as destination:
        mirror = mirror_of(
            f"{source.host}/{repository}",
            f"{destination.host}/{repository}",
            **rules({"allow": ["1.25"]}, {"allow": [r"latest"]}),
        )

        first, again = run(mirror), run(mirror)

    assert (first.failed, set(first.tags)) == ((), {"1.25", "latest"})
    assert (again.in_place, again.receipt.total_requests) == (2, 4)
    assert other_registry.repository_tags(repository) == ["1.25", "latest"]


def test_a_dot_in_a_plain_name_is_a_dot(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str
) -> None:
    seed(registry, repository, {"1.25": image(1), "1x25": image(2), "v2.0": image(3)})
    mirror = mirror_of(
        f"{registry.host}/{repository}",
        f"{other_registry.host}/{repository}",
        **rules({"allow": [r"1\.25"]}, {"allow": ["1.25"], "semver": ["^1"]}, {"allow": ["v.*"]}),
    )

    assert set(run(mirror).tags) == {"1.25", "v2.0"}


@pytest.mark.parametrize("allow", [["1.0", "gone"], ["1.0", "gone", "v.*"]], ids=["plain names", "with a pattern"])
def test_a_plain_name_that_is_absent_fails_and_the_rest_arrives(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str, allow: list[str]
) -> None:
    seed(registry, repository, {"1.0": image(1)})
    where = f"{registry.host}/{repository}", f"{other_registry.host}/{repository}"

    report = run(mirror_of(*where, **rules({"allow": allow})))
    forgiving = run(mirror_of(*where, **rules({"allow": ["1.0"]}, {"allow": ["gone"], "optional": True})))

    assert report.tags == ("1.0",)
    assert report.failed_names == (f"{registry.host}/{repository}:gone",)
    assert "there is no such tag" in report.failed[0].error
    assert "optional: true" in report.failed[0].error
    assert (forgiving.failed, forgiving.in_place) == ((), 1)


def test_a_plain_name_that_is_denied_by_its_own_rule_isnt_asked_for(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str
) -> None:
    seed(registry, repository, {"1.0": image(1)})
    denied = {"allow": ["1.0", "gone"], "deny": ["g.*"]}

    report = run(mirror_of(f"{registry.host}/{repository}", f"{other_registry.host}/{repository}", **rules(denied)))

    assert (report.failed, report.tags) == ((), ("1.0",))


def test_fewer_tags_than_the_minimum_copy_nothing(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str
) -> None:
    seed(registry, repository, {"1.0": image(1), "2.0": image(2)})
    where = f"{registry.host}/{repository}", f"{other_registry.host}/{repository}"

    few = run(mirror_of(*where, min_tags=3))
    enough = run(mirror_of(*where, min_tags=2))

    assert "the rules take 2 tags, and min_tags asks for 3" in few.failed[0].error
    assert few.copied == 0
    assert (enough.failed, enough.copied) == ((), 2)


def test_what_is_never_taken_no_rule_takes(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str
) -> None:
    seed(registry, repository, {"1.0": image(1), "1.0-dev": image(2), "2.0": image(3)})
    where = f"{registry.host}/{repository}", f"{other_registry.host}/{repository}"

    ruled = run(mirror_of(*where, never=[".*-dev"], **rules({"semver": ["*"], "prereleases": True})))
    every = run(mirror_of(*where, never=[".*-dev"]))

    assert set(ruled.tags) == {"1.0", "2.0"}
    assert (every.copied, every.in_place) == (0, 2)


@pytest.mark.parametrize("immutable", [[], [".*"]], ids=["tags that move", "immutable tags"])
def test_a_signature_that_comes_after_its_image_arrives(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str, immutable: list[str]
) -> None:
    content = image(1)
    seed(registry, repository, {"1.0": content, "1.1": image(2)})
    mirror = mirror_of(
        f"{registry.host}/{repository}",
        f"{other_registry.host}/{repository}",
        artifacts=["cosign"],
        immutable=immutable,
    )
    facts = DigestCache()
    assert run(mirror, facts=facts).copied == 2
    push(registry.url, repository, signature(content), signature_tag(content))
    push(registry.url, repository, signature(image(9)), signature_tag(image(9)))

    late = run(mirror, facts=facts)
    again = run(mirror, facts=facts)

    assert (late.failed, late.copied) == ((), 1)
    assert has(other_registry.url, repository, signature_tag(content))
    assert not has(other_registry.url, repository, signature_tag(image(9)))
    assert (again.copied, again.in_place) == (0, 2)
    assert again.receipt.total_requests == (2 if immutable else 6), "a signature of another image is asked for once"


def test_a_referrer_that_comes_after_its_image_arrives_with_an_audit(registry: DockerRegistry, repository: str) -> None:
    content = image(1)
    with StrictRegistry() as source, StrictRegistry() as destination:
        push(source.url, repository, content, "1.0")
        mirror = mirror_of(f"{source.host}/{repository}", f"{destination.host}/{repository}", artifacts=["referrers"])
        run(mirror)
        push(source.url, repository, artifact(1, subject=content))

        seen = compared(mirror, scope=CHECK)
        audited = run(mirror, scope=AUDIT)

        assert states(seen) == {"1.0": "unsigned here"}
        assert artifact(1, subject=content).digest in seen.destinations[0].tags[0].reason
        assert audited.copied == 1
        assert has(destination.url, repository, artifact(1, subject=content))
        assert states(compared(mirror, scope=CHECK)) == {"1.0": "in place"}


def test_an_image_that_a_mirrored_bundle_lists_and_the_destination_lost_is_seen_and_mended(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str
) -> None:
    lost = image(41)
    references = [push(registry.url, f"{repository}-app", one) for one in (lost, image(42))]
    push(registry.url, repository, bundle(references), "1.0")
    where = f"{other_registry.host}/{repository}"
    mirrors = [
        mirror_of(f"{registry.host}/{repository}", where),
        mirror_of(f"bundle {registry.host}/{repository}:1.0", where),
    ]
    run(mirrors[0])
    for mirror in mirrors:
        gone = httpx.delete(f"{other_registry.url}/v2/{repository}/manifests/{lost.digest}")
        assert gone.status_code == 202
        assert not has(other_registry.url, repository, lost)

        checked = compared(mirror, scope=CHECK)
        audited = run(mirror, scope=AUDIT)

        assert checked.drifted
        assert f"1 of 2 listed images lost, such as {lost.digest}" in checked.destinations[0].tags[0].reason
        assert (audited.failed, audited.copied) == ((), 1)
        assert has(other_registry.url, repository, lost)
        assert not compared(mirror, scope=CHECK).drifted


def test_what_appears_after_the_first_look_is_as_old_as_it_was_seen_whatever_it_says(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    now = datetime(2026, 5, 1, tzinfo=UTC)
    old = {"org.opencontainers.image.created": (now - timedelta(days=300)).isoformat()}
    seed(registry, repository, {"1.0": variant(image(1), 1, **old)})
    mirror = mirror_of(
        f"{registry.host}/{repository}", f"{other_registry.host}/{repository}", **rules({"minimum_age": "7d"})
    )

    def taken(moment: datetime) -> tuple[set[str], set[str]]:
        facts = DigestCache(str(tmp_path / "facts.json"))
        with session_of() as session:
            found = compare(session, mirror, Shared(facts=facts, now=moment))
        facts.save()
        return set(states(found)), set(found.too_young)

    first = taken(now)
    seed(registry, repository, {"1.1": variant(image(1), 2, **old)})
    second, third = taken(now), taken(now + timedelta(days=8))

    assert first == ({"1.0"}, set())
    assert second == ({"1.0"}, {"1.1"})
    assert third == ({"1.0", "1.1"}, set())


AGES = [
    {"minimum_age": "7d"},
    {"maximum_age": "9000d"},
    {"latest": 1, "latest_by": "created"},
    {"semver": ["*"], "latest": 1, "minimum_age": "1d"},
]


@pytest.mark.parametrize("rule", AGES)
@pytest.mark.parametrize("broken", ["manifests/sha256", "blobs"])
def test_an_age_that_cant_be_read_fails_and_isnt_taken_for_none(
    destination: StrictRegistry, rule: dict[str, Any], broken: str
) -> None:
    newest, older = image(2), image(1)
    made = {"org.opencontainers.image.created": "2020-01-01T00:00:00Z"}

    def fails(call: Any, path: str) -> bool:
        about_newest = newest.digest in path or newest.blobs[-1].descriptor()["digest"] in path
        if call.command == "GET" and broken in path and about_newest:
            call.answer(400, b"out of order")
            return True
        return False

    with Quirky() as source:
        push(source.url, "shop/web", variant(older, 1, **made), "1.0")
        push(source.url, "shop/web", newest, "2.0")
        source.quirk = fails
        mirror = mirror_of(f"{source.host}/shop/web", f"{destination.host}/web", **rules(rule))
        report = run(mirror)
        found, checked = compared(mirror), compared(mirror, scope=CHECK)

    assert [failed.names for failed in report.failed] == [(f"{source.host}/shop/web:2.0",)]
    assert "out of order" in report.failed[0].error
    assert report.held == 0
    assert states(checked)["2.0"] == "failed"
    assert found.selection is not None
    assert "out of order" in found.selection.too_young["2.0"]


def test_a_tag_that_another_rule_takes_whatever_its_age_needs_none(destination: StrictRegistry) -> None:
    denied = image(2)

    def fails(call: Any, path: str) -> bool:
        if call.command == "GET" and denied.blobs[-1].descriptor()["digest"] in path:
            call.answer(400, b"out of order")
            return True
        return False

    with Quirky() as source:
        push(source.url, "shop/web", denied, "latest")
        source.quirk = fails
        mirror = mirror_of(
            f"{source.host}/shop/web", f"{destination.host}/web", **rules({"minimum_age": "7d"}, {"allow": ["latest"]})
        )
        found = compared(mirror)

    assert states(found) == {"latest": "missing"}
    assert found.too_young == {}


def test_an_expression_that_would_take_for_ever_takes_no_time(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str
) -> None:
    seed(registry, repository, {"a" * 120 + "b": image(1), "aaa": image(2)})
    where = f"{registry.host}/{repository}", f"{other_registry.host}/{repository}"

    report = run(mirror_of(*where, immutable=["(a+)+"], **rules({"allow": ["(a+)+"]})))

    assert report.tags == ("aaa",)


def test_an_index_and_its_children_with_tags_of_their_own_arrive_in_one_run(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str
) -> None:
    children = [image(61), image(62)]
    push(registry.url, repository, index(children), "1.0")
    for number, child in enumerate(children):
        push(registry.url, repository, child, f"1.0-{number}")
    seed(registry, repository, {f"v{number}": variant(image(63), number) for number in range(6)})

    report = run(mirror_of(f"{registry.host}/{repository}", f"{other_registry.host}/{repository}"))

    assert report.failed == ()
    assert report.copied == 9
