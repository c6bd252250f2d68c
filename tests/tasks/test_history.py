from __future__ import annotations

import asyncio
import base64
import json
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from prefect import flow
from prefect.artifacts import Artifact, acreate_markdown_artifact

from oci.units import show_size
from tasks.artifacts.history import MOST_RUNS, PastRun, history_page, keep_history, remembered_runs, runs_picture
from tasks.artifacts.markdown import when

MONDAY = datetime(2026, 11, 23, 2, 0, tzinfo=UTC)


def runs(count: int, *, failed: int = -1) -> list[PastRun]:
    return [
        PastRun(
            ended=MONDAY + timedelta(days=number),
            succeeded=number != failed,
            copied=number,
            unchanged=1000,
            sent=number << 20,
            seconds=1.25,
        )
        for number in range(count)
    ]


def test_a_page_shows_the_newest_run_on_top_and_draws_all_of_them() -> None:
    rows = [line for line in history_page("nightly", runs(3, failed=1)).splitlines() if "Nov" in line]

    assert rows == [
        f"| {when(MONDAY + timedelta(days=2))} | complete | 2 | 1000 | 0 | 2.0 MiB | 1.2 s |",
        f"| {when(MONDAY + timedelta(days=1))} | **failed** | 1 | 1000 | 0 | 1.0 MiB | 1.2 s |",
        f"| {when(MONDAY)} | complete | 0 | 1000 | 0 | 0 B | 1.2 s |",
    ]
    assert "![Bytes sent by the last 3 runs, 1 of them failed](data:image/svg+xml;base64," in history_page(
        "nightly", runs(3, failed=1)
    )


def test_a_page_says_since_when_a_mirror_is_behind() -> None:
    assert "Up to date." in history_page("nightly", runs(2, failed=0))
    tuesday = when(MONDAY + timedelta(days=1))
    assert f"**The last run failed**; last complete on {tuesday}." in history_page("nightly", runs(3, failed=2))
    assert "**The last run failed**; not complete in any of the last 1." in history_page("nightly", runs(1, failed=0))


def test_a_picture_of_runs_that_sent_nothing_says_so() -> None:
    assert f"at most {show_size(0)}" in runs_picture(runs(1))


def test_a_page_remembers_what_it_was_made_of() -> None:
    assert remembered_runs(history_page("nightly --> x", runs(5))) == runs(5)


@pytest.mark.parametrize("text", ["", "# by hand", "<!-- runs:  -->", "<!-- runs: e30= -->", "<!-- runs: §§ -->"])
def test_a_page_of_somebody_else_is_no_past(text: str) -> None:
    assert remembered_runs(text) == []


@pytest.mark.parametrize(
    "field",
    [
        {"sent": 10**400},
        {"sent": -1},
        {"copied": 1 << 70},
        {"seconds": 1e308},
        {"ended": "0001-01-01T00:00:00+23:59"},
        {"ended": "9999-12-31T23:59:59-23:59"},
    ],
    ids=str,
)
def test_a_past_that_can_not_be_shown_is_forgotten(field: dict[str, object]) -> None:
    """Else no later run could be added to it: whoever may write artifacts would have ended the history."""
    past = json.dumps([{"succeeded": True, "ended": MONDAY.isoformat(), **field}])
    text = f"<!-- runs: {base64.b64encode(past.encode()).decode()} -->"

    assert remembered_runs(text) == []
    assert "Up to date." in history_page("nightly", [*remembered_runs(text), *runs(1)])


@flow
async def mirroring(name: str, made: list[PastRun]) -> None:
    for run in made:
        await keep_history(name, run)


def latest(name: str) -> str:
    found = asyncio.run(Artifact.aget(f"history-{name}"))
    assert found is not None
    return str(found.data)


@pytest.mark.usefixtures("prefect")
def test_each_run_adds_itself_to_what_the_server_has_of_the_mirror() -> None:
    name = f"nightly-{uuid.uuid4().hex[:8]}"

    asyncio.run(mirroring(name, runs(2)))

    assert remembered_runs(latest(name)) == runs(2)


@pytest.mark.usefixtures("prefect")
def test_a_history_stays_bounded_and_survives_what_it_cannot_read() -> None:
    name = f"nightly-{uuid.uuid4().hex[:8]}"

    @flow
    async def tampered() -> None:
        await acreate_markdown_artifact(key=f"history-{name}", markdown="by hand")

    asyncio.run(tampered())
    asyncio.run(mirroring(name, runs(MOST_RUNS + 2)))

    assert remembered_runs(latest(name)) == runs(MOST_RUNS + 2)[2:]
    assert len(latest(name)) < 20_000
