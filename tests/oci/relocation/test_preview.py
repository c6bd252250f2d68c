"""Images that are found whole before all of a plan is made."""

from __future__ import annotations

from pathlib import Path

import pytest

from oci.errors import InvalidInput
from oci.reference import parse_store
from oci.relocation.plan import Node, Plan, Role
from oci.relocation.planner import make_plan
from oci.relocation.request import RelocationRequest
from oci.relocation.shards import Preview, joined, part_of
from oci.relocation.transfer import transfer_image
from tests.flows.cargo import write_lock
from tests.servers.docker_registry import DockerRegistry
from tests.support.plans import digest
from tests.support.relocating import session
from tests.support.shop import push_shop

WEB = parse_store("registry.example/shop/web")
REQUEST = RelocationRequest(bundle="registry.example/shop/bundle:1.4.0", to="registry.corp.example/shop")


def node(name: str, *children: str, role: Role = Role.LISTED, present: bool = False, is_bundle: bool = False) -> Node:
    return Node(
        digest=digest(name),
        media_type="application/vnd.oci.image.manifest.v1+json",
        size=500,
        store=WEB,
        places=(WEB,),
        role=role,
        children=tuple(map(digest, children)),
        present=present,
        is_bundle=is_bundle,
    )


def found(*nodes: Node) -> list[list[int]]:
    """Returns the manifests of each part that is given while so many nodes are found one after the other, as numbers of
    the nodes."""
    names = {each.digest: number for number, each in enumerate(nodes)}
    parts: list[Plan] = []
    preview = Preview(REQUEST, lambda part, share: parts.append(part), every=0)
    for number, each in enumerate(nodes):
        preview.see(True, each, len(nodes) - number - 1)
    return [sorted(names[manifest.digest] for manifest in part.manifests) for part in parts]


def test_an_image_is_given_as_soon_as_it_is_found_and_an_index_with_the_last_of_its_children() -> None:
    index, nested = node("index", "amd64", "nested"), node("nested", "arm64", role=Role.CHILD)
    amd64, arm64 = node("amd64", role=Role.CHILD), node("arm64", role=Role.CHILD)

    assert found(node("root", role=Role.ROOT), index, node("web"), amd64, nested, arm64, node("db")) == [
        [2],
        [1, 3, 4, 5],
        [6],
    ]


def test_nothing_is_given_of_what_is_there_of_bundles_and_of_roots() -> None:
    assert found(node("root", role=Role.ROOT), node("here", present=True), node("nested", is_bundle=True)) == []


def test_a_child_that_was_found_before_its_index_counts() -> None:
    assert found(node("amd64"), node("index", "amd64"), node("other", "amd64", "lost")) == [[0], [0, 1]]


def test_a_list_with_a_bundle_gives_nothing_from_there_on() -> None:
    assert found(node("web"), node("bundle", is_bundle=True), node("database")) == [[0]]


def test_a_plan_that_is_made_again_gives_no_image_twice() -> None:
    assert found(node("web"), node("web"), node("database")) == [[1], [2]]


@pytest.mark.parametrize(
    ("request_", "is_possible"),
    [
        (REQUEST, True),
        (RelocationRequest(lock="images.lock.yml", to="registry.corp.example/shop"), True),
        (RelocationRequest(image="registry.example/shop/web:1", to="registry.corp.example/shop"), False),
        (RelocationRequest(archive=("shop.tar",), to="registry.corp.example/shop"), False),
        (RelocationRequest(bundle="registry.example/shop/bundle:1", to="oci:/srv/shop"), False),
        (RelocationRequest(bundle="oci:/srv/shop:1", to="registry.corp.example/shop"), False),
    ],
)
def test_only_what_lists_images_between_registries_has_parts(request_: RelocationRequest, is_possible: bool) -> None:
    assert Preview.is_possible(request_) is is_possible


def test_the_parts_are_those_of_the_plan_and_can_be_carried_out_before_it_is_made(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str
) -> None:
    shop = push_shop(registry.url, f"{repository}/shop", seed=63)
    request = RelocationRequest(bundle=shop.reference, to=f"{other_registry.host}/{repository}")
    parts: list[Plan] = []
    shares: list[float] = []

    def give(part: Plan, share: float) -> None:
        parts.append(part)
        shares.append(share)
        for image in part.to_transfer:
            transfer_image(elsewhere, part, image.digest)

    with session() as planning, session() as elsewhere:
        whole = make_plan(planning, request, on_node=Preview(request, give, every=0).see)

    listed = [image for image in whole.to_transfer if image.role is Role.LISTED]
    both = parts[0]
    for part in parts[1:]:
        both = joined(both, part)
    assert len(listed) > 3
    assert set(part_of(both, both.images).manifests) == set(part_of(whole, listed).manifests)
    assert set(both.blobs) == set(part_of(whole, listed).blobs)
    assert shares == sorted(shares)
    assert 0 < shares[0] < shares[-1] <= 1
    with session() as again:
        assert not [image for image in make_plan(again, request).to_transfer if image.role is Role.LISTED]


def test_a_lock_with_a_bundle_is_refused_as_before(registry: DockerRegistry, repository: str, tmp_path: Path) -> None:
    shop = push_shop(registry.url, f"{repository}/shop", seed=64)
    nested = f"{registry.host}/{repository}/shop/bundle@{shop.bundle.digest}"
    lock = write_lock(tmp_path / "images.lock.yml", [nested])
    request = RelocationRequest(lock=lock, to=f"{registry.host}/{repository}/copy")

    with session() as one, pytest.raises(InvalidInput, match="lists the bundle"):
        make_plan(one, request, on_node=Preview(request, lambda part, share: pytest.fail("given"), every=0).see)
