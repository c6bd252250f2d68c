from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from oci.digest import Digest
from oci.errors import Cancelled, CancelToken, InvalidInput
from oci.mirror.compare import compare
from oci.mirror.comparison import TagState, WorkItem
from oci.mirror.execute import plan_mirror
from oci.mirror.results import INTERRUPTED, MirrorReport, read_only
from oci.mirror.run import run_mirror
from oci.mirror.run_state import DigestCache, Shared
from oci.output import to_dict
from oci.relocation.session import Session
from tests.faults.proxy import Fault, FaultProxy
from tests.servers.docker_registry import DockerRegistry
from tests.servers.registry_data import blob_file, seed
from tests.servers.strict_registry import StrictRegistry
from tests.support.content import (
    DOCKER_MANIFEST,
    OCI_INDEX,
    OCI_MANIFEST,
    Content,
    bundle,
    digest_of,
    image,
    index,
    layer,
    push,
    signature_tag,
)
from tests.support.mirroring import AUDIT, CHECK, compared, mirror_of, run, session_of, states, variant
from tests.support.relocating import anonymous
from tests.support.signing import Signer, bundle_sign, cosign_sign
from tests.support.slow_link import SlowLink


def digest_at(registry: DockerRegistry, repository: str, tag: str) -> str:
    accept = {"Accept": f"{OCI_MANIFEST}, {OCI_INDEX}, {DOCKER_MANIFEST}"}
    answer = httpx.head(f"{registry.url}/v2/{repository}/manifests/{tag}", headers=accept)
    found: str = answer.headers.get("docker-content-digest", "")
    return found


def versions(*tags: str) -> dict[str, Content]:
    base = image(1)
    return {tag: variant(base, number) for number, tag in enumerate(tags)}


def test_only_what_changed_is_copied(registry: DockerRegistry, other_registry: DockerRegistry, repository: str) -> None:
    tags = versions("1.0", "1.1", "1.2")
    seed(registry, repository, tags)
    mirror = mirror_of(f"{registry.host}/{repository}", f"{other_registry.host}/{repository}")
    run(mirror)
    tags["1.1"] = variant(image(1), 50)
    seed(registry, repository, {"1.1": tags["1.1"], "1.3": variant(image(1), 51)})

    report = run(mirror)

    assert (report.copied, report.in_place, set(report.tags)) == (2, 2, {"1.1", "1.3"})
    assert digest_at(other_registry, repository, "1.1") == tags["1.1"].digest
    assert other_registry.repository_tags(repository) == ["1.0", "1.1", "1.2", "1.3"]


def test_tags_of_one_image_travel_together(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str
) -> None:
    one = image(11)
    seed(registry, repository, {"1.0": one, "latest": one})
    mirror = mirror_of(f"{registry.host}/{repository}", f"{other_registry.host}/{repository}")

    work = compared(mirror).work
    report = run(mirror)

    assert [item.names for item in work] == [
        (f"{registry.host}/{repository}:1.0", f"{registry.host}/{repository}:latest")
    ]
    assert WorkItem.from_dict(json.loads(json.dumps(to_dict(work[0])))) == work[0]
    assert (report.copied, report.images) == (2, 1)


@pytest.mark.parametrize(("scheme", "expected"), [("needed", 0), ("always", 1), ("readable", 1)])
def test_keep_alive_tags_are_set_as_the_mirror_says(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str, scheme: str, expected: int
) -> None:
    seed(registry, repository, versions("1.0"))
    run(mirror_of(f"{registry.host}/{repository}", f"{other_registry.host}/{repository}", keep_alive=scheme))

    tags = other_registry.repository_tags(repository)

    assert sum(tag.endswith(".imgpkg") for tag in tags) == expected
    assert "1.0" in tags


def test_a_bundle_under_a_tag_comes_with_all_that_it_lists(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str
) -> None:
    listed = push(registry.url, f"{repository}-app", image(21))
    push(registry.url, repository, bundle([listed]), "1.0")
    push(registry.url, repository, image(22), "plain")

    report = run(mirror_of(f"{registry.host}/{repository}", f"{other_registry.host}/{repository}"))

    assert report.succeeded
    assert digest_at(other_registry, repository, image(21).digest)
    assert any(tag.endswith(".image-locations.imgpkg") for tag in other_registry.repository_tags(repository))


def test_a_bundle_and_a_lock_are_mirrored_and_then_unchanged(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    listed = push(registry.url, f"{repository}-app", image(23))
    push(registry.url, repository, bundle([listed]), "1.0")
    lock = tmp_path / "images.yml"
    lock.write_text(f"apiVersion: imgpkg.carvel.dev/v1alpha1\nkind: ImagesLock\nimages:\n- image: {listed}\n")
    destination = f"{other_registry.host}/{repository}"
    mirrors = [
        mirror_of(f"bundle {registry.host}/{repository}:1.0", destination),
        mirror_of(str(lock), f"{destination}-lock"),
    ]

    first = [run(mirror) for mirror in mirrors]
    again = [run(mirror) for mirror in mirrors]

    assert [report.copied for report in first] == [1, 1]
    assert [(report.copied, report.in_place) for report in again] == [(0, 1), (0, 1)]
    assert again[0].receipt.total_requests == 2
    assert "1.0" in other_registry.repository_tags(repository)


def test_a_bundle_that_is_not_there_is_a_failure(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str
) -> None:
    report = run(mirror_of(f"bundle {registry.host}/{repository}:1.0", f"{other_registry.host}/{repository}"))

    assert report.nothing_done
    assert "there is no such bundle" in report.failed[0].error


def test_chosen_platforms_are_unchanged_next_time_without_reading_the_index_again(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    whole = index([image(31), image(32)], ["linux/amd64", "linux/arm64"])
    push(registry.url, repository, whole, "1.0")
    mirror = mirror_of(
        f"{registry.host}/{repository}", f"{other_registry.host}/{repository}", platforms=["linux/arm64"]
    )
    facts = str(tmp_path / "facts.json")

    def once() -> tuple[int, int, int]:
        known = DigestCache(facts)
        with session_of() as session:
            report = run_mirror(session, mirror, Shared(facts=known))
        known.save()
        return report.copied, report.in_place, report.receipt.total_requests

    first, again = once(), once()

    assert first[:2] == (1, 0)
    assert again == (0, 1, 4)
    assert digest_at(other_registry, repository, "1.0") not in ("", whole.digest)


@pytest.mark.parametrize("value", ["unknown", "2026-11-29T12:00:00", "yesterday", "", "9999-12-31T23:59:59-23:59"])
def test_what_a_file_of_facts_says_ends_no_run(tmp_path: Path, value: str) -> None:
    name, digest, now = "registry.example/web", Digest(image(1).digest), datetime.now(UTC)
    file = tmp_path / "facts.json"
    keys = (f"looked {name}", f"seen {name}@{digest}", f"created {digest}", f"attached {name}:1", f"blob x {digest}")
    file.write_text(json.dumps({"version": 1, "facts": dict.fromkeys(keys, value)}))
    facts = DigestCache(str(file))

    assert abs(facts.age(name, digest, now)) >= timedelta()
    assert facts.attached_due(f"{name}:1", timedelta(days=1), now) in (True, False)
    facts.looked(name, now)
    facts.save()


def test_a_file_of_facts_that_is_a_pipe_has_none(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "facts.json")
    assert list(DigestCache(str(tmp_path / "facts.json")).blob_locations()) == []


def test_a_mutated_immutable_tag_raises_an_alarm_and_is_not_overwritten(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str
) -> None:
    tags = versions("1.0.0", "latest")
    seed(registry, repository, tags)
    mirror = mirror_of(
        f"{registry.host}/{repository}", f"{other_registry.host}/{repository}", immutable=[r"\d+\.\d+\.\d+"]
    )
    run(mirror)
    seed(registry, repository, {"1.0.0": variant(image(1), 60), "latest": variant(image(1), 61)})

    plain, audited = run(mirror), run(mirror, scope=AUDIT)
    checked = compared(mirror, scope=CHECK)

    assert (plain.mutated, plain.copied) == ((), 1)
    assert audited.mutated == ("1.0.0",)
    assert not audited.succeeded
    assert states(checked)["1.0.0"] == "mutated"
    reasons = {tag.tag: tag.reason for tag in checked.destinations[0].tags}
    assert "declared immutable" in reasons["1.0.0"]
    assert digest_at(other_registry, repository, "1.0.0") == tags["1.0.0"].digest


def test_a_check_tells_what_is_missing_stale_and_extra_and_since_when(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str
) -> None:
    made = {"org.opencontainers.image.created": "2026-01-02T03:04:05Z"}
    base = image(1)
    seed(registry, repository, {"same": base, "stale": variant(base, 1, **made), "missing": variant(base, 2)})
    seed(other_registry, repository, {"same": base, "stale": base, "extra": base})
    mirror = mirror_of(f"{registry.host}/{repository}", f"{other_registry.host}/{repository}")

    found = compared(mirror, scope=CHECK)

    assert states(found) == {"same": "in place", "stale": "stale", "missing": "missing"}
    assert found.destinations[0].extra == ("extra",)
    assert found.drifted
    stale = next(tag for tag in found.destinations[0].tags if tag.tag == "stale")
    assert stale.created is not None
    assert found.lag(stale.created) == 0.0


def test_a_mirror_in_order_has_not_drifted(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str
) -> None:
    seed(registry, repository, versions("1.0"))
    seed(other_registry, repository, versions("1.0"))

    found = compared(mirror_of(f"{registry.host}/{repository}", f"{other_registry.host}/{repository}"), scope=CHECK)

    assert not found.drifted
    assert not found.count(TagState.FAILED)
    assert [result.error for result in found.destinations] == [None]


def test_images_that_the_policy_refuses_are_not_taken(
    other_registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    signer, stranger = Signer.make(), Signer.make()
    signer.write(tmp_path / "release.pub")
    policy = tmp_path / "policy.yaml"
    policy.write_text('version: 1\ndefault: reject\nrules: [{to: "*", keys: [release.pub]}]\n')
    with StrictRegistry() as server:
        by_tag, by_bundle, unsigned, foreign = image(41), image(42), image(43), image(44)
        tags = {"by-tag": by_tag, "by-bundle": by_bundle, "unsigned": unsigned, "foreign": foreign}
        for tag, content in tags.items():
            push(server.url, "shop/web", content, tag)
        where = f"{server.host}/shop/web"
        cosign_sign(server.url, "shop/web", by_tag, signer, reference=where)
        bundle_sign(server.url, "shop/web", by_bundle, signer)
        cosign_sign(server.url, "shop/web", foreign, stranger, reference=where)
        mirror = mirror_of(where, f"{other_registry.host}/{repository}", policy=str(policy), require_signatures=True)

        with session_of() as one:
            planned = plan_mirror(one, compare(one, mirror, Shared()))
        report, checked = run(mirror), compared(mirror, scope=CHECK)
        cosign_sign(server.url, "shop/web", unsigned, signer, reference=where)
        signed = run(mirror)

    assert set(planned.unsigned) == set(report.unsigned) == {"unsigned", "foreign"}
    assert planned.refusals == report.refusals
    assert all(report.refusals.values())
    assert set(report.tags) >= {"by-tag", "by-bundle"}
    assert not report.succeeded
    assert states(checked)["foreign"] == "unsigned"
    assert "unsigned" in signed.tags
    listed = other_registry.repository_tags(repository)
    assert {signature_tag(by_tag), "unsigned"} <= set(listed)
    assert "foreign" not in listed


def test_a_policy_takes_an_image_when_the_mirror_has_known_it_long_enough(
    other_registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    """By the state file alone: a key proves no time, and what the image says of itself doesn't count."""
    policy = tmp_path / "policy.yaml"
    policy.write_text('version: 1\ndefault: reject\nrules: [{to: "*", accept: true, minimum_age: 7d}]\n')
    facts, begin = DigestCache(), datetime(2026, 1, 1, tzinfo=UTC)
    with StrictRegistry() as server:
        old = variant(image(45), 1, **{"org.opencontainers.image.created": "2001-01-01T00:00:00Z"})
        push(server.url, "shop/web", old, "1.0")
        mirror = mirror_of(f"{server.host}/shop/web", f"{other_registry.host}/{repository}", policy=str(policy))

        first = run(mirror, facts=facts, now=begin)
        push(server.url, "shop/web", variant(old, 2), "2.0")
        later = run(mirror, facts=facts, now=begin + timedelta(days=1))
        week = run(mirror, facts=facts, now=begin + timedelta(days=7))
        after = run(mirror, facts=facts, now=begin + timedelta(days=8))

    assert [set(one.unsigned) for one in (first, later, week, after)] == [{"1.0"}, {"1.0", "2.0"}, {"2.0"}, set()]
    assert all("7d" in reason for reason in later.refusals.values())
    assert [one.tags for one in (week, after)] == [("1.0",), ("2.0",)]


def test_signatures_are_required_by_a_policy_or_not_at_all() -> None:
    with pytest.raises(InvalidInput, match="needs a policy") as caught:
        mirror_of("registry.example/shop/web", "registry.corp.example/mirror/web", require_signatures=True)

    assert "rules:" in str(caught.value)


def test_a_tag_too_young_waits(registry: DockerRegistry, other_registry: DockerRegistry, repository: str) -> None:
    base = image(1)
    seed(
        registry,
        repository,
        {
            "old": variant(base, 1, **{"org.opencontainers.image.created": "2020-01-01T00:00:00Z"}),
            "young": variant(base, 2, **{"org.opencontainers.image.created": "2999-01-01T00:00:00Z"}),
        },
    )
    mirror = mirror_of(
        f"{registry.host}/{repository}", f"{other_registry.host}/{repository}", tags=[{"minimum_age": "7d"}]
    )

    report = run(mirror)

    assert (report.tags, report.held) == (("old",), 1)


def test_a_run_takes_no_more_images_than_it_may(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str
) -> None:
    seed(registry, repository, versions("1.0", "1.1", "1.2"))
    mirror = mirror_of(
        f"{registry.host}/{repository}", f"{other_registry.host}/{repository}", limits={"images_per_run": 2}
    )

    first, second, third = run(mirror), run(mirror), run(mirror)

    assert [(one.copied, one.waiting) for one in (first, second, third)] == [(2, 1), (1, 0), (0, 0)]


def test_what_failed_is_run_again_alone(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str
) -> None:
    broken = image(900 + len(repository))
    seed(registry, repository, {**versions("1.0", "1.1"), "broken": broken})
    data = blob_file(registry, digest_of(broken.blobs[0].data))
    kept = data.read_bytes()
    data.unlink()
    mirror = mirror_of(f"{registry.host}/{repository}", f"{other_registry.host}/{repository}", artifacts="none")

    first = run(mirror)
    data.write_bytes(kept)
    names = read_only(json.dumps({"mirrors": [first.to_dict()]}), "report.json")
    again = run(mirror, scope={"only": frozenset(names)})

    assert names == (f"{registry.host}/{repository}:broken",)
    assert (first.copied, again.copied, again.in_place) == (2, 1, 0)
    assert again.receipt.requests[registry.host]["HEAD manifest"] == 1
    assert "broken" in other_registry.repository_tags(repository)


def test_names_that_the_rules_do_not_take_are_left_alone(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str
) -> None:
    seed(registry, repository, versions("1.0", "nightly"))
    source = f"{registry.host}/{repository}"
    mirror = mirror_of(source, f"{other_registry.host}/{repository}", tags=[{"semver": ["*"]}])

    report = run(mirror, scope={"only": frozenset({f"{source}:nightly", f"{source}:1.0", "elsewhere.example/a:1.0"})})
    other = run(mirror, scope={"only": frozenset({"elsewhere.example/a:1.0"})})

    assert report.tags == ("1.0",)
    assert other.receipt.total_requests == 0


def test_one_destination_that_is_down_does_not_stop_the_other(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str
) -> None:
    seed(registry, repository, versions("1.0"))
    source = f"{registry.host}/{repository}"
    mirror = mirror_of(source, "127.0.0.1:1/down", f"{other_registry.host}/{repository}")

    report = run(mirror, retries=0)

    assert (report.copied, len(report.failed)) == (1, 1)
    assert report.failed[0].destination == "127.0.0.1:1/down"
    assert report.failed_names == (source,)


def test_when_no_destination_can_be_reached_the_source_is_not_asked(registry: DockerRegistry, repository: str) -> None:
    seed(registry, repository, versions(*(f"1.{number}" for number in range(50))))

    report = run(mirror_of(f"{registry.host}/{repository}", "127.0.0.1:1/down"), retries=0)

    assert report.nothing_done
    assert "Connection refused" in report.failed[0].error
    assert report.receipt.total_requests < 5


def test_a_login_that_expires_stops_the_run_early_and_is_said_once(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str
) -> None:
    seed(registry, repository, versions(*(f"1.{number}" for number in range(200))))
    with FaultProxy(other_registry.port, Fault(method="PUT|POST", first=20, status=401)) as proxy:
        report = run(mirror_of(f"{registry.host}/{repository}", f"{proxy.host}/{repository}"), concurrency=4)
        refused = proxy.count("PUT", "manifests")

    assert 0 < report.copied < 25
    assert len(report.causes) == 1
    assert proxy.host in report.causes[0]
    assert sum(not failed.not_tried for failed in report.failed) < 12
    assert report.copied + len(report.failed) == 200
    assert refused < 50


def test_a_used_up_quota_stops_the_run_at_once(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str
) -> None:
    seed(registry, repository, versions(*(f"1.{number}" for number in range(60))))
    quota = Fault(method="GET", path="manifests", first=11, status=429, headers={"Retry-After": "86400"})
    with FaultProxy(registry.port, quota) as proxy:
        where = f"{proxy.host}/{repository}", f"{other_registry.host}/{repository}"
        report = run(mirror_of(*where, artifacts="none"), concurrency=2)
        asked = proxy.count("GET", "manifests")

    assert report.copied == 10
    assert len(report.causes) == 1
    assert "86400" in report.causes[0]
    assert asked < 16
    assert len(report.failed_names) == 50


def test_on_failure_stop_begins_no_further_image(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str
) -> None:
    broken = image(950 + len(repository))
    seed(registry, repository, {"0.9": broken, **versions(*(f"1.{number}" for number in range(30)))})
    blob_file(registry, digest_of(broken.blobs[0].data)).unlink()
    mirror = mirror_of(f"{registry.host}/{repository}", f"{other_registry.host}/{repository}", on_failure="stop")

    report = run(mirror, concurrency=1)

    assert report.copied < 30
    assert any(failed.not_tried and "on_failure is stop" in failed.error for failed in report.failed)


@pytest.fixture
def third(tmp_path: Path) -> Iterator[DockerRegistry]:
    with DockerRegistry(tmp_path / "third") as server:
        yield server


def test_three_destinations_share_one_read_of_each_blob(
    registry: DockerRegistry, other_registry: DockerRegistry, third: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    content = image(71, layers=[layer(700 + number, 3_000_000) for number in range(3)])
    push(registry.url, repository, content, "1.0")
    size = sum(len(blob.data) for blob in content.blobs)
    destinations = (f"{other_registry.host}/{repository}", f"{third.host}/{repository}", f"oci:{tmp_path}/layout")

    report = run(mirror_of(f"{registry.host}/{repository}", *destinations))

    assert report.copied == 3
    assert report.receipt.requests[registry.host]["GET blob"] == len(content.blobs)
    assert report.receipt.bytes_read == size + len(content.raw)
    assert report.receipt.bytes_written == 3 * size
    assert (tmp_path / "layout" / "index.json").is_file()


def test_a_slow_destination_reads_for_itself_and_holds_up_no_other(
    registry: DockerRegistry, other_registry: DockerRegistry, third: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    content = image(72, layers=[layer(720, 24_000_000)])
    push(registry.url, repository, content, "1.0")
    size = sum(len(blob.data) for blob in content.blobs)
    finished: list[str] = []
    with SlowLink(third.host, 4_000_000, uploads=True) as slow:
        mirror = mirror_of(
            f"{registry.host}/{repository}",
            f"{slow.address}/{repository}",
            f"{other_registry.host}/{repository}",
            f"oci:{tmp_path}/layout",
        )
        watching = threading.Thread(target=_watch, args=(other_registry, repository, slow, finished), daemon=True)
        watching.start()
        report = run(mirror)
        watching.join(60)

    assert report.copied == 3
    assert finished == ["while the slow one was still at it"]
    assert size < report.receipt.bytes_read <= 2 * size + len(content.raw)
    assert digest_at(third, repository, "1.0") == content.digest


def _watch(registry: DockerRegistry, repository: str, slow: SlowLink, finished: list[str]) -> None:
    """When the fast destination has its tag, lets the slow one go on at full speed."""
    while "1.0" not in registry.repository_tags(repository):
        threading.Event().wait(0.1)
    if slow.bytes_per_second:
        finished.append("while the slow one was still at it")
        slow.bytes_per_second = 0


def test_cancelled_in_the_middle_no_tag_shows_anything_incomplete(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str
) -> None:
    contents = {f"1.{number}": image(8000 + number, layers=[layer(8000 + number, 200_000)]) for number in range(30)}
    for tag, content in contents.items():
        push(registry.url, repository, content, tag)
    mirror = mirror_of(f"{registry.host}/{repository}", f"{other_registry.host}/{repository}")
    cancel, done = CancelToken(), []
    reports: list[MirrorReport] = []

    def on_done(item: WorkItem, outcomes: object) -> None:
        done.append(item)
        if len(done) == 5:
            cancel.cancel()

    access = anonymous()
    with (
        pytest.raises(Cancelled),
        Session(source=access, destination=access, concurrency=4, cancel=cancel) as session,
    ):
        run_mirror(session, mirror, Shared(), on_done=on_done, on_cut=reports.append)

    [report] = reports
    there = other_registry.repository_tags(repository)
    assert 5 <= len(there) < 30
    assert set(report.tags) <= set(there)
    assert {tag for tag in contents if tag not in report.tags} == {
        name.rpartition(":")[2] for name in report.failed_names
    }
    assert {one.error for one in report.failed if one.not_tried} == {INTERRUPTED}
    with httpx.Client(base_url=other_registry.url) as http:
        for tag in there:
            for blob in contents[tag].blobs:
                assert http.head(f"/v2/{repository}/blobs/{digest_of(blob.data)}").status_code == 200
