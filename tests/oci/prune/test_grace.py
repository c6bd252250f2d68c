"""Grace periods: counted from when something was first seen unwanted, remembered at the destination itself."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest

from oci.errors import InvalidDocument
from oci.prune.survey import NOTE_TAG, NOTE_TYPE
from tests.servers.docker_registry import DockerRegistry
from tests.support.content import OCI_MANIFEST, Blob, Content, image, index, push
from tests.support.pruning import NOW, carried_out, has, names, planned, tags_of
from tests.support.relocating import copied

WEEK = timedelta(days=7)
DAY = timedelta(days=1)


@pytest.fixture(params=["docker-registry", "layout"])
def where(request: pytest.FixtureRequest, registry: DockerRegistry, repository: str, tmp_path: Path) -> str:
    """Two tags; nobody wants 1.0."""
    push(registry.url, repository, index([image(1)]), "1.0")
    push(registry.url, repository, image(2), "2.0")
    if request.param == "docker-registry":
        return f"{registry.host}/{repository}"
    for tag in ("1.0", "2.0"):
        copied(f"oci:{tmp_path}/layout", image=f"{registry.host}/{repository}:{tag}")
    return f"oci:{tmp_path}/layout"


def test_what_is_unwanted_is_deleted_only_after_it_was_seen_so_for_long_enough(where: str) -> None:
    first = planned(where, grace=WEEK, note=True, tags=("2.0",))
    assert first.is_empty
    assert (first.waiting, len(carried_out(first).deleted)) == (2, 0)

    later = planned(where, grace=WEEK, note=True, now=NOW + 6 * DAY, tags=("2.0",))
    assert later.is_empty
    assert {one.since for one in later.manifests} == {NOW}

    due = planned(where, grace=WEEK, now=NOW + WEEK, tags=("2.0",))
    assert len(due.due_manifests) == 2
    assert len(carried_out(due, now=NOW + WEEK).deleted) == 2
    assert not planned(where, grace=WEEK, now=NOW + WEEK, tags=("2.0",)).manifests


def test_a_plan_alone_writes_nothing_and_counts_from_now(where: str) -> None:
    planned(where, grace=WEEK, tags=("2.0",))

    plan = planned(where, grace=WEEK, now=NOW + WEEK, tags=("2.0",))

    assert {one.since for one in plan.manifests} == {NOW + WEEK}


def test_what_was_wanted_in_between_begins_anew(where: str) -> None:
    planned(where, grace=WEEK, note=True, tags=("2.0",))
    planned(where, grace=WEEK, note=True, now=NOW + 3 * DAY, tags=("1.0", "2.0"))

    plan = planned(where, grace=WEEK, now=NOW + 8 * DAY, tags=("2.0",))

    assert plan.is_empty
    assert {one.since for one in plan.manifests} == {NOW + 8 * DAY}


def test_a_new_tag_on_something_unwanted_begins_anew_for_all_below_it(
    registry: DockerRegistry, repository: str
) -> None:
    push(registry.url, repository, index([image(1)]), "1.0")
    push(registry.url, repository, image(2), "2.0")
    where = f"{registry.host}/{repository}"
    planned(where, grace=WEEK, note=True, tags=("2.0",))
    push(registry.url, repository, index([image(1)]), "again")

    plan = planned(where, grace=WEEK, now=NOW + WEEK, tags=("2.0",))

    assert plan.is_empty, "the index begins anew, and its child can't go before it"
    assert [one.since for one in plan.manifests] == [NOW + WEEK, NOW]


def test_a_tag_that_moved_begins_anew(registry: DockerRegistry, repository: str) -> None:
    push(registry.url, repository, image(1), "1.0", "old")
    push(registry.url, repository, image(2), "2.0")
    where = f"{registry.host}/{repository}"
    assert [one.tag for one in planned(where, grace=WEEK, note=True, tags=("1.0", "2.0")).tags] == ["old"]
    push(registry.url, repository, image(2), "old")

    (moved,) = planned(where, grace=WEEK, now=NOW + WEEK, tags=("1.0", "2.0")).tags

    assert (moved.since, moved.due) == (NOW + WEEK, False)


def test_a_note_from_the_future_counts_from_now(where: str) -> None:
    planned(where, grace=WEEK, note=True, now=NOW + 100 * DAY, tags=("2.0",))

    plan = planned(where, grace=WEEK, note=True, tags=("2.0",))

    assert {one.since for one in plan.manifests} == {NOW}
    assert planned(where, grace=WEEK, now=NOW + WEEK, tags=("2.0",)).due_manifests


def test_the_note_is_neither_unwanted_nor_left_behind(registry: DockerRegistry, repository: str) -> None:
    push(registry.url, repository, image(1), "1.0")
    push(registry.url, repository, image(2), "2.0")
    where = f"{registry.host}/{repository}"
    planned(where, grace=WEEK, note=True, tags=("2.0",))
    assert NOTE_TAG in tags_of(registry.url, repository)

    due = planned(where, grace=WEEK, now=NOW + WEEK, tags=("2.0",))
    assert names(due) == {image(1).digest}
    carried_out(due, now=NOW + WEEK)

    assert tags_of(registry.url, repository) == {"2.0"}


def test_something_else_under_the_tag_of_the_note_ends_it(registry: DockerRegistry, repository: str) -> None:
    push(registry.url, repository, image(1), "1.0", NOTE_TAG)

    with pytest.raises(InvalidDocument, match="no note of what is unwanted"):
        planned(f"{registry.host}/{repository}", grace=WEEK, nothing=True)
    assert has(registry.url, repository, "1.0")


@pytest.mark.parametrize(
    "body", [b'{"since": {"x": "0001-01-01T00:00:00+14:00"}}', b'{"since": ' + b"[" * 100_000, b'{"since": 5}']
)
def test_a_note_that_somebody_else_wrote_ends_it_as_an_error_of_ours(
    registry: DockerRegistry, repository: str, body: bytes
) -> None:
    push(registry.url, repository, image(1), "1.0")
    layer, config = Blob("application/json", body), Blob("application/vnd.oci.empty.v1+json", b"{}")
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": NOTE_TYPE,
        "config": config.descriptor(),
        "layers": [layer.descriptor()],
    }
    push(registry.url, repository, Content(OCI_MANIFEST, json.dumps(manifest).encode(), (layer, config)), NOTE_TAG)

    with pytest.raises(InvalidDocument, match="grace periods begin anew"):
        planned(f"{registry.host}/{repository}", grace=WEEK, nothing=True)
