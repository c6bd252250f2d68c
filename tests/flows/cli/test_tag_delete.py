"""`transship tag delete`: one name goes, and nothing else with it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flows.cli.output import ExitCode
from tests.servers.strict_registry import Features, StrictRegistry
from tests.support.command import transship
from tests.support.content import image, index, push


def tags(server: StrictRegistry) -> set[str]:
    return set(server.store.repository("web").tags)


def test_without_yes_it_only_says_what_else_shows_the_digest() -> None:
    content = image(41)
    with StrictRegistry() as server:
        for tag in ("1.0", "latest"):
            push(server.url, "web", content, tag)
        before, pushes = dict(server.store.repository("web").tags), len(server.seen)

        done = transship("tag", "delete", "-i", f"{server.host}/web:1.0", "--json")

        found = json.loads(done.out)["Result"]
        assert (done.code, found["deleted"], found["others"]) == (ExitCode.DONE, "", ["latest"])
        assert found["digest"] == content.digest
        assert dict(server.store.repository("web").tags) == before
        assert not [one for one in server.seen[pushes:] if one.method not in ("GET", "HEAD")]


def test_a_tag_goes_alone_where_the_registry_can() -> None:
    content = image(42)
    with StrictRegistry() as server:
        for tag in ("1.0", "latest"):
            push(server.url, "web", content, tag)

        done = transship("tag", "delete", "-i", f"{server.host}/web:1.0", "--yes", "--json")

        assert done.code == ExitCode.DONE, done.err
        assert json.loads(done.out)["Result"]["deleted"] == "tag"
        assert tags(server) == {"latest"}
        assert content.digest in server.store.repository("web").manifests


def test_where_nothing_is_deleted_nothing_is_made_and_the_next_step_is_said() -> None:
    with StrictRegistry(features=Features(no_deletes=True)) as server:
        push(server.url, "web", image(46), "1.0")
        pushes = len(server.seen)

        done = transship("tag", "delete", "-i", f"{server.host}/web:1.0", "--yes")

        assert done.code == ExitCode.FAILED
        assert "switch deletions on" in done.err
        assert tags(server) == {"1.0"}
        assert not [seen for seen in server.seen[pushes:] if seen.method in ("PUT", "POST")]


@pytest.mark.parametrize("features", [Features(tag_delete=False), Features(tag_delete_takes_all=True)])
def test_other_tags_are_never_deleted_with_it(features: Features) -> None:
    content = image(43)
    with StrictRegistry(features=features) as server:
        for tag in ("1.0", "latest"):
            push(server.url, "web", content, tag)

        done = transship("tag", "delete", "-i", f"{server.host}/web:1.0", "--yes")

        assert done.code == ExitCode.FAILED
        assert "latest" in done.err
        assert {"1.0", "latest"} <= tags(server)


def test_the_only_tag_of_a_manifest_that_nothing_needs_goes_with_it() -> None:
    with StrictRegistry(features=Features(tag_delete=False)) as server:
        push(server.url, "web", image(44), "1.0")
        push(server.url, "web", image(45), "2.0")

        done = transship("tag", "delete", "-i", f"{server.host}/web:1.0", "--yes", "--json")

        assert done.code == ExitCode.DONE, done.err
        assert json.loads(done.out)["Result"]["deleted"] == "manifest"
        assert "1.0" not in tags(server)
        assert "2.0" in tags(server)


def test_what_an_index_lists_is_not_deleted_for_its_own_tag() -> None:
    child = image(46)
    with StrictRegistry(features=Features(tag_delete=False)) as server:
        push(server.url, "web", child, "1.0-amd64")
        push(server.url, "web", index([child], ["linux/amd64"]), "1.0")

        done = transship("tag", "delete", "-i", f"{server.host}/web:1.0-amd64", "--yes")

        assert done.code == ExitCode.FAILED
        assert child.digest in server.store.repository("web").manifests
        assert {"1.0", "1.0-amd64"} <= tags(server)


def test_in_a_folder(tmp_path: Path) -> None:
    with StrictRegistry() as server:
        push(server.url, "web", image(47), "1.0")
        name = f"{server.host}/web:1.0"
        for tag in ("1.0", "latest"):
            copied = transship("copy", "-i", name, "--to-repo", f"oci:{tmp_path}/folder", "--to-tag", tag)
            assert copied.code == ExitCode.DONE, copied.err

    assert transship("tag", "delete", "-i", f"oci:{tmp_path}/folder:1.0", "--yes").code == ExitCode.DONE
    assert transship("tag", "list", "-i", f"oci:{tmp_path}/folder").out.split() == ["latest"]


def test_a_digest_is_no_tag() -> None:
    done = transship("tag", "delete", "-i", f"a.example/web@sha256:{'a' * 64}", "--yes")

    assert done.code == ExitCode.USAGE
