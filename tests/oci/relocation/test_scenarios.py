"""imgpkg's acceptance scenarios, as far as they concern registries and layouts, against real registries."""

from __future__ import annotations

import gzip
import json
import tarfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest

from oci.bundle import tagnames
from oci.bundle.image import AS_BUNDLE, AS_IMAGE
from oci.digest import Digest
from oci.errors import Incomplete, InvalidDocument, InvalidInput, cause_and_step
from oci.relocation.driver import Relocation
from oci.relocation.plan import Plan
from oci.relocation.planner import make_plan
from oci.relocation.request import RelocationRequest
from oci.relocation.verify import verify
from oci.signatures.artifacts import ALL
from tests.servers.docker_registry import DockerRegistry
from tests.servers.skopeo import raw_manifest, skopeo
from tests.support.content import (
    DOCKER_LAYER,
    FOREIGN_LAYER,
    OCI_LAYER,
    Blob,
    artifact,
    bundle,
    helm_chart,
    image,
    index,
    layer,
    push,
    tar_of,
)
from tests.support.relocating import copied, session
from tests.support.shop import Shop, push_shop

LOCATIONS_OF_NOTHING = "161287dd62eb95c5342c3d4dba7559d6e59921092839a4426e4e3b25c48199ab"
"""Digest of the locations image that imgpkg itself writes for an empty bundle."""


@pytest.fixture
def origin(tmp_path: Path) -> Iterator[DockerRegistry]:
    """A registry that the test may stop."""
    with DockerRegistry(tmp_path / "origin") as server:
        yield server


@pytest.fixture
def shop(origin: DockerRegistry) -> Shop:
    return push_shop(origin.url, "shop")


def has(registry: DockerRegistry, repository: str, digest: str) -> bool:
    accept = {
        "Accept": "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, "
        "application/vnd.docker.distribution.manifest.v2+json"
    }
    return httpx.head(f"{registry.url}/v2/{repository}/manifests/{digest}", headers=accept).status_code == 200


def locations(registry: DockerRegistry, repository: str, bundle_digest: str) -> str:
    """The locations file as it stands in the registry, read by plain HTTP."""
    tag = tagnames.locations(Digest(bundle_digest))
    accept = {"Accept": "application/vnd.docker.distribution.manifest.v2+json"}
    manifest = httpx.get(f"{registry.url}/v2/{repository}/manifests/{tag}", headers=accept).json()
    (only,) = manifest["layers"]
    data = httpx.get(f"{registry.url}/v2/{repository}/blobs/{only['digest']}").content
    with tarfile.open(fileobj=BytesIO(gzip.decompress(data))) as archive:
        member = archive.extractfile("image-locations.yml")
        assert member is not None
        return member.read().decode()


def test_scenario_2_a_bundle_with_everything_lands_in_one_repository(
    shop: Shop, other_registry: DockerRegistry, repository: str
) -> None:
    done = len(other_registry.requests())
    result = copied(f"{other_registry.host}/{repository}", bundle=shop.reference)

    for content in (shop.bundle, *shop.listed):
        for one in content.everything():
            assert has(other_registry, repository, one.digest)
    assert other_registry.repository_tags(repository) == sorted(
        [
            "1.4.0",
            *(tagnames.keep_alive(Digest(one.digest)) for one in (shop.bundle, *shop.listed)),
            *(tagnames.keep_alive(digest) for digest in result.published.locations),
            *(tagnames.locations(Digest(one.digest)) for one in (shop.bundle, shop.nested)),
        ]
    )
    written = [seen for seen in other_registry.requests()[done:] if seen.method == "PUT" and "/manifests/" in seen.path]
    assert written[-1].path.endswith("/manifests/1.4.0")
    assert raw_manifest(f"{other_registry.host}/{repository}:1.4.0") == shop.bundle.raw


def test_scenario_2_locations_name_the_origins_and_the_nested_bundle(
    origin: DockerRegistry, shop: Shop, other_registry: DockerRegistry, repository: str
) -> None:
    copied(f"{other_registry.host}/{repository}", bundle=shop.reference)

    entries = sorted(
        (f"{origin.host}/shop/{name}@{content.digest}", content is shop.nested)
        for name, content in (
            ("nested", shop.nested),
            ("web", shop.web),
            ("tools", shop.tools),
            ("deep-tools", shop.deep_tools),
            ("chart", shop.chart),
        )
    )
    lines = ["---", "apiVersion: imgpkg.carvel.dev/v1alpha1", "images:"]
    for reference, is_bundle in entries:
        lines += [f"- image: {reference}", f"  isBundle: {str(is_bundle).lower()}"]
    assert locations(other_registry, repository, shop.bundle.digest) == "\n".join([*lines, "kind: ImageLocations", ""])
    assert f"shop/database@{shop.database.digest}" in locations(other_registry, repository, shop.nested.digest)


def test_scenario_3_the_result_is_relocated_again_when_its_origin_is_gone(
    origin: DockerRegistry, shop: Shop, other_registry: DockerRegistry, repository: str, registry: DockerRegistry
) -> None:
    copied(f"{other_registry.host}/{repository}", bundle=shop.reference, artifacts=ALL)
    origin.stop()

    copied(f"{registry.host}/{repository}", bundle=f"{other_registry.host}/{repository}:1.4.0", artifacts=ALL)

    for content in (shop.bundle, *shop.listed, shop.signature, shop.referrer):
        for one in content.everything():
            assert has(registry, repository, one.digest)
    assert locations(registry, repository, shop.bundle.digest) == locations(
        other_registry, repository, shop.bundle.digest
    )
    with session() as one_session:
        plan = Plan.from_json(_plan_of(registry, repository, shop))
        found = verify(one_session, plan, deep=True)
    assert found.problems == ()
    assert found.manifests >= 12
    assert found.bytes_hashed > 0


def _plan_of(registry: DockerRegistry, repository: str, shop: Shop) -> str:
    """A plan that has been through JSON, for what is there already."""
    with session() as one:
        request = RelocationRequest(bundle=shop.reference, to=f"{registry.host}/{repository}")
        again = RelocationRequest(bundle=f"{registry.host}/{repository}@{shop.bundle.digest}", to=request.to)
        plan = make_plan(one, again)
        assert Plan.from_json(plan.to_json()) == plan
        return plan.to_json()


def test_scenarios_6_to_8_with_a_layout_in_between(
    origin: DockerRegistry, shop: Shop, other_registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    """A folder instead of a tarball: out of one registry, into another that never sees the origin."""
    folder = tmp_path / "layout"
    copied(f"oci:{folder}", bundle=shop.reference, artifacts=ALL)
    tag = tagnames.keep_alive(Digest(shop.tools.digest))
    assert skopeo("inspect", "--raw", f"oci:{folder}:{tag}") == shop.tools.raw
    origin.stop()

    copied(f"{other_registry.host}/{repository}", bundle=f"oci:{folder}:1.4.0", artifacts=ALL)

    for content in (shop.bundle, *shop.listed, shop.signature, shop.referrer):
        for one in content.everything():
            assert has(other_registry, repository, one.digest)
    assert f"sha256-{shop.web.hex}.sig" in other_registry.repository_tags(repository)


def test_scenario_9_an_index_with_all_its_children(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    content = index([image(21), image(22), image(23)], ["linux/amd64", "linux/arm64", "linux/s390x"])
    push(registry.url, repository, content, "v1")

    copied(f"{other_registry.host}/{repository}", image=f"{registry.host}/{repository}:v1")

    for one in content.everything():
        assert has(other_registry, repository, one.digest)
    assert other_registry.repository_tags(repository) == sorted(["v1", tagnames.keep_alive(Digest(content.digest))])
    assert raw_manifest(f"{other_registry.host}/{repository}:v1") == content.raw
    skopeo(
        "copy",
        "--all",
        "--src-tls-verify=false",
        f"docker://{other_registry.host}/{repository}:v1",
        f"dir:{tmp_path}/d",
    )
    assert len(list((tmp_path / "d").iterdir())) >= 3 * 2 + 3


def test_scenario_10_a_layer_that_is_listed_twice(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str
) -> None:
    twice = layer(31)
    content = image(31, layers=(twice, layer(32), twice))
    push(registry.url, repository, content, "v1")

    result = copied(f"{other_registry.host}/{repository}", image=f"{registry.host}/{repository}:v1")

    assert result.receipt.blobs_written == 3
    assert raw_manifest(f"{other_registry.host}/{repository}:v1") == content.raw


def test_scenario_11_a_foreign_layer_is_left_out_and_named(tmp_path: Path, repository: str) -> None:
    foreign = Blob(FOREIGN_LAYER, b"not ours to spread", urls=("https://vendor.example/layer",), absent=True)
    content = image(41, layers=(layer(42, media_type=DOCKER_LAYER), foreign), docker=True)
    with (
        DockerRegistry(tmp_path / "a", foreign_urls=True) as source,
        DockerRegistry(tmp_path / "b", foreign_urls=True) as target,
    ):
        push(source.url, repository, content, "v1")
        result = copied(f"{target.host}/{repository}", image=f"{source.host}/{repository}:v1")

        assert result.plan.skipped_layers == ((content.digest, foreign.descriptor()["digest"]),)
        assert raw_manifest(f"{target.host}/{repository}:v1") == content.raw


def test_scenario_13_signatures_travel_when_asked_for(
    shop: Shop, other_registry: DockerRegistry, repository: str
) -> None:
    signed = f"sha256-{shop.web.hex}.sig"
    copied(f"{other_registry.host}/{repository}/without", bundle=shop.reference)
    assert signed not in other_registry.repository_tags(f"{repository}/without")

    copied(f"{other_registry.host}/{repository}/with", bundle=shop.reference, artifacts=ALL)

    assert raw_manifest(f"{other_registry.host}/{repository}/with:{signed}") == shop.signature.raw
    assert has(other_registry, f"{repository}/with", shop.referrer.digest)
    fallback = json.loads(raw_manifest(f"{other_registry.host}/{repository}/with:sha256-{shop.web.hex}"))
    assert [one["digest"] for one in fallback["manifests"]] == [shop.referrer.digest]


def test_scenarios_14_and_15_bundles_of_oci_types_and_of_two_layers(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str
) -> None:
    """imgpkg can pull such bundles and not copy them; here they are copied."""
    web = push(registry.url, f"{repository}/web", image(51))
    for number, content in enumerate(
        (bundle([web], oci_types=True), bundle([web], extra_layers=[layer(52, media_type=DOCKER_LAYER)]))
    ):
        push(registry.url, f"{repository}/{number}", content, "v1")
        copied(f"{other_registry.host}/{repository}/{number}", bundle=f"{registry.host}/{repository}/{number}:v1")

        assert has(other_registry, f"{repository}/{number}", web.partition("@")[2])


def test_scenario_16_the_label_counts_whatever_its_value(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str
) -> None:
    push(registry.url, repository, bundle([], label="false"), "v1")

    result = copied(f"{other_registry.host}/{repository}", bundle=f"{registry.host}/{repository}:v1")

    assert result.plan.manifests[-1].is_bundle


def test_scenario_17_a_lock_with_an_unknown_key_is_refused(
    registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    reference = push(registry.url, repository, image(61))
    lock = tmp_path / "images.yml"
    lock.write_text(
        f"apiVersion: imgpkg.carvel.dev/v1alpha1\nkind: ImagesLock\nimages:\n- image: {reference}\n  extra: 1\n"
    )
    with pytest.raises(InvalidDocument, match=r"images\[0\]"):
        copied(f"{registry.host}/{repository}/copy", lock=str(lock))


def test_scenario_18_an_empty_bundle(registry: DockerRegistry, other_registry: DockerRegistry, repository: str) -> None:
    content = bundle([])
    push(registry.url, repository, content, "v1")

    result = copied(f"{other_registry.host}/{repository}", bundle=f"{registry.host}/{repository}:v1")

    assert result.published.locations == (f"sha256:{LOCATIONS_OF_NOTHING}",)
    assert "images: null" in locations(other_registry, repository, content.digest)


def test_scenario_19_layers_of_other_compressions_are_kept(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str
) -> None:
    import zstandard

    zstd = Blob("application/vnd.oci.image.layer.v1.tar+zstd", zstandard.compress(tar_of({"a": b"1"})))
    plain = Blob("application/vnd.oci.image.layer.v1.tar", tar_of({"b": b"2"}))
    content = image(71, layers=(zstd, plain, layer(72, media_type=OCI_LAYER)))
    push(registry.url, repository, content, "v1")

    copied(f"{other_registry.host}/{repository}", image=f"{registry.host}/{repository}:v1")

    assert raw_manifest(f"{other_registry.host}/{repository}:v1") == content.raw


def test_scenario_20_charts_and_artifacts_in_a_bundle(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str
) -> None:
    tar_layer = Blob(OCI_LAYER, gzip.compress(tar_of({"a": b"1"}), mtime=0))
    oras = artifact(82, content=tar_layer, config=Blob("application/vnd.oci.image.config.v1+json", b"{}"))
    references = [
        push(registry.url, f"{repository}/chart", helm_chart(81)),
        push(registry.url, f"{repository}/oras", oras),
    ]
    push(registry.url, repository, bundle(references), "v1")

    copied(f"{other_registry.host}/{repository}", bundle=f"{registry.host}/{repository}:v1")

    assert all(has(other_registry, repository, reference.partition("@")[2]) for reference in references)


def test_scenario_21_an_image_that_is_missing_in_spite_of_locations_comes_from_its_origin(
    shop: Shop, other_registry: DockerRegistry, repository: str, registry: DockerRegistry
) -> None:
    copied(f"{other_registry.host}/{repository}", bundle=shop.reference)
    gone = httpx.delete(f"{other_registry.url}/v2/{repository}/manifests/{shop.web.digest}")
    assert gone.status_code == 202

    copied(f"{registry.host}/{repository}", bundle=f"{other_registry.host}/{repository}:1.4.0")

    assert has(registry, repository, shop.web.digest)


def test_scenario_21_and_is_said_to_be_nowhere_when_the_origin_is_gone_too(
    origin: DockerRegistry, shop: Shop, other_registry: DockerRegistry, repository: str, registry: DockerRegistry
) -> None:
    copied(f"{other_registry.host}/{repository}", bundle=shop.reference)
    httpx.delete(f"{other_registry.url}/v2/{repository}/manifests/{shop.web.digest}")
    origin.stop()

    with pytest.raises(Incomplete) as caught:
        copied(
            f"{registry.host}/{repository}",
            bundle=f"{other_registry.host}/{repository}:1.4.0",
            settings={"retries": 1},
        )

    (only,) = caught.value.failures
    assert shop.web.digest in str(only)
    assert "2 places" in str(only)
    assert "1.4.0" not in registry.repository_tags(repository)
    assert has(registry, repository, shop.database.digest)


def test_scenario_22_nothing_changed_costs_three_requests(
    shop: Shop, other_registry: DockerRegistry, repository: str
) -> None:
    copied(f"{other_registry.host}/{repository}", bundle=shop.reference)

    again = copied(f"{other_registry.host}/{repository}", bundle=shop.reference)

    assert again.plan.unchanged
    assert again.receipt.total_requests == 3
    assert all(kind == "HEAD manifest" for kinds in again.receipt.requests.values() for kind in kinds)


def test_unchanged_images_of_a_lock_cost_one_head_each(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    references = [push(registry.url, repository, image(90 + number)) for number in range(5)]
    lock = tmp_path / "images.yml"
    entries = "".join(f"- image: {reference}\n" for reference in references)
    lock.write_text(f"apiVersion: imgpkg.carvel.dev/v1alpha1\nkind: ImagesLock\nimages:\n{entries}")
    copied(f"{other_registry.host}/{repository}", lock=str(lock))

    again = copied(f"{other_registry.host}/{repository}", lock=str(lock))

    assert again.receipt.requests == {other_registry.host: {"HEAD manifest": 5}}


def test_an_imageslock_that_lists_a_bundle_is_refused(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    reference = push(registry.url, repository, bundle([]))
    lock = tmp_path / "images.yml"
    lock.write_text(f"apiVersion: imgpkg.carvel.dev/v1alpha1\nkind: ImagesLock\nimages:\n- image: {reference}\n")

    with pytest.raises(InvalidInput) as caught:
        copied(f"{other_registry.host}/{repository}", lock=str(lock))
    assert caught.value.sentence.startswith("Unable to copy bundles using an Images Lock file")


def test_a_source_of_another_kind_is_refused_with_a_next_step(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str
) -> None:
    cases: tuple[tuple[dict[str, Any], str], ...] = (
        ({"bundle": push(registry.url, f"{repository}/image", image(1), "v1")}, AS_IMAGE),
        ({"image": push(registry.url, f"{repository}/bundle", bundle([]), "v1")}, AS_BUNDLE),
    )
    for fields, step in cases:
        with pytest.raises(InvalidInput) as caught:
            copied(f"{other_registry.host}/{repository}", **fields)
        assert cause_and_step(str(caught.value))[1] == step


def test_a_cold_copy_of_128_blobs_in_34_manifests_costs_less_than_700_requests(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str
) -> None:
    """imgpkg: 1,038."""
    images = [image(1000 + number, layers=[layer(3000 + number * 3 + one) for one in range(3)]) for number in range(31)]
    contents = [index(images[:2]), *images[2:]]
    references = [push(registry.url, f"{repository}/app{number}", one) for number, one in enumerate(contents)]
    nested = push(registry.url, f"{repository}/nested", bundle(references[:10]))
    push(registry.url, f"{repository}/bundle", bundle([*references[10:], nested]), "v1")

    result = copied(f"{other_registry.host}/{repository}", bundle=f"{registry.host}/{repository}/bundle:v1")

    assert len(result.plan.manifests) == 34
    assert len(result.plan.blobs) == 128
    assert result.receipt.total_requests <= 520


def test_a_cold_copy_costs_at_most_3_8_requests_for_a_new_blob(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str
) -> None:
    """Manifests included."""
    images = [image(1200 + number, layers=[layer(3200 + number * 3 + one) for one in range(3)]) for number in range(40)]
    contents = [index(images[:3]), *images[3:]]
    references = [push(registry.url, f"{repository}/app{number}", one) for number, one in enumerate(contents)]
    push(registry.url, f"{repository}/bundle", bundle(references), "v1")

    result = copied(f"{other_registry.host}/{repository}", bundle=f"{registry.host}/{repository}/bundle:v1")

    assert result.receipt.blobs_written >= 162
    assert result.receipt.total_requests <= 3.8 * result.receipt.blobs_written
    # The bundle and its locations, 38 listed images and three children. The bundle's repository, which hosts none of
    # the images, is asked for one of them.
    assert result.receipt.requests[registry.host]["GET manifest"] == 2 + 38 + 3 + 1


def test_a_repair_sends_again_what_the_destination_has_lost(
    shop: Shop, other_registry: DockerRegistry, repository: str
) -> None:
    copied(f"{other_registry.host}/{repository}", bundle=shop.reference)
    lost = shop.web.blobs[0].descriptor()["digest"]
    assert httpx.delete(f"{other_registry.url}/v2/{repository}/blobs/{lost}").status_code == 202
    target = f"{other_registry.host}/{repository}"
    assert copied(target, bundle=shop.reference).receipt.blobs_written == 0

    repaired = copied(target, bundle=shop.reference, repair=True)

    assert repaired.receipt.blobs_written == 1
    with session() as one:
        assert verify(one, repaired.plan, deep=True).problems == ()


def test_a_plan_that_is_carried_out_costs_what_it_said(
    shop: Shop, other_registry: DockerRegistry, repository: str
) -> None:
    with session() as one:
        request = RelocationRequest(bundle=shop.reference, to=f"{other_registry.host}/{repository}")
        plan = make_plan(one, request)
        before = one.meter.receipt().requests
        Relocation(one, request, plan=plan).run()
        after = one.meter.receipt().requests

    spent = {host: sum(after[host].values()) - sum(before.get(host, {}).values()) for host in after}
    for host, expected in plan.estimated_requests.items():
        assert spent[host] <= expected <= spent[host] * 1.5 + 5


def test_indexes_nested_too_deep_are_refused(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str
) -> None:
    content = image(1)
    for _ in range(10):
        content = index([content])
    push(registry.url, repository, content, "v1")

    with pytest.raises(Incomplete) as caught:
        copied(f"{other_registry.host}/{repository}", image=f"{registry.host}/{repository}:v1")

    assert "nested deeper than 8 levels" in str(caught.value.failures)
    assert other_registry.repository_tags(repository) == []


def test_an_image_without_its_layer_fails_and_says_which(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str
) -> None:
    content = image(1, layers=[layer(1), layer(2)])
    push(registry.url, repository, content, "v1")
    lost = content.blobs[1].descriptor()["digest"]
    httpx.delete(f"{registry.url}/v2/{repository}/blobs/{lost}")

    with pytest.raises(Incomplete) as caught:
        copied(f"{other_registry.host}/{repository}", image=f"{registry.host}/{repository}:v1")

    (only,) = caught.value.failures
    assert f"source {registry.host}" in str(only)
    assert lost in str(only)
    assert not caught.value.retryable


def test_repo_based_tags_of_a_bundle_name_origins_and_those_of_a_lock_where_things_were_found(
    shop: Shop, registry: DockerRegistry, other_registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    home, further = f"{registry.host}/{repository}/home", f"{other_registry.host}/{repository}/further"
    copied(home, bundle=shop.reference, repo_based_tags=True)
    lock = tmp_path / "lock.yml"
    lock.write_text(
        f"apiVersion: imgpkg.carvel.dev/v1alpha1\nkind: BundleLock\nbundle:\n  image: {home}@{shop.bundle.digest}\n"
    )
    copied(further, lock=str(lock), repo_based_tags=True)

    origin = f"shop-web-sha256-{shop.web.hex}.imgpkg"
    assert origin in registry.repository_tags(f"{repository}/home")
    found = tagnames.repo_based(f"{home}@{shop.web.digest}", Digest(shop.web.digest))
    assert found in other_registry.repository_tags(f"{repository}/further")
    assert origin not in other_registry.repository_tags(f"{repository}/further")


def test_listed_images_get_readable_names_by_rule(shop: Shop, other_registry: DockerRegistry, repository: str) -> None:
    target = f"{other_registry.host}/{repository}"
    rules = ("*/shop/web=the-web", "{name}-{short}")
    copied(target, bundle=shop.reference, names=rules)

    assert raw_manifest(f"{target}:the-web") == shop.web.raw
    assert raw_manifest(f"{target}:chart-{shop.chart.hex[:12]}") == shop.chart.raw
    assert raw_manifest(f"{target}:database-{shop.database.hex[:12]}") == shop.database.raw
    again = copied(target, bundle=shop.reference, names=rules)
    assert again.published.tags == ()
    assert again.receipt.blobs_written == 0
    with pytest.raises(InvalidInput, match="would both be named 'same'"):
        copied(target, bundle=shop.reference, names=("same",))
