from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from prefect.blocks.webhook import Webhook
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import State, StateType
from prefect.events import Event, Resource
from pydantic import SecretStr

from tests.flows.deploy.test_deploy import Deployer, deployer
from tests.servers.http_server import LoopbackServer, QuietHandler
from tests.support.flow_runs import with_client
from tests.support.prefect_server import PrefectServer
from tests.support.waiting import until

__all__ = ["deployer"]


class _Handler(QuietHandler):
    def do_POST(self) -> None:
        told = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.owner.told.append(json.loads(told))  # type: ignore[attr-defined]
        self.answer(204)


class Alerts(LoopbackServer):
    """Somebody who wants to be told, by a webhook."""

    handler = _Handler

    def __init__(self) -> None:
        super().__init__()
        self.told: list[dict[str, Any]] = []
        self.block = f"alerts-{uuid.uuid4().hex[:8]}"

    def wait(self, which: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        until("an alert", lambda: any(map(which, self.told)))
        return next(filter(which, self.told))


@pytest.fixture
def alerts(prefect: PrefectServer) -> Iterator[Alerts]:
    with Alerts() as alerts:
        with_client(lambda client: _save(Webhook(url=SecretStr(alerts.url)), alerts.block, client))
        yield alerts


async def _save(block: Webhook, name: str, client: PrefectClient) -> None:
    await block.asave(name, client=client)


def test_a_failed_run_is_told_with_its_reason(deployer: Deployer, alerts: Alerts) -> None:
    done = deployer.deploy(deployer.mirror("web"), flags=f"--notify webhook/{alerts.block}")
    assert f"created\tautomation\ttransship: a mirror failed ({deployer.group})" in done.out
    reason = 'registry "corp" said:\nno'

    async def fail(client: PrefectClient) -> None:
        deployment = await client.read_deployment_by_name(f"mirror/{deployer.name('web')}")
        await client.pause_deployment(deployment.id)
        run = await client.create_flow_run_from_deployment(deployment.id)
        state = State(type=StateType.FAILED, message=reason)
        await client.set_flow_run_state(run.id, state, force=True)

    with_client(fail)

    told = alerts.wait(lambda one: one["mirror"] == deployer.name("web"))
    assert told["state"] == "Failed"
    assert told["message"] == reason
    assert told["address"].startswith(f"{deployer.server.ui}/runs/flow-run/")


def test_drift_is_told(deployer: Deployer, alerts: Alerts) -> None:
    deployer.deploy(deployer.mirror("web"), flags=f"--notify webhook/{alerts.block}")
    name = deployer.name("web")

    async def drift(client: PrefectClient) -> None:
        resource = Resource({"prefect.resource.id": f"transship.mirror.{name}", "prefect.resource.name": name})
        told = {"missing": ["1.4.0"]}
        event = Event(event="transship.mirror.drifted", resource=resource, payload=told, id=uuid.uuid4())
        await client.request("POST", "/events", json=[event.model_dump(mode="json")])

    with_client(drift)

    told = alerts.wait(lambda one: one["mirror"] == name)
    assert told["state"] == "drifted"
    assert told["details"] == {"missing": ["1.4.0"]}


def test_alarms_are_there_once(deployer: Deployer, alerts: Alerts) -> None:
    deployer.deploy(flags=f"--notify webhook/{alerts.block}")

    again = deployer.deploy(flags=f"--notify webhook/{alerts.block}")

    assert again.out.count("unchanged\tautomation\ttransship: a mirror") == 2


def test_a_block_that_is_not_there_yet_is_told_and_the_mirrors_are_deployed(deployer: Deployer) -> None:
    done = deployer.deploy(deployer.mirror("web"), flags="--notify slack-webhook/nobody")

    assert "missing\tblock\tslack-webhook/nobody" in done.out
    assert deployer.outcomes(done)["deployment web"] == "created"


@pytest.mark.parametrize("name", ["ops", "slack-webhook/", "/ops", "a/b/c"])
def test_a_name_of_no_block_is_refused(deployer: Deployer, name: str) -> None:
    done = deployer.deploy(flags=f"--notify {name}")

    assert done.code == 2
    assert "write TYPE/NAME" in done.err
