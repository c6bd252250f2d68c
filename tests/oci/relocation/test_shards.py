from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from oci.descriptor import OCI_INDEX, OCI_MANIFEST
from oci.digest import Digest
from oci.reference import parse_store
from oci.relocation.plan import Plan, PlannedBlob, PlannedManifest, Role
from oci.relocation.planner import make_plan
from oci.relocation.request import RelocationRequest
from oci.relocation.shards import TEXT_LIMIT, Cut, cut, part_of, weight, with_present_marked
from oci.relocation.transfer import transfer_image
from tests.servers.docker_registry import DockerRegistry
from tests.support.plans import digest, plan_of
from tests.support.relocating import session
from tests.support.shop import push_shop

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


def units(made: Cut) -> list[Digest]:
    return sorted(image.digest for one in (*made.shards, made.keep) for image in one.to_transfer)


@given(plans(), st.integers(0, 10), st.integers(1, 4000 * MIB), st.integers(1000, TEXT_LIMIT))
def test_every_image_that_is_missing_is_in_one_shard_with_all_below_it(
    whole: Plan, count: int, shard_bytes: int, text_limit: int
) -> None:
    made = cut(whole, count=count, shard_bytes=shard_bytes, text_limit=text_limit)

    assert units(made) == sorted(image.digest for image in whole.to_transfer)
    for shard in (*made.shards, made.keep):
        assert not any(one.tags for one in shard.manifests)
        for image in shard.to_transfer:
            below = list(shard.below(image))
            assert {one.digest for one in below} == {one.digest for one in whole.below(whole.by_digest[image.digest])}
            assert all(blob in shard.blob_by_digest for one in below if not one.present for blob in one.blobs)
        order = [one.digest for one in whole.manifests if one.digest in shard.by_digest]
        assert [one.digest for one in shard.manifests] == order
    assert not any(image.is_bundle for shard in made.shards for image in shard.images)
    assert all(shard.to_transfer for shard in made.shards)


@given(plans(), st.integers(1, 10), st.integers(1000, TEXT_LIMIT))
def test_a_shard_is_short_enough_to_be_sent_and_comes_back_the_same(whole: Plan, count: int, text_limit: int) -> None:
    for shard in cut(whole, count=count, text_limit=text_limit).shards:
        text = json.dumps(shard.to_dict())
        assert len(text) <= text_limit + 1000
        assert Plan.from_dict(json.loads(text)) == shard


@given(plans(), st.integers(1, 10))
def test_the_same_plan_is_always_cut_the_same_way(whole: Plan, count: int) -> None:
    again = Plan.from_json(whole.to_json())

    assert cut(whole, count=count) == cut(again, count=count)


@given(st.lists(st.integers(0, 100 * MIB), min_size=1, max_size=100), st.integers(1, 12))
def test_shards_are_even(sizes: list[int], count: int) -> None:
    whole = plan_of(sizes)

    weights = [weight(shard) for shard in cut(whole, count=count).shards]

    assert len(weights) == min(count, len(sizes))
    biggest = max(weight(part_of(whole, [image])) for image in whole.to_transfer)
    assert max(weights) - min(weights) <= biggest


def test_images_on_one_big_base_go_together_and_the_base_counts_once() -> None:
    """Four bases of 500 MiB, ten images on each with 5 MiB of their own."""
    sizes = [*[500 * MIB] * 4, *[5 * MIB] * 40]
    images = [manifest(("app", number), blobs=[number % 4, 4 + number]) for number in range(40)]

    made = cut(plan(images, sizes), count=4)

    assert sum(shard.bytes_to_move for shard in made.shards) == sum(sizes)
    assert [len(shard.to_transfer) for shard in made.shards] == [10] * 4


def test_a_base_of_everything_does_not_end_the_sharing_out() -> None:
    images = [manifest(("app", number), blobs=[0, 1 + number]) for number in range(40)]

    made = cut(plan(images, [50 * MIB, *[40 * MIB] * 40]), count=4)

    assert [len(shard.to_transfer) for shard in made.shards] == [10] * 4
    assert sum(shard.bytes_to_move for shard in made.shards) == 1600 * MIB + 4 * 50 * MIB


def test_small_images_are_shared_out_by_their_requests() -> None:
    made = cut(plan_of([100] * 200), count=8)

    assert [len(shard.to_transfer) for shard in made.shards] == [25] * 8


def test_shards_hold_as_many_bytes_as_asked_for() -> None:
    made = cut(plan_of([100 * MIB] * 40), shard_bytes=1000 * MIB)

    assert [len(shard.to_transfer) for shard in made.shards] == [8] * 5


@pytest.mark.parametrize(("images", "shards"), [(0, 0), (1, 1)])
def test_a_plan_with_little_in_it_gives_few_shards(images: int, shards: int) -> None:
    made = cut(plan_of([1] * images), count=8)

    assert len(made.shards) == shards
    assert not made.keep.manifests


def test_ten_thousand_images_are_cut_into_short_shards() -> None:
    made = cut(plan_of([MIB + 1] * 10_000), count=8)

    assert len(units(made)) == 10_000
    assert max(len(json.dumps(shard.to_dict())) for shard in made.shards) < TEXT_LIMIT + 1000


def test_shards_carried_out_by_others_are_found_at_the_destination(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str
) -> None:
    shop = push_shop(registry.url, "shards/shop", seed=61)
    with session() as planning:
        whole = make_plan(planning, RelocationRequest(bundle=shop.reference, to=f"{other_registry.host}/{repository}"))
        made = cut(whole, count=2)
        assert len(made.shards) == 2
        with session() as elsewhere:
            sent = Plan.from_dict(json.loads(json.dumps(made.shards[0].to_dict())))
            for image in sent.to_transfer:
                transfer_image(elsewhere, sent, image.digest)

        first, second = (with_present_marked(planning, shard) for shard in made.shards)

    assert first.to_transfer == ()
    assert [image.digest for image in second.to_transfer] == [image.digest for image in made.shards[1].to_transfer]
    tags = other_registry.repository_tags(repository)
    assert tags
    assert all(tag.endswith(".imgpkg") for tag in tags)
