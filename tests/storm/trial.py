"""One fault, one operation, one position: played, judged from outside, and played again in calm weather."""

from __future__ import annotations

import re
import time
import traceback
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from oci.errors import Incomplete, InvalidInput, TransshipError
from tests.storm.faults import PLACES, READS, ROWS, Row
from tests.storm.operations import Operation, Reported, clean_up
from tests.storm.stage import SIDES, Stage

LONGEST = 40.0
"""Seconds that one run may take, with all its time-outs and what else the machine does."""

FRONTS = 6
POSITIONS = ("first", "middle", "last")

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class Kind(StrEnum):
    COMPLETED = "completed"
    CLEAN = "clean error"
    UNSEEN = "unseen lie"
    """A lie of the registry that its row names, and that only a read-back shows."""
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Trial:
    row: Row
    operation: str
    side: str
    number: int
    position: str

    @property
    def id(self) -> str:
        return f"{self.row.name} | {self.operation} | {self.side} | {self.position}"


@dataclass(frozen=True, slots=True)
class Outcome:
    trial: Trial
    kind: Kind
    note: str
    seconds: float


def rehearse(stage: Stage, operations: Iterable[Operation], *, whole: bool) -> None:
    """Plays operations without a fault: those whose end is judged by such a run, or, to note what they ask for, all."""
    for operation in operations:
        if not whole and not operation.judged_by_rehearsal:
            continue
        stage.calm()
        name = stage.fresh()
        operation.prepare(stage, name)
        stage.calm()
        with stage.session(hurry=False, **dict(operation.settings)) as session:
            result = operation.run(stage, session, name)
        wrong = operation.proof(stage, name, result)
        assert not wrong, f"{operation.name}: {wrong}"
        stage.requests[operation.name] = {side: list(stage.seen(side)) for side in operation.sides}
        clean_up(stage, name)


def trials(stage: Stage, operations: Sequence[Operation], *, every: bool) -> list[Trial]:
    """Every row with every operation that makes such requests, on each side at one of the first, the middle and the
    last of them, by chance but always the same; and one in `FRONTS` of them with the commands and flows, which put
    little between. `every`: at all three, and all with the commands and flows. The variants of a copy are for faults
    of writing."""
    found = []
    for row in ROWS:
        for operation in operations:
            if operation.what.startswith("copy ") and row.place in READS:
                continue
            fitting = list(_fitting(stage, row, operation))
            chance = zlib.crc32(f"{row.name} {operation.name}".encode())
            if operation.is_of_library and not every:
                fitting = _one_for_each_side(fitting, chance)
            elif not operation.is_of_library:
                fitting = [fitting[chance % len(fitting)]] if fitting and (every or not chance % FRONTS) else []
            found += fitting
    return found


def _one_for_each_side(fitting: Sequence[Trial], chance: int) -> list[Trial]:
    order = [POSITIONS[(chance + number) % len(POSITIONS)] for number in range(len(POSITIONS))]
    by_side = {trial.side: trial for trial in sorted(fitting, key=lambda trial: -order.index(trial.position))}
    return list(by_side.values())


def _fitting(stage: Stage, row: Row, operation: Operation) -> Iterable[Trial]:
    method, path = PLACES[row.place]
    for side in operation.sides:
        asked = stage.requests[operation.name][side]
        count = sum(bool(re.fullmatch(method, verb) and re.search(path, where)) for verb, where in asked)
        places = {1: "first", (count + 1) // 2: "middle", count: "last"} if count else {}
        places[1] = "first"
        yield from (Trial(row, operation.name, side, at, places[at]) for at in sorted(places) if at <= count)


def play(stage: Stage, operation: Operation, trial: Trial) -> Outcome:
    name = stage.fresh()
    started = time.monotonic()
    try:
        stage.calm()
        operation.prepare(stage, name)
        stage.calm()
        kind, note = _judged(stage, operation, trial, name)
    except Exception:  # noqa: BLE001 - whatever the program or the trial does
        kind, note = Kind.OTHER, traceback.format_exc()
    finally:
        clean_up(stage, name)
    return Outcome(trial, kind, note, time.monotonic() - started)


def _judged(stage: Stage, operation: Operation, trial: Trial, name: str) -> tuple[Kind, str]:
    result, error, problems = _stormy(stage, operation, trial, name)
    lie = trial.row.unseen.get(operation.what, "")
    if error is None:
        wrong = operation.proof(stage, name, result)
        if wrong:
            problems.append(f"ended well, and isn't: {wrong}")
        elif not problems:
            return Kind.COMPLETED, ""
    else:
        ruins = operation.ruins(stage, name)
        if ruins:
            problems.append(f"half-made after {error}: {ruins}")
        if not ruins or lie:
            problems += _again(stage, operation, name)
    if not problems:
        return Kind.CLEAN, str(error)
    return (Kind.UNSEEN if lie else Kind.OTHER), "\n".join(problems) + f"\n({error})"


def _stormy(stage: Stage, operation: Operation, trial: Trial, name: str) -> tuple[Any, Exception | None, list[str]]:
    """The run with the fault: its result or its error, and what is wrong with these."""
    stage.storm(trial.side, trial.row.fault(trial.number, *PLACES[trial.row.place]))
    started = time.monotonic()
    result: Any = None
    error: Exception | None = None
    problems: list[str] = []
    try:
        with stage.session(hurry=True, **dict(operation.settings)) as session:
            result = operation.run(stage, session, name)
    except (TransshipError, Reported) as raised:
        error = raised
        problems += _unclean(stage, operation, trial, raised)
    except Exception as raised:  # noqa: BLE001 - what must never happen is an outcome, too
        error = raised
        problems.append("".join(traceback.format_exception(raised)))
    stage.calm()
    if (took := time.monotonic() - started) > LONGEST * operation.patience:
        problems.append(f"took {took:.0f} s")
    return result, error, problems


def _unclean(stage: Stage, operation: Operation, trial: Trial, error: TransshipError | Reported) -> list[str]:
    """What the error doesn't say: the side, the registry, the reference."""
    parts = error.failures if isinstance(error, Incomplete) and error.failures else (error,)
    return [wrong for part in parts if (wrong := _lacking(stage, operation, trial, part))]


def _lacking(stage: Stage, operation: Operation, trial: Trial, error: Exception) -> str:
    text, side = str(error), trial.side
    if "no answer in time" in text and side not in text:
        # The time-outs of a trial are short: on a busy machine the other side may be too slow as well.
        side = next(other for other in SIDES if other != side)
    host = stage.proxies[side].host
    lacking = [] if host in text else [host]
    # What can't be right in a policy is said of a repository; with one side there is no other.
    one_sided = isinstance(error, InvalidInput) and len(operation.sides) == 1
    if not one_sided and not any(one in text for one in (SIDES if operation.what == "copy beside" else (side,))):
        lacking.append(side)
    if not (_DIGEST.search(text) or re.search(rf"{re.escape(host)}/[a-z]", text)):
        lacking.append("a reference")
    return f"{type(error).__name__} doesn't name {', '.join(lacking)}: {text}" if lacking else ""


def _again(stage: Stage, operation: Operation, name: str) -> list[str]:
    """What is wrong with a second run, without the fault."""
    there = stage.arrived(name) if operation.writes else set()
    with stage.session(hurry=False, **dict(operation.settings)) as session:
        try:
            result = operation.run(stage, session, name)
        except (TransshipError, Reported) as error:
            return [f"the second run failed: {error}"]
    problems = [f"after the second run: {wrong}" for wrong in operation.proof(stage, name, result)]
    return [*problems, *(f"sent again: {digest}" for digest in sorted(stage.sent() & there))]
