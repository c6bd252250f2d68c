from __future__ import annotations

import asyncio
import threading

import pytest
from prefect import flow

from oci.digest import Digest
from oci.errors import Incomplete, NotFound, TransshipError, Unavailable
from oci.meter import Receipt
from oci.relocation.plan import Plan
from oci.relocation.request import RelocationRequest
from oci.relocation.transfer import DONE, FAILED, ImageOutcome
from tasks.fleet.queue import ShardResult
from tasks.relocate import RelocationRun, names_of, push_name, push_to_target_registry
from tasks.run import TASK_RUN_LIMIT, running, shared_out
from tasks.shards import RelocationWork
from tests.support.plans import digest, plan_of
from tests.support.relocating import session


def batches(plan: Plan) -> list[list[str]]:
    """Returns what each task run is to push."""
    return [names_of(plan, images) for images in shared_out([image.digest for image in plan.to_transfer])]


def test_every_missing_image_is_a_task_run_of_its_own_and_the_biggest_comes_first() -> None:
    plan = plan_of([10, 30, 20, 99], present=[3])

    assert batches(plan) == [[f"registry.example/shop/web@{digest(number)}"] for number in (1, 2, 0)]


def test_unchanged_images_never_become_task_runs() -> None:
    assert batches(plan_of([1, 2], present=[0, 1])) == []


@pytest.mark.parametrize("count", [TASK_RUN_LIMIT, TASK_RUN_LIMIT + 1, 5 * TASK_RUN_LIMIT])
def test_task_runs_stay_within_the_limit_and_every_image_is_in_one_of_them(count: int) -> None:
    made = batches(plan_of(range(count)))

    assert len(made) == TASK_RUN_LIMIT
    assert sorted(image for images in made for image in images) == sorted(
        f"registry.example/shop/web@{digest(number)}" for number in range(count)
    )


def test_a_task_run_has_a_name_that_a_person_can_read() -> None:
    image = f"registry.example/shop/web@{digest(1)}"

    assert push_name({"images": [image], "destination": "corp.example/x"}) == (
        f"copy web@{digest(1)[:19]} -> corp.example/x"
    )
    assert push_name({"images": [image] * 7, "destination": "corp.example/x"}) == "copy 7 images -> corp.example/x"


def test_what_helpers_have_done_is_no_part_of_the_pace_of_a_run() -> None:
    async def noted() -> tuple[float, float, int]:
        request = RelocationRequest(image="registry.example/shop/web:1", to="registry.corp.example/mirror/web")
        async with running(RelocationRun(request)) as run:
            with session() as own:
                work = RelocationWork(run, own, lambda images, queue: {})
                before = work.progress()
                work.note("a helper", ShardResult([], Receipt(bytes_written=10 << 20)).to_json())
                return before, work.progress(), run.receipt().bytes_written

    before, after, written = asyncio.run(noted())

    assert written == 10 << 20
    assert after == before


class FakeCore:
    """Stands in for the transfer: fails an image with the errors that are left for it, then lets it pass."""

    def __init__(self, errors: dict[Digest, list[TransshipError]]) -> None:
        self.errors = errors
        self.calls: list[Digest] = []
        self._lock = threading.Lock()

    def transfer_image(self, session: object, plan: Plan, image: Digest) -> ImageOutcome:
        with self._lock:
            self.calls.append(image)
            left = self.errors.get(image)
            if left:
                raise left.pop(0)
        return ImageOutcome(digest=image, subject=str(image), role="listed image", status=DONE)


async def push(
    monkeypatch: pytest.MonkeyPatch, core: FakeCore, plan: Plan, images: list[str]
) -> tuple[RelocationRun, Exception | None]:
    """Runs the task in a flow of its own and gives what it left in the relocation, and what it raised."""
    monkeypatch.setattr("oci.relocation.driver.transfer_image", core.transfer_image)
    task = push_to_target_registry.with_options(retry_delay_seconds=0.01, retry_jitter_factor=0.0)
    raised: list[Exception] = []

    @flow
    async def pushing() -> RelocationRun:
        request = RelocationRequest(image="registry.example/shop/web:1", to=str(plan.destination))
        async with running(RelocationRun(request)) as run:
            run.relocation.made_plan = plan
            try:
                await task(images, str(plan.destination))
            except TransshipError as error:
                raised.append(error)
            return run

    return await pushing(), raised[0] if raised else None


def references(plan: Plan) -> list[str]:
    return [f"{image.store}@{image.digest}" for image in plan.images]


@pytest.mark.usefixtures("prefect")
class TestPushToTargetRegistry:
    def test_an_error_that_may_pass_is_tried_again(self, monkeypatch: pytest.MonkeyPatch) -> None:
        plan = plan_of([1])
        core = FakeCore({digest(0): [Unavailable("broke off"), Unavailable("broke off")]})

        run, raised = asyncio.run(push(monkeypatch, core, plan, references(plan)))

        assert raised is None
        assert core.calls == [digest(0)] * 3
        assert run.relocation.outcomes[digest(0)].status == DONE

    def test_an_error_that_will_not_pass_is_not_tried_again(self, monkeypatch: pytest.MonkeyPatch) -> None:
        plan = plan_of([1])
        core = FakeCore({digest(0): [NotFound("no such blob", side="source")]})

        run, raised = asyncio.run(push(monkeypatch, core, plan, references(plan)))

        assert isinstance(raised, NotFound)
        assert core.calls == [digest(0)]
        assert run.relocation.outcomes[digest(0)].status == FAILED
        assert "no such blob" in run.relocation.outcomes[digest(0)].error

    def test_a_group_tries_again_only_what_failed_of_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        plan = plan_of([1, 1, 1])
        core = FakeCore({digest(1): [Unavailable("broke off")]})

        run, raised = asyncio.run(push(monkeypatch, core, plan, references(plan)))

        assert raised is None
        assert sorted(core.calls) == sorted([digest(0), digest(1), digest(2), digest(1)])
        assert {outcome.status for outcome in run.relocation.outcomes.values()} == {DONE}

    def test_a_group_brings_the_rest_although_some_fail(self, monkeypatch: pytest.MonkeyPatch) -> None:
        plan = plan_of([1, 1, 1])
        core = FakeCore({digest(0): [NotFound("a")], digest(2): [NotFound("b")]})

        run, raised = asyncio.run(push(monkeypatch, core, plan, references(plan)))

        assert isinstance(raised, Incomplete)
        assert len(raised.failures) == 2
        assert run.relocation.outcomes[digest(1)].status == DONE
