"""Whole archives between a registry and an object store, with the sessions that commands and flows use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from oci.archive.options import ExportOptions
from oci.errors import IntegrityError, Refused
from oci.export.export import ArchiveReport, begin_archive, finish_archive, write_archive, write_parts
from oci.export.planner import plan_archive, plan_resumed
from oci.meter import Meter
from oci.registry.credentials.credential import Credentials
from oci.relocation.driver import Relocation
from oci.relocation.planner import make_plan
from oci.relocation.request import RelocationRequest
from oci.relocation.session import Access, Session
from tests.servers.docker_registry import DockerRegistry
from tests.servers.seaweedfs import BUCKET, SeaweedFS
from tests.support import content
from tests.support.shop import Shop, push_shop

MIB = 1 << 20


@contextmanager
def session(store: SeaweedFS, *, meter: Meter | None = None, concurrency: int = 8) -> Iterator[Session]:
    access = Access(credentials=Credentials([]), s3=store.settings)
    with Session(source=access, destination=access, meter=meter, concurrency=concurrency) as one:
        yield one


@pytest.fixture(scope="module")
def shop(registry: DockerRegistry) -> Shop:
    return push_shop(registry.url, "s3archive/shop", seed=31)


def big_bundle(registry: DockerRegistry, prefix: str, seeds: list[int]) -> str:
    """Images of one layer of 6 MiB each, and a bundle that lists them."""
    images = [content.image(seed, layers=[content.noise(seed, 6 * MIB)]) for seed in seeds]
    references = [
        content.push(registry.url, f"{prefix}/app{seed}", one) for seed, one in zip(seeds, images, strict=True)
    ]
    content.push(registry.url, f"{prefix}/bundle", content.bundle(references), f"v{seeds[-1]}")
    return f"{registry.host}/{prefix}/bundle:v{seeds[-1]}"


def export(
    store: SeaweedFS, bundle: str, to: str, *, base: str = "", meter: Meter | None = None, concurrency: int = 8
) -> ArchiveReport:
    with session(store, meter=meter, concurrency=concurrency) as one:
        request = RelocationRequest(bundle=bundle, to=f"archive:{to}")
        options = ExportOptions(base=base, part_size=5 * MIB)
        return write_archive(one, plan_archive(one, request, make_plan(one, request), options))


@pytest.mark.parametrize("concurrency", [1, 4, 16])
def test_the_object_is_the_file(
    object_store: SeaweedFS, s3_location: str, shop: Shop, tmp_path: Path, concurrency: int
) -> None:
    export(object_store, shop.reference, s3_location, concurrency=concurrency)
    export(object_store, shop.reference, str(tmp_path / "shop.tar"))

    assert object_store.get(s3_location) == (tmp_path / "shop.tar").read_bytes()


def test_what_comes_out_of_the_object_is_what_went_in(
    object_store: SeaweedFS, other_registry: DockerRegistry, s3_location: str, shop: Shop, repository: str
) -> None:
    export(object_store, shop.reference, s3_location)

    with session(object_store) as one:
        result = Relocation(
            one, RelocationRequest(archive=(s3_location,), to=f"{other_registry.host}/{repository}")
        ).run()

    assert {image.digest for image in result.plan.images} >= {one.digest for one in (shop.bundle, *shop.listed)}
    assert "1.4.0" in other_registry.repository_tags(repository)


def test_one_image_is_taken_out_without_reading_the_others(
    object_store: SeaweedFS, registry: DockerRegistry, other_registry: DockerRegistry, s3_location: str, repository: str
) -> None:
    bundle = big_bundle(registry, "s3archive/only", [41, 42, 43, 44])
    export(object_store, bundle, s3_location)
    meter = Meter()
    wanted = content.image(42, layers=[content.noise(42, 6 * MIB)])

    with session(object_store, meter=meter) as one:
        request = RelocationRequest(
            archive=(s3_location,), only=(wanted.digest,), to=f"{other_registry.host}/{repository}"
        )
        Relocation(one, request).run()

    size = (object_store.head(s3_location) or {})["ContentLength"]
    assert size > 24 * MIB
    assert meter.receipt().bytes_read < 7 * MIB
    host = object_store.endpoint.removeprefix("http://")
    assert meter.receipt().requests[host]["GET object"] <= 4


def test_an_import_never_asks_where_the_content_came_from(
    object_store: SeaweedFS, registry: DockerRegistry, other_registry: DockerRegistry, s3_location: str, repository: str
) -> None:
    bundle = big_bundle(registry, "s3archive/dark", [45])
    export(object_store, bundle, s3_location)
    asked = len(registry.requests())

    with session(object_store) as one:
        Relocation(one, RelocationRequest(archive=(s3_location,), to=f"{other_registry.host}/{repository}")).run()

    assert len(registry.requests()) == asked


def test_two_workers_write_one_object_each_by_its_own_plan(
    object_store: SeaweedFS, registry: DockerRegistry, s3_location: str, tmp_path: Path
) -> None:
    bundle = big_bundle(registry, "s3archive/workers", [51, 52, 53, 54])
    request = RelocationRequest(bundle=bundle, to=f"archive:{s3_location}")
    with session(object_store) as one:
        plan = plan_archive(one, request, make_plan(one, request), ExportOptions(part_size=5 * MIB))
        tickets = begin_archive(one, plan)
    groups = plan.groups(2)
    assert len(groups) == 2
    written = []
    for group in reversed(groups):
        with session(object_store) as worker:
            anew = plan_archive(worker, request, make_plan(worker, request), ExportOptions(part_size=5 * MIB))
            assert anew.fingerprint == plan.fingerprint
            written.append(write_parts(worker, anew, group, tickets[group.volume]))
            written.append(write_parts(worker, anew, group, tickets[group.volume]))

    with session(object_store) as one:
        report = finish_archive(one, plan, tickets, written)

    export(object_store, bundle, str(tmp_path / "one.tar"))
    assert object_store.get(s3_location) == (tmp_path / "one.tar").read_bytes()
    assert (report.sent, report.kept) == (plan.size, plan.size)


def test_what_a_worker_did_not_write_keeps_the_object_from_being_completed(
    object_store: SeaweedFS, registry: DockerRegistry, s3_location: str
) -> None:
    bundle = big_bundle(registry, "s3archive/lost", [55, 56, 57])
    request = RelocationRequest(bundle=bundle, to=f"archive:{s3_location}")
    with session(object_store) as one:
        plan = plan_archive(one, request, make_plan(one, request), ExportOptions(part_size=5 * MIB))
        tickets = begin_archive(one, plan)
        written = write_parts(one, plan, plan.groups(2)[0], tickets[0])

        with pytest.raises(IntegrityError, match="isn't in the upload"):
            finish_archive(one, plan, tickets, [written])

    assert object_store.head(s3_location) is None


def test_a_newer_archive_reads_what_is_new_and_copies_the_rest_in_the_store(
    object_store: SeaweedFS, registry: DockerRegistry, s3_location: str, tmp_path: Path
) -> None:
    seeds = list(range(60, 66))
    older = big_bundle(registry, "s3archive/base", seeds)
    newer = big_bundle(registry, "s3archive/base", [*seeds[1:], 99])
    export(object_store, older, f"{s3_location}.monday")
    meter = Meter()

    report = export(object_store, newer, s3_location, base=f"{s3_location}.monday", meter=meter)

    changed = 6 * MIB
    receipt = meter.receipt()
    assert report.sent <= changed + 16 * MIB
    assert receipt.bytes_read <= changed + 16 * MIB
    assert report.copied + report.sent == report.size
    export(object_store, newer, str(tmp_path / "whole.tar"))
    assert object_store.get(s3_location) == (tmp_path / "whole.tar").read_bytes()


def resumed(store: SeaweedFS, bundle: str, to: str, *, meter: Meter | None = None) -> ArchiveReport:
    with session(store, meter=meter) as one:
        request = RelocationRequest(bundle=bundle, to=f"archive:{to}")
        planned = plan_resumed(one, request, make_plan(one, request), ExportOptions(part_size=5 * MIB))
        return write_archive(one, planned, resume=True)


def test_a_run_that_resumes_takes_what_it_can_from_the_object_that_is_there(
    object_store: SeaweedFS, registry: DockerRegistry, s3_location: str, tmp_path: Path
) -> None:
    seeds = [70, 71, 72, 73]
    export(object_store, big_bundle(registry, "s3archive/reuse", seeds), s3_location)
    newer = big_bundle(registry, "s3archive/reuse", [*seeds, 79])
    meter = Meter()

    report = resumed(object_store, newer, s3_location, meter=meter)

    assert report.copied >= 12 * MIB
    assert meter.receipt().bytes_read <= report.size - report.copied
    export(object_store, newer, str(tmp_path / "whole.tar"))
    assert object_store.get(s3_location) == (tmp_path / "whole.tar").read_bytes()
    again = resumed(object_store, newer, s3_location)
    assert (again.sent, again.copied, again.kept) == (0, 0, report.size)


def test_an_upload_that_was_begun_counts_more_than_the_object_that_is_there(
    object_store: SeaweedFS, registry: DockerRegistry, s3_location: str
) -> None:
    seeds = [74, 75, 76]
    export(object_store, big_bundle(registry, "s3archive/begun", seeds), s3_location)
    newer = big_bundle(registry, "s3archive/begun", [*seeds, 78])
    request = RelocationRequest(bundle=newer, to=f"archive:{s3_location}")
    with session(object_store) as one:
        plan = plan_archive(one, request, make_plan(one, request), ExportOptions(part_size=5 * MIB))
        ticket = begin_archive(one, plan)[0]
        written = write_parts(one, plan, plan.groups(2)[0], ticket)

    report = resumed(object_store, newer, s3_location)

    assert (report.kept, report.copied) == (written.sent, 0)
    assert object_store.uploads(s3_location) == []


def test_what_is_no_archive_is_not_replaced_by_a_run_that_resumes(
    object_store: SeaweedFS, shop: Shop, s3_location: str
) -> None:
    object_store.put(s3_location, b"somebody's notes" * 100)

    with pytest.raises(Refused, match="Reading previously created tar"):
        resumed(object_store, shop.reference, s3_location)

    assert object_store.get(s3_location) == b"somebody's notes" * 100


def test_nothing_is_staged_on_disk(
    object_store: SeaweedFS, shop: Shop, s3_location: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)

    export(object_store, shop.reference, s3_location)

    assert os.listdir(tmp_path) == []
    assert object_store.keys(s3_location) == [s3_location.removeprefix(f"s3://{BUCKET}/")]


def test_an_archive_is_replaced_by_a_newer_one_made_out_of_it(
    object_store: SeaweedFS, registry: DockerRegistry, s3_location: str, tmp_path: Path
) -> None:
    """What a nightly run does: always the same object."""
    seeds = [80, 81, 82, 83]
    export(object_store, big_bundle(registry, "s3archive/same", seeds), s3_location)
    newer = big_bundle(registry, "s3archive/same", [*seeds[1:], 89])

    report = export(object_store, newer, s3_location, base=s3_location)

    assert report.copied > 0
    export(object_store, newer, str(tmp_path / "whole.tar"))
    assert object_store.get(s3_location) == (tmp_path / "whole.tar").read_bytes()
