"""All mirrors and the last other runs on one page, for people who never open a terminal: an artifact that every run
keeps current, and that every report links to.
"""

from __future__ import annotations

import asyncio
import base64
import random
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from prefect.artifacts import Artifact, acreate_markdown_artifact
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import ArtifactUpdate
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType, FlowRunFilterTags
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.logging import get_run_logger
from pydantic import BaseModel, Field, ValidationError

from oci.units import counted, show_size
from tasks.artifacts.markdown import code, page, table, text, when
from tasks.artifacts.report import OVERVIEW, artifact_key

MOST_MIRRORS = 500
MOST_OTHERS = 10
_TRIES = 6
"""Runs that end at the same moment may overwrite each other's page; each looks whether its own lines are there."""
_random = random.SystemRandom()
_BEGIN, _END = "<!-- overview: ", " -->"


def mirror_tag(mirror: str) -> str:
    """By which the runs of one mirror are found, whatever started them."""
    return f"mirror:{mirror}"


def _now() -> datetime:
    return datetime.now(UTC)


class MirrorLine(BaseModel):
    """What is known of one mirror. `drift` is the number of tags that the last check found wrong; `sent` is in bytes.
    A line that a run gives has only what the run knows; the rest stays as it was."""

    changed: datetime = Field(default_factory=_now)
    succeeded: bool | None = None
    complete: datetime | None = None
    """End of the last run that was complete."""
    failed: int = 0
    sent: int = 0
    drift: int | None = None
    next_run: datetime | None = None


class OtherLine(BaseModel):
    """A run that is of no mirror."""

    what: str
    ended: datetime = Field(default_factory=_now)
    succeeded: bool
    sent: int = 0


class Overview(BaseModel):
    mirrors: dict[str, MirrorLine] = {}
    others: list[OtherLine] = []

    def take(self, mirrors: Mapping[str, MirrorLine], others: list[OtherLine]) -> None:
        for name, line in mirrors.items():
            before = self.mirrors.get(name, MirrorLine())
            self.mirrors[name] = before.model_copy(update=line.model_dump(exclude_unset=True) | {"changed": _now()})
        newest = sorted(self.mirrors, key=lambda name: self.mirrors[name].changed)[-MOST_MIRRORS:]
        self.mirrors = {name: self.mirrors[name] for name in sorted(newest)}
        self.others = [*self.others, *others][-MOST_OTHERS:]

    def has(self, mirrors: Mapping[str, MirrorLine], others: list[OtherLine], since: datetime) -> bool:
        lines = (self.mirrors.get(name) for name in list(mirrors)[-MOST_MIRRORS:])
        return all(line is not None and line.changed >= since for line in lines) and all(
            other in self.others for other in others[-MOST_OTHERS:]
        )


async def keep_overview(mirrors: Mapping[str, MirrorLine], *others: OtherLine) -> None:
    """Puts the lines of a run on the page. No run fails for its overview: what the server doesn't take is warned of."""
    since = _now()
    try:
        async with get_client() as client:
            planned = await _next_runs(client, list(mirrors))
            lines = {name: line.model_copy(update={"next_run": planned.get(name)}) for name, line in mirrors.items()}
            for _ in range(_TRIES):
                began = time.monotonic()
                await _write(client, lines, list(others))
                # Whoever has read the page before overwrites it within about as long as this took.
                await asyncio.sleep(_random.uniform(1, 3) * (time.monotonic() - began))
                if (await _read())[1].has(lines, list(others), since):
                    return
        get_run_logger().warning("the overview misses this run: other runs wrote it at the same time")
    except Exception as error:  # noqa: BLE001 - whatever the Prefect server's trouble is
        get_run_logger().warning("the overview can't be kept: %s", error)


async def _next_runs(client: PrefectClient, mirrors: list[str]) -> dict[str, datetime]:
    """Returns when the next scheduled run of each mirror begins, where there is one."""
    if not mirrors:
        return {}
    scheduled = FlowRunFilter(
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED])),
        tags=FlowRunFilterTags(any_=[mirror_tag(name) for name in mirrors]),
    )
    runs = await client.read_flow_runs(flow_run_filter=scheduled, sort=FlowRunSort.EXPECTED_START_TIME_DESC, limit=200)
    by_tag = {mirror_tag(name): name for name in mirrors}
    return {
        by_tag[tag]: run.expected_start_time
        for run in runs
        for tag in run.tags
        if tag in by_tag and run.expected_start_time is not None
    }


async def _write(client: PrefectClient, mirrors: Mapping[str, MirrorLine], others: list[OtherLine]) -> None:
    """Changes the artifact in place: a version for each run would fill the database."""
    latest, overview = await _read()
    overview.take(mirrors, others)
    markdown = overview_page(overview)
    if latest is None or latest.id is None:
        await acreate_markdown_artifact(key=OVERVIEW, markdown=markdown, description="All mirrors and the last runs")
    else:
        await client.update_artifact(latest.id, ArtifactUpdate(data=markdown))


async def _read() -> tuple[Any, Overview]:
    latest = await Artifact.aget(OVERVIEW)
    return latest, remembered(str(latest.data)) if latest and latest.data else Overview()


def remembered(markdown: str) -> Overview:
    """Returns what a page was made of; nothing where another program made it."""
    _, begun, after = markdown.partition(_BEGIN)
    body, ended, _ = after.partition(_END)
    if not (begun and ended):
        return Overview()
    try:
        return Overview.model_validate_json(base64.b64decode(body, validate=True))
    except (ValueError, ValidationError):
        return Overview()


def overview_page(overview: Overview) -> str:
    mirrors = [
        (
            f"[{text(name)}](../key/{artifact_key('history', name)})",
            _state(line),
            when(line.complete) or "never",
            "" if line.drift is None else f"**{line.drift}**" if line.drift else "none",
            show_size(line.sent),
            when(line.next_run),
        )
        for name, line in overview.mirrors.items()
    ]
    others = [  # the long one last: the older UI doesn't wrap it, and cuts what is on its right
        (when(run.ended), "complete" if run.succeeded else "**failed**", show_size(run.sent), code(run.what))
        for run in reversed(overview.others)
    ]
    wrong = sum(line.succeeded is False or bool(line.drift) for line in overview.mirrors.values())
    look = "needs a look" if wrong == 1 else "need a look"
    verdict = f"**{wrong} of {counted(len(mirrors), 'mirror')} {look}.**" if wrong else "All mirrors are up to date."
    return page(
        "Overview",
        [verdict, ""] if mirrors else [],
        table(("Mirror", "Last run", "Last complete", "Drift", "Sent", "Next run"), mirrors) if mirrors else [],
        ["### Other runs", "", *table(("Ended", "Result", "Sent", "Run"), others)] if others else [],
        [f"{_BEGIN}{base64.b64encode(overview.model_dump_json().encode()).decode()}{_END}"],
    )


def _state(line: MirrorLine) -> str:
    if line.succeeded is None:
        return "checked only"
    return "complete" if line.succeeded else f"**{line.failed} failed**" if line.failed else "**not complete**"
