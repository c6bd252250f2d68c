"""The crash matrix as a page of the book, from the tests that play it: `python -m tests.storm.crash_table`."""

# ruff: noqa: E501 - a test is a line

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tests.storm import test_flow_crashes as flows
from tests.storm.crashes import COMMANDS, EVENTS, SENSELESS
from tests.storm.test_crashes import PATIENT, QUICK

PAGE = Path(__file__).parent.parent.parent / "docs" / "reference" / "crashes.md"

EVERY, SLOW, DRILL = "every run", "slow", "drill"

RUNS = {
    "cancelled": (flows.test_cancelled_runs_end_and_the_next_ones_complete, EVERY),
    "worker killed": (flows.test_after_a_machine_died_the_next_runs_complete, SLOW),
    "API lost for 60 s": (flows.test_runs_survive_a_minute_without_the_api, SLOW),
}
OTHERS = {
    "relocate, cancelled in the UI": "flows/test_deployment.py::test_a_run_cancelled_in_the_ui_stops_within_seconds_and_cleans_up",
    "relocate, its process killed": "flows/test_deployment.py::test_a_killed_run_is_crashed_and_retrying_it_copies_only_what_is_missing",
    "relocate over a fleet, cancelled": "flows/test_fleet.py::test_cancelling_a_relocation_cancels_its_shards",
    "mirror, cancelled": "flows/test_mirror.py::test_a_cancelled_run_leaves_the_report_of_each_mirror_also_of_one_that_waits_for_its_turn",
    "mirror, the database locked for 120 s": "flows/test_drills.py::test_a_database_that_is_locked_for_two_minutes_ends_no_run",
    "mirror, the server restarted": "flows/test_drills.py::test_a_run_survives_a_restart_of_the_server",
    "mirror, the API lost for 60 s": "flows/test_drills.py::test_a_run_survives_a_minute_without_the_server",
    "mirror, its machine dead": "flows/test_drills.py::test_a_run_whose_machine_died_is_taken_up_and_complete_in_time",
}  # fmt: skip

_HEAD = """\
# Crashes

What happens to a command or a run in its middle, and with which. After each nothing incomplete has a name, the next
run completes and sends nothing that had arrived, and no process, upload session or unfinished file is left. A cell says
when its test runs: in every run of the tests, with the slow ones (`make test-slow`), or by hand (`make drills`).
`python -m tests.storm.crash_table` writes this page.
"""


def page() -> str:
    return "\n".join(_lines())


def _lines() -> Iterator[str]:
    yield _HEAD
    yield from ("## Commands", "", "`storm/test_crashes.py::test_after_a_crash`", "")
    yield from (f"| | {' | '.join(COMMANDS)} |", f"|---|{'---|' * len(COMMANDS)}")
    for event in EVENTS:
        yield f"| {event} | {' | '.join(_when(event, command) for command in COMMANDS)} |"
    yield from ("", "Cells that nobody can meet:", "")
    for reason in dict.fromkeys(SENSELESS.values()):
        cells = [f"{event} x {command}" for (event, command), why in SENSELESS.items() if why == reason]
        yield f"- {reason}: {', '.join(cells)}"
    yield from ("", "## Runs of flows, carried out by a worker", "")
    yield from (f"| | {' | '.join(flows.FLOWS)} | test |", f"|---|{'---|' * len(flows.FLOWS)}---|")
    for event, (test, when) in RUNS.items():
        row = " | ".join(when for _ in flows.FLOWS)
        yield f"| {event} | {row} | `storm/test_flow_crashes.py::{test.__name__}` |"
    yield from ("", "And with more said of each:", "", "| what | test |", "|---|---|")
    yield from (f"| {what} | `{test}` |" for what, test in OTHERS.items())
    yield ""


def _when(event: str, command: str) -> str:
    cell = (event, command)
    return "-" if cell in SENSELESS else DRILL if cell in PATIENT else EVERY if cell in QUICK else SLOW


if __name__ == "__main__":
    PAGE.write_text(page())
