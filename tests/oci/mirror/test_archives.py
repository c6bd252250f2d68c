"""Archives as destinations of mirrors, on disk and in an object store."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from oci.archive.options import S3Options
from oci.errors import CancelToken
from oci.mirror.compare import compare
from oci.mirror.config import BucketEntry, Mirror, MirrorsConfig
from oci.mirror.execute import execute, plan_mirror
from oci.mirror.reader import make_config
from oci.mirror.results import MirrorReport, made_of
from oci.mirror.run import opened, run_mirror
from oci.mirror.run_state import Breaker, Shared
from oci.reference import ArchiveName, parse_store
from oci.relocation.driver import Relocation
from oci.relocation.request import RelocationRequest
from oci.relocation.session import Access, Session
from tests.servers.docker_registry import DockerRegistry
from tests.servers.registry_data import blob_file, seed
from tests.servers.seaweedfs import ACCESS_KEY, BUCKET, SECRET_KEY, SeaweedFS
from tests.support.content import Content, bundle, digest_of, image, layer, push
from tests.support.mirroring import mirror_of, run, session_of, variant
from tests.support.relocating import anonymous


def versions(*tags: str) -> dict[str, Content]:
    base = image(1)
    return {tag: variant(base, number) for number, tag in enumerate(tags)}


def test_an_archive_holds_all_that_is_selected_and_is_written_again_only_when_that_changes(
    registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    tags = versions("1.0", "1.1") | {"bundle": bundle([push(registry.url, f"{repository}-app", image(25))])}
    for tag, content in tags.items():
        push(registry.url, repository, content, tag)
    push(registry.url, repository, tags["1.1"], "latest")
    path = tmp_path / "web.tar"
    mirror = mirror_of(f"{registry.host}/{repository}", destinations=[{"archive": str(path)}])

    planned = planned_of(mirror)
    first, again = run(mirror), run(mirror)
    kept = path.read_bytes()
    assert planned == [(len(kept), "")]
    push(registry.url, repository, variant(image(1), 70), "1.2")
    grown = run(mirror)

    assert (first.copied, first.failed) == (4, ())
    assert (again.copied, again.in_place) == (0, 4)
    assert grown.copied == 5
    assert path.read_bytes() != kept
    with session_of() as session:
        assert set(session.archive(ArchiveName.of(str(path))).tags()) == {"1.0", "1.1", "1.2", "bundle", "latest"}
    layout = run_import(path, tmp_path / "layout")
    assert layout == {"1.0", "1.1", "1.2", "bundle", "latest"}


def planned_of(mirror: Mirror) -> list[tuple[int, str]]:
    """Bytes to move and the problem of each item that a run would carry."""
    with session_of() as session:
        comparison = compare(session, mirror, Shared())
        return [(item.bytes_to_move, item.error) for item in plan_mirror(session, comparison).items]


def run_import(path: Path, folder: Path) -> set[str]:
    """The tags that a layout folder has when the archive was imported into it."""
    with session_of() as session:
        Relocation(session, RelocationRequest(archive=(str(path),), to=f"oci:{folder}")).run()
        return {tag for tag in session.source(parse_store(f"oci:{folder}")).tags() if not tag.endswith(".imgpkg")}


def test_an_archive_grows_by_a_tag_though_the_others_are_immutable(
    registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    seed(registry, repository, versions("1.0", "1.1"))
    path = tmp_path / "web.tar"
    mirror = mirror_of(f"{registry.host}/{repository}", destinations=[{"archive": str(path)}], immutable=[r"\d+\.\d+"])

    first = run(mirror)
    seed(registry, repository, {"1.2": variant(image(1), 72)})
    grown, again = run(mirror), run(mirror)
    kept = path.read_bytes()
    seed(registry, repository, {"1.0": variant(image(1), 73), "1.3": variant(image(1), 74)})
    moved = run(mirror)

    assert [one.failed for one in (first, grown, again)] == [(), (), ()]
    assert (grown.copied, grown.in_place, again.copied, again.in_place) == (3, 0, 0, 3)
    assert again.receipt.total_requests == 1
    assert moved.mutated == ("1.0",)
    assert [(failed.destination, failed.error) for failed in moved.failed] == [
        (f"archive:{path}", f"archive:{path} isn't written, for it would lack 1.0")
    ]
    assert path.read_bytes() == kept


def test_an_archive_that_waits_for_a_tag_is_named_in_the_report(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    seed(registry, repository, versions("1.0"))
    path = tmp_path / "web.tar"
    mirror = mirror_of(
        f"{registry.host}/{repository}",
        destinations=[{"archive": str(path)}, {"repository": f"{other_registry.host}/{repository}"}],
        tags=[{"allow": ["1.0", "2.0"]}],
    )

    report, again = run(mirror), run(mirror)

    failed = [(one.destination.partition(":")[0], "isn't written" in one.error) for one in report.failed]
    assert sorted(failed) == [("127.0.0.1", False), ("archive", False), ("archive", True)]
    assert (report.copied, again.in_place, path.exists()) == (1, 1, False)
    assert len(again.failed) == 3


def test_an_archive_that_can_not_be_made_whole_leaves_the_old_one(
    registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    seed(registry, repository, versions("1.0"))
    path = tmp_path / "web.tar"
    mirror = mirror_of(f"{registry.host}/{repository}", destinations=[{"archive": str(path)}])
    run(mirror)
    kept = path.read_bytes()
    broken = image(960 + len(repository))
    seed(registry, repository, {"1.1": broken})
    blob_file(registry, digest_of(broken.blobs[0].data)).unlink()

    report = run(mirror)

    assert report.failed_names == (f"{registry.host}/{repository}",)
    assert path.read_bytes() == kept
    assert [one.name for one in tmp_path.iterdir() if one.suffix == ".tar"] == ["web.tar"]


def test_bundles_and_locks_go_into_archives_too(registry: DockerRegistry, repository: str, tmp_path: Path) -> None:
    listed = push(registry.url, f"{repository}-app", image(26))
    push(registry.url, repository, bundle([listed]), "1.0")
    lock = tmp_path / "images.yml"
    lock.write_text(f"apiVersion: imgpkg.carvel.dev/v1alpha1\nkind: ImagesLock\nimages:\n- image: {listed}\n")
    mirrors = [
        mirror_of(f"bundle {registry.host}/{repository}:1.0", destinations=[{"archive": str(tmp_path / "b.tar")}]),
        mirror_of(str(lock), destinations=[{"archive": str(tmp_path / "l.tar")}]),
    ]

    first, again = [run(one) for one in mirrors], [run(one) for one in mirrors]

    assert [(one.copied, one.failed) for one in first] == [(1, ()), (1, ())]
    assert [(one.copied, one.in_place) for one in again] == [(0, 1), (0, 1)]


@pytest.mark.parametrize("kind", ["repository", "bundle", "lock"])
def test_every_destination_of_a_source_is_written_whatever_their_kinds(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str, tmp_path: Path, kind: str
) -> None:
    source, tags = source_of(kind, registry, repository, tmp_path)
    archives = [tmp_path / "one.tar", tmp_path / "two.tar"]
    destination = f"{other_registry.host}/{repository}"
    mirror = mirror_of(
        source, destinations=[{"archive": str(archives[0])}, {"repository": destination}, {"archive": str(archives[1])}]
    )

    planned = planned_of(mirror)
    first, again = run(mirror), run(mirror)

    assert [problem for _, problem in planned] == ["", "", ""]
    assert sorted(size for size, _ in planned)[1:] == [path.stat().st_size for path in archives]
    assert (first.failed, first.copied) == ((), 3)
    assert (again.copied, again.in_place) == (0, 3)
    assert set(other_registry.repository_tags(repository)) >= tags
    for archive in archives:
        assert run_import(archive, tmp_path / f"{archive.stem}-layout") == tags


def source_of(kind: str, registry: DockerRegistry, repository: str, folder: Path) -> tuple[str, set[str]]:
    """A source of a mirror of this kind, and the tags that an archive of it has."""
    listed = push(registry.url, f"{repository}-app", image(27))
    push(registry.url, repository, bundle([listed]), "1.0")
    lock = folder / "images.yml"
    lock.write_text(f"apiVersion: imgpkg.carvel.dev/v1alpha1\nkind: ImagesLock\nimages:\n- image: {listed}\n")
    sources = {
        "repository": f"{registry.host}/{repository}",
        "bundle": f"bundle {registry.host}/{repository}:1.0",
        "lock": str(lock),
    }
    return sources[kind], set() if kind == "lock" else {"1.0"}


def test_a_report_names_each_planned_destination_that_has_no_outcome(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    push(registry.url, repository, bundle([push(registry.url, f"{repository}-app", image(28))]), "1.0")
    mirror = mirror_of(
        f"bundle {registry.host}/{repository}:1.0",
        destinations=[{"archive": str(tmp_path / "a.tar")}, {"repository": f"{other_registry.host}/{repository}"}],
    )
    with session_of() as session:
        comparison = compare(session, mirror, Shared())
        outcomes = execute(session, comparison.work, Breaker())
        receipt = session.meter.receipt()

    whole = made_of(mirror, comparison, outcomes, Breaker(), receipt)
    for lost in outcomes:
        kept = [outcome for outcome in outcomes if outcome is not lost]
        report = made_of(mirror, comparison, kept, Breaker(), receipt)
        assert not report.succeeded
        assert [failed.destination for failed in report.failed] == [str(lost.destination)]
    untagged = made_of(
        mirror, comparison, [msgspec.structs.replace(one, tags=()) for one in outcomes], Breaker(), receipt
    )

    assert whole.succeeded
    assert {failed.destination for failed in untagged.failed} == {str(one.destination) for one in outcomes}
    assert not made_of(mirror, comparison, outcomes, Breaker(), receipt, error="the fleet is gone").succeeded
    stopped = made_of(mirror, comparison, outcomes[:1], Breaker(), receipt, error="the run was cancelled")
    assert [(failed.destination, failed.error) for failed in stopped.failed] == [
        (str(one.destination), "the run was cancelled") for one in outcomes[1:]
    ]


def test_a_bucket_says_what_the_environment_would_and_leaves_the_rest_to_it() -> None:
    known = S3Options(endpoint="http://environment", region="one", secret_key="kept", path_style=True)
    bucket = BucketEntry(endpoint="http://file", verify_tls=False, checksums="when_required", tags={"team": "shop"})

    assert bucket.over(known) == known.with_(
        endpoint="http://file", verify_tls=False, checksums="when_required", tags={"team": "shop"}
    )
    assert BucketEntry().over(known) == known


def run_into(store: SeaweedFS, config: MirrorsConfig) -> MirrorReport:
    """As a driver does that knows the keys and nothing else of the store."""
    keys = S3Options(region="us-east-1", access_key=ACCESS_KEY, secret_key=SECRET_KEY)

    def reach(side: str, concurrency: int) -> Access:
        del side
        return replace(anonymous(concurrency=concurrency), s3=keys)

    [mirror] = config.mirrors
    with opened(config, [mirror], reach, CancelToken()) as session:
        return run_mirror(session, mirror, Shared())


def tags_in(store: SeaweedFS, location: str) -> set[str]:
    access = replace(anonymous(), s3=store.settings)
    with Session(source=access, destination=access) as session:
        return set(session.archive(ArchiveName.of(location)).tags())


def test_an_object_is_written_when_something_changed_with_the_rest_copied_inside_the_store(
    registry: DockerRegistry, repository: str, object_store: SeaweedFS, s3_location: str
) -> None:
    seed(registry, repository, {"1.0": image(70, layers=[layer(70, 12_000_000)])})
    mirror = {
        "name": "web",
        "source": {"repository": f"{registry.host}/{repository}"},
        "destinations": [{"archive": s3_location}],
    }
    bucket = {"endpoint": object_store.endpoint, "path_style": True}
    config = make_config({"buckets": {BUCKET: bucket}, "mirrors": [mirror]})

    first = run_into(object_store, config)
    written = object_store.head(s3_location)
    again = run_into(object_store, config)
    unchanged = object_store.head(s3_location)
    seed(registry, repository, {"1.1": image(71, layers=[layer(71, 100_000)])})
    grown = run_into(object_store, config)

    assert first.failed == again.failed == grown.failed == ()
    assert written is not None
    assert unchanged is not None
    assert (written["ETag"], written["LastModified"]) == (unchanged["ETag"], unchanged["LastModified"])
    assert (again.copied, again.receipt.bytes_written) == (0, 0)
    assert first.receipt.bytes_written > 12_000_000
    assert grown.receipt.bytes_written < 6_000_000
    assert tags_in(object_store, s3_location) == {"1.0", "1.1"}


def test_a_store_that_does_not_know_us_fails_the_archive_and_not_the_repository(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str, object_store: SeaweedFS, s3_location: str
) -> None:
    seed(registry, repository, versions("1.0"))
    mirror = mirror_of(
        f"{registry.host}/{repository}",
        destinations=[{"archive": s3_location}, {"repository": f"{other_registry.host}/{repository}"}],
    )
    access = replace(anonymous(), s3=object_store.settings.with_(secret_key="wrong"))

    report = run(mirror, Session(source=access, destination=access))

    assert report.copied == 1
    assert [one.destination for one in report.failed] == [f"archive:{s3_location}"]
    assert other_registry.repository_tags(repository) == ["1.0"]
