"""Archives as flows: a registry, an object store and a Prefect server, all of them real."""

from __future__ import annotations

import asyncio
import hashlib
import tarfile
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey, FlowRunFilter, FlowRunFilterName
from pydantic import SecretStr

from flows import RelocateParameters, RelocationReport, SourceKind, TarballOptions, Verify, relocate_sync
from oci.archive.options import ExportOptions
from oci.errors import InvalidInput, NotFound
from oci.relocation.request import CopyOptions
from tasks.artifacts.pages import NOT_COMPLETE
from tasks.artifacts.report import artifact_key
from tasks.blocks import S3Store
from tests.faults.proxy import Fault, FaultProxy
from tests.servers.docker_registry import DockerRegistry
from tests.servers.seaweedfs import ACCESS_KEY, SECRET_KEY, SeaweedFS
from tests.support import content
from tests.support.prefect_server import FLEET_POOL, PrefectServer, deploy, settings_for
from tests.support.shop import Shop, push_shop
from tests.support.waiting import until

pytestmark = pytest.mark.usefixtures("prefect")

MIB = 1 << 20
STORE = "archives"


@pytest.fixture(scope="module")
def shop(registry: DockerRegistry) -> Shop:
    return push_shop(registry.url, "flowarchive/shop", seed=71)


@pytest.fixture(scope="module")
def big(registry: DockerRegistry) -> str:
    """A bundle of four images of 6 MiB."""
    images = [content.image(seed, layers=[content.noise(seed, 6 * MIB)]) for seed in range(7100, 7104)]
    references = [content.push(registry.url, f"flowarchive/big/app{n}", one) for n, one in enumerate(images)]
    content.push(registry.url, "flowarchive/big/bundle", content.bundle(references), "v1")
    return f"{registry.host}/flowarchive/big/bundle:v1"


def save_store(store: SeaweedFS, name: str = STORE, endpoint: str = "") -> None:
    block = S3Store(
        endpoint=endpoint or store.endpoint,
        region="us-east-1",
        access_key=ACCESS_KEY,
        secret_key=SecretStr(SECRET_KEY),
        path_style=True,
    )
    asyncio.run(block.asave(name, overwrite=True))


@pytest.fixture(scope="module", autouse=True)
def stored(prefect_server: PrefectServer, object_store: SeaweedFS) -> None:
    """Once: to save a block describes each of its fields, which takes a second."""
    with settings_for(prefect_server):
        save_store(object_store)


def export(source: str, archive: str, **tarball: Any) -> RelocationReport:
    """Into an object of the store that every test has, or into a file."""
    return export_through(STORE, source, archive, **tarball)


def export_through(store: str, source: str, archive: str, **tarball: Any) -> RelocationReport:
    options = TarballOptions.read(tarball)
    return relocate_sync(RelocateParameters(source=source, destination=archive, s3_store=store, tarball=options))


def artifacts(key: str) -> list[Any]:
    async def main() -> list[Any]:
        async with get_client() as client:
            found = await client.read_artifacts(artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=[key])))
            return [one.data for one in sorted(found, key=lambda one: str(one.created))]

    return asyncio.run(main())


def task_names(run_name: str) -> list[str]:
    async def main() -> list[str]:
        async with get_client() as client:
            runs = await client.read_task_runs(
                flow_run_filter=FlowRunFilter(name=FlowRunFilterName(any_=[run_name])), limit=200
            )
            return sorted(run.name for run in runs)

    return asyncio.run(main())


def test_a_bundle_becomes_an_object_and_the_run_says_so(
    object_store: SeaweedFS, big: str, s3_location: str, tmp_path: Path
) -> None:
    report = export(big, s3_location, part_size="5MiB", groups=2)

    file = str(tmp_path / "shop.tar")
    export(big, file, sha256sums=True)
    sums = Path(f"{file}.SHA256SUMS").read_text()
    assert sums == f"{hashlib.sha256(Path(file).read_bytes()).hexdigest()}  shop.tar\n"
    written = object_store.get(s3_location)
    assert written == Path(file).read_bytes()
    assert report.succeeded
    assert report.published
    assert (report.archive, report.images_copied, report.bytes.written) == ([s3_location], 5, len(written))
    [link] = artifacts(artifact_key("archive", s3_location))
    assert f"{object_store.endpoint}/{s3_location.removeprefix('s3://')}" in link
    assert artifacts(artifact_key("progress", s3_location)) == [100.0]
    [page] = artifacts(artifact_key("export", s3_location))
    assert "Complete." in page
    assert "5 images, 10 blobs" in page  # a config and a layer of each


def test_all_runs_to_an_archive_have_its_name_however_they_end(
    prefect: PrefectServer, shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "numbers").mkdir()
    monkeypatch.setenv("TRANSSHIP_METRICS_FILE", str(tmp_path / "numbers"))
    archive = str(tmp_path / "folder" / "shop.tar")
    with pytest.raises(InvalidInput, match="no S3 Store block"):  # before there is a plan
        export_through("no-such-store", shop.reference, archive)
    with pytest.raises(NotFound):  # planned, and not begun
        export(shop.reference, archive)
    (tmp_path / "folder").mkdir()
    export(shop.reference, archive, max_size=26_000)

    early, planned, whole = artifacts(artifact_key("export", archive))
    assert f"| Destination | `{archive}` |" in early
    assert "| Images | 0 copied, 0 already there |" in planned, "what isn't in place wasn't copied"
    assert "shop.vol002.tar" in whole
    assert early.count("archive:") == planned.count("archive:") == whole.count("archive:") == 0
    [file] = (tmp_path / "numbers").iterdir()
    assert f'transship_run_success{{destination="{archive}"}} 1.0\n' in file.read_text()
    resource = f"transship.relocation.{archive}"
    until("three events", lambda: len(ended(prefect, resource)) == 3)
    assert sorted(ended(prefect, resource)) == [
        f"transship.relocation.{end}" for end in ("failed", "failed", "finished")
    ]


def ended(prefect: PrefectServer, resource: str) -> list[str]:
    """The events of a resource, by name."""
    found = prefect.request("POST", "/events/filter", {"filter": {"resource": {"id": [resource]}}})
    return [event["event"] for event in found["events"]]


def test_a_relocation_into_an_archive_is_an_export(
    prefect: PrefectServer, object_store: SeaweedFS, big: str, s3_location: str, tmp_path: Path
) -> None:
    report = relocate_sync(
        RelocateParameters(
            source=big,
            destination=s3_location,
            s3_store=STORE,
            verify=Verify.DEEP,
            tarball=TarballOptions(export=ExportOptions(part_size=5 << 20), groups=2),
        )
    )

    file = str(tmp_path / "shop.tar")
    export(big, file)
    written = object_store.get(s3_location)
    assert written == Path(file).read_bytes()
    assert report.succeeded
    assert report.published
    assert (report.archive, report.destination) == ([s3_location], f"archive:{s3_location}")
    assert (report.images_copied, report.images_present, report.bytes.written) == (5, 0, len(written))
    assert report.bytes_hashed > 24 * MIB
    [link] = artifacts(artifact_key("archive", s3_location))
    assert f"{object_store.endpoint}/{s3_location.removeprefix('s3://')}" in link
    assert "Complete." in artifacts(artifact_key("export", s3_location))[-1]
    names = task_names(f"bundle v1 -> {s3_location}")
    assert [name for name in names if name.startswith("write parts")] == [
        f"write parts 1 to 2 → {s3_location}",
        f"write parts 3 to 5 → {s3_location}",
    ]


def test_a_relocation_writes_one_archive_out_of_another(
    object_store: SeaweedFS,
    other_registry: DockerRegistry,
    shop: Shop,
    s3_location: str,
    tmp_path: Path,
    repository: str,
) -> None:
    relocate_sync(RelocateParameters(source=shop.reference, destination=s3_location, s3_store=STORE))
    layout = str(tmp_path / "layout.tar")

    report = relocate_sync(
        RelocateParameters(
            kind=SourceKind.ARCHIVE,
            source=s3_location,
            destination=layout,
            s3_store=STORE,
            tarball=TarballOptions(export=ExportOptions(format="oci-layout")),
        )
    )

    assert (report.what, report.archive) == ("archive", [layout])
    with tarfile.open(layout) as tar:
        assert "oci-layout" in tar.getnames()
    arrived = relocate_sync(
        RelocateParameters(
            kind=SourceKind.ARCHIVE,
            source=layout,
            destination=f"{other_registry.host}/{repository}",
            verify=Verify.DEEP,
        )
    )
    assert arrived.succeeded
    assert arrived.tags == ["1.4.0"]
    assert "1.4.0" in other_registry.repository_tags(repository)


def test_one_image_of_an_archive_makes_an_archive(shop: Shop, tmp_path: Path) -> None:
    whole, one = str(tmp_path / "whole.tar"), str(tmp_path / "one.tar")
    relocate_sync(RelocateParameters(source=shop.reference, destination=whole))

    report = relocate_sync(
        RelocateParameters(
            kind=SourceKind.ARCHIVE,
            source=whole,
            how=CopyOptions(only=(shop.web.digest,)),
            destination=f"archive:{one}",
        )
    )

    assert report.images_copied == 1
    assert Path(one).stat().st_size < Path(whole).stat().st_size


def test_a_relocation_that_cannot_write_its_archive_says_what_the_export_would(big: str, tmp_path: Path) -> None:
    location = "s3://no-such-bucket/a.tar"

    with pytest.raises(NotFound, match="make the bucket first"):
        relocate_sync(RelocateParameters(source=big, destination=location, s3_store=STORE))

    assert NOT_COMPLETE in artifacts(artifact_key("export", location))[-1]


def test_an_archive_that_is_there_is_not_written_again(object_store: SeaweedFS, shop: Shop, s3_location: str) -> None:
    first = export(shop.reference, s3_location)
    before = object_store.head(s3_location)

    report = export(shop.reference, s3_location)

    assert report.succeeded
    assert report.published
    assert (report.images_copied, report.images_present) == (0, first.images_copied)
    assert report.bytes.written == 0
    assert object_store.head(s3_location) is not None
    assert (before or {})["LastModified"] == (object_store.head(s3_location) or {})["LastModified"]
    assert "this very archive was there" in artifacts(artifact_key("export", s3_location))[-1]


def test_the_whole_way_over_an_object_store_is_two_relocations(
    object_store: SeaweedFS, other_registry: DockerRegistry, shop: Shop, s3_location: str, repository: str
) -> None:
    export(shop.reference, s3_location)

    report = relocate_sync(
        RelocateParameters(
            kind=SourceKind.ARCHIVE,
            source=s3_location,
            s3_store=STORE,
            destination=f"{other_registry.host}/{repository}",
            verify=Verify.DEEP,
        )
    )

    assert report.succeeded
    assert report.published
    assert report.tags == ["1.4.0"]
    assert report.verified_blobs
    assert "1.4.0" in other_registry.repository_tags(repository)


def test_an_import_takes_one_image_by_its_digest(
    object_store: SeaweedFS, other_registry: DockerRegistry, shop: Shop, s3_location: str, repository: str
) -> None:
    export(shop.reference, s3_location)

    report = relocate_sync(
        RelocateParameters(
            kind=SourceKind.ARCHIVE,
            source=s3_location,
            how=CopyOptions(only=(shop.web.digest,)),
            destination=f"{other_registry.host}/{repository}",
            s3_store=STORE,
        )
    )

    assert (report.what, report.images_copied) == ("archive", 1)


def test_a_group_that_fails_is_retried_alone_and_a_failed_run_leaves_nothing_to_see(
    object_store: SeaweedFS, big: str, s3_location: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.archive.write_tarball.retry_delay_seconds", [0.0, 0.0])
    with FaultProxy(object_store.port) as proxy:
        save_store(object_store, "flaky", proxy.url)
        proxy.rules.append(Fault(method="PUT", path=r"partNumber=3\b", status=403, body=b""))

        with pytest.raises(Exception, match="storing part 3"):
            export_through("flaky", big, s3_location, part_size="5MiB", groups=4)

        assert object_store.head(s3_location) is None
        assert NOT_COMPLETE in artifacts(artifact_key("export", s3_location))[-1]
        proxy.rules[:] = [Fault(method="PUT", path=r"partNumber=3\b", last=5, status=500, body=b"")]

        report = export_through("flaky", big, s3_location, part_size="5MiB", groups=4)

    assert report.succeeded
    assert report.published
    assert report.bytes.skipped > 0
    assert report.bytes.skipped + report.bytes.written == len(object_store.get(s3_location))
    assert proxy.count("PUT", r"partNumber=1\b") == 1


@pytest.mark.slow
def test_workers_write_one_object_together(
    prefect: PrefectServer, object_store: SeaweedFS, big: str, s3_location: str, tmp_path: Path
) -> None:
    deploy(prefect)
    with prefect.worker(FLEET_POOL):
        report = export(big, s3_location, part_size="5MiB", groups=2, deployment="write-archive-parts/fleet")

    file = str(tmp_path / "shop.tar")
    export(big, file)
    written = object_store.get(s3_location)
    assert written == Path(file).read_bytes()
    assert report.published
    assert report.bytes.written + report.bytes.skipped == len(written)
    assert len(task_names(f"{s3_location}, group 1 of 2")) == 4
    assert artifacts(artifact_key("progress", s3_location)) == [100.0]


def test_no_secret_reaches_the_database(prefect: PrefectServer, big: str, s3_location: str) -> None:
    export(big, s3_location)

    kept = prefect.stored()
    assert s3_location.encode() in kept
    assert SECRET_KEY.encode() not in kept


def test_a_block_that_is_not_there_is_said(big: str, s3_location: str) -> None:
    with pytest.raises(InvalidInput, match="no S3 Store block named 'nobody'"):
        export_through("nobody", big, s3_location)


def test_a_bucket_that_is_not_there_is_said(big: str) -> None:
    with pytest.raises(NotFound, match="make the bucket first"):
        export(big, "s3://no-such-bucket/a.tar")


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"destination": "s3://key:secret@bucket/a.tar"}, "without a login"),
        ({"destination": "archive:s3://key:secret@bucket/a.tar"}, "without a login"),
        ({"destination": "https://bucket.s3.amazonaws.com/a.tar"}, "leave out http"),
        ({"destination": "s3://bucket"}, "names no object"),
        ({"tarball": {"part_size": "4MiB"}}, "part_size: expected a whole number >= 5242880"),
        ({"source": "UPPER/case:1"}, "can only contain"),
        ({"tarball": {"deployment": "a/b"}, "kind": "lock"}, "a file of one machine"),
        ({"destination": "archive:/srv/a.tar|/srv/b.tar"}, "has one name"),
        ({"tarball": {"base": "s3://bucket"}}, "names no object"),
        ({"repair": True}, "leave out repair"),
        ({"fleet": {}}, "tarball.deployment"),
        ({"tarball": {"deployment": "a/b"}, "destination": "/srv/a.tar"}, "not a file"),
        ({"tarball": {"deployment": "a/b"}, "kind": "archive", "source": "/srv/b.tar"}, "file of one machine"),
        ({"kind": "archive", "source": "s3://key:secret@bucket/b.tar"}, "without a login"),
        ({"tarball": {}, "destination": "registry.example/mirror"}, "no archive"),
    ],
)
def test_a_relocation_refuses_what_makes_no_sense_of_an_archive(parameters: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match=said) as caught:
        RelocateParameters.read({"source": "registry.example/shop:1", "destination": "s3://b/a.tar", **parameters})

    assert "secret" not in str(caught.value)
