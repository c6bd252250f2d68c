from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.proxy import Fault, FaultProxy
from tests.servers.docker_registry import DockerRegistry
from tests.servers.registry_data import blob_file, seed
from tests.support.content import digest_of, image
from tests.support.mirroring import many, mirror_of, run, variant

pytestmark = pytest.mark.slow

TAGS = many(1000)


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    """A thousand tags in `shop/web`."""
    with DockerRegistry(tmp_path_factory.mktemp("origin")) as server:
        seed(server, "shop/web", TAGS)
        yield server


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    """The same thousand in `mirror/web`."""
    with DockerRegistry(tmp_path_factory.mktemp("twin")) as server:
        seed(server, "mirror/web", TAGS)
        yield server


def test_a_thousand_unchanged_tags_cost_two_requests_each_and_two_lists(
    origin: DockerRegistry, twin: DockerRegistry
) -> None:
    report = run(mirror_of(f"{origin.host}/shop/web", f"{twin.host}/mirror/web"))

    assert report.succeeded
    assert (report.in_place, report.copied) == (1000, 0)
    assert report.receipt.total_requests <= 2002


def test_a_thousand_immutable_tags_cost_two_lists(origin: DockerRegistry, twin: DockerRegistry) -> None:
    report = run(mirror_of(f"{origin.host}/shop/web", f"{twin.host}/mirror/web", immutable=[r"v\d+"]))

    assert report.in_place == 1000
    assert report.receipt.total_requests == 2


def test_a_thousand_tags_arrive_through_a_flaky_registry_but_for_the_broken_ones(
    origin: DockerRegistry, other_registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    broken = image(77)
    rotten = image(78)
    tags = {
        **dict(list(TAGS.items())[:997]),
        "no-layer": variant(broken, 1),
        "rotten": variant(rotten, 1),
        "refused": variant(image(1), 2000),
    }
    with DockerRegistry(tmp_path / "broken") as server:
        seed(server, "shop/web", tags)
        blob_file(server, digest_of(broken.blobs[0].data)).unlink()
        blob_file(server, digest_of(rotten.blobs[0].data)).write_bytes(b"x" * len(rotten.blobs[0].data))
        faults = (
            Fault(path=f"manifests/{tags['refused'].digest}", status=403, body=b'{"errors":[{"code":"DENIED"}]}'),
            Fault(status=429, headers={"Retry-After": "1"}, first=400, last=1600, every=400),
            Fault(reset_after=0, every=100),
            Fault(status=503, every=20),
        )
        with FaultProxy(server.port, *faults) as proxy:
            report = run(mirror_of(f"{proxy.host}/shop/web", f"{other_registry.host}/{repository}"))

    assert report.copied == 997
    assert not report.nothing_done
    causes = {name.rpartition(":")[2]: failed.error for failed in report.failed for name in failed.names}
    assert causes.keys() == {"no-layer", "rotten", "refused"}
    assert "blob unknown" in causes["no-layer"]
    assert "but the bytes have sha256:" in causes["rotten"]
    assert "DENIED" in causes["refused"]
    assert report.receipt.retries > 50
    assert [tag for tag in other_registry.repository_tags(repository) if not tag.startswith("sha256-")] == sorted(TAGS)[
        :997
    ]
