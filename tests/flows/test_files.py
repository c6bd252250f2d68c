"""`push`, `pull`, `tags` and `describe` as flows: run by programs, seen in the UI."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.client.schemas.objects import FlowRun
from pydantic import SecretStr

from flows import (
    DescribeParameters,
    PullParameters,
    PushParameters,
    TagAction,
    TagsParameters,
    describe_sync,
    pull,
    pull_sync,
    push_sync,
    tags_sync,
)
from oci.errors import InvalidInput, NotFound, StoreError
from tasks.artifacts.report import artifact_key
from tasks.blocks import RegistryCredentials
from tests.servers.docker_registry import DockerRegistry
from tests.servers.skopeo import raw_manifest
from tests.support.content import digest_of
from tests.support.flow_runs import newest_run
from tests.support.imgpkg_vectors import PUSHED
from tests.support.prefect_server import PrefectServer
from tests.support.shop import Shop, push_shop

pytestmark = pytest.mark.usefixtures("prefect")

SECRET = "not-to-be-seen-7f3a91c2"
SECRET_BCRYPT = "$2b$05$abcdefghijklmnopqrstuuCduaD9rSwFzWpjgFRUF.sGWNqNsZ7EW"
LOCK = "apiVersion: imgpkg.carvel.dev/v1alpha1\nkind: ImagesLock\n"


@pytest.fixture(scope="module")
def shop(registry: DockerRegistry) -> Shop:
    return push_shop(registry.url, "flows/files", seed=31)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The files of a bundle, those of the recorded one."""
    lock = tmp_path / "bundle" / ".imgpkg" / "images.yml"
    lock.parent.mkdir(parents=True)
    lock.write_text(LOCK)
    lock.chmod(0o644)
    return tmp_path / "bundle"


def last_run() -> FlowRun:
    async def main() -> FlowRun:
        async with get_client() as client:
            return await newest_run(client)

    return asyncio.run(main())


def artifact(key: str) -> Any:
    async def main() -> Any:
        async with get_client() as client:
            found = await client.read_artifacts(artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=[key])))
            return max(found, key=lambda one: str(one.created)).data if found else None

    return asyncio.run(main())


def test_files_are_pushed_as_the_command_pushes_them(
    registry: DockerRegistry, repository: str, folder: Path, tmp_path: Path
) -> None:
    store, lock = f"{registry.host}/{repository}", tmp_path / "lock.yml"

    report = push_sync(PushParameters(destination=f"{store}:v1", files=(str(folder),), lock_output=str(lock)))

    assert raw_manifest(f"{store}:v1") == PUSHED["V3"].manifest
    assert (report.tag, report.files, report.folders) == ("v1", 1, 2)
    assert report.reference == f"{store}@{digest_of(PUSHED['V3'].manifest)}"
    assert report.reference in lock.read_text()
    assert report.receipt.total_requests > 0
    run = last_run()
    assert run.name == f"push repository v1 -> {store}"
    assert run.state is not None
    assert run.state.is_completed()
    assert "1 in 2 folders" in artifact(artifact_key("push", store))
    assert artifact(artifact_key("progress", f"{store}:v1")) == 100.0


def test_a_bundle_is_pulled_with_its_nested_one(shop: Shop, tmp_path: Path) -> None:
    out = tmp_path / "out"

    report = pull_sync(PullParameters(source=shop.reference, folder=str(out), recursive=True))

    assert report.image.endswith(f"@{shop.bundle.digest}")
    assert (report.lock_updated, report.cacheable) == (False, False)
    assert report.images_lock == str(out / ".imgpkg" / "images.yml")
    (nested,) = report.nested
    assert Path(nested.folder, ".imgpkg", "images.yml").is_file()
    assert (out / "config.yml").read_text() == "kind: Shop\n"
    assert last_run().name.endswith(f" -> {out}")
    page = artifact(artifact_key("pull", report.image.partition("@")[0]))
    assert nested.origin in page
    assert "kept as it is" in page


def test_a_pull_by_digest_of_what_is_all_in_one_place_is_cacheable(
    registry: DockerRegistry, repository: str, folder: Path, tmp_path: Path
) -> None:
    pushed = push_sync(PushParameters(destination=f"{registry.host}/{repository}:v1", files=(str(folder),)))

    async def main() -> bool:
        return (await pull(source=pushed.reference, folder=str(tmp_path / "out"))).cacheable

    assert asyncio.run(main())


def test_a_pull_that_fails_says_one_sentence_and_leaves_the_folder(
    registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    (out / ".imgpkg").mkdir(parents=True)
    parameters = PullParameters(kind="image", source=f"{registry.host}/{repository}:no", folder=str(out))

    with pytest.raises(NotFound) as caught:
        pull_sync(parameters)

    state = last_run().state
    assert state is not None
    assert state.is_failed()
    assert state.message == str(caught.value)
    assert out.is_dir()


def test_files_that_are_no_bundle_are_not_pushed(registry: DockerRegistry, repository: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="not a bundle"):
        push_sync(PushParameters(destination=f"{registry.host}/{repository}:v1", files=(str(tmp_path),)))


def test_tags_are_listed_and_resolved(shop: Shop) -> None:
    store = shop.reference.rpartition(":")[0]

    listed = tags_sync(TagsParameters(image=store, digests=True))
    resolved = tags_sync(TagsParameters(image=shop.reference, action=TagAction.RESOLVE))

    assert [(tag.name, tag.digest) for tag in resolved.tags] == [("1.4.0", shop.bundle.digest)]
    assert resolved.tags[0] in listed.tags
    assert {"Name": "1.4.0", "Digest": shop.bundle.digest} in artifact_rows(store)


def artifact_rows(store: str) -> Any:
    import json

    data = artifact(artifact_key("tags", store))
    return json.loads(data) if isinstance(data, str) else data


def test_a_bundle_is_described(shop: Shop) -> None:
    report = describe_sync(DescribeParameters(bundle=shop.reference))

    kinds = [(one.depth, one.kind) for one in report.contents]
    assert (0, "Bundle") in kinds
    assert (1, "Image") in kinds
    assert report.digest == shop.bundle.digest
    assert report.document.startswith(f"sha: {shop.bundle.digest}\n")
    page = artifact(artifact_key("describe", shop.reference.rpartition(":")[0]))
    assert "| - Image |" in page
    assert last_run().name.startswith("describe ")


def test_logins_come_from_blocks_and_are_nowhere_to_be_seen(
    prefect: PrefectServer, repository: str, folder: Path, tmp_path: Path
) -> None:
    passwords = tmp_path / "htpasswd"
    passwords.write_text(f"bob:{SECRET_BCRYPT}\n")
    with DockerRegistry(tmp_path / "registry", htpasswd=passwords) as registry:
        block = RegistryCredentials(registry=registry.host, username="bob", password=SecretStr(SECRET))
        asyncio.run(block.asave("files-writer", overwrite=True))
        push = PushParameters(destination=f"{registry.host}/{repository}:v1", files=(str(folder),))
        with pytest.raises(StoreError, match="401"):
            push_sync(push)

        report = push_sync(push.with_(credentials=("files-writer",)))

    assert list(report.receipt.identities.values()) == ["user bob (block files-writer)"]
    assert SECRET not in last_run().model_dump_json()
    assert SECRET not in artifact(artifact_key("push", f"{registry.host}/{repository}"))


def test_files_go_into_an_archive_and_come_out_of_it_and_it_is_described(
    registry: DockerRegistry, repository: str, folder: Path, tmp_path: Path
) -> None:
    tar, out, name = tmp_path / "config.tar", tmp_path / "out", f"{registry.host}/{repository}:v1"

    pushed = push_sync(PushParameters(destination=name, files=(str(folder),), to_tar=str(tar)))
    pulled = pull_sync(PullParameters(source=pushed.reference, archive=(str(tar),), folder=str(out)))
    described = describe_sync(DescribeParameters(bundle=pushed.reference, archive=(str(tar),)))

    assert tar.is_file()
    assert (out / ".imgpkg" / "images.yml").is_file()
    assert pulled.image.endswith(digest_of(PUSHED["V3"].manifest))
    assert described.digest == digest_of(PUSHED["V3"].manifest)
    with pytest.raises(AssertionError, match=r"manifest unknown|name unknown"):
        raw_manifest(name)


def test_a_push_gives_as_many_tags_as_it_is_asked_for(registry: DockerRegistry, repository: str, folder: Path) -> None:
    push_sync(
        PushParameters(destination=f"{registry.host}/{repository}:v1", files=(str(folder),), tags=("v1.0", "new"))
    )

    assert {"v1", "v1.0", "new"} <= set(registry.repository_tags(repository))
