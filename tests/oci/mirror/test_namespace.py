"""Mirrors of a namespace or a whole registry, and places in the names of destinations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from oci.errors import InvalidInput, NotFound
from oci.mirror.config import Mirror, MirrorsConfig
from oci.mirror.reader import make_config
from oci.mirror.results import MirrorReport
from oci.mirror.run import run_mirrors
from oci.mirror.run_state import Shared
from oci.mirror.selection import keep_for, repositories_of
from oci.reference import parse_store
from tests.faults.proxy import Fault, FaultProxy
from tests.servers.docker_registry import DockerRegistry
from tests.servers.registry_data import seed
from tests.support.content import image
from tests.support.mirroring import session_of


def config(source: dict[str, Any], *destinations: str, **more: Any) -> MirrorsConfig:
    places = [{"repository": one} for one in destinations]
    return make_config({"mirrors": [{"name": "all", "source": source, "destinations": places, **more}]})


def mirror(source: dict[str, Any], *destinations: str, **more: Any) -> Mirror:
    return config(source, *destinations, **more).mirrors[0]


def run(*mirrors: Mirror) -> list[MirrorReport]:
    with session_of() as session:
        return run_mirrors(session, mirrors, Shared())


@pytest.fixture
def source(registry: DockerRegistry, repository: str) -> dict[str, Any]:
    for number, name in enumerate(("web", "tools/cli", "other")):
        seed(registry, f"{repository}/{name}", {"1.0": image(number), "old": image(9)})
    return {"namespace": f"{registry.host}/{repository}", "repositories": ["web", "tools/.*"]}


def test_each_repository_of_a_namespace_is_mirrored_by_the_same_rules(
    other_registry: DockerRegistry, repository: str, source: dict[str, Any]
) -> None:
    one = mirror(source, f"{other_registry.host}/m/{{path}}", tags=[{"allow": ["1.0"]}])

    first, again = run(one), run(one)

    assert [report.mirror for report in first] == ["all/tools/cli", "all/web"]
    assert [(report.copied, report.failed) for report in first] == [(1, ()), (1, ())]
    assert [report.in_place for report in again] == [1, 1]
    assert other_registry.repository_tags(f"m/{repository}/web") == ["1.0"]
    assert other_registry.repository_tags(f"m/{repository}/other") == []


def test_a_whole_registry_is_a_namespace(tmp_path: Path, other_registry: DockerRegistry, repository: str) -> None:
    with DockerRegistry(tmp_path) as whole:
        seed(whole, "web", {"1.0": image(1)})
        seed(whole, "team/app", {"1.0": image(2)})
        reports = run(mirror({"namespace": whole.host}, f"{other_registry.host}/{repository}/{{path}}"))

    assert [(report.mirror, report.copied) for report in reports] == [("all/team/app", 1), ("all/web", 1)]


def test_the_copies_in_a_namespace_are_not_copied_again(registry: DockerRegistry, source: dict[str, Any]) -> None:
    one = mirror(
        {"namespace": source["namespace"]}, f"{source['namespace']}/copies/{{path}}", tags=[{"allow": ["1.0"]}]
    )

    runs = [run(one) for _ in range(3)]

    assert [[report.mirror for report in reports] for reports in runs] == [
        ["all/other", "all/tools/cli", "all/web"]
    ] * 3
    assert [report.in_place for report in runs[2]] == [1, 1, 1]


def test_two_mirrors_do_not_write_one_archive() -> None:
    mirrors = [
        {"name": name, "source": {"repository": f"a.example/{name}"}, "destinations": [{"archive": path}]}
        for name, path in (("web", "/exports/a.tar"), ("api", "archive:/exports/a.tar"))
    ]

    with pytest.raises(InvalidInput, match=r"two mirrors write .*/exports/a\.tar"):
        make_config({"mirrors": mirrors})


def test_a_registry_that_shows_no_catalog_fails_this_mirror_alone(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str, source: dict[str, Any]
) -> None:
    refusal = Fault(path="/v2/_catalog", status=401)
    with FaultProxy(registry.port, refusal) as proxy:
        places = (f"{other_registry.host}/n/{{path}}", f"{other_registry.host}/n/{repository}")
        lost = mirror({"namespace": f"{proxy.host}/{repository}"}, places[0])
        web = mirror({"repository": f"{registry.host}/{repository}/web"}, places[1]).with_(name="web")
        reports = run(lost, web)

    assert [(report.mirror, report.copied) for report in reports] == [("all", 0), ("web", 2)]
    assert "401" in reports[0].failed[0].error


def test_two_repositories_never_share_a_destination(source: dict[str, Any], other_registry: DockerRegistry) -> None:
    all_of_it = {"namespace": source["namespace"]}
    named = mirror(all_of_it, f"{other_registry.host}/m/{{name}}")
    with session_of() as session:
        assert [one.name for one in repositories_of(session, named)] == ["all/other", "all/tools/cli", "all/web"]
        host, _, path = source["namespace"].partition("/")
        collided = mirror({"namespace": host, "repositories": [f"{path}/.*"]}, f"{other_registry.host}/m-{{registry}}")
        with pytest.raises(InvalidInput, match="would both go to"):
            repositories_of(session, collided)
        with pytest.raises(NotFound):
            repositories_of(session, mirror({**all_of_it, "repositories": ["nothing"]}, "corp.example/{path}"))


class Catalog:
    """A session whose registry lists these repositories."""

    def __init__(self, *paths: str) -> None:
        self.paths = paths

    def repositories(self, registry: str) -> Sequence[str]:
        del registry
        return self.paths


def test_a_name_that_is_no_repository_is_left_out() -> None:
    one = mirror({"namespace": "registry.example/shop"}, "corp.example/{path}")
    found = repositories_of(Catalog("shop/web", "shop/../admin", "SHOP/x", "shop", "shopping/a"), one)  # type: ignore[arg-type]

    assert [str(each.source) for each in found] == ["registry.example/shop/web"]


def test_places_stand_for_parts_of_the_source() -> None:
    one = mirror(
        {"repository": "registry.example:5000/shop/web"}, "corp.example/{registry}/{path}", "corp.example/{name}"
    )

    assert list(map(str, one.destinations)) == ["corp.example/registry.example-5000/shop/web", "corp.example/web"]
    assert (
        mirror({"bundle": "registry.example/shop/b:1"}, "corp.example/{path}")
        .destinations[0]
        .repository.endswith("shop/b")
    )


def test_the_tag_of_a_bundle_is_a_place_too() -> None:
    bundle = mirror({"bundle": "registry.example/shop/b:1.4"}, "corp.example/{name}/{tag}", "corp.example/b-{tag}")

    assert list(map(str, bundle.destinations)) == ["corp.example/b/1.4", "corp.example/b-1.4"]


@pytest.mark.parametrize(
    ("source", "destination", "said"),
    [
        ({"namespace": "registry.example"}, "corp.example/{path}-{tag}", "{tag}"),
        ({"bundle": f"registry.example/shop/b@sha256:{'0' * 64}"}, "corp.example/{tag}", "{tag}"),
        ({"namespace": "registry.example"}, "corp.example/fixed", "namespace"),
        ({"lock": "/images.yml"}, "corp.example/{name}", "lock"),
        ({"repository": "registry.example/web"}, "corp.example/{tag}", "{tag}"),
        ({"namespace": "registry.example/a b"}, "corp.example/{path}", "source"),
        ({"namespace": "registry.example"}, "registry.example/{path}", "to itself"),
        ({"namespace": "registry.example/shop"}, "registry.example/shop/{name}", "to itself"),
        ({"namespace": "registry.example", "repositories": ["("]}, "corp.example/{path}", "repositories"),
        ({"repository": "registry.example/web", "repositories": ["a"]}, "corp.example/web", "namespace"),
        ({"namespace": "registry.example", "bundle": "registry.example/b:1"}, "corp.example/{path}", "exactly one"),
    ],
)
def test_what_makes_no_sense_is_refused_when_it_is_read(source: dict[str, Any], destination: str, said: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        config(source, destination)

    assert said in caught.value.message


def test_a_prune_keeps_what_a_namespace_brings(other_registry: DockerRegistry, source: dict[str, Any]) -> None:
    path = source["namespace"].partition("/")[2]
    whole = config(source, f"{other_registry.host}/m/{{path}}", tags=[{"allow": ["1.*"]}])

    keep = keep_for(whole, parse_store(f"{other_registry.host}/m/{path}/web"), lambda _: session_of())

    assert keep.tags == ("1.0",)
    with pytest.raises(InvalidInput):
        keep_for(whole, parse_store(f"{other_registry.host}/elsewhere/web"), lambda _: session_of())


def test_names_of_its_repositories_concern_a_namespace() -> None:
    one = mirror({"namespace": "registry.example/shop"}, "corp.example/{path}")

    assert one.concerns(["registry.example/shop/web:1.0"])
    assert not one.concerns(["registry.example/shopping/web:1.0"])
