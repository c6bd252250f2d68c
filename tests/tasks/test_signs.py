"""What a run sends to the Prefect server while it works: heartbeats, and how far it is."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any, Self
from uuid import UUID

import pytest
from prefect import flow
from prefect.client.schemas.actions import ArtifactUpdate
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.runtime import flow_run
from prefect.settings import PREFECT_API_URL, temporary_settings

from oci.relocation.request import RelocationRequest
from tasks.artifacts import report
from tasks.artifacts.report import Heartbeat, heartbeats, percent_shown, read_heartbeats
from tasks.relocate import RelocationRun
from tasks.run import running
from tests.support.api_link import ApiLink
from tests.support.flow_runs import with_client
from tests.support.prefect_server import PrefectServer
from tests.support.waiting import eventually

REQUEST = RelocationRequest(bundle="registry.example/shop/bundle:1.4.0", to="corp.example/shop")


def updates(link: ApiLink) -> int:
    return sum(count for name, count in link.requests.items() if name.startswith("PATCH /api/artifacts/"))


def test_a_run_with_heartbeats_of_its_own_kind_sends_no_others(
    prefect: PrefectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last one is closed, and is the one that is read."""
    monkeypatch.setenv("PREFECT__RUNTIME__DEPLOYMENT__ID", str(uuid.uuid4()))  # as where a worker runs it
    monkeypatch.setattr(report, "PERIOD", 0.05)
    monkeypatch.setattr(report, "REPORT_PERIOD", 0.05)

    @flow
    async def run(link: ApiLink) -> UUID:
        async def beaten() -> bool:
            return updates(link) > 5

        async with running(RelocationRun(REQUEST), heartbeats(f"signs-{uuid.uuid4().hex[:8]}", dict)):
            await eventually("some heartbeats", beaten)
        return UUID(str(flow_run.id))

    with ApiLink(prefect.api) as link, temporary_settings({PREFECT_API_URL: link.api}):
        done = asyncio.run(run(link))

    assert link.requests["POST /api/artifacts/"] == 1
    assert with_client(lambda client: read_heartbeats(client, [done])) == {done: Heartbeat(beat=-1, closed=True)}


def test_the_card_of_a_heartbeat_has_a_title(prefect: PrefectServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prefect's UIs show the key of an artifact as the title of its card, and the first line of its description."""
    monkeypatch.setenv("PREFECT__RUNTIME__DEPLOYMENT__ID", str(uuid.uuid4()))
    monkeypatch.setattr(report, "PERIOD", 0.05)

    @flow
    async def run(link: ApiLink) -> UUID:
        async def beaten() -> bool:
            return updates(link) > 0

        async with running(RelocationRun(REQUEST)):
            await eventually("two heartbeats", beaten)
        return UUID(str(flow_run.id))

    with ApiLink(prefect.api) as link, temporary_settings({PREFECT_API_URL: link.api}):
        done = asyncio.run(run(link))

    mine = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[done]))
    [card] = with_client(lambda client: client.read_artifacts(artifact_filter=mine))
    assert (card.type, card.key, card.description) == (report.KIND, report.KEY, report.DESCRIPTION)
    assert with_client(lambda client: read_heartbeats(client, [done]))[done].beat >= 2


def test_progress_is_written_once_for_each_point_of_percent(
    prefect: PrefectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often it is looked at: 0.4, 0.8, 1.2 (written), 1.6, 2.0, 2.4 (written), 2.8, and 2.9 at the end."""
    seen = [0.4, 0.8, 1.2, 1.6, 2.0, 2.4, 2.8]
    monkeypatch.setattr(report, "SHOWN_EVERY", 0.01)

    @flow
    async def run(left: list[float]) -> None:
        async def looked() -> bool:
            return not left

        async with percent_shown(f"signs-{uuid.uuid4().hex[:8]}", "what", lambda: left.pop(0) if left else 2.9):
            await eventually("all looks", looked)

    with ApiLink(prefect.api) as link, temporary_settings({PREFECT_API_URL: link.api}):
        asyncio.run(run(seen))

    assert updates(link) == 3


class SlowServer:
    """Takes a heartbeat some time after it was sent, also from a sender that has given up meanwhile."""

    def __init__(self) -> None:
        self.taken: list[dict[str, Any]] = []
        self.sent = asyncio.Event()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None: ...

    async def update_artifact(self, artifact: uuid.UUID, update: ArtifactUpdate) -> None:
        async def take() -> None:
            await asyncio.sleep(0 if data["closed"] else 0.2)
            self.taken.append(data)

        del artifact
        assert isinstance(update.data, dict)
        data = update.data
        self.sent.set()
        await asyncio.shield(asyncio.create_task(take()))


def test_a_heartbeat_on_its_way_does_not_come_after_the_last_one(monkeypatch: pytest.MonkeyPatch) -> None:
    class Created:
        def __init__(self, **_: Any) -> None:
            self.id = uuid.uuid4()

        async def acreate(self) -> Self:
            return self

    async def beat(server: SlowServer) -> None:
        monkeypatch.setattr(report, "get_client", lambda: server)
        async with heartbeats("signs", dict):
            await server.sent.wait()
        await asyncio.sleep(0.3)

    monkeypatch.setattr(report, "REPORT_PERIOD", 0.01)
    monkeypatch.setattr(report, "Artifact", Created)
    server = SlowServer()
    asyncio.run(beat(server))

    assert [data["closed"] for data in server.taken] == [False, True]


def test_progress_on_its_way_does_not_come_after_the_last_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server takes an update some time after it was sent, also from a sender that has given up meanwhile."""
    taken: list[float] = []
    sent = asyncio.Event()

    async def created(**_: Any) -> uuid.UUID:
        return uuid.uuid4()

    async def updated(_: uuid.UUID, *, progress: float) -> None:
        async def take() -> None:
            await asyncio.sleep(0 if progress == 100 else 0.2)
            taken.append(progress)

        sent.set()
        await asyncio.shield(asyncio.create_task(take()))

    async def show() -> None:
        percents = [50.0]
        async with percent_shown("signs", "what", lambda: percents.pop() if percents else 100.0):
            await sent.wait()
        await asyncio.sleep(0.3)

    monkeypatch.setattr(report, "SHOWN_EVERY", 0.01)
    monkeypatch.setattr(report, "acreate_progress_artifact", created)
    monkeypatch.setattr(report, "aupdate_progress_artifact", updated)
    asyncio.run(show())

    assert taken == [50.0, 100.0]
