"""What a mirror did in its last runs, at a glance: an artifact keyed by the mirror, each version of which takes over
what the one before it knew.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Annotated

from prefect.artifacts import Artifact, acreate_markdown_artifact
from prefect.logging import get_run_logger
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from oci.units import show_size
from tasks.artifacts.markdown import NO_BREAK, table, when
from tasks.artifacts.picture import COLOURS, FAINT, MARGIN, WIDTH, box, embedded, label, svg
from tasks.artifacts.report import artifact_key

MOST_RUNS = 30
"""Runs that an artifact remembers and draws."""

_BEGIN, _END = "<!-- runs: ", " -->"
"""Around what the next run reads; neither version of the UI shows a comment."""


Count = Annotated[int, Field(ge=0, lt=1 << 63)]


class PastRun(BaseModel):
    """One run of a mirror. Counts are of tags, `sent` in bytes."""

    ended: datetime = Field(default_factory=lambda: datetime.now(UTC))
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
    try:
        runs = [*await _past(key), run][-MOST_RUNS:]
        await acreate_markdown_artifact(key=key, markdown=page(mirror, runs), description=f"Last runs of {mirror}")
    except Exception as error:  # noqa: BLE001 - whatever the Prefect server's trouble is
        get_run_logger().warning("the history of %s can't be kept: %s", mirror, error)


async def _past(key: str) -> list[PastRun]:
    latest = await Artifact.aget(key)
    return remembered(str(latest.data)) if latest and latest.data else []


def page(mirror: str, runs: Sequence[PastRun]) -> str:
    """Markdown, the newest run on top; `runs` are oldest first."""
    return "\n".join(_lines(mirror, runs)) + "\n"


def remembered(markdown: str) -> list[PastRun]:
    """The runs that a page was made of; none where another program made it."""
    _, begun, after = markdown.partition(_BEGIN)
    body, ended, _ = after.partition(_END)
    if not (begun and ended):
        return []
    try:
        runs = _RUNS.validate_json(base64.b64decode(body, validate=True))
        return [run for run in runs if run.when]
    except (ValueError, ValidationError, OverflowError):  # a time that is in no year of UTC
        return []


def _lines(mirror: str, runs: Sequence[PastRun]) -> Iterator[str]:
    yield f"## Last runs of {mirror}"
    yield ""
    yield _verdict(runs)
    yield ""
    failed = sum(not run.succeeded for run in runs)
    yield embedded(runs_picture(runs), f"Bytes sent by the last {len(runs)} runs, {failed} of them failed")
    yield ""
    yield from table(
        ("Ended", "Result", "Copied", "Unchanged", "Failed", "Sent", "Took"),
        (
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
        ),
    )
    yield f"{_BEGIN}{base64.b64encode(_RUNS.dump_json(list(runs))).decode()}{_END}"


def _verdict(runs: Sequence[PastRun]) -> str:
    good = [run for run in runs if run.succeeded]
    if runs[-1].succeeded:
        return "Up to date."
    since = f"last complete on {good[-1].when}" if good else f"not complete in any of the last {len(runs)}"
    return f"**The last run failed**; {since}."


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
