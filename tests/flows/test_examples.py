"""The programs in deployments/examples, run as they stand; and that what they use is typed."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import uuid
from pathlib import Path
from typing import assert_type
from uuid import UUID

import pytest
from prefect.artifacts import Artifact
from prefect.client.orchestration import PrefectClient
from prefect.exceptions import ObjectNotFound

from flows import (
    MirrorParameters,
    MirrorRunReport,
    RelocateParameters,
    RelocationReport,
    mirror,
    mirror_sync,
    relocate,
    relocate_sync,
)
from tasks.artifacts.history import remembered_runs
from tests.flows.cargo import delete_blob
from tests.servers.docker_registry import DockerRegistry
from tests.support.content import digest_of, image, push
from tests.support.flow_runs import is_over, state_of, with_client
from tests.support.prefect_server import ROOT, PrefectServer
from tests.support.shop import push_shop
from tests.support.waiting import until


def example(server: PrefectServer, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "deployments" / "examples" / name), *arguments],
        env={**server.environment, "PREFECT_LOGGING_LEVEL": "ERROR"},
        cwd=server.home,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_a_release_brings_all_it_can_and_says_what_is_missing(
    prefect_server: PrefectServer, registry: DockerRegistry, other_registry: DockerRegistry, repository: str
) -> None:
    good = push_shop(registry.url, "examples/good", seed=41)
    bad = push_shop(registry.url, "examples/bad", seed=42)
    delete_blob(registry, "examples/bad/web", digest_of(bad.web.blobs[0].data))
    gone = f"{registry.host}/examples/gone:1"

    done = example(
        prefect_server, "release.py", f"{other_registry.host}/{repository}", good.reference, bad.reference, gone
    )

    assert done.returncode == 1, done.stderr
    first, second, missing, third = done.stdout.splitlines()
    assert first.startswith(f"{good.reference}: complete: 7 images copied")
    assert second.startswith(f"{bad.reference}: incomplete, 1 failed: ")
    assert missing.startswith(f"  {registry.host}/examples/bad/web@{bad.web.digest}: source {registry.host}")
    assert third.startswith(f"{gone}: source {registry.host}")
    assert "1.4.0" in other_registry.repository_tags(f"{repository}/bundle")


def test_what_failed_of_a_mirror_gets_a_second_chance_and_the_ui_a_history(
    prefect: PrefectServer, registry: DockerRegistry, other_registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    for tag in ("1.0", "1.1"):
        push(registry.url, f"{repository}/web", image(int(tag[-1]) + 80), tag)
    broken = image(89)
    push(registry.url, f"{repository}/web", broken, "2.0")
    delete_blob(registry, f"{repository}/web", digest_of(broken.blobs[0].data))
    name = f"web-{uuid.uuid4().hex[:8]}"
    there = f"{other_registry.host}/{repository}/web"
    one = {"name": name, "source": {"repository": f"{registry.host}/{repository}/web"}}
    mirrors = tmp_path / "mirrors.yaml"
    mirrors.write_text(json.dumps({"version": 1, "mirrors": [{**one, "destinations": [{"repository": there}]}]}))

    done = example(prefect, "mirror_twice.py", str(mirrors))

    assert done.returncode == 1, done.stderr
    first, _, second = done.stdout.splitlines()
    assert first.startswith(f"{name}: 2 copied, 0 in place, 1 failed; ")
    assert second.startswith(f"{name}: 0 copied, 0 in place, 1 failed; ")
    assert {"1.0", "1.1"} <= set(other_registry.repository_tags(f"{repository}/web"))
    history = asyncio.run(Artifact.aget(f"history-{name}"))
    assert history is not None
    past = remembered_runs(str(history.data))
    assert [(run.copied, run.failed, run.succeeded) for run in past] == [(2, 1, False), (0, 1, False)]
    assert past[0].sent > 0


@pytest.mark.slow
def test_a_program_serves_the_flows_without_a_work_pool(
    prefect: PrefectServer, registry: DockerRegistry, other_registry: DockerRegistry, repository: str
) -> None:
    push(registry.url, repository, image(95), "1.0")
    program = str(ROOT / "deployments" / "examples" / "serve.py")
    form = {"source": f"{registry.host}/{repository}:1.0", "kind": "image"}

    async def start(client: PrefectClient) -> UUID | None:
        try:
            served = await client.read_deployment_by_name("relocate/served")
        except ObjectNotFound:
            return None
        parameters = form | {"destination": f"{other_registry.host}/{repository}"}
        return (await client.create_flow_run_from_deployment(served.id, parameters=parameters)).id

    environment = {**prefect.environment, "PREFECT_RUNNER_POLL_FREQUENCY": "1"}
    with subprocess.Popen([sys.executable, program], env=environment, cwd=prefect.home) as serving:
        try:
            run = until("the served deployment", lambda: with_client(start))
            assert run is not None
            until("the end of the run", lambda: is_over(run))
            # Prefect 3.9 cancels what its runner still has as a process, also a run that has completed a moment ago.
            assert state_of(run) == "Completed"
        finally:
            serving.terminate()

    assert "1.0" in other_registry.repository_tags(repository)


def test_a_wrong_call_says_how_to_call_it(prefect_server: PrefectServer) -> None:
    for name in ("release.py", "trigger.py", "mirror_twice.py"):
        assert "usage: " in example(prefect_server, name).stderr


async def typed(parameters: RelocateParameters, mirrors: MirrorParameters) -> None:
    """Never called: mypy, which is strict about ignores that nothing needs, is who reads it."""
    assert_type(await relocate(source="a.example/b:1", destination="c.example/d"), RelocationReport)
    assert_type(relocate_sync(parameters), RelocationReport)
    assert_type(await mirror(path="mirrors.yaml"), MirrorRunReport)
    assert_type(mirror_sync(mirrors), MirrorRunReport)
    RelocateParameters(source="a.example/b:1")  # type: ignore[call-arg]
    RelocateParameters(source="a.example/b:1", destination="c.example/d", concurency=3)  # type: ignore[call-arg]


@pytest.mark.parametrize("name", ["relocate", "relocate_sync", "mirror", "mirror_sync"])
def test_a_flow_says_what_it_is_for(name: str) -> None:
    import flows

    assert getattr(flows, name).__doc__


@pytest.mark.slow
def test_a_demo_whose_server_never_comes_says_so_without_a_traceback(tmp_path: Path) -> None:
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, str(ROOT / "deployments" / "examples" / "demo.py")],
        env={**environment, "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "0"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )

    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS" in done.stderr


def test_the_flows_of_a_program_wait_for_a_slow_server() -> None:
    code = (
        "import flows; flows.relocate_sync; from prefect.settings import get_current_settings as settings; "
        "print(settings().server.ephemeral.startup_timeout_seconds)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert int(done.stdout) >= 120
