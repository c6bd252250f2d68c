"""Backup tags before a tag moves, and the bandwidth of a run and of one registry."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest

from flows.cli.output import ExitCode
from oci.errors import CancelToken
from oci.registry.http.pace import Bandwidth
from tests.servers.strict_registry import StrictRegistry
from tests.support.command import transship
from tests.support.content import image, push


def tags(server: StrictRegistry, name: str) -> Mapping[str, str]:
    return dict(server.store.repository(name).tags)


def mirrors(folder: Path, server: StrictRegistry, **more: str) -> str:
    path = folder / "mirrors.yaml"
    lines = "".join(f"  {key}: {value}\n" for key, value in more.items())
    path.write_text(
        f"version: 1\nmirrors:\n- name: web\n  source: {{repository: {server.host}/from/web}}\n"
        f"  destinations: [{{repository: {server.host}/to/web}}]\n{lines}"
    )
    return str(path)


def test_a_mirror_keeps_what_a_tag_showed_before(tmp_path: Path) -> None:
    old, new, newest = image(81), image(82), image(83)
    with StrictRegistry() as server:
        file = mirrors(tmp_path, server, backup="'{tag}-before-{date}'", keep_alive="needed")
        push(server.url, "from/web", old, "latest")
        assert transship("mirror", "run", "-f", file).code == ExitCode.DONE
        assert set(tags(server, "to/web")) == {"latest"}

        today = f"latest-before-{datetime.now(UTC):%Y%m%d}"
        for content in (new, newest):
            push(server.url, "from/web", content, "latest")
            assert transship("mirror", "run", "-f", file).code == ExitCode.DONE

        # The first image of a day keeps its backup: what came between has none.
        assert tags(server, "to/web") == {"latest": newest.digest, today: old.digest}
        before = len(server.seen)
        assert transship("mirror", "run", "-f", file).code == ExitCode.DONE
        assert not [seen for seen in server.seen[before:] if seen.method not in ("GET", "HEAD")]


def test_a_copy_does_too_and_by_digest_if_asked() -> None:
    old, new = image(84), image(85)
    with StrictRegistry() as server:
        for content in (old, new):
            push(server.url, "from/web", content, "1.0")
            words = ("-i", f"{server.host}/from/web:1.0", "--to-repo", f"{server.host}/to/web")
            done = transship("copy", *words, "--backup-tag", "old-{short}")
            assert done.code == ExitCode.DONE, done.err

        shown = tags(server, "to/web")
        assert shown["1.0"] == new.digest
        assert shown[f"old-{old.digest.removeprefix('sha256:')[:12]}"] == old.digest


@pytest.mark.parametrize("template", ["{tag}", "{other}", "{tag", "{tag}:old", "-{tag}", "{tag!r}", "{tag.upper}"])
def test_a_template_that_gives_no_tag_is_wrong_usage(template: str, tmp_path: Path) -> None:
    done = transship("copy", "-i", "127.0.0.1:1/web:1", "--to-repo", "127.0.0.1:1/to", "--backup-tag", template)
    assert done.code == ExitCode.USAGE
    path = tmp_path / "mirrors.yaml"
    path.write_text(
        "version: 1\nmirrors:\n- {name: a, source: {repository: a.example/web}, "
        f"destinations: [{{repository: b.example/web}}], backup: '{template}'}}\n"
    )
    assert transship("mirror", "validate", "-f", str(path)).code == ExitCode.USAGE


class Clock(CancelToken):
    """Counts what is waited for, and waits for nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.waited: list[float] = []

    def wait(self, seconds: float) -> None:
        self.waited.append(seconds)


def test_all_registries_share_one_bucket_but_those_with_their_own() -> None:
    clock = Clock()
    rates = {"slow": ("slow", 100), "quick": ("", 1_000), "other": ("", 1_000), "free": ("", 0)}
    bandwidth = Bandwidth((rates.__getitem__, rates.__getitem__), clock)

    bandwidth.take(10, {"free"})
    assert clock.waited == []
    bandwidth.take(1_000, {"quick"})
    bandwidth.take(1_000, {"other", "quick"})
    bandwidth.take(100, {"slow"})
    bandwidth.take(100, {"slow", "other"})
    assert [round(seconds) for seconds in clock.waited] == [1, 2, 1, 2]


def test_the_bandwidth_of_a_process_is_that_of_all_its_sessions() -> None:
    clock = Clock()
    rates = {"own": ("own.example", 100), "any": ("", 777)}
    sessions = [Bandwidth((rates.__getitem__,), clock) for _ in range(3)]

    for registry, size in (("own", 100), ("any", 777)):
        for session in sessions:
            session.take(size, {registry})
    assert [round(seconds) for seconds in clock.waited] == [1, 2, 3, 1, 2, 3]


def test_a_copy_is_no_quicker_than_the_bandwidth(tmp_path: Path) -> None:
    content = image(86)
    size = sum(len(blob.data) for blob in content.blobs)
    with StrictRegistry() as server:
        push(server.url, "from/web", content, "1.0")
        words = ("copy", "-i", f"{server.host}/from/web:1.0", "--to-repo")
        started = time.monotonic()
        done = transship(*words, f"oci:{tmp_path}/to", "--registry-bandwidth", str(size))
        assert done.code == ExitCode.DONE, done.err
        assert time.monotonic() - started >= 0.8
        assert transship(*words, f"{server.host}/to/web", "--registry-bandwidth", str(size)).code == ExitCode.DONE
