"""What is known of past runs, for people who never open a terminal: a page with the last runs of each mirror, and the
overview of all mirrors and the last other runs, that every report links to.

Each page carries, in a comment that neither version of the UI shows, what it was made of: the next run reads that.
"""

from __future__ import annotations

import asyncio
import base64
import random
import re
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

from prefect.artifacts import Artifact, acreate_markdown_artifact
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import ArtifactUpdate
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType, FlowRunFilterTags
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.logging import get_run_logger
from pydantic import BaseModel, Field, TypeAdapter

from oci.units import counted, show_size
from tasks.artifacts.markdown import NO_BREAK, code, page, table, text, when
from tasks.artifacts.picture import COLOURS, FAINT, MARGIN, WIDTH, box, embedded, label, svg
from tasks.artifacts.report import OVERVIEW, artifact_key, warned

MOST_RUNS = 30
"""Runs of a mirror that its page remembers and draws."""
MOST_MIRRORS = 500
MOST_OTHERS = 10
_TRIES = 6
"""Runs that end at the same moment may overwrite each other's overview; each looks whether its own lines are there."""
_random = random.SystemRandom()

Count = Annotated[int, Field(ge=0, lt=1 << 63)]


def _hidden(kind: str, document: bytes) -> str:
    return f"<!-- {kind}: {base64.b64encode(document).decode()} -->"


def _unhidden(kind: str, markdown: str) -> bytes:
    """Returns what `_hidden` was given; nothing where another program made the page. Raises ValueError."""
    comment = re.search(rf"<!-- {kind}: ([A-Za-z0-9+/=]*) -->", markdown)
    return base64.b64decode(comment[1], validate=True) if comment else b""


async def _stored(key: str) -> tuple[Any, str]:
    """Returns the latest artifact of a key, None where there is none, and its text."""
    latest = await Artifact.aget(key)
    return latest, str(latest.data or "") if latest else ""


def _now() -> datetime:
    return datetime.now(UTC)


class PastRun(BaseModel):
    """One run of a mirror. Counts are of tags, `sent` in bytes."""

    ended: datetime = Field(default_factory=_now)
    succeeded: bool
    copied: Count = 0
    unchanged: Count = 0
    failed: Count = 0
    sent: Count = 0
    seconds: float = Field(default=0.0, ge=0, le=1e12)

    @property
    def when(self) -> str:
        return when(self.ended)


_RUNS = TypeAdapter(list[PastRun])


async def keep_history(mirror: str, run: PastRun) -> None:
    """Adds a run to the history of `mirror`. What can't be read of the past is forgotten, and a server that doesn't
    take it is warned of: a mirror doesn't fail for its history."""
    key = artifact_key("history", mirror)
    with warned("the history of %s can't be kept: %s", mirror):
        _, before = await _stored(key)
        markdown = history_page(mirror, [*remembered_runs(before), run][-MOST_RUNS:])
        await acreate_markdown_artifact(key=key, markdown=markdown, description=f"Last runs of {mirror}")


def remembered_runs(markdown: str) -> list[PastRun]:
    """Returns the runs that a page was made of; none where another program made it."""
    try:
        return [run for run in _RUNS.validate_json(_unhidden("runs", markdown)) if run.when]
    except (ValueError, OverflowError):  # a time that is in no year of UTC
        return []


def history_page(mirror: str, runs: Sequence[PastRun]) -> str:
    """Returns Markdown, the newest run on top; `runs` are oldest first."""
    verdict = "Up to date."
    if not runs[-1].succeeded:
        good = [run for run in runs if run.succeeded]
        since = f"last complete on {good[-1].when}" if good else f"not complete in any of the last {len(runs)}"
        verdict = f"**The last run failed**; {since}."
    failed = sum(not run.succeeded for run in runs)
    rows = (
        (
            run.when,
            "complete" if run.succeeded else "**failed**",
            str(run.copied),
            str(run.unchanged),
            str(run.failed),
            show_size(run.sent),
            f"{run.seconds:.1f} s",
        )
        for run in reversed(runs)
    )
    lines = [
        f"## Last runs of {mirror}",
        "",
        verdict,
        "",
        embedded(runs_picture(runs), f"Bytes sent by the last {len(runs)} runs, {failed} of them failed"),
        "",
        *table(("Ended", "Result", "Copied", "Unchanged", "Failed", "Sent", "Took"), rows),
        _hidden("runs", _RUNS.dump_json(list(runs))),
    ]
    return "\n".join(lines) + "\n"


def runs_picture(runs: Sequence[PastRun]) -> str:
    """SVG: one column for each of the last runs, oldest first, as high as what it sent; failed ones have another colour
    and a mark."""
    shown = runs[-MOST_RUNS:]
    highest = max([run.sent for run in shown], default=0)
    step = (WIDTH - 2 * MARGIN) / MOST_RUNS
    lines = [label(MARGIN, 24, f"sent by each of the last {len(shown)} runs, at most {show_size(highest)}", FAINT)]
    for number, run in enumerate(shown):
        height = max(3.0, 80 * run.sent / (highest or 1))
        x = MARGIN + number * step
        colour = COLOURS["written" if run.succeeded else "failed"]
        tip = f"{run.when.replace(NO_BREAK, ' ')}: {show_size(run.sent)}{'' if run.succeeded else ', failed'}"
        lines.append(box(x, 122 - height, step - 3, height, colour, tip=tip))
        if not run.succeeded:
            lines.append(label(x + (step - 3) / 2, 136, "x", COLOURS["failed"], anchor="middle"))
    failed = sum(not run.succeeded for run in shown)
    return svg(144, f"{len(shown)} runs, {failed} of them failed, at most {show_size(highest)} sent", lines)


def mirror_tag(mirror: str) -> str:
    """By which the runs of one mirror are found, whatever started them."""
    return f"mirror:{mirror}"


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

    def take(self, mirrors: Mapping[str, MirrorLine], others: Sequence[OtherLine]) -> None:
        for name, line in mirrors.items():
            before = self.mirrors.get(name, MirrorLine())
            self.mirrors[name] = before.model_copy(update=line.model_dump(exclude_unset=True) | {"changed": _now()})
        newest = sorted(self.mirrors, key=lambda name: self.mirrors[name].changed)[-MOST_MIRRORS:]
        self.mirrors = {name: self.mirrors[name] for name in sorted(newest)}
        self.others = [*self.others, *others][-MOST_OTHERS:]

    def has(self, mirrors: Mapping[str, MirrorLine], others: Sequence[OtherLine], since: datetime) -> bool:
        lines = (self.mirrors.get(name) for name in list(mirrors)[-MOST_MIRRORS:])
        return all(line is not None and line.changed >= since for line in lines) and all(
            other in self.others for other in others[-MOST_OTHERS:]
        )


async def keep_overview(mirrors: Mapping[str, MirrorLine], *others: OtherLine) -> None:
    """Puts the lines of a run on the page. No run fails for its overview: what the server doesn't take is warned of."""
    since = _now()
    with warned("the overview can't be kept: %s"):
        async with get_client() as client:
            planned = await _next_runs(client, list(mirrors))
            lines = {name: line.model_copy(update={"next_run": planned.get(name)}) for name, line in mirrors.items()}
            for _ in range(_TRIES):
                began = time.monotonic()
                latest, overview = await _read_overview()
                overview.take(lines, others)
                markdown = overview_page(overview)
                if latest is None or latest.id is None:
                    description = "All mirrors and the last runs"
                    await acreate_markdown_artifact(key=OVERVIEW, markdown=markdown, description=description)
                else:  # changed in place: a version for each run would fill the database
                    await client.update_artifact(latest.id, ArtifactUpdate(data=markdown))
                # Whoever has read the page before overwrites it within about as long as this took.
                await asyncio.sleep(_random.uniform(1, 3) * (time.monotonic() - began))
                if (await _read_overview())[1].has(lines, others, since):
                    return
        get_run_logger().warning("the overview misses this run: other runs wrote it at the same time")


async def _next_runs(client: PrefectClient, mirrors: list[str]) -> dict[str, datetime]:
    """Returns when the next scheduled run of each mirror begins, where there is one."""
    if not mirrors:
        return {}
    by_tag = {mirror_tag(name): name for name in mirrors}
    scheduled = FlowRunFilter(
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED])),
        tags=FlowRunFilterTags(any_=list(by_tag)),
    )
    runs = await client.read_flow_runs(flow_run_filter=scheduled, sort=FlowRunSort.EXPECTED_START_TIME_DESC, limit=200)
    return {
        by_tag[tag]: run.expected_start_time
        for run in runs
        for tag in run.tags
        if tag in by_tag and run.expected_start_time is not None
    }


async def _read_overview() -> tuple[Any, Overview]:
    latest, markdown = await _stored(OVERVIEW)
    return latest, remembered_overview(markdown)


def remembered_overview(markdown: str) -> Overview:
    """Returns what a page was made of; nothing where another program made it."""
    try:
        return Overview.model_validate_json(_unhidden("overview", markdown))
    except ValueError:
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
        [_hidden("overview", overview.model_dump_json().encode())],
    )


def _state(line: MirrorLine) -> str:
    if line.succeeded is None:
        return "checked only"
    return "complete" if line.succeeded else f"**{line.failed} failed**" if line.failed else "**not complete**"
