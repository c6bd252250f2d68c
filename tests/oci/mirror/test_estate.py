"""Many mirrors in one run: what they share, what each is said to have cost, and that none holds up the others."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from oci.digest import Digest
from oci.errors import Cancelled, CancelToken
from oci.meter import Receipt
from oci.mirror.config import MirrorsConfig
from oci.mirror.reader import make_config
from oci.mirror.results import INTERRUPTED, MirrorReport
from oci.mirror.run import opened, run_mirrors
from oci.mirror.run_state import DigestCache, Shared
from oci.reference import Repository
from oci.registry.credentials.credential import Credential, Credentials, Fixed
from oci.relocation.session import Access
from tests.faults.proxy import Fault, FaultProxy
from tests.servers.docker_registry import DockerRegistry
from tests.servers.registry_data import blob_file, seed
from tests.servers.token_service import TokenService
from tests.support.content import digest_of, image, layer
from tests.support.mirroring import variant
from tests.support.relocating import anonymous


def estate(source: str, destination: str, count: int, *tags: str, **more: Any) -> MirrorsConfig:
    """`count` mirrors of repositories `app-0`, `app-1`...; with `tags` these and no others."""
    rules = {"tags": [{"allow": list(tags)}]} if tags else {}
    return make_config(
        {
            "mirrors": [
                {
                    "name": f"m{number}",
                    "source": {"repository": f"{source}/app-{number}"},
                    "destinations": [{"repository": f"{destination}/app-{number}"}],
                    **rules,
                    **more,
                }
                for number in range(count)
            ]
        }
    )


def run_all(
    config: MirrorsConfig,
    access: Access | None = None,
    cancel: CancelToken | None = None,
    facts: DigestCache | None = None,
) -> Any:
    """The reports, and what the session has spent in all."""
    reached = access or anonymous()
    with opened(config, config.mirrors, lambda _side, _threads: reached, cancel or CancelToken()) as session:
        reports = run_mirrors(session, config.mirrors, Shared(facts=facts or DigestCache()))
        return reports, session.meter.receipt()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TokenService]:
    with TokenService(tmp_path_factory.mktemp("tokens")) as one:
        yield one


@pytest.fixture(scope="module")
def guarded(
    service: TokenService, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[DockerRegistry, DockerRegistry]]:
    """Two registries with token logins that have the same 39 repositories, with 51 tags."""
    folders = [tmp_path_factory.mktemp(name) for name in ("origin", "twin")]
    for folder in folders:
        with DockerRegistry(folder) as open_registry:
            for number in range(39):
                tags = ("1.0", "1.1") if number < 12 else ("1.0",)
                seed(open_registry, f"app-{number}", {tag: variant(image(1), number) for tag in tags})
    with (
        DockerRegistry(folders[0], token=service.auth) as origin,
        DockerRegistry(folders[1], token=service.auth) as twin,
    ):
        yield origin, twin


def test_39_repositories_with_51_unchanged_tags_cost_108_requests_with_logins(
    guarded: tuple[DockerRegistry, DockerRegistry], service: TokenService
) -> None:
    origin, twin = guarded
    two = estate(origin.host, twin.host, 12, "1.0", "1.1").mirrors
    one = estate(origin.host, twin.host, 39, "1.0").mirrors[12:]
    config = MirrorsConfig(mirrors=(*two, *one))
    login = Access(credentials=Credentials([Fixed(Credential("writer", "secret"))]))

    reports, receipt = run_all(config, login)

    assert [report.failed for report in reports] == [()] * 39
    assert sum(report.in_place for report in reports) == 51
    # By side: a HEAD for each tag, the one that is answered by the challenge, a token for 25 repositories and the rest.
    assert receipt.total_requests == 2 * (51 + 1 + 2), receipt.requests
    assert sum(report.receipt.total_requests for report in reports) == receipt.total_requests


def test_what_one_mirror_spends_is_not_said_of_another(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str
) -> None:
    for number, size in enumerate((10_000, 500_000)):
        seed(registry, f"{repository}/app-{number}", {"1.0": image(80 + number, layers=[layer(80 + number, size)])})

    reports, receipt = run_all(estate(f"{registry.host}/{repository}", f"{other_registry.host}/{repository}", 2))

    sent = [report.receipt.bytes_written for report in reports]
    assert 10_000 < sent[0] < 20_000
    assert 500_000 < sent[1] < 510_000
    assert sum(sent) == receipt.bytes_written


def test_a_slow_source_and_a_broken_one_hold_up_themselves_alone(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str
) -> None:
    for number in range(4):
        seed(registry, f"{repository}/app-{number}", {"1.0": variant(image(1), number)})
    broken = image(90)
    seed(registry, f"{repository}/app-1", {"1.1": broken})
    blob_file(registry, digest_of(broken.blobs[0].data)).unlink()
    slow = Fault(path="app-0/tags/list", delay=6.0)
    done: list[str] = []

    with FaultProxy(registry.port, slow) as proxy:
        destination = f"{other_registry.host}/{repository}"
        slow_one = estate(f"{proxy.host}/{repository}", destination, 1).mirrors
        others = estate(f"{registry.host}/{repository}", destination, 4).mirrors[1:]
        config = MirrorsConfig(mirrors=(*slow_one, *others))
        with opened(config, config.mirrors, lambda _side, _threads: anonymous(), CancelToken()) as session:
            shared = Shared()
            reports = run_mirrors(session, config.mirrors, shared, on_report=lambda report: done.append(report.mirror))

    assert {"m2", "m3"} <= set(done[: done.index("m0")])
    assert [report.mirror for report in reports] == ["m0", "m1", "m2", "m3"]
    assert [len(report.failed) for report in reports] == [0, 1, 0, 0]
    assert [report.copied for report in reports] == [1, 1, 1, 1]


def test_a_run_that_is_stopped_says_what_became_of_every_mirror(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str
) -> None:
    for number in range(30):
        seed(registry, f"{repository}/app-{number}", {"1.0": variant(image(1), number)})
    cancel = CancelToken()
    reports: list[MirrorReport] = []

    def stop_after_a_success(report: MirrorReport) -> None:
        reports.append(report)
        if report.succeeded:
            cancel.cancel()

    with FaultProxy(registry.port, Fault(path="tags/list", delay=30.0, first=4)) as proxy:
        config = estate(f"{proxy.host}/{repository}", f"{other_registry.host}/{repository}", 30)
        started = time.monotonic()
        with (
            pytest.raises(Cancelled),
            opened(config, config.mirrors, lambda _side, _threads: anonymous(), cancel) as session,
        ):
            run_mirrors(session, config.mirrors, Shared(), on_report=stop_after_a_success)

    assert sorted(report.mirror for report in reports) == sorted(mirror.name for mirror in config.mirrors)
    assert any(report.succeeded for report in reports)
    assert any(INTERRUPTED in failed.error for report in reports for failed in report.failed)
    assert time.monotonic() - started < 60


def test_a_layer_that_mirrors_share_is_sent_once_to_a_registry(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str
) -> None:
    shared = layer(95, 8 << 20)
    for number in range(5):
        seed(registry, f"{repository}/app-{number}", {"1.0": image(100 + number, layers=[shared])})

    reports, receipt = run_all(
        estate(f"{registry.host}/{repository}", f"{other_registry.host}/{repository}", 5),
    )

    assert [report.failed for report in reports] == [()] * 5
    assert receipt.bytes_written <= 9_200_000


def test_what_an_earlier_run_sent_is_mounted_by_a_later_one_and_a_stale_place_heals(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    base = layer(70, 400_000)
    for number in range(4):
        seed(registry, f"{repository}/app-{number}", {"1.0": image(70 + number, layers=[base])})
    mirrors = estate(f"{registry.host}/{repository}", f"{other_registry.host}/{repository}", 4).mirrors
    path = str(tmp_path / "facts.json")

    def spent(number: int, facts: DigestCache) -> Receipt:
        receipt: Receipt
        [report], receipt = run_all(MirrorsConfig(mirrors=(mirrors[number],)), facts=facts)
        assert (report.copied, report.failed) == (1, ())
        facts.save()
        return receipt

    stale = DigestCache()
    digest = Digest(digest_of(base.data))
    stale.locate({(other_registry.host, digest): Repository(other_registry.host, f"{repository}/gone")})

    assert spent(0, DigestCache(path)).bytes_written > len(base.data)
    assert spent(1, DigestCache(path)).bytes_mounted >= len(base.data)
    assert spent(2, DigestCache()).bytes_written > len(base.data)
    assert spent(3, stale).bytes_written > len(base.data)
    assert stale.blob_locations() == {
        (other_registry.host, digest): Repository(other_registry.host, f"{repository}/app-3")
    }


def test_runs_at_the_same_time_keep_what_each_of_them_learned(tmp_path: Path) -> None:
    path = str(tmp_path / "facts.json")
    both = [DigestCache(path), DigestCache(path)]
    places = [
        {("corp.example", Digest(digest_of(name))): Repository("corp.example", name.decode())}
        for name in (b"aa", b"bb")
    ]
    for facts, place in zip(both, places, strict=True):
        facts.locate(place)
        facts.save()

    assert DigestCache(path).blob_locations() == places[0] | places[1]


def test_a_file_of_facts_names_no_repository_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "facts.json"
    digest = digest_of(b"x")
    facts = {f"blob corp.example {digest}": "../admin", f"blob corp.example/x {digest}": "a b", "blob x": "aa"}
    path.write_text(json.dumps({"version": 1, "facts": facts}))

    assert DigestCache(str(path)).blob_locations() == {}
