"""Carrying out plans: what has changed meanwhile, what can't be deleted, and what it costs."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

from oci.errors import Denied, Refused
from oci.prune.policy import Keep
from oci.reference import parse_store
from tests.faults.proxy import Fault, FaultProxy
from tests.servers.docker_registry import DockerRegistry
from tests.servers.strict_registry import Features, StrictRegistry
from tests.support.content import artifact, image, index, push
from tests.support.pruning import carried_out, has, keep_alive, planned, pruned, tags_of
from tests.support.relocating import copied, session


def test_what_the_plan_says_goes_and_a_second_run_finds_it_gone(registry: DockerRegistry, repository: str) -> None:
    old, new = index([image(1), image(2)]), image(2)
    push(registry.url, repository, old, "1.0", "0.9")
    push(registry.url, repository, new, "2.0")
    plan = planned(f"{registry.host}/{repository}", tags=("2.0",))

    report = carried_out(plan)

    assert [(one.digest, one.tags) for one in report.deleted] == [(old.digest, ("0.9", "1.0")), (image(1).digest, ())]
    assert report.bytes_freed == plan.bytes_to_free > 0
    assert tags_of(registry.url, repository) == {"2.0"}
    assert has(registry.url, repository, new)
    again = carried_out(plan)
    assert (again.deleted, again.skipped, again.failed, again.gone) == ((), (), (), 2)


def test_a_registry_that_does_not_delete_is_found_out_before_anything_is_done(tmp_path: Path) -> None:
    with DockerRegistry(tmp_path, deletes=False) as server:
        push(server.url, "shop", image(1), "1.0")
        push(server.url, "shop", image(2), "2.0")
        plan = planned(f"{server.host}/shop", tags=("2.0",))

        with pytest.raises(Refused, match=r"this registry doesn't delete.*UNSUPPORTED.*405.*nothing was deleted"):
            carried_out(plan)

        assert [one.method for one in server.requests()].count("DELETE") == 1
        assert tags_of(server.url, "shop") == {"1.0", "2.0"}


def test_an_identity_that_may_not_delete_is_told_so(registry: DockerRegistry, repository: str) -> None:
    push(registry.url, repository, image(1), "1.0")

    with FaultProxy(registry.port, Fault(method="DELETE", status=403)) as proxy, pytest.raises(Denied) as caught:
        pruned(f"{proxy.host}/{repository}", nothing=True)

    assert str(caught.value).startswith(f"destination {proxy.host}: trying whether manifests can be deleted: ")
    assert has(registry.url, repository, "1.0")


def test_a_tag_that_moved_since_the_plan_saves_what_it_shows_now(registry: DockerRegistry, repository: str) -> None:
    old, new, other = image(1), image(2), image(3)
    push(registry.url, repository, old, "1.0")
    push(registry.url, repository, other, "0.9")
    push(registry.url, repository, new, "latest")
    plan = planned(f"{registry.host}/{repository}", tags=("latest",))
    push(registry.url, repository, old, "latest")

    report = carried_out(plan)

    assert [one.digest for one in report.deleted] == [other.digest]
    assert [(one.subject, one.reason) for one in report.skipped] == [
        (f"{old.digest} (1.0)", "something that is kept needs it now")
    ]
    assert has(registry.url, repository, "latest")
    assert has(registry.url, repository, new), "it wasn't in the plan that was approved"


def test_a_new_tag_and_a_new_index_since_the_plan_save_what_they_show(
    registry: DockerRegistry, repository: str
) -> None:
    tagged, listed, referred = image(1), image(2), image(4)
    for number, one in enumerate((tagged, listed, referred)):
        push(registry.url, repository, one, f"0.{number}")
    push(registry.url, repository, image(3), "1.0")
    plan = planned(f"{registry.host}/{repository}", tags=("1.0",))
    push(registry.url, repository, tagged, "hotfix")
    push(registry.url, repository, index([listed]), "both")
    push(registry.url, repository, artifact(1, subject=referred), "sbom")

    report = carried_out(plan, keep=Keep(tags=("sbom",)))

    assert not report.deleted
    reasons = {one.subject.partition(" ")[0]: one.reason for one in report.skipped}
    assert reasons == {
        tagged.digest: "the tag hotfix shows it since the plan was made",
        listed.digest: f"{index([listed]).digest}, which needs it, stays",
        referred.digest: "something that is kept needs it now",
    }


def test_a_tag_alone_goes_where_the_registry_can(strict: StrictRegistry, repository: str) -> None:
    push(strict.url, repository, image(1), "1.0", "1", "latest")

    report = pruned(f"{strict.host}/{repository}", tags=("1.0",))

    assert set(report.untagged) == {"1", "latest"}
    assert tags_of(strict.url, repository) == {"1.0"}


def test_where_it_can_not_the_tag_is_reported_and_everything_else_goes(
    registry: DockerRegistry, repository: str
) -> None:
    push(registry.url, repository, image(1), "1.0", "1", "latest")
    push(registry.url, repository, image(2), "0.9")

    report = pruned(f"{registry.host}/{repository}", tags=("1.0",))

    assert [one.digest for one in report.deleted] == [image(2).digest]
    assert [one.subject for one in report.refused] == ["1", "latest"]
    assert "can't delete a tag alone" in report.refused[0].reason
    assert "DIGEST_INVALID" in report.refused[0].reason
    assert "delete the manifest" not in report.refused[0].reason
    assert not report.failed
    assert tags_of(registry.url, repository) == {"1", "1.0", "latest"}
    deletes = [one.path for one in registry.requests() if one.method == "DELETE" and repository in one.path]
    assert not [path for path in deletes if path.endswith(("/1", "/latest"))], "no tag in use is tried"
    assert len([path for path in deletes if "transship-probe-" in path]) == 1, "one answer is enough"


def test_a_registry_that_deletes_the_manifest_with_the_tag_is_asked_for_no_tag_in_use(repository: str) -> None:
    with StrictRegistry(Features(tag_delete_takes_all=True)) as server:
        push(server.url, repository, image(1), "1.0", "1", "latest", "stable")

        report = pruned(f"{server.host}/{repository}", tags=("1.0", "stable"))

        assert not report.untagged
        assert {one.subject: one.reason for one in report.refused} == dict.fromkeys(
            ("1", "latest"), "the registry deletes the manifest together with its tag"
        )
        assert tags_of(server.url, repository) == {"1", "1.0", "latest", "stable"}
        assert has(server.url, repository, "1.0")


def test_what_a_registry_says_it_has_not_is_looked_at_again(registry: DockerRegistry, repository: str) -> None:
    push(registry.url, repository, image(1), "1.0")
    push(registry.url, repository, image(2), "2.0")

    with FaultProxy(registry.port, Fault(method="DELETE", path=image(1).hex, status=404)) as proxy:
        report = pruned(f"{proxy.host}/{repository}", tags=("2.0",))

    assert [one.subject.partition(" ")[0] for one in report.failed] == [image(1).digest]
    assert (report.deleted, report.gone) == ((), 0)
    assert has(registry.url, repository, "1.0")


def test_a_tag_that_a_registry_says_it_has_not_is_looked_at_again(strict: StrictRegistry, repository: str) -> None:
    push(strict.url, repository, image(1), "1.0", "old")

    with FaultProxy(strict.port, Fault(method="DELETE", path="/manifests/old$", status=404)) as proxy:
        report = pruned(f"{proxy.host}/{repository}", tags=("1.0",))

    assert [one.subject for one in report.refused] == ["old"]
    assert tags_of(strict.url, repository) == {"1.0", "old"}


def test_what_hangs_below_something_that_could_not_be_deleted_stays(registry: DockerRegistry, repository: str) -> None:
    broken, fine = index([image(1), image(2)]), index([image(2), image(3)])
    push(registry.url, repository, broken, "1.0")
    push(registry.url, repository, fine, "1.1")
    push(registry.url, repository, image(4), "2.0")

    with FaultProxy(registry.port, Fault(method="DELETE", path=broken.hex, status=409)) as proxy:
        report = pruned(f"{proxy.host}/{repository}", tags=("2.0",))

    assert [one.digest for one in report.deleted] == [fine.digest, image(3).digest]
    assert [one.subject.partition(" ")[0] for one in report.failed] == [
        broken.digest,
        *sorted((image(1).digest, image(2).digest)),
    ]
    assert all(has(registry.url, repository, one) for one in broken.everything())
    rest = pruned(f"{registry.host}/{repository}", tags=("2.0",))
    assert {one.digest for one in rest.deleted} == {one.digest for one in broken.everything()}
    assert tags_of(registry.url, repository) == {"2.0"}


@pytest.mark.slow
def test_a_thousand_tags_cost_two_requests_each_to_plan_and_one_to_look_again() -> None:
    """2 a tag: its manifest, and the config that says whether it is a bundle. Their keep-alive tags cost nothing."""
    with StrictRegistry(Features(referrers=False, page=10_000)) as server:
        push(server.url, "many", image(0), "v0")
        repository = server.store.repository("many")
        for number in range(500):
            content = image(number)
            for blob in content.blobs:
                server.store.add_blob("many", blob.data)
            repository.manifests[content.digest] = (content.media_type, content.raw)
            repository.tags[f"v{number}"] = repository.tags[keep_alive(content)] = content.digest
        server.seen.clear()

        plan = planned(f"{server.host}/many", tags=tuple(f"v{number}" for number in range(490)))

        assert (plan.tags_seen, len(plan.manifests)) == (1000, 10)
        asked = Counter((one.method, one.path.split("/")[3]) for one in server.requests())
        assert sum(asked.values()) <= 1 + 2 * 500 + 10
        assert asked["GET", "manifests"] <= 510
        server.seen.clear()
        carried_out(plan)
        assert sum(one.method == "DELETE" for one in server.requests()) <= 10 + 2


def test_a_layout_folder_gets_its_disk_back(registry: DockerRegistry, repository: str, tmp_path: Path) -> None:
    shared = image(1).blobs[:-1]
    old, new = image(2, layers=[*shared, *image(5).blobs[:-1]]), image(3, layers=shared)
    where = f"oci:{tmp_path}/layout"
    for content, tag in ((old, "1.0"), (new, "2.0")):
        push(registry.url, repository, content, tag)
        copied(where, image=f"{registry.host}/{repository}:{tag}")
    blobs = tmp_path / "layout" / "blobs" / "sha256"
    lost = blobs / ("0" * 64)
    lost.write_bytes(b"left by a deletion that broke off")
    os.utime(lost, (0, time.time() - 100_000))
    young = blobs / ("1" * 64)
    young.write_bytes(b"on its way")

    report = pruned(where, tags=("2.0",))

    left = {path.name for path in blobs.iterdir()}
    wanted = {new.hex, *(blob.descriptor()["digest"].removeprefix("sha256:") for blob in new.blobs)}
    assert left == wanted | {young.name}
    assert report.bytes_freed == len(old.raw) + sum(len(blob.data) for blob in old.blobs[1:]) + 33
    with session() as one:
        assert list(one.source(parse_store(where)).tags()) == ["2.0", keep_alive(new)]


def test_a_plan_with_nothing_in_it_asks_for_no_deletion(registry: DockerRegistry, repository: str) -> None:
    push(registry.url, repository, image(1), "1.0")
    before = len(registry.requests())

    report = pruned(f"{registry.host}/{repository}", tags=("1.0",))

    assert (report.deleted, report.bytes_freed) == ((), 0)
    assert not [one for one in registry.requests()[before:] if one.method in ("DELETE", "PUT", "POST")]


def test_other_repositories_of_the_registry_keep_what_they_share(registry: DockerRegistry, repository: str) -> None:
    for path in (repository, f"{repository}-other"):
        push(registry.url, path, image(1), "1.0")

    pruned(f"{registry.host}/{repository}", nothing=True)

    assert has(registry.url, f"{repository}-other", "1.0")
    blob = image(1).blobs[0].descriptor()["digest"]
    assert httpx.head(f"{registry.url}/v2/{repository}-other/blobs/{blob}").status_code == 200


@pytest.mark.parametrize("kept", [("new",), ("new", "strange")])
@pytest.mark.parametrize(
    "body",
    [
        {"mediaType": "application/vnd.oci.artifact.manifest.v1+json", "blobs": []},
        {"schemaVersion": 1, "name": "web", "fsLayers": []},
    ],
)
def test_a_layout_with_a_manifest_that_can_not_be_read_is_pruned(
    body: dict[str, Any], kept: tuple[str, ...], registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    for number, tag in enumerate(("old", "new")):
        push(registry.url, repository, image(70 + number), tag)
        copied(f"oci:{tmp_path}/layout", image=f"{registry.host}/{repository}:{tag}")
    raw = json.dumps(body).encode()
    digest = hashlib.sha256(raw).hexdigest()
    (tmp_path / "layout" / "blobs" / "sha256" / digest).write_bytes(raw)
    listing = json.loads((tmp_path / "layout" / "index.json").read_bytes())
    kind = body.get("mediaType", "application/vnd.docker.distribution.manifest.v1+prettyjws")
    entry = {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(raw)}
    listing["manifests"].append(entry | {"annotations": {"org.opencontainers.image.ref.name": "strange"}})
    (tmp_path / "layout" / "index.json").write_text(json.dumps(listing))

    assert pruned(f"oci:{tmp_path}/layout", tags=kept).failed == ()

    names = {one["annotations"]["org.opencontainers.image.ref.name"] for one in listed(tmp_path / "layout")}
    assert {name for name in names if not name.endswith(".imgpkg")} == set(kept)


def listed(layout: Path) -> list[dict[str, Any]]:
    manifests: list[dict[str, Any]] = json.loads((layout / "index.json").read_bytes())["manifests"]
    return manifests
