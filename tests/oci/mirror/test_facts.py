"""The file of what is true of digests: kept by runs side by side, bounded, and said to be lacking where it counts."""

from __future__ import annotations

import json
import os
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from oci.digest import Digest, digest_of
from oci.mirror import run_state
from oci.mirror.run_state import DigestCache

NOON = datetime(2026, 11, 29, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def digest(number: int) -> Digest:
    return digest_of(str(number).encode())


def test_runs_side_by_side_lose_nothing_of_each_other(tmp_path: Path) -> None:
    path = str(tmp_path / "facts.json")
    runs = [DigestCache(path) for _ in range(8)]
    begin = threading.Barrier(len(runs))

    def save(number: int, cache: DigestCache) -> None:
        for count in range(200):
            cache.looked(f"registry.example/{number}/{count}", NOON)
        begin.wait()
        cache.save()

    threads = [threading.Thread(target=save, args=job) for job in enumerate(runs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    facts = json.loads(Path(path).read_text())["facts"]
    assert len([key for key in facts if key.startswith("looked ")]) == 8 * 200


def test_what_is_new_stays_new_though_the_file_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first look at a repository is the oldest fact: without it, whatever is there would be as old as it says."""
    monkeypatch.setattr(run_state, "ENTRY_LIMIT", 50)
    path = str(tmp_path / "facts.json")
    first = DigestCache(path)
    first.looked("registry.example/web", NOON)
    for number in range(100):
        first.stray("registry.example/web", f"tag{number}")
    first.save()

    later = DigestCache(path)
    assert later.first_seen("registry.example/web", digest(1), NOON + DAY) == NOON + DAY
    later.save()
    assert len(json.loads(Path(path).read_text())["facts"]) <= 50


@pytest.mark.parametrize("kind", ["folder", "file for the folder", "nothing"])
def test_a_file_that_can_not_be_kept_says_so(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "cache" / "facts.json"
    if kind == "folder":
        (path / "inside").mkdir(parents=True)
    elif kind == "file for the folder":
        path.parent.write_text("")
    cache = DigestCache(str(path))
    cache.looked("registry.example/web", NOON)
    cache.save()

    assert bool(cache.unkept) is (kind != "nothing")
    assert DigestCache().unkept
    assert kind != "nothing" or os.stat(path).st_mode & 0o777 == 0o600
