"""The deployment of deployments/prefect.yaml, run by a worker: finished, cancelled, killed, retried."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, ArtifactFilterType
from prefect.client.schemas.objects import TaskRun
from prefect.exceptions import PrefectHTTPStatusError
from prefect.states import Cancelling, Scheduled

from tasks.run import cancelled
from tests.flows.cargo import Image, push_image, write_lock
from tests.servers.docker_registry import DockerRegistry
from tests.support.flow_runs import is_let_go, is_over, read_run, start_run, state_of, task_runs, with_client
from tests.support.prefect_server import ROOT, PrefectServer, deploy, settings_for
from tests.support.shop import push_shop
from tests.support.slow_link import SlowLink
from tests.support.waiting import until

LAYER = 2_000_000
SLOW = 20_000
"""Bytes a second: the layer takes longer than any test waits."""


@pytest.fixture(scope="module")
def deployed(prefect_server: PrefectServer) -> Iterator[PrefectServer]:
    """The deployment made as deployments/prefect.yaml says, and a worker on its pool."""
    deploy(prefect_server)
    with prefect_server.worker("transship"), settings_for(prefect_server):
        yield prefect_server


@pytest.fixture(scope="module")
def source(registry: DockerRegistry) -> DockerRegistry:
    return registry


@pytest.fixture(scope="module")
def destination(other_registry: DockerRegistry) -> DockerRegistry:
    return other_registry


@pytest.fixture(scope="module")
def images(source: DockerRegistry) -> list[Image]:
    """Six small ones and one that is slow to come over a slow link."""
    small = [push_image(source, f"deployment/shop/web-{n}", size=500, seed=n) for n in range(6)]
    return [*small, push_image(source, "deployment/shop/data", size=LAYER, seed=100)]


@pytest.fixture
def link(source: DockerRegistry) -> Iterator[SlowLink]:
    with SlowLink(source.host) as link:
        yield link


@pytest.fixture
def parameters(link: SlowLink, images: list[Image], destination: DockerRegistry, tmp_path: Path) -> dict[str, Any]:
    """As the form sends them; nothing but what must be given."""
    lock = write_lock(tmp_path / "images.lock.yml", [image.at(link.address) for image in images])
    return {
        "kind": "lock",
        "source": lock,
        "destination": f"{destination.host}/mirror/{uuid.uuid4().hex[:8]}",
    }


def pushed(destination: DockerRegistry, parameters: dict[str, Any]) -> int:
    """Images at the destination, by the keep-alive tag that each gets with its manifest."""
    repository = parameters["destination"].partition("/")[2]
    return len([tag for tag in destination.repository_tags(repository) if tag.endswith(".imgpkg")])


def in_the_middle(run: UUID, destination: DockerRegistry, parameters: dict[str, Any]) -> None:
    """Waits until the small images have arrived, with the last one on its way."""
    until("six images at the destination", lambda: pushed(destination, parameters) == 6)
    assert not is_over(run)


def test_a_run_from_the_form_copies_everything_and_ends_completed(
    deployed: PrefectServer, destination: DockerRegistry, parameters: dict[str, Any]
) -> None:
    run = start_run("relocate", parameters)

    until("the end of the run", lambda: is_over(run))

    assert state_of(run) == "Completed"
    assert pushed(destination, parameters) == 7
    assert read_run(run).name == f"images.lock.yml -> {parameters['destination']}"


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "mirror": ({}, "give either the file of mirrors or the mirrors themselves"),
    "relocate": (
        {"source": "registry.example/shop:1", "destination": "corp.example/shop", "attach_receipt": True},
        'only a signed receipt can be attached (hint: name the key: the field "Sign with")',
    ),
    "push": ({"destination": "corp.example/UPPER:1", "files": ["/srv/shop"]}, "UPPER"),
    "verify": ({}, "name a reference, a repository or a lock"),
    "prune": ({"destination": "corp.example/shop"}, "say what to keep, or that it is nothing"),
}


@pytest.mark.slow
def test_a_form_whose_fields_do_not_go_together_fails_and_says_why(deployed: PrefectServer) -> None:
    """A crash would say nothing, and be started again by an automation."""
    runs = {flow: start_run(flow, parameters) for flow, (parameters, _) in MISTAKES.items()}
    for run in runs.values():
        until("the end of the run", lambda run=run: is_over(run))  # type: ignore[misc]

    ends = {flow: read_run(run) for flow, run in runs.items()}
    assert {end.state_name for end in ends.values()} == {"Failed"}
    for flow, (_, message) in MISTAKES.items():
        state = ends[flow].state
        assert state is not None
        assert message in str(state.message)


@pytest.mark.slow
def test_what_was_pushed_from_the_form_is_pulled_and_listed_from_it(
    deployed: PrefectServer, destination: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    store = f"{destination.host}/{repository}"
    (tmp_path / "hello.txt").write_text("hello\n")
    forms: dict[str, dict[str, Any]] = {
        "push": {"destination": f"{store}:v1", "files": [str(tmp_path / "hello.txt")], "bundle": False},
        "pull": {"kind": "image", "source": f"{store}:v1", "folder": str(tmp_path / "out")},
        "tags": {"image": store, "digests": True},
    }

    for flow, parameters in forms.items():
        run = start_run(flow, parameters)
        until(f"the end of the {flow}", lambda run=run: is_over(run))  # type: ignore[misc]
        assert state_of(run) == "Completed"

    assert (tmp_path / "out" / "hello.txt").read_text() == "hello\n"


def test_a_program_has_a_worker_do_it_and_waits_for_the_end(
    deployed: PrefectServer, source: DockerRegistry, destination: DockerRegistry, repository: str
) -> None:
    shop = push_shop(source.url, "deployment/program", seed=51)

    done = subprocess.run(
        [
            sys.executable,
            str(ROOT / "deployments/examples/trigger.py"),
            shop.reference,
            f"{destination.host}/{repository}",
        ],
        env={**deployed.environment, "PREFECT_LOGGING_LEVEL": "ERROR"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )

    assert (done.returncode, done.stdout) == (0, f"bundle 1.4.0 -> {destination.host}/{repository}: done\n"), (
        done.stderr
    )
    assert "1.4.0" in destination.repository_tags(repository)


@pytest.mark.parametrize(
    "change",
    [{"concurrency": 65}, {"kind": "teleport"}, {"source": ""}, {"source_registry": {"proxy": "http://a:b@c"}}],
)
def test_the_server_refuses_what_the_form_does_not_allow(
    deployed: PrefectServer, parameters: dict[str, Any], change: dict[str, Any]
) -> None:
    with pytest.raises(PrefectHTTPStatusError) as caught:
        start_run("relocate", parameters | change)

    assert caught.value.response.status_code in (409, 422)


def pages(run: UUID, kind: str = "markdown") -> list[str]:
    """The report artifacts of a run."""
    mine = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run]), type=ArtifactFilterType(any_=[kind]))
    return [str(one.data) for one in with_client(lambda client: client.read_artifacts(artifact_filter=mine))]


@pytest.mark.slow
def test_a_run_cancelled_in_the_ui_stops_within_seconds_and_cleans_up(
    deployed: PrefectServer, destination: DockerRegistry, link: SlowLink, parameters: dict[str, Any]
) -> None:
    link.bytes_per_second = SLOW
    run = start_run("relocate", parameters)
    in_the_middle(run, destination, parameters)
    link.holds_after = 1  # what doesn't break off the layer waits for ever

    with_client(lambda client: client.set_flow_run_state(run, Cancelling()))
    until("the state Cancelled", lambda: state_of(run) == "Cancelled")

    # A worker kills a run that hasn't ended after 30 seconds: it has no report then, and its tasks stay Running.
    assert pushed(destination, parameters) == 6
    # A task run has this state when its coroutine came to an end; that of a process that was killed stays Running.
    copies = until("the task run that was cancelled", lambda: [task for task in task_runs(run) if is_crashed(task)])
    assert [task.name.partition("@")[0] for task in copies] == ["copy data"]
    until("the report", lambda: any(cancelled().message in page for page in pages(run)))
    [failures] = until("the table of what failed", lambda: pages(run, "table"))
    assert [(row["cause"], row["next step"], row["trying again"]) for row in json.loads(failures)] == [
        (cancelled().message, cancelled().hint, "may help")
    ]


def copies(tasks: list[TaskRun]) -> int:
    return sum(task.name.startswith("copy") and task.state is not None and task.state.is_completed() for task in tasks)


def is_crashed(task: TaskRun) -> bool:
    return bool(task.state and task.state.is_crashed())


@pytest.mark.slow
def test_a_killed_run_is_crashed_and_retrying_it_copies_only_what_is_missing(
    deployed: PrefectServer, destination: DockerRegistry, link: SlowLink, parameters: dict[str, Any]
) -> None:
    link.bytes_per_second = SLOW
    run = start_run("relocate", parameters)
    in_the_middle(run, destination, parameters)
    # A task run's record is sent a moment after its end, and by nobody when its process is killed before.
    before = until("the records of the six", lambda: known if copies(known := task_runs(run)) >= 6 else [])
    process = int(str(read_run(run).infrastructure_pid).rpartition(":")[2])

    os.kill(process, signal.SIGKILL)
    until("the state Crashed", lambda: state_of(run) == "Crashed")
    until("the last word of the worker", lambda: is_let_go(run))
    link.bytes_per_second = 0
    with_client(lambda client: client.set_flow_run_state(run, Scheduled(name="AwaitingRetry"), force=True))
    until("the end of the second attempt", lambda: state_of(run) == "Completed")

    assert pushed(destination, parameters) == 7
    again = until(
        "the task runs of the second attempt",
        lambda: [
            task.name
            for task in task_runs(run)
            if task.id not in {one.id for one in before} and task.name.startswith("copy")
        ],
    )
    assert [name.partition("@")[0] for name in again] == ["copy data"]
