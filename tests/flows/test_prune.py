"""The flow `prune`: run by a worker, suspended for a person's approval, approved, denied, forgotten."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey, LogFilter, LogFilterFlowRunId

from flows import AfterPlan, KeepOptions, PruneParameters, prune_sync
from flows.prune import GRACE_OR_PERSON, HOW_TO_ANSWER, ONLY_DEPLOYMENTS_ASK, WAITING
from oci.errors import Incomplete, InvalidInput, NotFound, Refused
from tasks.artifacts.report import artifact_key
from tests.faults.proxy import Fault, FaultProxy
from tests.servers.docker_registry import DockerRegistry
from tests.support.content import image, index, push
from tests.support.flow_runs import is_over, read_run, start_run, state_of, with_client
from tests.support.prefect_server import PrefectServer, deploy, settings_for
from tests.support.pruning import has, tags_of
from tests.support.waiting import until


@pytest.fixture(scope="module")
def deployed(prefect_server: PrefectServer) -> Iterator[PrefectServer]:
    """The deployment as deployments/prefect.yaml has it, and a worker on its pool."""
    deploy(prefect_server)
    with prefect_server.worker("transship"), settings_for(prefect_server):
        yield prefect_server


@pytest.fixture
def shop(registry: DockerRegistry, repository: str) -> str:
    path = f"flows/{repository}"
    push(registry.url, path, index([image(1)]), "1.0")
    push(registry.url, path, image(2), "2.0")
    return f"{registry.host}/{path}"


def start(**parameters: Any) -> UUID:
    return start_run("prune", parameters)


def message_of(run: UUID) -> str:
    state = read_run(run).state
    return str(state.message or "") if state else ""


def log_of(run: UUID) -> list[str]:
    mine = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run]))
    return [line.message for line in with_client(lambda client: client.read_logs(mine))]


def suspended(run: UUID) -> None:
    """Waits until the run waits. It says for what from that moment on."""
    until("the suspension", lambda: state_of(run) == "Suspended" or is_over(run))
    assert state_of(run) == "Suspended"
    assert message_of(run).startswith(WAITING)


def answer(run: UUID, **fields: Any) -> None:
    with_client(lambda client: client.resume_flow_run(run, run_input=fields))


def artifact(kind: str, destination: str) -> str:
    async def work(client: PrefectClient) -> str:
        wanted = ArtifactFilter(key=ArtifactFilterKey(any_=[artifact_key(kind, destination)]))
        return str([one.data for one in await client.read_artifacts(artifact_filter=wanted)])

    return with_client(work)


def path_of(shop: str) -> str:
    return shop.partition("/")[2]


@pytest.mark.slow
def test_a_run_waits_for_a_person_and_deletes_what_was_approved(
    deployed: PrefectServer, registry: DockerRegistry, shop: str
) -> None:
    run = start(destination=shop, keep={"tags": ["2.0"]})
    suspended(run)
    assert read_run(run).name == f"prune {shop}"
    assert message_of(run).startswith(f"{WAITING}: {shop}")
    assert message_of(run).endswith(HOW_TO_ANSWER)
    assert state_of(run) == "Suspended"
    assert index([image(1)]).digest in artifact("prune-plan", shop)
    assert "1.0" in tags_of(registry.url, path_of(shop))
    push(registry.url, path_of(shop), image(5), "0.5")

    answer(run, approve=True, note="asked the shop team")
    until("the end of the run", lambda: is_over(run))

    assert state_of(run) == "Completed"
    assert tags_of(registry.url, path_of(shop)) == {"2.0", "0.5"}, "0.5 came after the plan"
    assert not has(registry.url, path_of(shop), image(1))
    page = artifact("prune", shop)
    assert "Deleted" in page
    assert "asked the shop team" in page
    ended = message_of(run)
    until("the whole log", lambda: any(ended in line for line in log_of(run)))
    assert sum(WAITING in line for line in log_of(run)) == 1, "a run that goes on doesn't wait"
    assert not any("--keep" in line for line in log_of(run)), "a form has fields"
    names = [state.name for state in with_client(lambda client: client.read_flow_run_states(run))]
    assert names.count("Suspended") == 1, "a second one, for its message, would meet a worker that takes the run up"


def test_a_person_who_says_no_keeps_everything(deployed: PrefectServer, registry: DockerRegistry, shop: str) -> None:
    run = start(destination=shop, keep={"tags": ["2.0"]})
    suspended(run)

    answer(run, approve=False, note="not before Friday")
    until("the end of the run", lambda: is_over(run))

    assert state_of(run) == "Completed"
    assert tags_of(registry.url, path_of(shop)) == {"1.0", "2.0"}
    page = artifact("prune", shop)
    assert "Denied" in page
    assert "not before Friday" in page


@pytest.mark.slow
def test_a_run_that_nobody_answers_fails_and_deletes_nothing(
    deployed: PrefectServer, registry: DockerRegistry, shop: str
) -> None:
    run = start(destination=shop, keep={"tags": ["2.0"]}, wait="2s")

    until("the end of the run", lambda: is_over(run))

    states = with_client(lambda client: client.read_flow_run_states(run))
    assert [state.name for state in states][-2:] == ["Suspended", "Failed"]
    answer(run, approve=True)
    assert state_of(run) == "Failed", "an answer that comes late changes nothing"
    assert tags_of(registry.url, path_of(shop)) == {"1.0", "2.0"}


@pytest.mark.usefixtures("prefect")
def test_a_program_gets_a_plan_or_a_deletion_after_a_grace_period(registry: DockerRegistry, shop: str) -> None:
    keep = KeepOptions(tags=("2.0",))

    planned = prune_sync(PruneParameters(destination=shop, keep=keep, after_plan=AfterPlan.STOP))
    assert (planned.outcome, planned.planned, planned.kept) == ("planned", 2, 1)

    week = PruneParameters.read({"destination": shop, "keep": keep, "grace": "7d", "after_plan": AfterPlan.DELETE})
    waiting = prune_sync(week)
    assert (waiting.outcome, waiting.waiting, waiting.deleted) == ("nothing to delete", 2, [])
    moment = PruneParameters.read({"destination": shop, "keep": keep, "grace": "1s", "after_plan": AfterPlan.DELETE})
    until("the end of the grace period", lambda: prune_sync(moment).outcome == "deleted")
    assert tags_of(registry.url, path_of(shop)) == {"2.0"}
    assert prune_sync(moment).outcome == "nothing to delete"


@pytest.mark.usefixtures("prefect")
def test_what_mirrors_take_is_kept(
    registry: DockerRegistry, other_registry: DockerRegistry, shop: str, tmp_path: Path
) -> None:
    target = f"{other_registry.host}/{path_of(shop)}"
    for number, tag in enumerate(("1.0", "2.0", "old")):
        push(other_registry.url, path_of(shop), image(number), tag)
    mirrors = tmp_path / "mirrors.yaml"
    mirrors.write_text(
        "version: 1\nmirrors:\n- name: shop\n  tags: [{semver: ['*'], latest: 1}]\n"
        f"  source: {{repository: {shop}}}\n  destinations: [{{repository: {target}}}]\n"
    )
    form = {"destination": target, "mirrors": str(mirrors), "grace": "1s", "after_plan": "delete"}
    parameters = PruneParameters.read(form)

    until("the end of the grace period", lambda: prune_sync(parameters).outcome == "deleted")

    assert tags_of(other_registry.url, path_of(shop)) == {"2.0"}
    mirrors.write_text(mirrors.read_text().replace(shop, f"{registry.host}/no/such"))
    with pytest.raises(NotFound):
        prune_sync(parameters)
    assert tags_of(other_registry.url, path_of(shop)) == {"2.0"}


@pytest.mark.usefixtures("prefect")
def test_a_program_can_not_ask_a_person(shop: str) -> None:
    with pytest.raises(InvalidInput, match=ONLY_DEPLOYMENTS_ASK):
        prune_sync(PruneParameters(destination=shop, keep=KeepOptions(tags=("2.0",))))


@pytest.mark.usefixtures("prefect")
def test_what_fails_is_in_the_report_and_fails_the_run(registry: DockerRegistry, shop: str) -> None:
    form = {"keep": {"tags": ["2.0"]}, "grace": "1s", "after_plan": "delete"}
    with FaultProxy(registry.port, Fault(method="DELETE", path=image(7).hex, status=409)) as proxy:
        where = f"{proxy.host}/{path_of(shop)}"
        push(registry.url, path_of(shop), image(7), "0.7")
        parameters = PruneParameters.read({"destination": where, **form})
        with pytest.raises(Incomplete, match="1 of 3 could not be deleted"):
            until("the end of the grace period", lambda: prune_sync(parameters).outcome == "deleted")
        assert image(7).digest in artifact("prune", where)


@pytest.mark.usefixtures("prefect")
def test_a_registry_that_does_not_delete_fails_the_run_with_the_way_out(tmp_path: Path) -> None:
    with DockerRegistry(tmp_path, deletes=False) as server:
        push(server.url, "shop", image(1), "1.0")
        push(server.url, "shop", image(2), "2.0")
        form = {"destination": f"{server.host}/shop", "keep": {"tags": ["2.0"]}, "grace": "1s", "after_plan": "delete"}
        with pytest.raises(Refused, match="REGISTRY_STORAGE_DELETE_ENABLED"):
            until("it", lambda: prune_sync(PruneParameters.read(form)).outcome == "deleted")
        assert "this registry doesn" in artifact("prune", f"{server.host}/shop")


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({"keep": {}}, "say what to keep"),
        ({"keep": {"tags": ["1"]}, "after_plan": "delete"}, GRACE_OR_PERSON),
        ({"keep": {"patterns": ["("]}}, "no regular expression"),
        ({"keep": {"tags": ["1"]}, "destination": "archive:/srv/shop.tar"}, "out of an archive"),
        ({"keep": {"tags": ["1"]}, "wait": ""}, "within no time"),
        ({"keep": {"tags": ["1"]}, "destination": "registry.example/shop:1.0"}, "not a repository"),
    ],
)
def test_a_form_that_makes_no_sense_is_refused(form: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        PruneParameters.read({"destination": "registry.example/shop", **form})
