"""What counts as unwanted, on real registries and in layout folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from oci.errors import Denied, InvalidDocument, InvalidInput, NotFound, Refused
from oci.prune.plan import PrunePlan
from tests.faults.proxy import Fault, FaultProxy
from tests.flows.cargo import delete_blob
from tests.servers.docker_registry import DockerRegistry
from tests.servers.strict_registry import StrictRegistry
from tests.support.content import Content, artifact, bundle, compact, image, index, push, signature, signature_tag
from tests.support.pruning import has, keep_alive, names, planned, pruned, referrers_index, tags_of
from tests.support.relocating import copied
from tests.support.shop import push_shop


def test_a_tag_that_no_rule_names_is_unwanted_with_all_below_it(registry: DockerRegistry, repository: str) -> None:
    old, new = index([image(1), image(2)]), index([image(2), image(3)])
    push(registry.url, repository, old, "1.0")
    push(registry.url, repository, new, "2.0")

    plan = planned(f"{registry.host}/{repository}", tags=("2.0",))

    assert names(plan) == {old.digest, old.children[0].digest}
    assert [one.digest for one in plan.manifests] == [old.digest, old.children[0].digest]
    assert plan.manifests[0].tags == ("1.0",)
    assert plan.manifests[1].after == (old.digest,)
    assert plan.tags_seen == 2
    layer, config = old.children[0].blobs
    freed = len(old.raw) + len(old.children[0].raw) + len(layer.data) + len(config.data)
    assert plan.bytes_to_free == freed


def test_rules_are_names_patterns_versions_newest_and_digests(registry: DockerRegistry, repository: str) -> None:
    tags = ["1.0.0", "v1.2.0", "1.3.0", "2.0.0-rc1", "2.0.0", "latest", "nightly-5", "stable"]
    contents = {tag: image(number) for number, tag in enumerate(tags)}
    for tag, content in contents.items():
        push(registry.url, repository, content, tag)
    where = f"{registry.host}/{repository}"

    def kept(**keep: Any) -> set[str]:
        gone = {tag for one in planned(where, **keep).manifests for tag in one.tags}
        return set(tags) - gone

    assert kept(tags=("latest",)) == {"latest"}
    assert kept(patterns=("1.*",)) == {"1.0.0", "1.3.0"}
    assert kept(versions=("^1.2",)) == {"v1.2.0", "1.3.0"}
    assert kept(latest=2) == {"1.3.0", "2.0.0"}
    assert kept(digests=(contents["stable"].digest,)) == {"stable"}
    assert kept(tags=("stable",), versions=(">=2",), latest=3) == {"stable", "v1.2.0", "1.3.0", "2.0.0"}


def test_a_manifest_under_a_kept_and_an_unwanted_tag_stays(registry: DockerRegistry, repository: str) -> None:
    shared = image(1)
    push(registry.url, repository, shared, "1.0", "latest", keep_alive(shared))

    plan = planned(f"{registry.host}/{repository}", tags=("latest",))

    assert not plan.manifests
    (unwanted,) = plan.tags
    assert (unwanted.tag, unwanted.digest, unwanted.because) == ("1.0", shared.digest, "tag latest")
    assert unwanted.others == ("latest", keep_alive(shared))


def test_what_a_relocated_bundle_needs_is_kept_and_another_one_goes_whole(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str
) -> None:
    old = push_shop(registry.url, f"{repository}/old", seed=31)
    new = push_shop(registry.url, f"{repository}/new", seed=32)
    where = f"{other_registry.host}/{repository}"
    for shop, tag in ((old, "1.0"), (new, "2.0")):
        copied(where, bundle=shop.reference, tags=(tag,), artifacts=("all",))
    before = tags_of(other_registry.url, repository)

    report = pruned(where, tags=("2.0",))

    assert (report.failed, report.skipped, report.refused) == ((), (), ())
    for content in (new.bundle, *new.listed, *new.tools.children, new.signature, new.referrer):
        assert has(other_registry.url, repository, content)
    for content in (old.bundle, *old.listed, *old.tools.children, *old.deep_tools.everything(), old.signature):
        assert not has(other_registry.url, repository, content)
    left = tags_of(other_registry.url, repository)
    assert left < before
    assert "2.0" in left
    assert f"sha256-{new.bundle.hex}.image-locations.imgpkg" in left
    assert not [tag for tag in left if old.bundle.hex in tag or old.web.hex in tag]
    assert planned(where, tags=("2.0",)).is_empty


def test_images_that_only_a_bundles_lock_names_are_kept_with_it(registry: DockerRegistry, repository: str) -> None:
    listed, other = image(1), image(2)
    references = [push(registry.url, repository, one) for one in (listed, index([other]))]
    push(registry.url, repository, bundle(references), "1.0")
    push(registry.url, repository, index([listed, other, image(3)]), "old")

    plan = planned(f"{registry.host}/{repository}", tags=("1.0",))

    assert names(plan) == {index([listed, other, image(3)]).digest, image(3).digest}


def test_locks_keep_what_they_pin_and_what_that_lists(
    registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    listed, nested, alone, gone = image(1), image(2), image(3), image(4)
    inner = bundle([push(registry.url, repository, nested)])
    push(registry.url, repository, inner, keep_alive(inner))
    for one in (listed, nested, alone, gone):
        push(registry.url, repository, one, keep_alive(one))
    outer = bundle([f"elsewhere.example/shop@{listed.digest}", f"elsewhere.example/shop@{inner.digest}"])
    push(registry.url, repository, outer, keep_alive(outer))
    where = f"{registry.host}/{repository}"
    head = "apiVersion: imgpkg.carvel.dev/v1alpha1\n"
    bundles = tmp_path / "bundle.lock.yml"
    bundles.write_text(f"{head}kind: BundleLock\nbundle:\n  image: far.example/shop@{outer.digest}\n  tag: '1.0'\n")
    images = tmp_path / "images.lock.yml"
    images.write_text(f"{head}kind: ImagesLock\nimages:\n- image: far.example/shop@{alone.digest}\n")

    assert names(planned(where, locks=(str(bundles), str(images)))) == {gone.digest}
    assert names(planned(where, locks=(str(images),))) == {one.digest for one in (listed, nested, gone, inner, outer)}
    with pytest.raises(NotFound, match="no such file"):
        planned(where, locks=(str(tmp_path / "absent.yml"),))
    images.write_text(f"{head}kind: ImagesLock\nimages:\n- image: far.example/shop:1.0\n")
    with pytest.raises(InvalidDocument):
        planned(where, locks=(str(images),))


def test_attachments_live_and_die_with_their_subject(registry: DockerRegistry, repository: str) -> None:
    old, new = image(1), image(2)
    sboms = [artifact(number, subject=one) for number, one in enumerate((old, new))]
    for content, tag, sbom in ((old, "1.0", sboms[0]), (new, "2.0", sboms[1])):
        push(registry.url, repository, content, tag)
        push(registry.url, repository, signature(content), signature_tag(content))
        push(registry.url, repository, referrers_index(sbom), f"sha256-{content.hex}")
    shared = image(3)
    push(registry.url, repository, shared, signature_tag(old, "att"), signature_tag(new, "att"))

    plan = planned(f"{registry.host}/{repository}", tags=("2.0",))

    assert plan.manifests[0].digest == old.digest
    assert {tag for one in plan.manifests for tag in one.tags} == {"1.0", f"sha256-{old.hex}", signature_tag(old)}
    assert names(plan) == {old.digest, signature(old).digest, referrers_index(sboms[0]).digest, sboms[0].digest}
    assert [one.tag for one in plan.tags] == [signature_tag(old, "att")]


def test_referrers_that_only_the_api_knows_go_with_their_subject(strict: StrictRegistry, repository: str) -> None:
    old, new = image(1), image(2)
    push(strict.url, repository, old, "1.0")
    push(strict.url, repository, new, "2.0")
    gone, kept = artifact(1, subject=old), artifact(2, subject=new)
    of_gone = artifact(3, subject=gone)
    for one in (gone, kept, of_gone):
        push(strict.url, repository, one)

    report = pruned(f"{strict.host}/{repository}", tags=("2.0",))

    assert [one.digest for one in report.deleted] == [old.digest, gone.digest, of_gone.digest]
    assert has(strict.url, repository, kept)


def test_what_a_kept_referrer_lists_is_kept(strict: StrictRegistry, repository: str) -> None:
    """An index that refers to an image, untagged, over another one that an unwanted tag shows."""
    new, listed = image(2), image(3)
    push(strict.url, repository, new, "2.0")
    push(strict.url, repository, listed, "old")
    plain = index([listed])
    refers = Content(
        plain.media_type, compact(json.loads(plain.raw) | {"subject": new.descriptor()}), (), plain.children
    )
    push(strict.url, repository, refers)

    plan = planned(f"{strict.host}/{repository}", tags=("2.0",))

    assert not plan.manifests
    assert [one.tag for one in plan.tags] == ["old"]


def test_a_keep_alive_tag_makes_an_image_known_that_nothing_else_names(
    registry: DockerRegistry, repository: str
) -> None:
    lone, kept = image(1), image(2)
    push(registry.url, repository, lone, f"shop-web-sha256-{lone.hex}.imgpkg")
    push(registry.url, repository, kept, "1.0", keep_alive(kept))
    push(registry.url, repository, image(3))

    plan = planned(f"{registry.host}/{repository}", tags=("1.0",))

    assert names(plan) == {lone.digest}, "an untagged manifest that nothing leads to can't be seen"


def test_a_keep_alive_tag_that_is_kept_by_name_keeps_what_it_really_shows(
    registry: DockerRegistry, repository: str
) -> None:
    named, shown = image(1), image(2)
    push(registry.url, repository, named, "1.0")
    push(registry.url, repository, shown, "2.0", keep_alive(named))

    plan = planned(f"{registry.host}/{repository}", tags=(keep_alive(named),))

    assert names(plan) == {named.digest}
    assert [one.tag for one in plan.tags] == ["2.0"]


def test_a_policy_that_keeps_nothing_must_say_so(registry: DockerRegistry, repository: str) -> None:
    push(registry.url, repository, image(1), "1.0")
    where = f"{registry.host}/{repository}"

    with pytest.raises(InvalidInput, match="the policy is empty"):
        planned(where)
    with pytest.raises(InvalidInput, match="keeps nothing of what is in"):
        planned(where, patterns=("v.*",))
    assert names(planned(where, nothing=True)) == {image(1).digest}
    assert names(planned(where, patterns=("v.*",), nothing=True)) == {image(1).digest}


@pytest.mark.parametrize("keep", [{"patterns": ("(",)}, {"versions": ("one",)}, {"latest": -1}, {"tags": ("a b",)}])
def test_a_policy_that_makes_no_sense_is_refused(keep: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        planned("registry.example/shop", **keep)


def test_a_list_of_tags_that_breaks_off_ends_it(strict: StrictRegistry, repository: str) -> None:
    push(strict.url, repository, image(1), "first")
    store = strict.store.repository(repository)
    store.tags.update({f"v{number:04}": image(1).digest for number in range(250)})

    with FaultProxy(strict.port, Fault(method="GET", path="tags/list", first=3, status=403)) as proxy:
        with pytest.raises(Denied):
            planned(f"{proxy.host}/{repository}", tags=("first",))
        assert not proxy.count("DELETE", ".*")


def test_a_kept_bundle_whose_lock_cannot_be_read_ends_it(registry: DockerRegistry, repository: str) -> None:
    kept = bundle([])
    push(registry.url, repository, kept, "1.0")
    push(registry.url, repository, image(1), "old")
    delete_blob(registry, repository, kept.blobs[0].descriptor()["digest"])

    with pytest.raises(Refused, match=r"kept \(tag 1.0\), and what it lists can't be read"):
        planned(f"{registry.host}/{repository}", tags=("1.0",))
    assert names(planned(f"{registry.host}/{repository}", tags=("old",))) == {kept.digest}


def test_a_plan_survives_json(registry: DockerRegistry, repository: str) -> None:
    push(registry.url, repository, index([image(1)]), "1.0", "old")
    push(registry.url, repository, image(2), "2.0", "too")
    plan = planned(f"{registry.host}/{repository}", tags=("2.0",), patterns=("x.*",), latest=1)

    assert PrunePlan.from_json(plan.to_json()) == plan
    for spoilt in ("", "[]", "{}", plan.to_json().replace('"version": 1', '"version": 9'), plan.to_json()[:-20]):
        with pytest.raises(InvalidDocument):
            PrunePlan.from_json(spoilt)
    with pytest.raises(InvalidDocument):
        PrunePlan.from_json(plan.to_json().replace(image(2).digest, "sha256:../../x"))
    with pytest.raises(InvalidDocument, match="latest"):
        PrunePlan.from_json(plan.to_json().replace('"latest": 1', '"latest": 100001'))


def test_tags_and_digests_of_the_policy_that_are_not_there_end_it(registry: DockerRegistry, repository: str) -> None:
    push(registry.url, repository, image(1), "1.0")
    where = f"{registry.host}/{repository}"

    with pytest.raises(InvalidInput, match=r"1 of 2 tags and digests .* aren't in .*, such as 1\.O"):
        planned(where, tags=("1.0", "1.O"))
    with pytest.raises(InvalidInput, match=rf"1 of 2 .* such as {image(9).digest}"):
        planned(where, tags=("1.0",), digests=(image(9).digest,))


def test_what_mirrors_and_locks_name_may_be_missing_and_is_told(registry: DockerRegistry, repository: str) -> None:
    push(registry.url, repository, image(1), "1.0")
    optional = ("1.O", image(9).digest)

    plan = planned(f"{registry.host}/{repository}", tags=("1.0", "1.O"), digests=(image(9).digest,), optional=optional)

    assert plan.warnings == (
        "1 of 2 tags that the policy keeps aren't there, such as 1.O",
        f"1 of 1 digests that the policy keeps aren't there, such as {image(9).digest}",
    )


@pytest.mark.parametrize("where", ["plan", "manifest", "keep"])
def test_a_plan_of_a_newer_program_is_not_carried_out_in_part(
    registry: DockerRegistry, repository: str, where: str
) -> None:
    """A field that isn't known could say what is to stay."""
    push(registry.url, repository, image(1), "1.0")
    push(registry.url, repository, image(2), "2.0")
    body = planned(f"{registry.host}/{repository}", tags=("1.0",)).to_dict()
    assert PrunePlan.from_json(json.dumps(body)).by_digest
    {"plan": body, "manifest": body["manifests"][0], "keep": body["keep"]}[where]["until"] = "2027-01-01"

    with pytest.raises(InvalidDocument, match="until"):
        PrunePlan.from_json(json.dumps(body))
    for other in ("[]", "null", "5"):
        with pytest.raises(InvalidDocument, match="expected an object"):
            PrunePlan.from_json(other)
