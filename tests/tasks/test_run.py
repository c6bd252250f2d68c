from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable

import pytest

import tasks.run
from oci.errors import Cancelled, Incomplete, InvalidInput, TransshipError, Unavailable
from oci.registry.credentials.credential import Credentials
from oci.registry.options import DEFAULT_CONCURRENCY
from oci.relocation.driver import Relocation
from oci.relocation.request import RelocationRequest
from oci.relocation.session import Access
from oci.relocation.transfer import PRESENT, ImageOutcome
from tasks.relocate import RelocationRun, Resolution
from tasks.run import TASKS_AT_ONCE, current, reached_by, running, the_error, together
from tests.support.plans import digest, plan_of
from tests.support.relocating import session

REQUEST = RelocationRequest(bundle="registry.example/shop/bundle:1.4.0", to="corp.example/shop")


def test_work_runs_in_a_thread_and_its_errors_come_back() -> None:
    def fail() -> None:
        raise Unavailable(threading.current_thread().name)

    async def main() -> None:
        async with running(RelocationRun(REQUEST)) as relocation:
            await relocation.in_thread(fail)

    with pytest.raises(Unavailable, match="task_"):
        asyncio.run(main())


def test_a_cancelled_caller_sets_the_token_and_waits_for_the_thread_to_end() -> None:
    started = threading.Event()
    ended = threading.Event()

    async def main() -> None:
        async with running(RelocationRun(REQUEST)) as relocation:

            def work() -> None:
                started.set()
                try:
                    relocation.cancel.wait(30)
                finally:
                    ended.set()

            working = asyncio.create_task(relocation.in_thread(work))
            await asyncio.to_thread(started.wait, 5)
            working.cancel()
            working.cancel()
            with pytest.raises(asyncio.CancelledError):
                await working
            assert ended.is_set()
            assert relocation.cancel.cancelled

    asyncio.run(main())


def test_tasks_outside_an_open_relocation_say_what_is_missing() -> None:
    with pytest.raises(InvalidInput, match="no run is open"):
        current(RelocationRun)


def test_the_open_relocation_is_found_by_tasks_started_inside_and_by_nobody_afterwards() -> None:
    async def main() -> None:
        async with running(RelocationRun(REQUEST)) as relocation:
            assert await asyncio.create_task(look()) is relocation
        with pytest.raises(InvalidInput):
            current(RelocationRun)

    async def look() -> object:
        return current(RelocationRun)

    asyncio.run(main())


def test_a_session_uses_the_access_it_is_given_and_loads_nothing() -> None:
    source, destination = Access(credentials=Credentials([])), Access(credentials=Credentials([]))
    opened_with = {}

    class FakeSession:
        def __init__(self, **kwargs: object) -> None:
            opened_with.update(kwargs)

        def close(self) -> None:
            opened_with["closed"] = True

    async def main() -> None:
        with reached_by(source=source, destination=destination):
            async with running(RelocationRun(REQUEST)) as relocation:
                assert await relocation.session() is await relocation.session()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tasks.run, "Session", FakeSession)
        asyncio.run(main())

    assert opened_with["source"] is source
    assert opened_with["destination"] is destination
    assert opened_with["closed"]


def test_a_pinned_relocation_keeps_the_tag_that_the_source_carries() -> None:
    async def main() -> RelocationRequest:
        async with running(RelocationRun(REQUEST)) as relocation:
            pinned = f"registry.example/shop/bundle@{digest(1)}"
            relocation.pin(Resolution(what="bundle", reference="…", pinned=pinned, digest=digest(1), tag="1.4.0"))
            return relocation.relocation.request

    request = asyncio.run(main())

    assert request.bundle == f"registry.example/shop/bundle@{digest(1)}"
    assert request.tags == ("1.4.0",)


def test_a_relocation_with_an_image_that_nobody_pushed_is_not_complete() -> None:
    with session() as opened:
        relocation = Relocation(opened, None, plan=plan_of([1, 1]))
        relocation.outcomes[digest(0)] = ImageOutcome(digest=digest(0), subject="a", role="r", status=PRESENT)

        with pytest.raises(Incomplete, match="1 of 2"):
            relocation.check_complete()


def test_no_more_images_are_on_their_way_than_the_tightest_named_limit_has_slots(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def limits(names: Iterable[str]) -> dict[str, int]:
        assert list(names) == ["registry:a", "registry:b"]
        return {"registry:a": 3, "registry:b": 2}

    monkeypatch.setattr("tasks.run.existing", limits)

    async def main() -> list[int]:
        async with running(RelocationRun(REQUEST)) as relocation:
            free = relocation.width
            await relocation.limit(["registry:a", "registry:b"])
            return [free, relocation.width]

    assert asyncio.run(main()) == [min(DEFAULT_CONCURRENCY, TASKS_AT_ONCE), 2]


def test_the_threads_of_a_flow_run_hand_a_cancellation_on() -> None:
    def cancelled() -> None:
        raise Cancelled

    async def main() -> None:
        async with running(RelocationRun(REQUEST)) as run:
            with pytest.raises(Cancelled):
                await run.in_thread(cancelled)

    asyncio.run(main())


def test_prefect_sees_a_cancellation_of_its_own_kind() -> None:
    group = BaseExceptionGroup("", [TransshipError("other"), BaseExceptionGroup("", [Cancelled()])])

    assert isinstance(the_error(group), asyncio.CancelledError)


def test_a_signal_of_prefect_outranks_it() -> None:
    signal = KeyboardInterrupt()

    assert the_error(BaseExceptionGroup("", [Cancelled(), signal])) is signal


def test_the_first_error_of_work_done_together_cancels_the_rest_and_comes_alone() -> None:
    ended: list[str] = []

    async def fail() -> None:
        raise TransshipError("broken")

    async def wait() -> None:
        try:
            await asyncio.sleep(30)
        finally:
            ended.append("cancelled")

    with pytest.raises(TransshipError, match="broken"):
        asyncio.run(together(wait(), fail()))
    assert ended == ["cancelled"]
