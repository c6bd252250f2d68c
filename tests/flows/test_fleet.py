"""Relocations spread over workers of a work pool: real ones, some of which are killed in the middle."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import copy_context
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect import flow
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.runtime import flow_run
from prefect.states import Pending

from flows import (
    FleetOptions,
    MirrorParameters,
    RelocateParameters,
    RelocationIncomplete,
    mirror_sync,
    relocate,
    relocate_sync,
)
from flows.deploy.zombie_runs import STARTED_AGAIN, zombie_automations
from flows.parameters.relocate import ShardParameters, SourceKind
from flows.relocate import relocate_shard
from oci.bundle.tagnames import KEEP_ALIVE_SUFFIX
from oci.errors import InvalidInput
from oci.mirror.reader import make_config
from oci.registry.options import RegistryOptions
from oci.relocation.driver import Verify
from oci.relocation.shards import part_of
from tasks.fleet.dispatch import Fleet, Job, JobEnd, run_on_fleet
from tasks.fleet.queue import NO_WORK, ShardQueue
from tasks.run import running
from tasks.shards import FOR_ALL, pack_images, unpack_images
from tests.faults.proxy import Fault, FaultProxy, Span
from tests.flows.cargo import Image, delete_blob, push_image, write_lock
from tests.servers.docker_registry import DockerRegistry
from tests.servers.registry_data import seed
from tests.support.flow_runs import children_of, kill_machine, put_limit, read_run, reader, with_client
from tests.support.mirroring import many
from tests.support.prefect_server import FLEET_POOL, PrefectServer, deploy, settings_for
from tests.support.slow_link import SlowLink
from tests.support.waiting import eventually, until

IMAGES = 60
LIMIT = 7
"""Images that may be on their way at a time; this run and three helpers would have sixteen."""


@pytest.fixture(scope="module")
def deployed(prefect_server: PrefectServer) -> Iterator[PrefectServer]:
    """The deployments, and a worker that takes two shards at a time."""
    deploy(prefect_server)
    with prefect_server.worker(FLEET_POOL, "--limit", "2"), settings_for(prefect_server):
        yield prefect_server


@pytest.fixture(scope="module")
def images(registry: DockerRegistry) -> list[Image]:
    return [push_image(registry, f"fleet/web-{n}", size=300, seed=1000 + n) for n in range(IMAGES)]


@pytest.fixture
def far_away() -> Fault:
    """Every layer and config takes so long that helpers come before all is done: see `near_when_helped`."""
    return Fault(method="GET", path="/blobs/", delay=5.0)


@pytest.fixture
def source(registry: DockerRegistry, far_away: Fault) -> Iterator[FaultProxy]:
    """In front of the registry: images overlap as over a real line."""
    with FaultProxy(registry.port, far_away) as proxy:
        yield proxy


@contextmanager
def near_when_helped(fault: Fault, repository: str) -> Iterator[None]:
    """Lets the rest pass fast, as soon as a helper works on a shard."""
    over = threading.Event()

    def draw_near() -> None:
        fault.delay = 0.2

    def helped() -> bool:
        return over.is_set() or any(has_begun(str(run.id)) for run in shards_of(repository))

    watching = meanwhile("a helper that works", helped, draw_near)
    yield
    over.set()
    watching.join()


def images_at_once(spans: list[Span], images: list[Image]) -> int:
    """The most images of which a layer was being read at one moment; each has a repository of its own. Configs are read
    by the plan as well, which goes on while helpers copy."""
    layers = {image.layer for image in images}
    edges = [
        edge
        for span in spans
        if span.path.rpartition("/")[2] in layers
        for edge in ((span.began, 1, span.path), (span.ended, 0, span.path))
    ]
    reading: list[str] = []
    most = 0
    for _, begins, path in sorted(edges):
        repository = path.partition("/blobs/")[0]
        if begins:
            reading.append(repository)
        else:
            reading.remove(repository)
        most = max(most, len(set(reading)))
    return most


def shards_of(repository: str) -> list[FlowRun]:
    like = FlowRunFilter(name=FlowRunFilterName(like_=f"{repository}, helper"))
    return reader().read_flow_runs(flow_run_filter=like)


async def shards_are(repository: str, wanted: Callable[[list[str]], bool]) -> None:
    async def condition() -> bool:
        return wanted(states(await asyncio.to_thread(shards_of, repository)))

    await eventually(f"the shards of {repository}", condition)


def is_over(run: FlowRun) -> bool:
    return bool(run.state and run.state.is_final())


def states(runs: Iterable[FlowRun]) -> list[str]:
    return sorted(str(run.state and run.state.name) for run in runs)


def run_of(process: int) -> str:
    """Return the id of the flow run that a process executes, "" if it executes none or has ended."""
    with suppress(OSError):
        for variable in Path(f"/proc/{process}/environ").read_bytes().split(b"\0"):
            name, _, value = variable.partition(b"=")
            if name == b"PREFECT__FLOW_RUN_ID":
                return value.decode()
    return ""


def meanwhile(what: str, condition: Callable[[], bool], action: Callable[[], None]) -> threading.Thread:
    """Does `action` beside the test as soon as `condition` holds."""

    def wait() -> None:
        until(what, condition)
        action()

    # Prefect keeps its settings, the server's address among them, in context variables: a thread has none of its own.
    thread = threading.Thread(target=copy_context().run, args=(wait,), daemon=True)
    thread.start()
    return thread


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A repository of its own at the destination, and images to copy to it."""

    images: list[Image]
    source: DockerRegistry
    destination: DockerRegistry
    folder: Path
    repository: str

    def parameters(self, images: Iterable[Image], *, host: str = "", **more: Any) -> RelocateParameters:
        """`host` stands for the source where something is in between."""
        references = [image.at(host or self.source.host) for image in images]
        return RelocateParameters(
            kind=SourceKind.LOCK,
            source=write_lock(self.folder / "images.lock.yml", references),
            destination=f"{self.destination.host}/{self.repository}",
            concurrency=4,
            **more,
        )

    def arrived(self) -> int:
        """Images at the destination, by the keep-alive tag that each gets with its manifest."""
        return len(self.keep_alive_tags())

    def keep_alive_tags(self) -> set[str]:
        return {tag for tag in self.destination.repository_tags(self.repository) if tag.endswith(KEEP_ALIVE_SUFFIX)}


def has_begun(helper: str) -> bool:
    """Tell whether a helper works on a shard; False for no run."""
    return bool(helper and Shards.of(helper).begun_by(helper))


@dataclass(frozen=True, slots=True)
class Shards:
    """The queue that a helper takes from, as the Prefect server has it."""

    inputs: Mapping[str, str]

    @classmethod
    def of(cls, helper: str) -> Shards:
        queue = read_run(UUID(helper)).parameters["queue"]
        found = reader().filter_flow_run_input(UUID(queue["run"]), queue["name"], 10_000, set())
        return cls({entry.key.removeprefix(queue["name"] + "-"): entry.value for entry in found})

    def images(self, number: int) -> set[str]:
        return {str(image.digest) for image in unpack_images(self.inputs[f"shard-{number}"])[0].to_transfer}

    def begun_by(self, helper: str) -> list[int]:
        """Shards that it has taken and hasn't ended."""
        taken = [key.rpartition("-") for key, user in self.inputs.items() if user == helper]
        ended = {key.rpartition("-")[2] for key in self.inputs if key.startswith("news-result-")}
        return [int(number) for kind, _, number in taken if kind == "news-user" and number not in ended]

    @property
    def numbers(self) -> list[int]:
        shards = [key for key, text in self.inputs.items() if key.startswith("shard-") and text != NO_WORK]
        return sorted(int(key.partition("-")[2]) for key in shards)


@pytest.fixture
def scene(images: list[Image], registry: DockerRegistry, other_registry: DockerRegistry, tmp_path: Path) -> Scene:
    return Scene(
        images=images,
        source=registry,
        destination=other_registry,
        folder=tmp_path,
        repository=f"fleet/{uuid.uuid4().hex[:8]}",
    )


@pytest.mark.slow
def test_a_worker_killed_in_the_middle_costs_one_shard_that_finishes_elsewhere(
    deployed: PrefectServer, scene: Scene, source: FaultProxy, far_away: Fault
) -> None:
    fleet = FleetOptions(helpers=3, always=True, lost_after_seconds=15, start_within_seconds=60)
    parameters = scene.parameters(scene.images, host=source.host, verify=Verify.DEEP, fleet=fleet)
    killed: list[int] = []
    put_limit(source.host, LIMIT)

    def kill(doomed: subprocess.Popen[bytes]) -> None:
        killed.append(kill_machine(doomed))
        far_away.delay = 0.2

    with deployed.worker(FLEET_POOL, "--limit", "1") as doomed:
        killing = meanwhile(
            "a shard on the doomed machine that is begun",
            lambda: any(has_begun(run_of(process)) for process in children_of(doomed.pid)),
            lambda: kill(doomed),
        )
        report = relocate_sync(parameters)
        killing.join()

    assert killed[0] >= 1
    assert report.published
    assert report.images_copied == IMAGES
    assert report.verified_manifests == IMAGES
    assert scene.arrived() == IMAGES
    assert 1 < images_at_once(source.spans, scene.images) <= LIMIT
    [lost] = [run for run in shards_of(scene.repository) if run.state_name == "Crashed"]
    shards = Shards.of(str(lost.id))
    numbers = shards.begun_by(str(lost.id))
    begun = set().union(*map(shards.images, numbers))
    put_back = [shards.images(number) for number in shards.numbers if number not in numbers]
    again = [images for images in put_back if images <= begun]
    assert begun
    assert again
    assert not set.intersection(*again) if len(again) > 1 else True


@pytest.mark.slow
def test_an_image_that_fails_at_a_helper_stops_no_other_and_moves_no_name(
    deployed: PrefectServer, scene: Scene, source: FaultProxy, far_away: Fault
) -> None:
    broken = push_image(scene.source, "fleet/broken", size=300, seed=5000)
    delete_blob(scene.source, broken.repository, broken.layer)
    listed = [*scene.images[:39], broken]

    with near_when_helped(far_away, scene.repository), pytest.raises(RelocationIncomplete) as caught:
        relocate_sync(scene.parameters(listed, host=source.host, fleet=FleetOptions(helpers=2, always=True)))

    report = caught.value.report
    assert not report.published
    assert report.images_copied == 39
    assert [failure.image for failure in report.failures] == [broken.at(source.host)]
    assert "blob" in report.failures[0].error
    assert "2 helpers" in report.fleet


def test_a_helper_says_of_each_shard_what_became_of_its_images(prefect: PrefectServer, scene: Scene) -> None:
    broken = push_image(scene.source, "fleet/broken", size=300, seed=5000)
    delete_blob(scene.source, broken.repository, broken.layer)
    parameters = scene.parameters([scene.images[0], scene.images[1], broken])

    @flow
    async def helped() -> tuple[str, list[dict[str, Any]]]:
        async with running(parameters.run()) as run:
            await run.session()
            plan = run.relocation.make_plan()
            name, user = f"shards-{uuid.uuid4().hex}", str(flow_run.id)
            async with ShardQueue(UUID(user), name, user=user) as queue:
                for image in plan.to_transfer:
                    await queue.put(pack_images(await run.session(), part_of(plan, [image])))
                sent = ShardParameters.sent(parameters, 1, queue)
                state: Any = await relocate_shard(**sent, return_state=True)  # type: ignore[func-returns-value]
                await queue.look()
                said = [json.loads(text) for _, text in sorted(queue.results.items())]
        return str(state.message), [outcome for shard in said for outcome in shard["outcomes"]]

    message, outcomes = asyncio.run(helped())

    assert sorted(outcome["status"] for outcome in outcomes) == ["done", "done", "failed"]
    assert message.startswith("1 of 3 images failed")
    assert scene.arrived() == 2


@pytest.mark.slow
def test_cancelling_a_relocation_cancels_its_shards(deployed: PrefectServer, scene: Scene) -> None:
    with SlowLink(scene.source.host, bytes_per_second=20_000) as link:
        parameters = scene.parameters(scene.images, host=link.address, fleet=FleetOptions(helpers=3, always=True))

        async def main() -> None:
            running = asyncio.create_task(relocate(**parameters.to_dict()))
            await shards_are(scene.repository, lambda found: len(found) > 0)
            link.bytes_per_second = 50
            await shards_are(scene.repository, lambda found: len(found) == 3 and found.count("Running") == 2)
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running

        asyncio.run(main())
        until("the end of the shards", lambda: all(is_over(run) for run in shards_of(scene.repository)))

    assert states(shards_of(scene.repository)) == ["Cancelled"] * 3


@pytest.mark.slow
def test_a_run_whose_pace_is_slow_starts_helpers_and_says_why(
    deployed: PrefectServer, scene: Scene, source: FaultProxy, far_away: Fault
) -> None:
    with near_when_helped(far_away, scene.repository):
        report = relocate_sync(scene.parameters(scene.images, host=source.host, fleet=FleetOptions(helpers=2)))

    assert report.images_copied == IMAGES
    assert "shared with" in report.fleet
    runs = shards_of(scene.repository)
    assert len(runs) in {1, 2}
    assert set(Shards.of(str(runs[0].id)).inputs.values()) & {str(run.id) for run in runs}
    until("the end of the helpers", lambda: all(is_over(run) for run in shards_of(scene.repository)))


@pytest.mark.slow
def test_helpers_copy_what_is_found_while_the_rest_is_planned(deployed: PrefectServer, scene: Scene) -> None:
    """The lists of the last images come only when a helper has sent the layers of the first."""
    last = scene.images[-1]
    slow = Fault(method="GET", path="/manifests/", delay=1.5)
    stuck = Fault(method="GET", path=f"/{last.repository}/manifests/", delay=300.0)
    with FaultProxy(scene.source.port, stuck, slow) as source:

        def helped() -> bool:
            return any(f"/blobs/{image.layer}" in span.path for image in scene.images for span in source.spans)

        def let_go() -> None:
            slow.delay = stuck.delay = 0.0

        going_on = meanwhile("a layer that a helper reads", helped, let_go)
        parameters = scene.parameters(scene.images, host=source.host, fleet=FleetOptions(helpers=2))
        report = relocate_sync(parameters)
        going_on.join()

    assert report.images_copied == IMAGES
    assert report.published
    assert "shared with" in report.fleet
    assert scene.arrived() == IMAGES
    until("the end of the helpers", lambda: all(is_over(run) for run in shards_of(scene.repository)))


def test_a_rate_that_a_person_set_needs_no_helpers(deployed: PrefectServer, scene: Scene) -> None:
    slowly = RegistryOptions(requests_per_second=5.0)
    parameters = scene.parameters(scene.images[:12], source_registry=slowly, fleet=FleetOptions())

    report = relocate_sync(parameters)

    assert report.images_copied == 12
    assert report.fleet == f"done by this run alone: what {scene.source.host} {FOR_ALL}"
    assert shards_of(scene.repository) == []


@pytest.mark.slow
def test_a_rate_that_a_person_set_holds_for_all_helpers_together(deployed: PrefectServer, scene: Scene) -> None:
    rate, seconds = 3.0, 4.0
    layers = Fault(method="GET", path="|".join(image.layer for image in scene.images), delay=15.0)
    with FaultProxy(scene.source.port, layers) as source, near_when_helped(layers, scene.repository):
        report = relocate_sync(
            scene.parameters(
                scene.images,
                host=source.host,
                source_registry=RegistryOptions(requests_per_second=rate),
                fleet=FleetOptions(helpers=2, always=True),
            )
        )
        asked = sorted(span.began for span in source.spans if "/manifests/" in span.path or "/blobs/" in span.path)

    assert report.images_copied == IMAGES
    helpers = shards_of(scene.repository)
    assert any(str(run.id) in Shards.of(str(run.id)).inputs.values() for run in helpers), "one has taken a shard"
    most = max(sum(begun <= each < begun + seconds for each in asked) for begun in asked)
    assert rate * seconds / 2 < most < rate * seconds * 3 / 2, "two runs with the whole rate would ask twice as much"
    until("the end of the helpers", lambda: all(is_over(run) for run in shards_of(scene.repository)))


def test_what_is_not_worth_sending_is_done_by_the_run_itself(deployed: PrefectServer, scene: Scene) -> None:

    report = relocate_sync(scene.parameters(scene.images[:3], fleet=FleetOptions()))

    assert report.images_copied == 3
    assert "alone" in report.fleet
    assert shards_of(scene.repository) == []


def test_a_fleet_that_is_not_deployed_is_said_before_anything_moves(deployed: PrefectServer, scene: Scene) -> None:
    fleet = FleetOptions(deployment="relocate-shard/elsewhere")

    with pytest.raises(InvalidInput, match="no deployment 'relocate-shard/elsewhere'"):
        relocate_sync(scene.parameters(scene.images[:3], fleet=fleet))

    assert scene.arrived() == 0


@pytest.mark.slow
def test_the_changed_images_of_a_mirror_are_carried_by_the_fleet(
    deployed: PrefectServer, scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    seed(scene.source, scene.repository, many(40))
    slow = Fault(method="GET", path="/manifests/", delay=30.0)
    with FaultProxy(scene.source.port, slow) as source:
        mirrored = {
            "name": f"web-{uuid.uuid4().hex[:8]}",
            "source": {"repository": f"{source.host}/{scene.repository}"},
            "destinations": [{"repository": f"{scene.destination.host}/{scene.repository}"}],
            "limits": {"concurrency": 4},
        }
        fleet = FleetOptions(helpers=2, always=True)
        parameters = MirrorParameters(config=make_config({"mirrors": [mirrored]}), fleet=fleet)
        with near_when_helped(slow, f"mirror {mirrored['name']}"):
            first = mirror_sync(parameters).mirrors[0]
        again = mirror_sync(parameters).mirrors[0]

    assert (first.copied, first.failed) == (40, ())
    assert first.receipt.bytes_written > 0
    assert "2 helpers" in first.fleet
    assert (again.copied, again.in_place) == (0, 40)
    assert set(scene.source.repository_tags(scene.repository)) <= set(
        scene.destination.repository_tags(scene.repository)
    )
    helpers = f"mirror {mirrored['name']}"
    until("the end of the helpers", lambda: all(is_over(run) for run in shards_of(helpers)))
    ends = states(shards_of(helpers))
    assert len(ends) == 2
    assert "Completed" in ends
    assert set(ends) <= {"Completed", "Cancelled"}, "one that came when nothing was left is cancelled"


def test_a_job_whose_run_is_deleted_counts_as_cancelled(deployed: PrefectServer, scene: Scene) -> None:
    """No worker takes it: the deployment's work pool has none."""
    parameters = scene.parameters(scene.images[:1]).to_dict()
    job = Job(name=f"{scene.repository}, helper 1", parameters=parameters)

    @flow
    async def parent() -> list[JobEnd]:
        return await run_on_fleet([job], Fleet(deployment="relocate/relocate"))

    async def main() -> list[JobEnd]:
        running = asyncio.create_task(parent())
        await shards_are(scene.repository, lambda found: found == ["Scheduled"])
        [run] = await asyncio.to_thread(shards_of, scene.repository)
        async with get_client() as client:
            await client.delete_flow_run(run.id)
        return await running

    [end] = asyncio.run(main())

    assert (end.end, end.message) == (StateType.CANCELLED, "its run was deleted")


@dataclass(frozen=True, slots=True)
class Started:
    """A run of the deployment `relocate`."""

    run: UUID

    @classmethod
    def of(cls, parameters: RelocateParameters) -> Started:
        async def create(client: PrefectClient) -> UUID:
            deployment = await client.read_deployment_by_name("relocate/relocate")
            return (await client.create_flow_run_from_deployment(deployment.id, parameters=parameters.to_dict())).id

        return cls(with_client(create))

    def read(self) -> FlowRun:
        return read_run(self.run)

    @property
    def state(self) -> str:
        return str(self.read().state_name)

    def is_running(self, attempt: int) -> bool:
        now = self.read()
        return now.state_name == "Running" and now.run_count == attempt

    def looked_after(self) -> list[FlowRun]:
        """The runs of `rescue` for it."""
        named = FlowRunFilter(name=FlowRunFilterName(any_=[f"look after {self.run}"]))
        return reader().read_flow_runs(flow_run_filter=named)

    def rescues(self) -> str:
        """What the runs of `rescue` for it ended with."""
        return str([run.state and run.state.message for run in self.looked_after()])


@pytest.fixture
def impatient(deployed: PrefectServer) -> Iterator[None]:
    """The automations with the shortest patience that Prefect has, with which a healthy run looks dead, too."""
    patience = timedelta(seconds=10)

    async def put(client: PrefectClient) -> list[UUID]:
        rescue = await client.read_deployment_by_name("rescue/rescue")
        automations = zombie_automations(rescue.id, silent_after=patience, pending_after=patience)
        return [await client.create_automation(one) for one in automations]

    async def delete(client: PrefectClient) -> None:
        for automation in made:
            await client.delete_automation(automation)

    made = with_client(put)
    yield
    with_client(delete)


@pytest.mark.slow
@pytest.mark.usefixtures("impatient")
def test_runs_whose_machine_died_are_started_again_and_complete(deployed: PrefectServer, scene: Scene) -> None:
    with SlowLink(scene.source.host, bytes_per_second=20) as link:
        parameters = scene.parameters(scene.images[:3], host=link.address)
        with deployed.worker("transship") as doomed:
            begun = Started.of(parameters)
            until("the run is in the middle", lambda: link.passed > 0)
            kill_machine(doomed)
        claimed = Started.of(parameters)
        with_client(lambda client: client.set_flow_run_state(claimed.run, Pending()))
        link.bytes_per_second = 1 << 20
        with deployed.worker("transship"):
            until("the end of what never began", lambda: claimed.state == "Completed")
            until("the end of what died", lambda: begun.state == "Completed")

    assert STARTED_AGAIN in claimed.read().tags
    assert STARTED_AGAIN in begun.read().tags
    assert begun.read().run_count == 2
    assert scene.arrived() == 3


def processes_of(run: Started, worker: subprocess.Popen[bytes]) -> list[int]:
    """Of the flow run, and of no other that the worker has started."""
    return [
        process
        for process in children_of(worker.pid)
        if str(run.run).encode() in Path(f"/proc/{process}/environ").read_bytes()
    ]


@pytest.mark.slow
@pytest.mark.usefixtures("impatient")
def test_a_run_that_dies_twice_stays_crashed(deployed: PrefectServer, scene: Scene) -> None:
    """One worker takes both attempts: a worker that is stopped in between may claim the second and take it along."""
    with SlowLink(scene.source.host, bytes_per_second=20) as link, deployed.worker("transship") as worker:
        run = Started.of(scene.parameters(scene.images[:3], host=link.address))
        for attempt in (1, 2):
            until(f"attempt {attempt} runs", partial(run.is_running, attempt))
            for process in until("its process", lambda: processes_of(run, worker)):
                os.kill(process, signal.SIGKILL)
        until("it was found dead again", lambda: "stays crashed" in run.rescues())

    assert run.state == "Crashed"
    assert run.read().run_count == 2


@pytest.mark.slow
@pytest.mark.usefixtures("impatient")
def test_a_false_alarm_ends_no_live_run(deployed: PrefectServer, scene: Scene) -> None:
    """With a patience of ten seconds, every run that sends its heartbeats each 30 looks dead."""
    with SlowLink(scene.source.host, bytes_per_second=20) as link, deployed.worker("transship"):
        run = Started.of(scene.parameters(scene.images[:3], host=link.address))
        until("it was looked after", lambda: any(is_over(one) for one in run.looked_after()))
        assert run.state == "Running"
        link.bytes_per_second = 1 << 20
        until("its end", lambda: is_over(run.read()))

    assert run.state == "Completed"
    assert run.read().run_count == 1
    assert "is alive, or over" in run.rescues()
