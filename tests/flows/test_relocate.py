from __future__ import annotations

import asyncio
import json
import threading
import time
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.client.schemas.objects import FlowRun, TaskRun
from pydantic import SecretStr

from flows import RelocateParameters, RelocationIncomplete, RelocationReport, relocate, relocate_sync
from flows.parameters.relocate import SourceKind
from oci.errors import InvalidInput, NotFound, NotTrusted, StoreError
from oci.registry.options import RegistryOptions
from oci.relocation.driver import Verify
from oci.relocation.request import CopyOptions
from tasks.artifacts.report import REFUSED, artifact_key
from tasks.blocks import RegistryCredentials
from tests.flows.cargo import Image, delete_blob, push_image, write_lock
from tests.servers.docker_registry import DockerRegistry
from tests.support.content import digest_of, image, push
from tests.support.flow_runs import newest_run_with_tasks
from tests.support.prefect_server import PrefectServer
from tests.support.shop import push_shop
from tests.support.signing import Signer, cosign_sign
from tests.support.slow_link import SlowLink
from tests.support.waiting import eventually

pytestmark = pytest.mark.usefixtures("prefect")

SECRET = "not-to-be-seen-7f3a91c2"
SECRET_BCRYPT = "$2b$05$abcdefghijklmnopqrstuuCduaD9rSwFzWpjgFRUF.sGWNqNsZ7EW"


@pytest.fixture(scope="module")
def source(registry: DockerRegistry) -> DockerRegistry:
    return registry


@pytest.fixture(scope="module")
def destination(other_registry: DockerRegistry) -> DockerRegistry:
    return other_registry


@pytest.fixture(scope="module")
def images(source: DockerRegistry) -> list[Image]:
    return [push_image(source, f"relocate/shop/web-{n}", size=20_000 + n, seed=n, tag="1.4.0") for n in range(4)]


def of_image(
    source: DockerRegistry, image: Image, destination: DockerRegistry, to: str, **more: Any
) -> RelocateParameters:
    return RelocateParameters(
        kind=SourceKind.IMAGE,
        source=f"{source.host}/{image.repository}:1.4.0",
        destination=f"{destination.host}/{to}",
        **more,
    )


def last_run() -> tuple[FlowRun, list[TaskRun]]:
    """The newest flow run, with its task runs when the last of them has ended."""
    return newest_run_with_tasks(
        lambda tasks: (
            all(task.state and task.state.is_final() for task in tasks)
            and "report" in {task.name.split()[0] for task in tasks}
        )
    )


def artifact(key: str) -> Any:
    async def main() -> Any:
        async with get_client() as client:
            found = await client.read_artifacts(artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=[key])))
            return max(found, key=lambda one: str(one.created)).data if found else None

    return asyncio.run(main())


def test_a_program_gets_a_typed_report_and_the_ui_a_readable_run(
    source: DockerRegistry, destination: DockerRegistry, images: list[Image], repository: str
) -> None:
    parameters = of_image(source, images[0], destination, repository)

    report: RelocationReport = relocate_sync(parameters)

    assert report.succeeded
    assert report.published
    assert (report.what, report.digest, report.tags) == ("image", images[0].digest, ["1.4.0"])
    assert report.images_copied == 1
    assert report.bytes.written > 20_000
    assert report.identities == {f"source {source.host}": "anonymous", f"destination {destination.host}": "anonymous"}
    assert "1.4.0" in destination.repository_tags(repository)
    run, known = last_run()
    assert run.name == f"web-0 1.4.0 -> {destination.host}/{repository}"
    assert run.state is not None
    assert run.state.is_completed()
    assert sorted(task.name.split()[0] for task in known) == ["copy", "plan", "publish", "report", "resolve"]
    assert artifact(artifact_key("progress", parameters.destination)) == 100.0
    assert "1 copied, 0 already there" in artifact(artifact_key("relocation", parameters.destination))


def test_a_run_leaves_its_numbers_where_the_environment_of_the_worker_says(
    source: DockerRegistry,
    destination: DockerRegistry,
    images: list[Image],
    repository: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TRANSSHIP_METRICS_FILE", str(tmp_path))

    relocate_sync(of_image(source, images[0], destination, repository))

    [file] = tmp_path.iterdir()
    assert f'transship_run_success{{destination="{destination.host}/{repository}"}} 1.0\n' in file.read_text()


def test_unchanged_images_are_no_task_runs_and_send_nothing(
    source: DockerRegistry, destination: DockerRegistry, images: list[Image], repository: str
) -> None:
    parameters = of_image(source, images[0], destination, repository)
    relocate_sync(parameters)

    report = relocate_sync(parameters)

    assert (report.images_copied, report.images_present, report.bytes.written, report.tags) == (0, 1, 0, [])
    _, known = last_run()
    assert not [task.name for task in known if task.name.startswith("copy")]
    assert "Nothing to do" in artifact(artifact_key("relocation", parameters.destination))


def test_one_failing_image_does_not_stop_the_others_and_is_listed(
    source: DockerRegistry, destination: DockerRegistry, images: list[Image], repository: str, tmp_path: Path
) -> None:
    broken = push_image(source, "relocate/shop/broken", size=5000, seed=99)
    delete_blob(source, broken.repository, broken.layer)
    lock = write_lock(tmp_path / "images.lock.yml", [image.at(source.host) for image in (*images, broken)])
    to = f"{destination.host}/{repository}"

    with pytest.raises(RelocationIncomplete) as caught:
        relocate_sync(RelocateParameters(kind=SourceKind.LOCK, source=lock, destination=to))

    report = caught.value.report
    assert not report.published
    assert report.images_copied == len(images)
    assert [failure.image for failure in report.failures] == [broken.at(source.host)]
    assert not report.failures[0].retryable
    assert artifact(artifact_key("failures", to)) is not None
    run, known = last_run()
    assert run.state is not None
    assert run.state.is_failed()
    assert not [task.name for task in known if task.name.startswith("publish")]
    assert sum(task.name.startswith("copy") and bool(task.state and task.state.is_completed()) for task in known) == 4


def test_the_list_of_failures_can_be_run_again_alone_and_the_rest_is_not_sent_twice(
    source: DockerRegistry, destination: DockerRegistry, images: list[Image], repository: str, tmp_path: Path
) -> None:
    first = write_lock(tmp_path / "first.yml", [image.at(source.host) for image in images[:3]])
    both = write_lock(tmp_path / "both.yml", [image.at(source.host) for image in images])
    to = f"{destination.host}/{repository}"
    relocate_sync(RelocateParameters(kind=SourceKind.LOCK, source=first, destination=to))

    report = relocate_sync(RelocateParameters(kind=SourceKind.LOCK, source=both, destination=to))

    assert (report.images_copied, report.images_present) == (1, 3)


def test_verifying_finds_what_the_destination_has_lost(
    source: DockerRegistry, destination: DockerRegistry, images: list[Image], repository: str
) -> None:
    parameters = of_image(source, images[1], destination, repository, verify=Verify.DEEP)
    report = relocate_sync(parameters)
    assert (report.verified_manifests, report.verified_blobs) == (1, 2)
    delete_blob(destination, repository, images[1].layer)

    with pytest.raises(RelocationIncomplete, match="1 problem "):
        relocate_sync(parameters.with_(verify=Verify.HEAD))

    assert images[1].layer in artifact(artifact_key("failures", parameters.destination))
    assert "Verifying found 1 problem; no name was moved." in artifact(
        artifact_key("relocation", parameters.destination)
    )


def test_a_source_that_is_not_there_ends_the_run_and_still_makes_a_report(
    source: DockerRegistry, destination: DockerRegistry, repository: str
) -> None:
    to = f"{destination.host}/{repository}"

    with pytest.raises(NotFound):
        relocate_sync(RelocateParameters(source=f"{source.host}/relocate/shop/no-such-bundle:1", destination=to))

    page = " ".join(artifact(artifact_key("relocation", to)).split())
    assert "MANIFEST_UNKNOWN: manifest unknown" in page, "the details, which are folded, have the registry's words"


def test_the_end_of_a_run_is_an_event_that_automations_can_act_on(
    prefect: PrefectServer, source: DockerRegistry, destination: DockerRegistry, images: list[Image], repository: str
) -> None:
    to = f"{destination.host}/{repository}"
    relocate_sync(of_image(source, images[2], destination, repository))
    with pytest.raises(NotFound):
        relocate_sync(RelocateParameters(source=f"{source.host}/relocate/shop/no-such-bundle:1", destination=to))

    found = {event["event"]: event for event in events_of(f"transship.relocation.{to}", expected=2)}

    assert found.keys() == {"transship.relocation.finished", "transship.relocation.failed"}
    assert found["transship.relocation.finished"]["payload"]["images_copied"] == 1
    assert found["transship.relocation.failed"]["payload"]["failures"][0]["error"]
    assert any(
        related["prefect.resource.role"] == "flow-run" for related in found["transship.relocation.finished"]["related"]
    )


def test_an_image_that_the_policy_refuses_is_an_event(
    prefect: PrefectServer, source: DockerRegistry, destination: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    """By the name that it was asked for, though the run has pinned it to its digest."""
    del prefect
    signer, content = Signer.make(), image(9001)
    signer.write(tmp_path / "release.pub")
    asked = {
        "type": "sigstoreSigned",
        "keyPath": str(tmp_path / "release.pub"),
        "signedIdentity": {"type": "matchExact"},
    }
    (tmp_path / "policy.json").write_text(json.dumps({"default": [asked]}))
    where = f"{source.host}/relocate/signed"
    push(source.url, "relocate/signed", content, "1.0")
    cosign_sign(source.url, "relocate/signed", content, signer, reference=f"{where}:0.9")
    parameters = RelocateParameters(
        source=f"{where}:1.0",
        kind=SourceKind.IMAGE,
        destination=f"{destination.host}/{repository}",
        how=CopyOptions(policy=str(tmp_path / "policy.json")),
    )
    with pytest.raises(NotTrusted):
        relocate_sync(parameters)
    [event] = events_of(f"transship.signature.{where}@{content.digest}", expected=1)
    cosign_sign(source.url, "relocate/signed", content, signer, reference=f"{where}:1.0")
    copied = relocate_sync(parameters)

    assert event["event"] == REFUSED
    assert event["payload"]["reason"]
    assert copied.tags == ["1.0"]


def events_of(resource: str, *, expected: int) -> list[dict[str, Any]]:
    async def main() -> list[dict[str, Any]]:
        now = datetime.now(UTC)
        wanted = {
            "filter": {
                "occurred": {
                    "since": (now - timedelta(hours=1)).isoformat(),
                    "until": (now + timedelta(hours=1)).isoformat(),
                },
                "resource": {"id": [resource]},
            }
        }
        async with get_client() as client:

            async def enough() -> list[dict[str, Any]]:
                answer = await client._client.post("/events/filter", json=wanted)
                events: list[dict[str, Any]] = answer.json()["events"]
                return events if len(events) >= expected else []

            return await eventually(f"{expected} events of {resource}", enough)

    return asyncio.run(main())


def test_a_cancelled_run_stops_within_seconds_and_leaves_no_thread(
    source: DockerRegistry, destination: DockerRegistry, repository: str
) -> None:
    image = push_image(source, "relocate/shop/big", size=5 << 20, seed=7, tag="1.4.0")

    with SlowLink(source.host) as link:
        parameters = RelocateParameters(
            kind=SourceKind.IMAGE,
            source=f"{link.address}/{image.repository}:1.4.0",
            destination=f"{destination.host}/{repository}",
        )

        async def has_begun() -> bool:
            return link.passed >= 20_000

        async def main() -> float:
            running = asyncio.create_task(relocate(**parameters.to_dict()))
            link.bytes_per_second = 50_000
            await eventually("the copy is on its way", has_begun, every=0.01)
            running.cancel()
            cancelled = time.monotonic()
            with pytest.raises(asyncio.CancelledError):
                await running
            return time.monotonic() - cancelled

        seconds = asyncio.run(main())

    assert seconds < 60  # the image would take a minute and a half
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith(("task_", "blob-", "image"))]
    assert destination.repository_tags(repository) == []


def test_a_running_event_loop_is_told_to_await_the_flow() -> None:
    async def main() -> None:
        relocate_sync(RelocateParameters(source="a.example/image:1", destination="c.example/mirror"))

    with pytest.raises(InvalidInput, match="await relocate"):
        asyncio.run(main())


def test_a_secret_in_a_block_opens_the_registry_and_shows_nowhere(
    prefect_server: PrefectServer,
    source: DockerRegistry,
    images: list[Image],
    repository: str,
    tmp_path: Path,
) -> None:
    login = tmp_path / "htpasswd"
    login.write_text(f"bob:{SECRET_BCRYPT}\n")
    name = f"writer-{uuid.uuid4().hex[:8]}"
    with DockerRegistry(tmp_path / "locked", htpasswd=login) as locked:
        asyncio.run(save_block(name, locked.host))
        parameters = of_image(
            source, images[3], locked, repository, destination_registry=RegistryOptions(anonymous=True)
        )
        with pytest.raises(RelocationIncomplete) as refused:
            relocate_sync(parameters)  # what denies a read may have nothing: the write decides

        report = relocate_sync(parameters.with_(destination_credentials=(name,)))

    [failure] = refused.value.report.failures
    assert "starting the upload" in failure.error
    assert "401" in failure.error

    assert report.identities[f"destination {locked.host}"] == f"user bob (block {name})"
    last_run()
    traces = prefect_server.traces()
    assert name.encode() in traces["database"]
    assert not [where for where, data in traces.items() if SECRET.encode() in data]


async def save_block(name: str, host: str) -> None:
    await RegistryCredentials(registry=host, username="bob", password=SecretStr(SECRET)).asave(name)


def test_a_bundle_travels_with_all_it_lists_and_is_verified(
    source: DockerRegistry, destination: DockerRegistry, repository: str
) -> None:
    shop = push_shop(source.url, "relocate/whole", seed=31)

    report = relocate_sync(
        RelocateParameters(
            source=shop.reference,
            destination=f"{destination.host}/{repository}",
            how=CopyOptions(artifacts=("all",)),
            verify=Verify.DEEP,
        )
    )

    assert (report.what, report.digest, report.tags[-1]) == ("bundle", shop.bundle.digest, "1.4.0")
    assert len(report.locations) == 2
    assert report.bytes_hashed > 10_000
    run, _ = last_run()
    assert run.name == f"bundle 1.4.0 -> {destination.host}/{repository}"


def test_the_tag_of_a_bundle_stays_where_it_was_while_an_image_is_missing(
    source: DockerRegistry, destination: DockerRegistry, repository: str
) -> None:
    to = f"{destination.host}/{repository}"
    old = push_shop(source.url, "relocate/first", seed=32)
    relocate_sync(RelocateParameters(source=old.reference, destination=to))
    new = push_shop(source.url, "relocate/second", seed=33)
    delete_blob(source, "relocate/second/web", digest_of(new.web.blobs[0].data))

    with pytest.raises(RelocationIncomplete) as caught:
        relocate_sync(RelocateParameters(source=new.reference, destination=to))

    assert len(caught.value.report.failures) == 1
    there = httpx.head(f"{destination.url}/v2/{repository}/manifests/1.4.0", headers={"accept": old.bundle.media_type})
    assert there.headers["docker-content-digest"] == old.bundle.digest


def test_a_report_and_a_lock_are_written_where_they_were_asked_for(
    source: DockerRegistry, destination: DockerRegistry, images: list[Image], repository: str, tmp_path: Path
) -> None:
    report, lock = tmp_path / "report.json", tmp_path / "images.lock.yml"

    relocate_sync(of_image(source, images[0], destination, repository, report=str(report), lock_output=str(lock)))

    assert json.loads(report.read_text())["images_copied"] == 1
    assert f"{destination.host}/{repository}@{images[0].digest}" in lock.read_text()


@pytest.mark.parametrize("name", ["whole", "lost"])
def test_the_file_of_a_report_says_what_its_event_and_the_value_say(
    source: DockerRegistry, destination: DockerRegistry, repository: str, tmp_path: Path, name: str
) -> None:
    image = push_image(source, f"relocate/report/{name}", size=500, seed=41, tag="1.4.0")
    if name == "lost":
        delete_blob(source, image.repository, image.layer)
    file = tmp_path / "report.json"
    parameters = of_image(source, image, destination, repository, report=str(file))

    try:
        report = relocate_sync(parameters)
    except RelocationIncomplete as error:
        report = error.report

    [event] = events_of(f"transship.relocation.{parameters.destination}", expected=1)
    assert json.loads(file.read_text()) == event["payload"] == report.to_dict()
    assert event["payload"]["succeeded"] is (name == "whole")


def test_a_report_that_can_not_be_written_is_refused_before_anything_is_copied(
    source: DockerRegistry, destination: DockerRegistry, images: list[Image], repository: str, tmp_path: Path
) -> None:
    with pytest.raises(StoreError, match="checking that it can be written"):
        relocate_sync(of_image(source, images[0], destination, repository, report=str(tmp_path / "no" / "r.json")))

    assert f"{repository}" not in httpx.get(f"{destination.url}/v2/_catalog?n=1000").json()["repositories"]
