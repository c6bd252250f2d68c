from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, datetime

import pytest
from prefect import flow
from prefect.artifacts import Artifact

from tasks.artifacts.history import (
    MOST_MIRRORS,
    MOST_OTHERS,
    MirrorLine,
    OtherLine,
    Overview,
    keep_overview,
    overview_page,
    remembered_overview,
)
from tasks.artifacts.markdown import when
from tasks.artifacts.report import OVERVIEW

MONDAY = datetime(2026, 11, 23, 2, 0, tzinfo=UTC)


def rows(overview: Overview) -> list[str]:
    return [line for line in overview_page(overview).splitlines() if line.startswith("| [") or line.endswith("` |")]


def test_a_page_has_a_line_for_each_mirror_and_links_to_its_history() -> None:
    overview = Overview()
    complete = MirrorLine(succeeded=True, complete=MONDAY, sent=1 << 20, drift=0, next_run=MONDAY)
    overview.take({"web": complete, "api": MirrorLine(succeeded=False, failed=3)}, [])
    overview.take({"web": MirrorLine(drift=2)}, [OtherLine(what="a -> b", ended=MONDAY, succeeded=True)])

    assert rows(overview) == [
        "| [api](../key/history-api) | **3 failed** | never |  | 0 B |  |",
        f"| [web](../key/history-web) | complete | {when(MONDAY)} | **2** | 1.0 MiB | {when(MONDAY)} |",
        f"| {when(MONDAY)} | complete | 0 B | `a -> b` |",
    ]
    assert "**2 of 2 mirrors need a look.**" in overview_page(overview)
    assert remembered_overview(overview_page(overview)) == overview


def test_a_page_stays_small() -> None:
    overview = Overview()
    overview.take({f"m{number}": MirrorLine(succeeded=True) for number in range(MOST_MIRRORS + 5)}, [])
    overview.take({}, [OtherLine(what=str(number), succeeded=True) for number in range(MOST_OTHERS + 5)])

    assert (len(overview.mirrors), len(overview.others)) == (MOST_MIRRORS, MOST_OTHERS)


@pytest.mark.usefixtures("prefect")
def test_runs_that_end_together_all_stand_on_the_page_and_it_has_one_version() -> None:
    names = [f"mirror-{uuid.uuid4().hex[:8]}" for _ in range(4)]

    @flow(name="overview-test")
    async def main() -> None:
        await keep_overview({names[0]: MirrorLine(succeeded=True)})
        await asyncio.gather(*(keep_overview({name: MirrorLine(succeeded=True)}) for name in names))

    async def whole() -> tuple[object, str]:
        await Artifact.aget(OVERVIEW)
        before = await Artifact.aget(OVERVIEW)
        await main()
        after = await Artifact.aget(OVERVIEW)
        assert after is not None
        assert before is None or before.id == after.id
        return after.id, str(after.data)

    _, page = asyncio.run(whole())

    assert set(names) <= set(remembered_overview(page).mirrors)
