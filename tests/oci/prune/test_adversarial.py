"""Registries and neighbours that do their worst: nothing that a kept name needs is ever deleted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from oci.errors import Denied, InvalidInput, NotFound, Refused
from oci.prune.plan import PrunePlan
from tests.faults.proxy import Fault, FaultProxy
from tests.servers.docker_registry import DockerRegistry
from tests.servers.strict_registry import Features, StrictRegistry
from tests.support.content import Content, artifact, bundle, image, index, push
from tests.support.pruning import carried_out, has, names, planned, pruned, tags_of
from tests.support.relocating import copied


@pytest.mark.parametrize("page", [1, 2, 7])
def test_a_list_that_is_cut_short_without_a_link_is_asked_on(page: int) -> None:
    with StrictRegistry(Features(links=False, page=page)) as server:
        for number, tag in enumerate(("dev", "edge", "old", "prod", "stage", "test", "unused")):
            push(server.url, "shop", image(number), tag)

        report = pruned(f"{server.host}/shop", tags=("prod",), patterns=("st.*|te.*",))

        assert all(has(server.url, "shop", tag) for tag in ("prod", "stage", "test"))
        assert sorted(tag for one in report.deleted for tag in one.tags) == ["dev", "edge", "old", "unused"]


def test_a_list_that_hides_a_kept_tag_ends_it() -> None:
    with StrictRegistry(Features(unlisted=frozenset({"prod"}))) as server:
        shared = image(1)
        push(server.url, "shop", shared, "old", "prod")
        push(server.url, "shop", image(2), "new")

        with pytest.raises(Refused, match=r"has the tag prod, and its list of tags hasn't"):
            planned(f"{server.host}/shop", tags=("prod",))
        with pytest.raises(Refused, match=r"the list isn't whole"):
            planned(f"{server.host}/shop", tags=("prod",), patterns=("new",))

        assert has(server.url, "shop", "prod")
        assert has(server.url, "shop", "old")


def test_a_list_that_hides_a_tag_between_plan_and_approval_ends_it() -> None:
    with StrictRegistry() as server:
        push(server.url, "shop", image(1), "old")
        push(server.url, "shop", image(2), "prod")
        plan = planned(f"{server.host}/shop", tags=("prod",))
        server.features = Features(unlisted=frozenset({"prod"}))

        with pytest.raises(Refused, match="the list isn't whole"):
            carried_out(plan)

        assert has(server.url, "shop", image(1))


@pytest.fixture
def before_deleting(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Does something after the second look, in the moment before the first deletion."""

    def arrange(deed: Callable[[], object]) -> None:
        monkeypatch.setattr("oci.prune.execute.check_deletes", lambda _: deed())

    return arrange


Push = Callable[[Content, str], object]
Deed = Callable[[Push], object]

OLD = image(1)
DEEDS: dict[str, Deed] = {
    "a new tag on it": lambda push_it: push_it(OLD, "hotfix"),
    "a new index over it": lambda push_it: push_it(index([OLD]), "both"),
    "a kept tag moves to it": lambda push_it: push_it(OLD, "v2"),
    "a kept tag moves to an index over it": lambda push_it: push_it(index([OLD, image(2)]), "v2"),
    "its own tag moves away": lambda push_it: push_it(image(3), "old"),
    "a referrer of it gets a tag": lambda push_it: push_it(artifact(1, subject=OLD), "sbom"),
}


@pytest.mark.parametrize("deed", DEEDS.values(), ids=DEEDS)
def test_what_is_pushed_after_the_second_look_is_noticed_before_a_deletion(
    before_deleting: Callable[[Callable[[], object]], None], deed: Deed, registry: DockerRegistry, repository: str
) -> None:
    push(registry.url, repository, OLD, "old")
    push(registry.url, repository, image(2), "v2")
    plan = planned(f"{registry.host}/{repository}", patterns=("v2",))
    assert names(plan) == {OLD.digest}
    before_deleting(lambda: deed(lambda content, tag: push(registry.url, repository, content, tag)))

    report = carried_out(plan)

    assert not report.deleted
    assert len(report.skipped) == 1
    assert has(registry.url, repository, OLD)


def test_a_tag_alone_is_never_tried_on_a_tag_in_use(registry: DockerRegistry, repository: str) -> None:
    push(registry.url, repository, image(1), "1.0", "1")
    put = Fault(method="PUT", path="/manifests/transship-probe", status=403)
    lies = Fault(method="DELETE", path="/manifests/transship-probe", status=202)

    with FaultProxy(registry.port, put) as proxy:
        refused = pruned(f"{proxy.host}/{repository}", tags=("1.0",))
        assert not proxy.count("DELETE", "/manifests/1$")
    with FaultProxy(registry.port, lies) as proxy:
        lied = pruned(f"{proxy.host}/{repository}", tags=("1.0",))
        assert not proxy.count("DELETE", "/manifests/1$")

    assert [one.subject for one in refused.refused] == [one.subject for one in lied.refused] == ["1"]
    assert "couldn't be tried with a manifest made for it" in refused.refused[0].reason
    assert "the tag is there still" in lied.refused[0].reason
    assert tags_of(registry.url, repository) == {"1", "1.0"}


def test_nothing_is_left_of_the_manifest_that_was_made_to_try(repository: str) -> None:
    for features in (Features(), Features(tag_delete=False), Features(tag_delete_takes_all=True)):
        with StrictRegistry(features) as server:
            push(server.url, repository, image(1), "1.0", "1")
            pruned(f"{server.host}/{repository}", tags=("1.0",))

            assert set(server.store.repository(repository).manifests) == {image(1).digest}
            assert not [tag for tag in tags_of(server.url, repository) if "probe" in tag]


@pytest.fixture
def listed(registry: DockerRegistry, repository: str) -> tuple[str, str, list[Content]]:
    """A bundle in another repository, with one inside it, that lists images of this one, which no tag of it keeps."""
    images = [image(number) for number in (11, 12, 13)]
    references = [push(registry.url, repository, one, f"old-{n}") for n, one in enumerate(images)]
    push(registry.url, repository, image(14), "old-3")
    push(registry.url, repository, image(15), "new")
    other = f"{repository}-bundles"
    inner = push(registry.url, other, bundle(references[2:]), "inner")
    push(registry.url, other, bundle([*references[:2], inner]), "1.0")
    return f"{registry.host}/{repository}", f"{registry.host}/{other}:1.0", images


def test_a_bundle_of_another_repository_keeps_what_it_lists_here(
    listed: tuple[str, str, list[Content]], registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    where, reference, images = listed
    lock = tmp_path / "bundle.lock.yml"
    digest = push(registry.url, f"{repository}-bundles", bundle([f"{where}@{images[0].digest}"]), "locked")
    lock.write_text(f"apiVersion: imgpkg.carvel.dev/v1alpha1\nkind: BundleLock\nbundle:\n  image: {digest}\n")

    assert names(planned(where, tags=("new",))) == {image(14).digest, *(one.digest for one in images)}
    assert names(planned(where, tags=("new",), bundles=(reference,))) == {image(14).digest}
    by_lock = names(planned(where, tags=("new",), locks=(str(lock),)))
    assert by_lock == {image(14).digest, *(one.digest for one in images[1:])}
    plan = PrunePlan.from_json(planned(where, tags=("new",), bundles=(reference,)).to_json())
    report = carried_out(plan)

    assert [one.digest for one in report.deleted] == [image(14).digest]
    assert all(has(registry.url, repository, one) for one in images)


def test_a_bundle_that_can_not_be_read_ends_it(
    listed: tuple[str, str, list[Content]], registry: DockerRegistry, repository: str
) -> None:
    where, reference, images = listed
    with pytest.raises(NotFound):
        planned(where, tags=("new",), bundles=(f"{reference}-gone",))
    with pytest.raises(InvalidInput, match="is not a bundle"):
        planned(where, tags=("new",), bundles=(f"{where}:new",))
    with FaultProxy(registry.port, Fault(path=f"{repository}-bundles", status=403)) as proxy, pytest.raises(Denied):
        planned(where, tags=("new",), bundles=(f"{proxy.host}/{repository}-bundles:1.0",))
    assert all(has(registry.url, repository, one) for one in images)


def test_what_can_not_be_known_is_said_before_anything_is_deleted(
    listed: tuple[str, str, list[Content]], tmp_path: Path
) -> None:
    where, reference, _ = listed

    plain = planned(where, tags=("new",)).unknown
    named = planned(where, tags=("new",), bundles=(reference,)).unknown
    copied(f"oci:{tmp_path}/layout", image=f"{where}:new")
    copied(f"oci:{tmp_path}/layout", image=f"{where}:old-3")

    assert [one.partition(",")[0] for one in plain[:1]] == ["bundles in other repositories may list images of this one"]
    assert len(plain) == 2
    assert named == plain[1:]
    assert planned(where, patterns=(".*",)).unknown == ()
    assert planned(f"oci:{tmp_path}/layout", tags=("new",)).unknown == ()


def test_an_expression_that_would_take_for_ever_takes_no_time(registry: DockerRegistry, repository: str) -> None:
    push(registry.url, repository, image(1), "a" * 120 + "b", "kept")

    plan = planned(f"{registry.host}/{repository}", patterns=("(a+)+", "kept"))

    assert [one.tag for one in plan.tags] == ["a" * 120 + "b"]
