from __future__ import annotations

import asyncio
import importlib
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.client.schemas.objects import FlowRun, TaskRun
from prefect.variables import Variable

from flows import (
    Drifted,
    MirrorCheckParameters,
    MirrorIncomplete,
    MirrorParameters,
    MirrorsConfig,
    mirror,
    mirror_check_sync,
    mirror_sync,
)
from oci.errors import InvalidDocument, InvalidInput
from oci.mirror.comparison import WorkItem
from oci.mirror.config import MirrorSource
from oci.mirror.execute import ItemOutcome
from oci.mirror.reader import make_config
from tasks.mirror import MirrorRun
from tasks.run import DRIFT
from tests.faults.proxy import Fault, FaultProxy
from tests.servers.docker_registry import DockerRegistry
from tests.servers.registry_data import blob_file, seed
from tests.support.api_link import ApiLink
from tests.support.content import bundle, digest_of, image, layer, push
from tests.support.flow_runs import newest_run_with_tasks, put_limit
from tests.support.mirroring import many, variant
from tests.support.prefect_server import PrefectServer
from tests.support.slow_link import SlowLink
from tests.support.waiting import eventually, until

pytestmark = pytest.mark.usefixtures("prefect")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def config(
    source: DockerRegistry | FaultProxy, destination: DockerRegistry, repository: str, **more: Any
) -> MirrorsConfig:
    return make_config(
        {
            "mirrors": [
                {
                    "name": "web",
                    "source": {"repository": f"{source.host}/{repository}"},
                    "destinations": [{"repository": f"{destination.host}/{repository}"}],
                    **more,
                }
            ]
        }
    )


def last_run(count: int) -> tuple[FlowRun, list[TaskRun]]:
    """The newest flow run, with its task runs when there are `count` of them."""
    return newest_run_with_tasks(lambda tasks: len(tasks) >= count)


def artifacts(key: str) -> int:
    async def main() -> int:
        async with get_client() as client:
            return len(await client.read_artifacts(artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=[key]))))

    return asyncio.run(main())


def test_each_changed_image_is_a_task_run_and_an_unchanged_mirror_is_two(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str
) -> None:
    seed(registry, repository, many(300))
    seed(other_registry, repository, dict(list(many(300).items())[:297]))
    parameters = MirrorParameters(config=config(registry, other_registry, repository))
    history = artifacts("mirror-web")

    first = mirror_sync(parameters)
    run, tasks = last_run(5)
    again = mirror_sync(parameters)
    _, unchanged = last_run(2)

    assert first.mirrors[0].copied == 3
    assert first.mirrors[0].in_place == 297
    assert sorted(task.name.split()[0] for task in tasks) == ["compare", "mirror", "mirror", "mirror", "report"]
    assert run.name == f"web: 3 changed, 297 unchanged -> {other_registry.host}/{repository}"
    assert again.mirrors[0].in_place == 300
    assert len(unchanged) == 2
    assert artifacts("mirror-web") == history + 2


def test_a_failed_image_is_in_the_report_and_can_be_run_again(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str
) -> None:
    broken = image(4711)
    seed(registry, repository, {"1.0": image(1), "broken": variant(broken, 1)})
    data = blob_file(registry, digest_of(broken.blobs[0].data))
    kept = data.read_bytes()
    data.unlink()
    mirrors = config(registry, other_registry, repository)
    earlier = artifacts("mirror-failed-web")

    with pytest.raises(MirrorIncomplete, match="1 of 1 mirrors aren't complete: web") as caught:
        mirror_sync(MirrorParameters(config=mirrors))
    data.write_bytes(kept)
    again = mirror_sync(MirrorParameters(config=mirrors, only=tuple(caught.value.report.only)))

    report = caught.value.report.mirrors[0]
    assert report.copied == 1
    assert "blob unknown" in report.failed[0].error
    assert "blob unknown" in caught.value.message
    assert caught.value.some_done
    assert artifacts("mirror-failed-web") == earlier + 1
    assert again.mirrors[0].tags == ("broken",)


def test_an_archive_is_one_task_run_and_none_when_nothing_changed(
    registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    seed(registry, repository, many(20))
    archive = {"archive": str(tmp_path / "web.tar")}
    mirrors = config(registry, registry, repository, destinations=[archive])

    first = mirror_sync(MirrorParameters(config=mirrors))
    again = mirror_sync(MirrorParameters(config=mirrors))
    _, unchanged = last_run(2)

    assert (first.mirrors[0].copied, first.mirrors[0].images) == (20, 20)
    assert again.mirrors[0].in_place == 20
    assert len(unchanged) == 2


@pytest.mark.parametrize("kind", ["repository", "bundle", "lock"])
def test_every_destination_of_a_source_is_written_whatever_their_kinds(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str, tmp_path: Path, kind: str
) -> None:
    listed = push(registry.url, f"{repository}-app", image(31))
    push(registry.url, repository, bundle([listed]), "1.0")
    lock = tmp_path / "images.yml"
    lock.write_text(f"apiVersion: imgpkg.carvel.dev/v1alpha1\nkind: ImagesLock\nimages:\n- image: {listed}\n")
    source = {"repository": f"{registry.host}/{repository}", "bundle": f"{registry.host}/{repository}:1.0"}
    archives = [tmp_path / "one.tar", tmp_path / "two.tar"]
    destination = {"repository": f"{other_registry.host}/{repository}"}
    mirror = {
        "name": "web",
        "source": {kind: source.get(kind, str(lock))},
        "destinations": [{"archive": str(archives[0])}, destination, {"archive": str(archives[1])}],
    }
    mirrors = make_config({"mirrors": [mirror]})

    first = mirror_sync(MirrorParameters(config=mirrors))
    again = mirror_sync(MirrorParameters(config=mirrors))

    assert (first.mirrors[0].failed, first.mirrors[0].copied) == ((), 3)
    assert (again.mirrors[0].copied, again.mirrors[0].in_place) == (0, 3)
    assert all(archive.exists() for archive in archives)
    assert other_registry.repository_tags(repository)


@pytest.mark.parametrize("work_is_done", [False, True], ids=["before its work", "after its work"])
def test_a_task_run_that_failed_never_ends_in_a_green_report(
    registry: DockerRegistry,
    other_registry: DockerRegistry,
    repository: str,
    monkeypatch: pytest.MonkeyPatch,
    work_is_done: bool,
) -> None:
    seed(registry, repository, {"1.0": image(1), "1.1": image(2)})
    carried = MirrorRun.carry

    async def failing(run: MirrorRun, item: WorkItem) -> tuple[ItemOutcome, ...]:
        if item.names[0].endswith(":1.0"):
            return await carried(run, item)
        if work_is_done:
            await carried(run, item)
        raise InvalidInput("this task run was lost")

    monkeypatch.setattr(MirrorRun, "carry", failing)

    with pytest.raises(MirrorIncomplete) as caught:
        mirror_sync(MirrorParameters(config=config(registry, other_registry, repository)))

    [report] = caught.value.report.mirrors
    assert [(failed.names, failed.error) for failed in report.failed] == [
        ((f"{registry.host}/{repository}:1.1",), "this task run was lost")
    ]
    assert report.copied == 1


def test_work_that_no_task_run_was_made_for_fails_the_report(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed(registry, repository, {"1.0": image(1), "1.1": image(2)})
    monkeypatch.setattr(importlib.import_module("tasks.run"), "shared_out", lambda work: [[work[0]]])

    with pytest.raises(MirrorIncomplete) as caught:
        mirror_sync(MirrorParameters(config=config(registry, other_registry, repository)))

    [report] = caught.value.report.mirrors
    assert (report.copied, len(report.failed)) == (1, 1)


def test_a_slow_source_holds_up_no_other_mirror_of_the_run(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str
) -> None:
    names = ("slow", "quick", "lost")
    for number, name in enumerate(names[:2]):
        seed(registry, f"{repository}-{name}", {"1.0": image(number)})
    with SlowLink(registry.host, bytes_per_second=20) as link, ThreadPoolExecutor(1) as thread:
        hosts = {"slow": link.address}
        mirrors = [
            {
                "name": name,
                "source": {"repository": f"{hosts.get(name, registry.host)}/{repository}-{name}"},
                "destinations": [{"repository": f"{other_registry.host}/{repository}-{name}"}],
            }
            for name in names
        ]
        parameters = MirrorParameters(config=make_config({"mirrors": mirrors}))
        running = thread.submit(copy_context().run, mirror_sync, parameters)
        until("the quick mirror", lambda: "1.0" in other_registry.repository_tags(f"{repository}-quick"))
        assert not running.done()
        link.bytes_per_second = 0
        error = running.exception()

    assert isinstance(error, MirrorIncomplete)
    assert [(one.mirror, one.copied) for one in error.report.mirrors] == [("slow", 1), ("quick", 1), ("lost", 0)]
    assert [bool(one.failed) for one in error.report.mirrors] == [False, False, True]
    assert all(one.receipt.bytes_written > 0 for one in error.report.mirrors[:2])
    assert {len(one.receipt.requests) for one in error.report.mirrors} == {2, 1}


@pytest.mark.parametrize("side_by_side", [2, 1])
def test_a_cancelled_run_leaves_the_report_of_each_mirror_also_of_one_that_waits_for_its_turn(
    registry: DockerRegistry,
    other_registry: DockerRegistry,
    repository: str,
    monkeypatch: pytest.MonkeyPatch,
    side_by_side: int,
) -> None:
    monkeypatch.setattr("tasks.mirror.SIDE_BY_SIDE", side_by_side)
    names = [f"{repository.replace('/', '-')}-{side_by_side}-{part}" for part in ("first", "second")]
    seed(registry, repository, {"1.0": image(7, layers=[layer(7, 4 << 20)])})
    with SlowLink(registry.host) as link:
        mirrors = [
            {
                "name": name,
                "source": {"repository": f"{link.address}/{repository}"},
                "destinations": [{"repository": f"{other_registry.host}/{name}"}],
            }
            for name in names
        ]
        parameters = MirrorParameters(config=make_config({"mirrors": mirrors}))

        async def main() -> None:
            link.bytes_per_second = 50_000
            running = asyncio.create_task(mirror(**parameters.to_dict()))

            async def copies() -> bool:
                return link.passed > 20_000

            await eventually("both are compared and one copies", copies)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running

        asyncio.run(main())

    assert [artifacts(f"mirror-{name}") for name in names] == [1, 1]
    assert all(other_registry.repository_tags(name) == [] for name in names)


def test_a_namespace_is_a_report_for_each_of_its_repositories(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str
) -> None:
    for number, name in enumerate(("app", "tools/cli")):
        seed(registry, f"{repository}/{name}", {"1.0": image(number)})
    places = {
        "source": {"namespace": f"{registry.host}/{repository}"},
        "destinations": [{"repository": f"{other_registry.host}/all/{{path}}"}],
    }
    mirrors = make_config({"mirrors": [{"name": "web", **places}]})

    copied = mirror_sync(MirrorParameters(config=mirrors))
    checked = mirror_check_sync(MirrorCheckParameters(config=mirrors))

    assert [(one.mirror, one.copied) for one in copied.mirrors] == [("web/app", 1), ("web/tools/cli", 1)]
    assert [(one.mirror, one.in_place) for one in checked.mirrors] == [("web/app", 1), ("web/tools/cli", 1)]
    assert artifacts("mirror-web-tools-cli") == 1
    assert last_run(2)[0].name == f"check web -> {other_registry.host}/all/{{path}}"
    assert other_registry.repository_tags(f"all/{repository}/app") == ["1.0"]


def test_a_check_that_finds_drift_ends_in_a_state_that_shows_it(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    seed(registry, repository, {"1.0": image(1), "1.1": image(2)})
    seed(other_registry, repository, {"1.0": image(1), "old": image(2)})
    path = tmp_path / "mirrors.yaml"
    path.write_text(
        f"version: 1\nmirrors:\n  - name: web\n    source: {{repository: {registry.host}/{repository}}}\n"
        f"    destinations: [{{repository: {other_registry.host}/{repository}}}]\n"
    )

    with pytest.raises(Drifted) as drifted:
        mirror_check_sync(MirrorCheckParameters(path=str(path), names=("web",)))

    found = drifted.value.report.mirrors[0].drift
    assert {(tag.tag, tag.state) for tag in found} == {("1.1", "missing"), ("old", "extra")}
    assert (last_run(1)[0].state_type, last_run(1)[0].state_name) == ("FAILED", DRIFT)


def test_a_file_that_can_not_be_used_fails_the_run_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "mirrors.yaml"
    path.write_text("version: 1\nmirrors:\n  - nam: web\n")

    with pytest.raises(InvalidDocument, match=r"mirrors.yaml:3: mirrors\[0\].nam: unknown key; did you mean name"):
        mirror_sync(MirrorParameters(path=str(path)))


def test_mirrors_that_workers_share_stand_in_a_variable(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str
) -> None:
    seed(registry, repository, {"1.0": image(1)})
    name = f"mirrors_{repository.partition('/')[0]}"
    shared = {"version": 1, **config(registry, other_registry, repository).to_dict()}
    Variable.set(name, shared, overwrite=True)

    report = mirror_sync(MirrorParameters(path=f"variable:{name}"))

    assert [one.copied for one in report.mirrors] == [1]
    with pytest.raises(InvalidInput, match="no variable named 'none'"):
        mirror_sync(MirrorParameters(path="variable:none"))


def test_a_variable_gets_nothing_of_the_workers_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OF_THE_WORKER", "secret.example")
    mirrors = "version: 1\nmirrors: [{name: a, source: {repository: '${OF_THE_WORKER}/x'}}]"
    Variable.set("mirrors_env", mirrors, overwrite=True)

    with pytest.raises(InvalidDocument, match="OF_THE_WORKER"):
        MirrorParameters(path="variable:mirrors_env").chosen()


def test_parameters_name_a_file_or_hold_the_mirrors() -> None:
    with pytest.raises(InvalidInput, match="either the file"):
        MirrorParameters()
    with pytest.raises(InvalidInput, match="there is no mirror named 'x'"):
        MirrorParameters(config=MirrorsConfig(), names=("x",))


def test_a_metrics_file_has_the_numbers_of_all_mirrors_of_a_run(
    registry: DockerRegistry,
    other_registry: DockerRegistry,
    repository: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seed(registry, repository, {"1.0": image(1)})
    web = config(registry, other_registry, repository).mirrors[0]
    lost = web.with_(name="lost", source=MirrorSource(repository=f"{registry.host}/{repository}-lost"))
    monkeypatch.setenv("TRANSSHIP_METRICS_FILE", str(tmp_path / "all.prom"))

    with pytest.raises(MirrorIncomplete, match="1 of 2"):
        mirror_sync(MirrorParameters(config=MirrorsConfig(mirrors=(lost, web))))

    written = (tmp_path / "all.prom").read_text()
    assert 'transship_run_success{mirror="lost"} 0' in written
    assert 'transship_run_success{mirror="web"} 1' in written


_PROGRAM = "import sys; from flows import *; mirror_sync(MirrorParameters(path=sys.argv[1]))"


@pytest.mark.slow
def test_a_limit_costs_few_requests_of_the_server_and_no_warning(
    prefect: PrefectServer, registry: DockerRegistry, other_registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    """In processes of their own, as workers start them, so that all of their requests are counted. Their times are
    printed (pytest -s): no test measures time."""
    seed(registry, repository, {f"v{number}": image(number) for number in range(300)})

    def mirrored(name: str) -> tuple[float, Counter[str], str]:
        place = f"{other_registry.host}/{repository}-{name}"
        file = tmp_path / f"{name}.yaml"
        file.write_text(
            f"version: 1\nmirrors:\n  - name: {name}\n    source: {{repository: {registry.host}/{repository}}}\n"
            f"    destinations: [{{repository: {place}}}]\n"
        )
        with ApiLink(prefect.api) as link:
            began = time.monotonic()
            done = subprocess.run(
                [sys.executable, "-c", _PROGRAM, str(file)],
                env={**prefect.environment, "PREFECT_API_URL": link.api, "XDG_CACHE_HOME": str(tmp_path)},
                capture_output=True,
                text=True,
                check=False,
            )
            seconds = time.monotonic() - began
            assert done.returncode == 0, done.stderr
            assert len(other_registry.repository_tags(f"{repository}-{name}")) == 300
            return seconds, link.requests, done.stdout + done.stderr

    without, plain, _ = mirrored("without")
    put_limit(other_registry.host, 8)
    limited, requests, output = mirrored("limited")
    print(f"{limited:.1f} s and {requests.total()} requests; without {without:.1f} s and {plain.total()}")

    assert requests.total() <= 70, requests.most_common(10)
    assert " WARNING " not in output


@pytest.mark.slow
def test_two_runs_under_one_limit_never_have_more_images_on_their_way(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str
) -> None:
    """Measured at the source: an image is on its way from its first blob to its last."""
    images = [image(number) for number in range(60)]
    owners = {digest_of(blob.data): number for number, content in enumerate(images) for blob in content.blobs}
    for part in range(2):
        seed(registry, f"{repository}-{part}", {f"v{n}": images[n] for n in range(30 * part, 30 * part + 30)})
    with FaultProxy(registry.port, Fault(method="GET", path="/blobs/", delay=0.05)) as source:
        put_limit(source.host, 4)
        with ThreadPoolExecutor(2) as threads:
            runs = [
                threads.submit(
                    copy_context().run,
                    mirror_sync,
                    MirrorParameters(config=config(source, other_registry, f"{repository}-{part}")),
                )
                for part in range(2)
            ]
        assert sum(run.result().mirrors[0].copied for run in runs) == 60
    spans: dict[int, list[float]] = {}
    for span in source.spans:
        if "/blobs/" in span.path:
            spans.setdefault(owners[span.path.rpartition("/")[2]], []).extend((span.began, span.ended))
    at_once = [sum(min(other) <= min(one) < max(other) for other in spans.values()) for one in spans.values()]

    assert len(spans) == 60
    assert 2 <= max(at_once) <= 4
