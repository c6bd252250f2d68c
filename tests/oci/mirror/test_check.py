"""What a check sees at registries that answer in ways of their own, and below what tags show."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from oci.bundle import tagnames
from oci.digest import Digest
from oci.errors import Unauthorized
from oci.mirror.config import Mirror
from tests.faults.proxy import Fault, FaultProxy
from tests.servers.docker_registry import DockerRegistry
from tests.servers.registry_data import seed
from tests.support.content import DOCKER_MANIFEST, OCI_MANIFEST, Content, bundle, image, index, push
from tests.support.mirroring import AUDIT, CHECK, compared, mirror_of, run, states
from tests.support.pruning import has

NO_HEAD = Fault(method="HEAD", path="/manifests/", status=404)
NO_HEAD_BY_DIGEST = Fault(method="HEAD", path="/manifests/sha256:", status=404)


@pytest.fixture
def tags(registry: DockerRegistry, repository: str) -> dict[str, Content]:
    content = {"1.0": image(1), "2.0": image(2), "latest": image(3)}
    seed(registry, repository, content)
    return content


def delete(registry: DockerRegistry, repository: str, *digests: str) -> None:
    for digest in digests:
        assert httpx.delete(f"{registry.url}/v2/{repository}/manifests/{digest}").status_code == 202


def test_tags_that_no_head_finds_at_the_source_are_mirrored(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str, tags: dict[str, Content]
) -> None:
    with FaultProxy(registry.port, NO_HEAD) as source:
        report = run(mirror_of(f"{source.host}/{repository}", f"{other_registry.host}/{repository}"))

    assert (report.failed, set(report.tags)) == ((), set(tags))
    assert other_registry.repository_tags(repository) == sorted(tags)


@pytest.mark.parametrize("rules", [[], [{"allow": ["1.0"]}, {"allow": ["2.0"]}]], ids=["listed", "named"])
def test_tags_that_no_head_finds_are_in_place_all_the_same(
    registry: DockerRegistry,
    other_registry: DockerRegistry,
    repository: str,
    tags: dict[str, Content],
    rules: list[dict[str, list[str]]],
) -> None:
    run(mirror_of(f"{registry.host}/{repository}", f"{other_registry.host}/{repository}"))
    with FaultProxy(registry.port, NO_HEAD) as source, FaultProxy(other_registry.port, NO_HEAD) as destination:
        where = f"{source.host}/{repository}", f"{destination.host}/{repository}"
        checked = compared(mirror_of(*where, tags=rules, artifacts="none"), scope=CHECK)

    assert set(states(checked).values()) == {"in place"}


def test_a_tag_that_is_gone_is_missing_though_another_has_a_name(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str, tags: dict[str, Content]
) -> None:
    mirror = mirror_of(f"{registry.host}/{repository}", f"{other_registry.host}/{repository}")
    run(mirror)
    delete(other_registry, repository, tags["2.0"].digest)

    assert states(compared(mirror, scope=CHECK)) == {"1.0": "in place", "2.0": "missing", "latest": "in place"}


def test_listed_images_that_head_finds_under_tags_alone_are_not_lost(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str
) -> None:
    listed = [push(registry.url, f"{repository}-app", one) for one in (image(41), image(42), image(43))]
    push(registry.url, repository, bundle(listed), "1.0")
    source, where = f"bundle {registry.host}/{repository}:1.0", f"{other_registry.host}/{repository}"
    run(mirror_of(source, where))
    with FaultProxy(other_registry.port, NO_HEAD_BY_DIGEST) as proxy:
        behind = mirror_of(source, f"{proxy.host}/{repository}")
        before = compared(behind, scope=CHECK)
        delete(other_registry, repository, image(42).digest)
        after = compared(behind, scope=CHECK)

    assert states(before) == {"1.0": "in place"}
    assert f"1 of 3 listed images lost, such as {image(42).digest}" in after.destinations[0].tags[0].reason


@pytest.mark.parametrize("status", [401, 403])
def test_a_destination_that_denies_everything_is_not_said_to_lack_everything(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str, tags: dict[str, Content], status: int
) -> None:
    """401: the login is refused. 403: as some registries answer for what isn't there (GHCR, Artifactory)."""
    with FaultProxy(other_registry.port, Fault(status=status)) as destination:
        mirror = mirror_of(f"{registry.host}/{repository}", f"{destination.host}/{repository}")
        checked = compared(mirror, scope=CHECK)

    found = checked.destinations[0].tags
    assert {tag.state.value for tag in found} == {"failed" if status == 401 else "missing"}
    assert all(str(status) in tag.reason for tag in found)
    assert all(isinstance(tag.error, Unauthorized) for tag in found) is (status == 401)


INSIDE, BESIDE, CHILDREN = image(61), image(62), (image(63), image(64))


def nested(registry: DockerRegistry, repository: str) -> tuple[list[str], Content]:
    """A bundle that lists a bundle, an image and an index; what it lists, and the inner bundle."""
    inner = bundle([push(registry.url, f"{repository}-inside", INSIDE)])
    below = (inner, BESIDE, index(CHILDREN, ["linux/amd64", "linux/arm64"]))
    listed = [push(registry.url, f"{repository}-{number}", one) for number, one in enumerate(below)]
    push(registry.url, repository, bundle(listed), "1.0")
    return listed, inner


def repaired(mirror: Mirror, other_registry: DockerRegistry, path: str, lost: Content, count: str) -> None:
    """A check names the lost image, an audited run brings it."""
    assert set(states(compared(mirror, scope=CHECK)).values()) == {"in place"}
    delete(other_registry, path, lost.digest)

    checked = compared(mirror, scope=CHECK).destinations[0].tags[0]
    assert f"1 of {count} lost, such as {lost.digest}" in checked.reason
    assert run(mirror, scope=AUDIT).failed == ()
    assert has(other_registry.url, path, lost)
    assert set(states(compared(mirror, scope=CHECK)).values()) == {"in place"}


@pytest.mark.parametrize("lost", [INSIDE, BESIDE, CHILDREN[1]], ids=["of the inner bundle", "listed", "of an index"])
@pytest.mark.parametrize("kind", ["repository", "bundle"])
def test_what_is_lost_deep_inside_a_bundle_is_seen_and_mended(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str, kind: str, lost: Content
) -> None:
    nested(registry, repository)
    source = f"bundle {registry.host}/{repository}:1.0" if kind == "bundle" else f"{registry.host}/{repository}"
    mirror = mirror_of(source, f"{other_registry.host}/{repository}")
    run(mirror)

    repaired(mirror, other_registry, repository, lost, "6 listed images")


def test_a_child_that_an_index_has_lost_is_seen_and_mended(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str
) -> None:
    push(registry.url, repository, index(CHILDREN), "1.0")
    mirror = mirror_of(f"{registry.host}/{repository}", f"{other_registry.host}/{repository}")
    run(mirror)

    repaired(mirror, other_registry, repository, CHILDREN[0], "2 listed images")


def test_a_child_of_an_index_that_a_lock_pins_is_seen_and_mended(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    listed, _ = nested(registry, repository)
    lock = tmp_path / "images.lock.yml"
    images = "".join(f"- image: {reference}\n" for reference in listed[1:])
    lock.write_text(f"apiVersion: imgpkg.carvel.dev/v1alpha1\nkind: ImagesLock\nimages:\n{images}")
    mirror = mirror_of(str(lock), f"{other_registry.host}/{repository}")
    run(mirror)

    repaired(mirror, other_registry, repository, CHILDREN[1], "2 listed images")


def test_a_bundle_whose_locations_are_lost_is_not_whole(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str
) -> None:
    nested(registry, repository)
    mirror = mirror_of(f"bundle {registry.host}/{repository}:1.0", f"{other_registry.host}/{repository}")
    run(mirror)
    found = compared(mirror, scope=CHECK).destinations[0].tags[0].destination
    tag = tagnames.locations(Digest(found))
    accept = {"Accept": f"{OCI_MANIFEST}, {DOCKER_MANIFEST}"}
    head = httpx.get(f"{other_registry.url}/v2/{repository}/manifests/{tag}", headers=accept)
    delete(other_registry, repository, head.headers["docker-content-digest"], INSIDE.digest)

    checked = compared(mirror, scope=CHECK)
    assert states(checked) == {"1.0": "stale"}
    assert run(mirror, scope=AUDIT).failed == ()
    assert has(other_registry.url, repository, INSIDE)
    assert states(compared(mirror, scope=CHECK)) == {"1.0": "in place"}


def test_what_a_lock_pins_is_missing_when_get_says_so(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    listed = [push(registry.url, f"{repository}-app", one) for one in (image(41), image(42), image(43))]
    lock = tmp_path / "images.lock.yml"
    images = "".join(f"- image: {reference}\n" for reference in listed)
    lock.write_text(f"apiVersion: imgpkg.carvel.dev/v1alpha1\nkind: ImagesLock\nimages:\n{images}")
    run(mirror_of(str(lock), f"{other_registry.host}/{repository}"))
    with FaultProxy(other_registry.port, NO_HEAD_BY_DIGEST) as proxy:
        mirror = mirror_of(str(lock), f"{proxy.host}/{repository}")
        before = compared(mirror, scope=CHECK)
        delete(other_registry, repository, image(42).digest)
        after = compared(mirror, scope=CHECK)

    assert set(states(before).values()) == {"in place"}
    assert f"1 of 3 listed images missing, such as {image(42).digest}" in after.destinations[0].tags[0].reason


def test_a_lock_whose_source_lacks_an_image_is_never_in_place(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    listed = [push(registry.url, f"{repository}-app", one) for one in (image(44), image(45))]
    lock = tmp_path / "images.lock.yml"
    images = "".join(f"- image: {reference}\n" for reference in listed)
    lock.write_text(f"apiVersion: imgpkg.carvel.dev/v1alpha1\nkind: ImagesLock\nimages:\n{images}")
    delete(registry, f"{repository}-app", image(45).digest)
    mirror = mirror_of(str(lock), f"{other_registry.host}/{repository}")

    reports = [run(mirror), run(mirror), run(mirror, scope=AUDIT)]
    checked = compared(mirror, scope=CHECK)
    push(registry.url, f"{repository}-app", image(45))

    assert has(other_registry.url, repository, image(44))
    assert [(report.in_place, [image(45).digest in one.error for one in report.failed]) for report in reports] == [
        (0, [True])
    ] * 3
    assert f"1 of 2 listed images missing, such as {image(45).digest}" in checked.destinations[0].tags[0].reason
    assert run(mirror).failed == ()
    assert set(states(compared(mirror, scope=CHECK)).values()) == {"in place"}


def test_indexes_are_looked_into_side_by_side(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str
) -> None:
    for number in range(6):
        push(registry.url, repository, index([image(number), image(number + 1)]), f"{number}.0")
    run(mirror_of(f"{registry.host}/{repository}", f"{other_registry.host}/{repository}"))
    slow = Fault(method="GET", path="/manifests/sha256:", delay=3.0)
    with FaultProxy(other_registry.port, slow) as proxy:
        mirror = mirror_of(f"{registry.host}/{repository}", f"{proxy.host}/{repository}", artifacts="none")
        assert set(states(compared(mirror, scope=CHECK)).values()) == {"in place"}
        asked = [span for span in proxy.spans if span.method == "GET" and "sha256:" in span.path]

    assert len(asked) == 6
    assert max(span.began for span in asked) < min(span.ended for span in asked)


def test_an_immutable_tag_that_no_head_finds_is_not_overwritten(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str
) -> None:
    push(registry.url, repository, image(1), "1.0")
    push(other_registry.url, repository, image(2), "1.0")
    with FaultProxy(other_registry.port, NO_HEAD) as destination:
        where = f"{registry.host}/{repository}", f"{destination.host}/{repository}"
        report = run(mirror_of(*where, tags=[{"allow": ["1.0"]}], immutable=["1.0"], artifacts="none"))

    assert (report.mutated, report.copied) == (("1.0",), 0)
    assert has(other_registry.url, repository, image(2))
