from __future__ import annotations

import json
import os
import signal
import uuid
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.responses import DeploymentResponse
from prefect.exceptions import ObjectNotFound

from flows.cli.app import run
from flows.deploy.automations import put_trigger
from tasks.blocks import RegistryCredentials
from tests.support.command import Done, transship
from tests.support.flow_runs import with_client
from tests.support.prefect_server import FLEET_POOL, PrefectServer, deploy

DEPLOYMENTS = Path(__file__).parent.parent.parent.parent / "deployments"


class Deployer:
    """Runs `transship mirror deploy` with files of mirrors, in a group and with names that no other test uses. In this
    process, where Prefect is imported already."""

    def __init__(self, server: PrefectServer, folder: Path) -> None:
        self.server = server
        self.group = f"g{uuid.uuid4().hex[:8]}"
        self.file = folder / "mirrors.yaml"

    def name(self, mirror: str) -> str:
        return f"{self.group}-{mirror}"

    def host(self, name: str) -> str:
        return f"{name}.{self.group}.example"

    def mirror(self, name: str, **more: Any) -> dict[str, Any]:
        return {
            "name": self.name(name),
            "source": {"repository": f"{self.host('registry')}/shop/{name}"},
            "destinations": [{"repository": f"{self.host('corp')}/mirror/{name}"}],
            "on_push": True,
        } | more

    def deploy(self, *mirrors: dict[str, Any], registries: dict[str, Any] | None = None, flags: str = "") -> Done:
        document = {"version": 1, "registries": registries or {}, "mirrors": list(mirrors)}
        self.file.write_text(yaml.safe_dump(document))
        out, err = StringIO(), StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            code = run(["mirror", "deploy", "-f", str(self.file), "--group", self.group, *flags.split()])
        return Done(code, out.getvalue(), err.getvalue())

    def outcomes(self, done: Done) -> dict[str, str]:
        """By the kind and the name without the group; work pool and block types are everybody's."""
        assert done.code == 0, done.err
        rows = [line.split("\t") for line in done.out.splitlines()]
        return {
            f"{kind} {name.removeprefix('transship: ').removeprefix(f'{self.group}-')}": outcome
            for outcome, kind, name, *_ in rows
            if self.group in name
        }


@pytest.fixture
def deployer(prefect: PrefectServer, tmp_path: Path) -> Deployer:
    return Deployer(prefect, tmp_path)


def test_each_mirror_gets_what_it_needs_and_the_second_time_nothing_changes(deployer: Deployer) -> None:
    mirrors = [
        deployer.mirror("nightly", schedule={"cron": "0 3 * * *", "timezone": "Europe/Berlin"}),
        deployer.mirror("weekly", schedule={"rrule": "FREQ=WEEKLY;BYDAY=MO,TH;BYHOUR=3", "timezone": "Europe/Berlin"}),
        deployer.mirror("hourly", schedule={"interval": "1h"}, tags=[{"allow": [r"v\d{{1}}"], "minimum_age": "7d"}]),
        deployer.mirror("by-hand", source={"lock": "/etc/images.yml"}),
    ]
    registries = {deployer.host("registry"): {"images_at_a_time": 3}}

    first = deployer.deploy(*mirrors, registries=registries)
    second = deployer.deploy(*mirrors, registries=registries)

    made = deployer.outcomes(first)
    assert made == {
        f"concurrency limit registry:{deployer.host('registry')}": "created",
        "deployment nightly": "created",
        "deployment nightly.on-push": "created",
        "trigger nightly.on-push": "created",
        "deployment weekly": "created",
        "deployment weekly.on-push": "created",
        "trigger weekly.on-push": "created",
        "deployment hourly": "created",
        "deployment hourly.on-push": "created",
        "trigger hourly.on-push": "created",
        "deployment by-hand": "created",
    }
    assert deployer.outcomes(second) == dict.fromkeys(made, "unchanged")
    assert "unchanged\twork pool\ttransship" in second.out
    assert "unchanged\tblock type\tRegistry Credentials" in second.out


def test_a_fleet_is_made_only_where_it_is_asked_for_and_its_pool_is_like_that_of_the_mirrors(
    deployer: Deployer,
) -> None:
    fleet = ("relocate-shard/fleet", "mirror-shard/fleet", "write-archive-parts/fleet")
    jobs, own = f"{deployer.group}-jobs", f"{deployer.group}-fleet"
    template = {"job_configuration": {"image": "registry.example/transship:1"}, "variables": {"type": "object"}}

    async def make_pool(client: PrefectClient) -> None:
        await client.create_work_pool(WorkPoolCreate(name=jobs, type="docker", base_job_template=template))

    async def pools(client: PrefectClient) -> list[tuple[str | None, list[str]]]:
        found = [await client.read_deployment_by_name(name) for name in fleet]
        return [(one.work_pool_name, one.tags) for one in found]

    deploy(deployer.server)
    without = deployer.deploy()
    again = deployer.deploy(flags=f"--fleet-work-pool {FLEET_POOL}")
    with_client(make_pool)
    moved = deployer.deploy(flags=f"--work-pool {jobs} --fleet-work-pool {own}")
    pool = with_client(lambda client: client.read_work_pool(own))
    there = with_client(pools)
    deployer.deploy(flags=f"--fleet-work-pool {FLEET_POOL}")
    back = with_client(pools)

    assert "fleet" not in without.out
    assert f"unchanged\twork pool\t{FLEET_POOL}" in again.out
    for name in fleet:
        assert f"unchanged\tdeployment\t{name}" in again.out
    assert f"created\twork pool\t{own}\tdocker" in moved.out
    assert pool.base_job_template == template
    assert there == [(own, ["transship"])] * 3
    assert back == [(FLEET_POOL, ["transship"])] * 3


def test_a_pool_that_has_to_be_made_gets_the_job_template(deployer: Deployer) -> None:
    template = DEPLOYMENTS / "docker-job-template.json"
    pool = f"{deployer.group}-docker"

    deployer.deploy(flags=f"--work-pool {pool} --work-pool-type docker --job-template {template}")
    made = with_client(lambda client: client.read_work_pool(pool))
    wrong = deployer.deploy(flags=f"--job-template {deployer.file}")

    assert (made.type, made.base_job_template) == ("docker", json.loads(template.read_text()))
    assert wrong.code == 2


def test_what_changed_in_the_file_changes_on_the_server_and_is_named(deployer: Deployer) -> None:
    deployer.deploy(deployer.mirror("web", schedule={"interval": "1h"}), deployer.mirror("other"))

    done = deployer.deploy(deployer.mirror("web", schedule={"cron": "0 3 * * *"}), deployer.mirror("other"))

    outcomes = deployer.outcomes(done)
    assert outcomes["deployment web"] == "updated"
    assert outcomes["deployment other"] == "unchanged"
    assert f"updated\tdeployment\t{deployer.name('web')}\tparameters, schedule" in done.out
    deployment = with_client(lambda client: client.read_deployment_by_name(f"mirror/{deployer.name('web')}"))
    assert [schedule.schedule.model_dump()["cron"] for schedule in deployment.schedules] == ["0 3 * * *"]


def test_a_dry_run_says_what_would_change_and_changes_nothing(deployer: Deployer) -> None:
    done = deployer.deploy(
        deployer.mirror("web"), registries={deployer.host("registry"): {"images_at_a_time": 3}}, flags="--dry-run"
    )

    limit, trigger = f"registry:{deployer.host('registry')}", f"transship: {deployer.name('web')}.on-push"
    assert set(deployer.outcomes(done).values()) == {"created"}
    assert "nothing was changed" in done.err
    with pytest.raises(ObjectNotFound):
        with_client(lambda client: client.read_deployment_by_name(f"mirror/{deployer.name('web')}"))
    with pytest.raises(ObjectNotFound):
        with_client(lambda client: client.read_global_concurrency_limit_by_name(limit))
    assert with_client(lambda client: client.read_automations_by_name(trigger)) == []


def test_mirrors_that_are_gone_stay_until_they_are_pruned(deployer: Deployer) -> None:
    registries = {deployer.host("registry"): {"images_at_a_time": 3}}
    deployer.deploy(deployer.mirror("web"), deployer.mirror("old"), registries=registries)
    without: dict[str, Any] = {deployer.host("registry"): {}}

    kept = deployer.outcomes(deployer.deploy(deployer.mirror("web"), registries=without))
    pruned = deployer.outcomes(deployer.deploy(deployer.mirror("web"), registries=without, flags="--prune"))
    after = deployer.outcomes(deployer.deploy(deployer.mirror("web"), registries=without))

    assert kept["deployment old"] == kept["deployment old.on-push"] == "kept"
    assert kept[f"concurrency limit registry:{deployer.host('registry')}"] == "kept"
    assert pruned["deployment old"] == pruned["deployment old.on-push"] == pruned["trigger old.on-push"] == "removed"
    assert pruned[f"concurrency limit registry:{deployer.host('registry')}"] == "removed"
    assert set(after) == {"deployment web", "deployment web.on-push", "trigger web.on-push"}


def test_another_groups_mirrors_are_neither_pruned_nor_overwritten(deployer: Deployer) -> None:
    deployer.deploy(deployer.mirror("web"))
    theirs, deployer.group = deployer.mirror("web"), f"h{uuid.uuid4().hex[:8]}"

    pruned = deployer.deploy(flags="--prune")
    taken = deployer.deploy(theirs)

    assert "removed" not in pruned.out
    assert taken.code == 2
    assert "it isn't of the group" in taken.err


def test_what_a_person_paused_stays_paused(deployer: Deployer) -> None:
    name, automation = deployer.name("web"), f"transship: {deployer.name('web')}.on-push"
    deployer.deploy(deployer.mirror("web"))

    async def pause(client: PrefectClient) -> None:
        await client.pause_deployment((await client.read_deployment_by_name(f"mirror/{name}")).id)
        await client.pause_automation((await client.read_automations_by_name(automation))[0].id)

    with_client(pause)
    done = deployer.deploy(deployer.mirror("web", tags=[{"latest": 3}]))

    assert deployer.outcomes(done) == {
        "deployment web": "updated",
        "deployment web.on-push": "updated",
        "trigger web.on-push": "updated",
    }
    assert with_client(lambda client: client.read_deployment_by_name(f"mirror/{name}")).paused
    [there] = with_client(lambda client: client.read_automations_by_name(automation))
    assert not there.enabled


def test_a_login_that_is_not_there_yet_is_told(deployer: Deployer) -> None:
    done = deployer.deploy(registries={deployer.host("registry"): {"credentials": f"{deployer.group}-reader"}})

    assert f"missing\tblock\t{deployer.group}-reader\tmake it in the UI" in done.out


def test_without_being_asked_for_there_is_no_deployment_for_pushes(deployer: Deployer) -> None:
    done = deployer.deploy(deployer.mirror("web", on_push=False))

    assert set(deployer.outcomes(done)) == {"deployment web"}


def test_a_mirror_whose_block_is_missing_waits_paused_until_the_block_is_made(deployer: Deployer) -> None:
    block = f"{deployer.group}-writer"
    registries = {deployer.host("corp"): {"credentials": block}}

    def deployment(mirror: str) -> DeploymentResponse:
        return with_client(lambda client: client.read_deployment_by_name(f"mirror/{deployer.name(mirror)}"))

    async def save(client: PrefectClient) -> None:
        await RegistryCredentials(registry=deployer.host("corp"), username="bob").asave(block, client=client)

    other = deployer.mirror("other", destinations=[{"repository": f"{deployer.host('open')}/mirror/other"}])
    deployer.deploy(deployer.mirror("web"), other, registries=registries)
    before, unaffected = deployment("web"), deployment("other")
    with_client(save)
    deployer.deploy(deployer.mirror("web"), other, registries=registries)
    after = deployment("web")

    assert (before.paused, unaffected.paused, after.paused) == (True, False, False)
    assert f"mirror:{deployer.name('web')}" in after.tags


def test_wrong_configuration_changes_nothing(deployer: Deployer) -> None:
    done = deployer.deploy(deployer.mirror("web"), deployer.mirror("bad", schedule={"cron": "0 99 * * *"}))

    assert done.code == 2
    assert "mirrors[1].schedule.cron" in done.err
    with pytest.raises(ObjectNotFound):
        with_client(lambda client: client.read_deployment_by_name(f"mirror/{deployer.name('web')}"))


def test_a_server_that_is_not_there_is_said(tmp_path: Path) -> None:
    file = tmp_path / "mirrors.yaml"
    file.write_text("version: 1\n")

    done = transship("mirror", "deploy", "-f", str(file), environ={"PREFECT_API_URL": "http://127.0.0.1:9/api"})

    assert done.code == 1
    assert "Prefect server http://127.0.0.1:9/api/: deploying: can't be reached" in done.err
    assert "Traceback" not in done.err


def test_an_interrupted_deploy_stops_and_the_next_one_does_the_rest(
    deployer: Deployer, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirrors = [deployer.mirror(f"web-{number}") for number in range(3)]

    async def interrupted(*arguments: Any, **more: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return await put_trigger(*arguments, **more)

    monkeypatch.setattr("flows.deploy.deploy.put_trigger", interrupted)
    first = deployer.deploy(*mirrors)
    monkeypatch.undo()
    second = deployer.outcomes(deployer.deploy(*mirrors))

    assert first.code == 130
    assert "interrupted; run the same again" in first.err
    assert second["deployment web-0"] == "unchanged"
    assert second["deployment web-2"] == "created"
