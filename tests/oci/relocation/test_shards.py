from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from oci.descriptor import OCI_INDEX, OCI_MANIFEST
from oci.digest import Digest
from oci.meter import Receipt
from oci.reference import parse_store
from oci.relocation.plan import Plan, PlannedBlob, PlannedManifest, Role
from oci.relocation.planner import make_plan
from oci.relocation.request import RelocationRequest
from oci.relocation.shards import Weights, cut, joined, part_of, weight_of, with_present_marked
from oci.relocation.transfer import transfer_image
from tests.servers.docker_registry import DockerRegistry
from tests.support import content
from tests.support.plans import digest, plan_of
from tests.support.relocating import session
from tests.support.shop import push_shop
from tests.support.slow_link import SlowLink

MIB = 1 << 20
WEB = parse_store("registry.example/shop/web")


def manifest(name: object, *, role: Role = Role.LISTED, blobs: Sequence[int] = (), **more: object) -> PlannedManifest:
    return PlannedManifest(
        digest=digest(name),
        media_type=OCI_MANIFEST,
        size=500,
        store=WEB,
        role=role,
        blobs=tuple(digest(f"blob {number}") for number in blobs),
        **more,  # type: ignore[arg-type]
    )


def plan(manifests: Sequence[PlannedManifest], sizes: Sequence[int]) -> Plan:
    return Plan(
        source="registry.example/shop/bundle:1.4.0",
        destination=parse_store("registry.corp.example/shop"),
        root=None,
        manifests=tuple(manifests),
        blobs=tuple(
            PlannedBlob(
                digest=digest(f"blob {number}"),
                size=size,
                media_type="layer",
                stores=(WEB,),
            )
            for number, size in sorted(enumerate(sizes), key=lambda pair: -pair[1])
        ),
    )


def test_a_run_lasts_at_least_as_long_as_its_slowest_blob() -> None:
    weights = Weights(plan([manifest("a", blobs=[0, 1, 2, 3])], [100, 100, 100, 100]))
    quick, slow, stuck, new = (digest(f"blob {number}") for number in range(4))

    moving = {quick: 90, slow: 20, stuck: 5, new: 7, digest("of another plan"): 50}
    before = {quick: 40, slow: 10, stuck: 5, digest("of another plan"): 1}

    assert weights.seconds_left(moving, before, 2.0) == 16.0  # of the slow one, 80 bytes at 5 a second
    assert weights.seconds_left(moving, {}, 2.0) == 0.0
    assert weights.seconds_left({}, before, 2.0) == 0.0


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Images that share blobs, indexes that share images, some of which stand in the lock as well; a bundle; some
    there already."""
    sizes = draw(st.lists(st.integers(0, 3000 * MIB), min_size=1, max_size=12))
    some_blobs = st.lists(st.integers(0, len(sizes) - 1), max_size=5, unique=True)
    images = [
        manifest(
            ("image", number),
            role=draw(st.sampled_from([Role.LISTED, Role.CHILD, Role.SIGNATURE])),
            blobs=draw(some_blobs),
            present=draw(st.booleans()) and draw(st.booleans()),
            tags=("named",),
            annotations={"kbld.carvel.dev/id": "x" * 50},
        )
        for number in range(draw(st.integers(1, 40)))
    ]
    indexes = [
        manifest(
            ("index", number),
            children=tuple(draw(st.lists(st.sampled_from([one.digest for one in images]), max_size=4, unique=True))),
        )
        for number in range(draw(st.integers(0, 5)))
    ]
    bundle = manifest("bundle", role=Role.ROOT, blobs=draw(some_blobs), is_bundle=True)
    return plan([*images, *[replace(index, media_type=OCI_INDEX) for index in indexes], bundle], sizes)


def cut_all(whole: Plan, *, workers: int = 4, least: float = 0) -> list[list[Digest]]:
    return cut(whole, whole.to_transfer, workers=workers, least=least)


def shards_of(whole: Plan, cuts: Sequence[Sequence[Digest]]) -> list[Plan]:
    return [part_of(whole, [whole.by_digest[one] for one in images]) for images in cuts]


@given(plans(), st.integers(1, 10), st.integers(0, 4000 * MIB))
def test_every_image_that_is_missing_is_in_one_shard_with_all_below_it(whole: Plan, workers: int, least: int) -> None:
    cuts = cut_all(whole, workers=workers, least=least)

    assert sorted(image for images in cuts for image in images) == sorted(image.digest for image in whole.to_transfer)
    for images, shard in zip(cuts, shards_of(whole, cuts), strict=True):
        assert not any(one.tags for one in shard.manifests)
        assert {image.digest for image in shard.to_transfer} == set(images)
        for image in shard.to_transfer:
            below = list(shard.below(image))
            assert {one.digest for one in below} == {one.digest for one in whole.below(whole.by_digest[image.digest])}
            assert all(blob in shard.blob_by_digest for one in below if not one.present for blob in one.blobs)
        order = [one.digest for one in whole.manifests if one.digest in shard.by_digest]
        assert [one.digest for one in shard.manifests] == order


@given(plans(), st.integers(1, 10))
def test_a_shard_that_is_sent_comes_back_the_same(whole: Plan, workers: int) -> None:
    for shard in shards_of(whole, cut_all(whole, workers=workers)):
        assert Plan.from_dict(json.loads(json.dumps(shard.to_dict()))) == shard


@given(plans(), st.integers(1, 10))
def test_shards_together_are_the_whole_again(whole: Plan, workers: int) -> None:
    shards = shards_of(whole, cut_all(whole, workers=workers))
    for shard in shards[1:]:
        shards[0] = joined(shards[0], shard)

    if shards:
        assert {one.digest for one in shards[0].to_transfer} == {one.digest for one in whole.to_transfer}
        assert shards[0].bytes_to_move <= whole.bytes_to_move


@given(plans(), st.integers(1, 10))
def test_the_same_plan_is_always_cut_the_same_way(whole: Plan, workers: int) -> None:
    assert cut_all(whole, workers=workers) == cut_all(Plan.from_json(whole.to_json()), workers=workers)


@given(st.lists(st.integers(0, 100 * MIB), min_size=1, max_size=100), st.integers(1, 12))
def test_a_shard_is_half_of_an_even_share_of_what_is_left(sizes: list[int], workers: int) -> None:
    whole = plan_of(sizes)
    weights = Weights(whole)
    left = weights.of_images(image.digest for image in whole.to_transfer)

    for images in cut_all(whole, workers=workers):
        heaviest = max(weights.of_images([image]) for image in images)
        assert weights.of_images(images) <= left / (2 * workers) + heaviest
        left -= weights.of_images(images)


def test_the_last_shards_are_as_small_as_asked_for() -> None:
    whole = plan_of([100] * 200)
    one = Weights(whole).of_images([whole.to_transfer[0].digest])

    sizes = [len(images) for images in cut_all(whole, workers=4, least=3 * one)]

    assert sizes == sorted(sizes, reverse=True)
    assert (sizes[0], set(sizes[-6:-1])) == (25, {3})


def test_images_on_one_big_base_go_together_and_the_base_counts_once() -> None:
    """Eight bases of 500 MiB, five images on each with 5 MiB of their own."""
    sizes = [*[500 * MIB] * 8, *[5 * MIB] * 40]
    images = [manifest(("app", number), blobs=[number % 8, 8 + number]) for number in range(40)]
    whole = plan(images, sizes)

    shards = shards_of(whole, cut_all(whole, workers=4))

    assert sum(shard.bytes_to_move for shard in shards) == sum(sizes)
    assert [len(shard.to_transfer) for shard in shards] == [5] * 8


def test_a_base_of_everything_does_not_end_the_sharing_out() -> None:
    images = [manifest(("app", number), blobs=[0, 1 + number]) for number in range(40)]
    whole = plan(images, [50 * MIB, *[40 * MIB] * 40])

    shards = shards_of(whole, cut_all(whole, workers=4))

    assert len(shards) >= 8
    assert max(len(shard.to_transfer) for shard in shards) <= 5
    assert sum(shard.bytes_to_move for shard in shards) <= 1600 * MIB + len(shards) * 50 * MIB


@pytest.mark.parametrize(("images", "shards"), [(0, 0), (1, 1)])
def test_a_plan_with_little_in_it_gives_few_shards(images: int, shards: int) -> None:
    assert len(cut_all(plan_of([1] * images))) == shards


def test_ten_thousand_images_are_cut_into_short_shards() -> None:
    whole = plan_of([MIB + 1] * 10_000)

    cuts = cut_all(whole, workers=8)

    assert sum(map(len, cuts)) == 10_000
    assert max(map(len, cuts)) <= 500


def test_work_done_weighs_what_the_plan_says() -> None:
    """Bytes, and each request as some more; what two images share counts once, and what was moved not at all."""
    whole = plan([manifest("a", blobs=[0, 1]), manifest("b", blobs=[0])], [50 * MIB, 2 * MIB])
    weights = Weights(whole)
    images = [image.digest for image in whole.to_transfer]

    both = weights.of_images(images)

    assert 52 * MIB < both < 52 * MIB + 4 * MIB
    assert both < sum(weights.of_images([image]) for image in images)
    assert both - weights.of_images(images, moved={digest("blob 0")}) > 50 * MIB
    assert weight_of(Receipt(bytes_written=5, requests={"host": {"GET blob": 2}})) > 5


def test_a_pace_counts_bytes_on_their_way_once(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str
) -> None:
    pushed = content.push(registry.url, "shards/app", content.image(62, layers=[content.noise(62, 24 * MIB)]))
    with SlowLink(registry.host, 60 * MIB) as link, session() as copying:
        request = RelocationRequest(
            image=pushed.replace(registry.host, link.address), to=f"{other_registry.host}/{repository}"
        )
        plan = make_plan(copying, request)
        root = next(iter(plan.images)).digest
        before, planned = weight_of(copying.meter.receipt()), Weights(plan).of_images([root])
        done, weights = threading.Event(), []

        def look() -> None:
            while not done.wait(0.002):
                weights.append(weight_of(copying.meter.receipt()) - before)

        with ThreadPoolExecutor() as threads:
            looking = threads.submit(look)
            transfer_image(copying, plan, root)
            done.set()
            looking.result()
        after = weight_of(copying.meter.receipt()) - before

    assert len(set(weights)) > 10
    assert max(weights) <= after
    assert 0.9 < after / planned < 1.1


def test_shards_carried_out_by_others_are_found_at_the_destination(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str
) -> None:
    shop = push_shop(registry.url, "shards/shop", seed=61)
    with session() as planning:
        whole = make_plan(planning, RelocationRequest(bundle=shop.reference, to=f"{other_registry.host}/{repository}"))
        images = [image for image in whole.to_transfer if not image.is_bundle]
        shards = shards_of(whole, cut(whole, images, workers=1, least=0))
        assert len(shards) > 1
        with session() as elsewhere:
            sent = Plan.from_dict(json.loads(json.dumps(shards[0].to_dict())))
            for image in sent.to_transfer:
                transfer_image(elsewhere, sent, image.digest)

        first, second = (with_present_marked(planning, shard) for shard in shards[:2])

    assert first.to_transfer == ()
    assert [image.digest for image in second.to_transfer] == [image.digest for image in shards[1].to_transfer]
    tags = other_registry.repository_tags(repository)
    assert tags
    assert all(tag.endswith(".imgpkg") for tag in tags)
