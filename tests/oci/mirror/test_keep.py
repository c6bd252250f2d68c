"""What mirrors want at a destination, as the policy of a prune."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from oci.errors import Denied, InvalidInput, NotFound, Refused
from oci.mirror.config import Mirror, MirrorsConfig
from oci.mirror.reader import make
from oci.mirror.selection import keep_for
from oci.prune.policy import Keep
from oci.reference import parse_store
from tests.faults.proxy import Fault, FaultProxy
from tests.flows.cargo import write_lock
from tests.servers.docker_registry import DockerRegistry
from tests.support.content import image, push
from tests.support.mirroring import mirror_of, run, session_of, variant
from tests.support.pruning import pruned, tags_of

NOW = datetime(2026, 5, 1, tzinfo=UTC)


def keep_of(destination: str, *mirrors: Mirror, vanished: bool = True) -> Keep:
    config = MirrorsConfig(mirrors=mirrors)
    return keep_for(config, parse_store(destination), lambda _: session_of(), vanished=vanished, now=NOW)


@pytest.fixture
def source(registry: DockerRegistry, repository: str) -> str:
    for number, tag in enumerate(("1.0.0", "1.1.0", "1.2.0", "1.3.0-rc1", "2.0.0", "latest")):
        push(registry.url, repository, image(number), tag)
    return f"{registry.host}/{repository}"


@pytest.fixture
def destination(other_registry: DockerRegistry, repository: str) -> str:
    return f"{other_registry.host}/{repository}"


def rules(*sets: dict[str, Any]) -> dict[str, Any]:
    return {"tags": list(sets)}


def test_the_tags_that_rules_select_at_the_source_are_kept(source: str, destination: str) -> None:
    mirror = mirror_of(source, destination, **rules({"semver": ["^1"], "latest": 2}, {"allow": ["latest"]}))

    taken = ("1.1.0", "1.2.0", "latest")
    assert keep_of(destination, mirror) == Keep(tags=taken, optional=taken)


def test_a_mirrored_repository_is_pruned_to_what_its_mirror_selects(
    source: str, destination: str, registry: DockerRegistry, other_registry: DockerRegistry, repository: str
) -> None:
    mirror = mirror_of(source, destination, **rules({"semver": ["*"], "latest": 2}))
    assert not run(mirror).failed_names
    push(registry.url, repository, image(7), "2.1.0")
    assert not run(mirror).failed_names
    assert {"1.2.0", "2.0.0", "2.1.0"} <= tags_of(other_registry.url, repository)

    keep = keep_of(destination, mirror)
    report = pruned(destination, tags=keep.tags)

    assert [one.tags[0] for one in report.deleted] == ["1.2.0"]
    assert {"2.0.0", "2.1.0"} <= tags_of(other_registry.url, repository)


def test_what_vanished_at_the_source_stays_as_far_as_rules_go_by_names(
    source: str, destination: str, other_registry: DockerRegistry, repository: str
) -> None:
    for tag in ("1.0.0", "1.9.0", "other"):
        push(other_registry.url, repository, image(9), tag)
    mirror = mirror_of(source, destination, **rules({"semver": ["^1"], "latest": 2}))

    assert keep_of(destination, mirror).tags == ("1.1.0", "1.2.0", "1.9.0")
    assert keep_of(destination, mirror, vanished=False).tags == ("1.1.0", "1.2.0")


def test_what_is_too_young_to_be_taken_may_stay_and_what_is_too_old_goes(
    registry: DockerRegistry, repository: str, destination: str
) -> None:
    for number, (tag, days) in enumerate((("1.0.0", 400), ("1.1.0", 100), ("1.2.0", 50), ("1.3.0", 2))):
        created = (NOW - timedelta(days=days)).isoformat()
        content = variant(image(1), number, **{"org.opencontainers.image.created": created})
        push(registry.url, repository, content, tag)
    ages = {"semver": ["*"], "minimum_age": "7d", "maximum_age": "365d"}
    where = f"{registry.host}/{repository}"

    assert keep_of(destination, mirror_of(where, destination, **rules(ages))).tags == ("1.1.0", "1.2.0", "1.3.0")
    latest = mirror_of(where, destination, **rules({**ages, "latest": 1}))
    assert keep_of(destination, latest, vanished=False).tags == ("1.2.0", "1.3.0")


def test_all_mirrors_to_one_place_are_counted_and_no_others(source: str, destination: str, tmp_path: Path) -> None:
    lock = write_lock(tmp_path / "images.yml", [f"{source}@{image(0).digest}"])
    bundle = {
        "name": "shop",
        "source": {"bundle": "far.example/shop:3.0"},
        "destinations": [{"repository": destination}],
    }
    pinned = bundle | {"name": "pinned", "source": {"bundle": f"far.example/shop@{image(5).digest}"}}
    mirrors = [
        mirror_of(source, destination, **rules({"allow": ["latest"]})),
        mirror_of(lock, destination, f"{destination}/more").with_(name="lock"),
        mirror_of(source, f"{destination}/else").with_(name="elsewhere"),
        make(Mirror, bundle),
        make(Mirror, pinned),
    ]

    keep = keep_of(destination, *mirrors)

    named = {"tags": ("latest", "3.0"), "digests": (image(5).digest,)}
    assert keep == Keep(**named, locks=(lock,), optional=("latest", "3.0", image(5).digest))  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="no mirror goes to"):
        keep_of(f"{destination}/nobody", *mirrors)


def test_a_source_that_has_nothing_or_can_not_be_read_is_no_reason_to_delete(
    source: str, destination: str, registry: DockerRegistry, repository: str
) -> None:
    with pytest.raises(Refused, match="take none of the 6 tags"):
        keep_of(destination, mirror_of(source, destination, **rules({"allow": ["v.*"]})))
    with pytest.raises(NotFound):
        keep_of(destination, mirror_of(f"{source}/gone", destination))
    with FaultProxy(registry.port, Fault(path="tags/list", status=403)) as proxy, pytest.raises(Denied):
        keep_of(destination, mirror_of(f"{proxy.host}/{repository}", destination))
