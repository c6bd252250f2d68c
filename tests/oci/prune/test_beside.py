"""A prune while others write, repair and mirror, and at registries that lose more than they are asked to."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from oci.errors import Refused, TransshipError
from oci.prune.execute import execute
from oci.prune.plan import PrunePlan, PruneReport
from oci.relocation.driver import Relocation
from oci.relocation.request import RelocationRequest
from tests.faults.proxy import Fault, FaultProxy
from tests.servers.docker_registry import DockerRegistry
from tests.servers.strict_registry import Features, StrictRegistry
from tests.support.content import Content, artifact, bundle, compact, image, index, push
from tests.support.mirroring import mirror_of, run
from tests.support.pruning import ACCEPT, NOW, has, names, planned, tags_of
from tests.support.relocating import copied, session

OLD, NEW, OTHER = image(1), image(2), image(3)
BOTH = index([OLD, OTHER])


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oci.prune.execute._AT_ONCE", 1)


def carried_out(plan: PrunePlan, deed: Callable[[], object] = lambda: None, *, after: int = 1) -> PruneReport:
    """Does something after that many deletions."""
    deleted: list[str] = []

    def count(subject: str) -> None:
        deleted.append(subject)
        if len(deleted) == after:
            deed()

    with session() as one:
        return execute(one, plan, now=NOW, on_deleted=count)


def whole(url: str, repository: str, *tags: str) -> bool:
    """By plain HTTP: is each name there, with all that it lists?"""

    def read(name: str) -> bool:
        answer = httpx.get(f"{url}/v2/{repository}/manifests/{name}", headers=ACCEPT)
        body: dict[str, Any] = answer.json() if answer.status_code == 200 else {}
        blobs = [*body.get("layers", []), *filter(None, [body.get("config")])]
        there = all(httpx.head(f"{url}/v2/{repository}/blobs/{one['digest']}").status_code == 200 for one in blobs)
        return bool(body) and there and all(read(one["digest"]) for one in body.get("manifests", []))

    return all(map(read, tags))


MOVES: dict[str, Callable[[Callable[[Content, str], object]], object]] = {
    "a kept tag moves to an index over it": lambda push_it: push_it(index([OLD, NEW]), "latest"),
    "a kept tag moves to it": lambda push_it: push_it(OLD, "latest"),
    "a new tag shows it": lambda push_it: push_it(OLD, "hotfix"),
    "a new index lists it": lambda push_it: push_it(index([OTHER, OLD]), "hotfix"),
}


@pytest.mark.parametrize("move", MOVES.values(), ids=MOVES)
def test_what_moves_between_two_rounds_saves_what_it_needs(
    move: Callable[[Callable[[Content, str], object]], object], registry: DockerRegistry, repository: str
) -> None:
    push(registry.url, repository, BOTH, "old")
    push(registry.url, repository, NEW, "latest")
    plan = planned(f"{registry.host}/{repository}", tags=("latest",))
    assert names(plan) == {BOTH.digest, OLD.digest, OTHER.digest}

    report = carried_out(plan, lambda: move(lambda content, tag: push(registry.url, repository, content, tag)))

    assert [one.digest for one in report.deleted] == [BOTH.digest]
    assert len(report.skipped) == 2
    assert whole(registry.url, repository, *tags_of(registry.url, repository))


@pytest.mark.parametrize("tag", ["latest", "hotfix"])
def test_within_a_round_the_names_are_looked_at_again(tag: str, registry: DockerRegistry, repository: str) -> None:
    old = [image(number) for number in range(10, 22)]
    for number, one in enumerate(old):
        push(registry.url, repository, one, f"old-{number}")
    push(registry.url, repository, NEW, "latest")
    plan = planned(f"{registry.host}/{repository}", tags=("latest",))

    def rolled_back() -> None:
        left = [one for one in old if has(registry.url, repository, one)]
        push(registry.url, repository, index(left[-2:]), tag)

    carried_out(plan, rolled_back, after=4)

    assert whole(registry.url, repository, tag, "latest")


def test_a_kept_tag_that_shows_nothing_is_said_before_and_looked_at_again(repository: str) -> None:
    with StrictRegistry() as server:
        push(server.url, repository, BOTH, "v1")
        push(server.url, repository, OLD, "old")
        push(server.url, repository, NEW, "v2")
        del server.store.repository(repository).manifests[BOTH.digest]
        plan = planned(f"{server.host}/{repository}", patterns=("v.*",))
        assert plan.unknown[0].startswith("the tag v1 is kept and shows nothing")
        assert names(plan) == {OLD.digest}
        monkey = pytest.MonkeyPatch()
        with monkey.context() as patch:
            patch.setattr("oci.prune.execute.check_deletes", lambda _: push(server.url, repository, BOTH, "v1"))
            report = carried_out(plan)

        assert not report.deleted
        assert whole(server.url, repository, "v1", "v2")


def test_a_signature_that_moves_saves_what_it_shows(registry: DockerRegistry, repository: str) -> None:
    """`cosign clean` and sign again: the tag of a signature is no name of the policy, and needs what it shows."""
    tag = f"sha256-{NEW.hex}.sig"
    push(registry.url, repository, NEW, "v1")
    push(registry.url, repository, artifact(1), tag)
    push(registry.url, repository, index([OLD]), "old")
    plan = planned(f"{registry.host}/{repository}", tags=("v1",))

    carried_out(plan, lambda: push(registry.url, repository, OLD, tag))

    assert whole(registry.url, repository, "v1", tag)


@pytest.fixture
def untaggable(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Does something after the registry was found able to take a tag away alone."""

    def arrange(deed: Callable[[], object]) -> None:
        monkeypatch.setattr("oci.prune.execute.check_untags", lambda _: deed() and "")

    return arrange


def test_a_tag_that_moved_to_something_new_is_not_taken_away(
    untaggable: Callable[[Callable[[], object]], None], repository: str
) -> None:
    with StrictRegistry() as server:
        push(server.url, repository, OLD, "1.0", "1")
        plan = planned(f"{server.host}/{repository}", tags=("1.0",))
        untaggable(lambda: push(server.url, repository, NEW, "1") and None)

        report = carried_out(plan)

        assert [one.subject for one in report.skipped] == ["1"]
        assert (report.untagged, report.failed) == ((), ())
        assert has(server.url, repository, "1")


@pytest.mark.parametrize(("refusals", "lost"), [(1, False), (1 << 30, True)], ids=["once", "for ever"])
def test_nothing_follows_a_tag_that_took_its_manifest_along(
    untaggable: Callable[[Callable[[], object]], None], repository: str, refusals: int, lost: bool
) -> None:
    """The registry takes the tag of the probe alone, another one with its manifest, and refuses that again."""
    with StrictRegistry() as server:
        contents = {"a": image(11), "b": image(12), "c": image(13)}
        for name, content in contents.items():
            push(server.url, repository, content, name, f"{name}-kept")
        refuses = Fault(method="PUT", path="-kept", status=403, last=refusals)
        with FaultProxy(int(server.host.rpartition(":")[2]), refuses) as proxy:
            plan = planned(f"{proxy.host}/{repository}", patterns=(".*-kept",))
            untaggable(lambda: setattr(server, "features", Features(tag_delete_takes_all=True)))
            report = carried_out(plan)

        assert [one.subject for one in report.refused] == ["a", "b", "c"]
        assert ("--repair" in report.refused[0].reason) == lost
        assert has(server.url, repository, "a-kept") != lost
        assert all(has(server.url, repository, tag) for tag in ("b", "b-kept", "c", "c-kept"))


HIDES: dict[str, tuple[str, int]] = {
    "referrers denied": (r"/referrers/", 403),
    "referrers of one denied": (f"/referrers/{NEW.digest}", 403),
    "referrers broken": (r"/referrers/", 500),
    "a child denied": (f"/manifests/{OTHER.digest}", 403),
    "a child broken": (f"/manifests/{OTHER.digest}", 500),
    "a blob of the bundle denied": (r"/blobs/", 403),
    "the list denied": (r"/tags/list", 403),
    "the list is gone": (r"/tags/list", 404),
    "the second page broken": (r"/tags/list.*last=", 500),
}


@pytest.mark.parametrize("name", HIDES)
def test_what_a_registry_does_not_show_ends_it_or_is_said_before(name: str, repository: str) -> None:
    """The kept index and bundle list images under unwanted tags; so does a referrer that only the API knows."""
    path, status = HIDES[name]
    known, unneeded = image(31), image(32)
    listed = artifact(5, subject=NEW)
    over = json.loads(index([OLD]).raw) | {"subject": listed.descriptor()}
    referrer = Content(BOTH.media_type, compact(over), (), (OLD,))
    needed = (OLD, OTHER, NEW, known, listed, referrer)
    with StrictRegistry(Features(page=3)) as server:
        push(server.url, repository, OTHER)
        push(server.url, repository, index([OTHER, NEW]), "v1")
        push(server.url, repository, bundle([push(server.url, repository, known, "known")]), "shop")
        push(server.url, repository, listed)
        push(server.url, repository, referrer)
        push(server.url, repository, OLD, "unnamed")
        push(server.url, repository, unneeded, "unneeded")
        assert names(planned(f"{server.host}/{repository}", tags=("v1", "shop"))) == {unneeded.digest}
        with FaultProxy(int(server.host.rpartition(":")[2]), Fault(method="GET", path=path, status=status)) as proxy:
            if name == "referrers denied":
                plan = planned(f"{proxy.host}/{repository}", tags=("v1", "shop"))
                assert plan.unknown[0].startswith("the registry denies the list of referrers")
                plan = planned(f"{proxy.host}/{repository}", digests=(OLD.digest,), tags=("v1", "shop"))
                assert [one.digest for one in carried_out(plan).deleted] == [unneeded.digest]
            else:
                with pytest.raises(TransshipError):
                    planned(f"{proxy.host}/{repository}", tags=("v1", "shop"))

        assert whole(server.url, repository, "v1", "shop", *(one.digest for one in needed))


def test_listed_names_that_can_not_be_asked_for_are_said_before(registry: DockerRegistry, repository: str) -> None:
    push(registry.url, repository, OLD, "old")
    push(registry.url, repository, NEW, "v1")
    body = compact({"name": repository, "tags": ["old", "v1", "a/b", f"sha256:{'a' * 64}", None]})
    with FaultProxy(registry.port, Fault(path="/tags/list", replace_body=body)) as proxy:
        plan = planned(f"{proxy.host}/{repository}", tags=("v1",))
        assert plan.unknown[0].startswith("2 listed names are no tags, such as 'a/b'")
        assert [one.digest for one in carried_out(plan).deleted] == [OLD.digest]


@pytest.mark.parametrize("link", ["blobs", "blobs/sha256"])
def test_blobs_that_layouts_share_by_a_link_are_not_deleted(
    link: str, registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    for content, tag in ((OLD, "old"), (NEW, "new")):
        push(registry.url, repository, content, tag)
        copied(f"oci:{tmp_path}/layout", image=f"{registry.host}/{repository}:{tag}")
    (tmp_path / "layout" / link).rename(tmp_path / "pool")
    (tmp_path / "layout" / link).symlink_to(tmp_path / "pool")
    shutil.copytree(tmp_path / "layout", tmp_path / "other", symlinks=True)
    plan = planned(f"oci:{tmp_path}/layout", tags=("new",))

    with pytest.raises(Refused, match="other layouts may use what is there"):
        carried_out(plan)

    assert copied(f"oci:{tmp_path}/again", image=f"oci:{tmp_path}/other:old").error is None


def test_a_repair_beside_a_prune_loses_nothing(registry: DockerRegistry, repository: str) -> None:
    source, where = f"{repository}-source", f"{registry.host}/{repository}"
    push(registry.url, source, BOTH, "1.0")
    push(registry.url, repository, BOTH, "1.0")
    push(registry.url, repository, index([OTHER, NEW]), "old")
    push(registry.url, repository, NEW, "old-child")
    lost = httpx.delete(f"{registry.url}/v2/{repository}/manifests/{OTHER.digest}")
    assert lost.status_code == 202
    plan = planned(where, tags=("1.0",))

    def repaired() -> None:
        assert copied(where, image=f"{registry.host}/{source}:1.0", repair=True).error is None

    carried_out(plan, repaired)

    assert whole(registry.url, repository, "1.0")


@pytest.mark.parametrize("repair", [False, True])
@pytest.mark.parametrize("moment", ["planned", "transferred"])
def test_what_a_copy_found_there_and_a_prune_deleted_is_sent_or_said(
    moment: str, repair: bool, registry: DockerRegistry, repository: str
) -> None:
    """The copy has planned to send nothing, for all of it was there under another name."""
    source, where = f"{repository}-source", f"{registry.host}/{repository}"
    push(registry.url, source, BOTH, "2.0")
    push(registry.url, repository, BOTH, "old")
    push(registry.url, repository, NEW, "1.0")
    plan = planned(where, tags=("1.0",))
    request = RelocationRequest(image=f"{registry.host}/{source}:2.0", to=where, repair=repair)
    with session() as one:
        relocation = Relocation(one, request)
        relocation.make_plan()
        if moment == "transferred":
            for planned_image in [one.digest for one in relocation.plan.images]:
                relocation.transfer(planned_image)
        assert (len(carried_out(plan).deleted) == 3) or moment == "transferred"
        try:
            result = relocation.run()
            failed = result.error
        except TransshipError as error:
            failed = error

    assert has(registry.url, repository, "2.0") == whole(registry.url, repository, "2.0") == (failed is None)
    assert copied(where, image=f"{registry.host}/{source}:2.0").error is None
    assert whole(registry.url, repository, "1.0", "2.0")


def test_prunes_beside_a_mirror_that_rolls_back_leave_every_name_whole(
    registry: DockerRegistry, repository: str
) -> None:
    """Both run at once, again and again; the mirror's names go back to what the prune is deleting."""
    source, where = f"{registry.host}/{repository}-source", f"{registry.host}/{repository}"
    indexes = [index([image(40 + number), image(41 + number)]) for number in range(4)]
    mirror = mirror_of(source, where, tags=[{"allow": ["latest|stable"]}])
    ended = threading.Event()
    wrong: list[str] = []

    def prune() -> None:
        while not ended.is_set():
            try:
                carried_out(planned(where, patterns=("latest|stable",)))
            except TransshipError as error:
                wrong.append(f"{type(error).__name__}: {error}")

    for number, one in enumerate(indexes):
        push(registry.url, f"{repository}-source", one, f"s{number}")
    push(registry.url, f"{repository}-source", indexes[0], "latest", "stable")
    run(mirror)
    thread = threading.Thread(target=prune)
    thread.start()
    broken = []
    for turn in range(12):
        push(registry.url, f"{repository}-source", indexes[turn % 4], "latest")
        push(registry.url, f"{repository}-source", indexes[(turn * 3 + 1) % 4], "stable")
        run(mirror)
        broken += [f"{turn} {tag}" for tag in ("latest", "stable") if not whole(registry.url, repository, tag)]
    ended.set()
    thread.join()
    run(mirror)

    assert broken == []
    assert whole(registry.url, repository, "latest", "stable")
    assert wrong == []
