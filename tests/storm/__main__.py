"""Plays the storm: `python -m tests.storm [--every] [--only TEXT] [--sample N] [--part NAME] [--table FILE]`."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.servers.docker_registry import DockerRegistry
from tests.servers.postgresql import PostgreSQL
from tests.servers.seaweedfs import SeaweedFS
from tests.storm.operations import Operation
from tests.storm.s3 import Shore
from tests.storm.table import Table
from tests.storm.trial import Kind, Outcome
from tests.storm.weather import DOCKER, Weather
from tests.support.prefect_server import PrefectServer, settings_for

PARTS = ("library", "S3", "commands", "flows")
Shown = Callable[[Outcome], None]


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="", help="trials whose name has this text")
    parser.add_argument("--every", action="store_true", help="at all positions, and all by commands and flows")
    parser.add_argument("--sample", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--piece", default="1/1", help="of so many pieces of each part, in random order, the I-th")
    parser.add_argument("--minutes", type=float, default=1e6, help="of each part, in random order")
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--part", choices=PARTS, action="append", help="not all of it (repeatable)")
    parser.add_argument("--notes", action="store_true", help="print clean errors, too")
    parser.add_argument("--table", default="", metavar="FILE", help="write the page of the book; parts not played stay")
    options = parser.parse_args()
    piece, pieces = (int(number) for number in options.piece.split("/"))
    table = Table.read(options.table)

    def shown(outcome: Outcome) -> None:
        if options.notes or outcome.kind is Kind.OTHER or outcome.seconds > 20:
            print(f"--- {outcome.kind}: {outcome.trial.id} ({outcome.seconds:.1f} s)\n{outcome.note}", flush=True)

    started = time.monotonic()
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="storm-") as name:
        for part in options.part or PARTS:
            begun = time.monotonic()
            every, outcomes = played(part, Path(name) / part, options, shown, (piece, pieces))
            counts.update(outcome.kind.value for outcome in outcomes)
            took = time.monotonic() - begun
            print(f"{part}: {len(outcomes)} of {every} trials in {took:.0f} s", flush=True)
            table.put(part, every, outcomes, add=piece > 1)
    if options.table:
        Path(options.table).write_text(table.page())
    print(f"{counts.total()} trials in {time.monotonic() - started:.0f} s: {dict(counts)}")
    return 1 if counts[Kind.OTHER.value] else 0


def played(
    part: str, folder: Path, options: argparse.Namespace, shown: Shown, piece: tuple[int, int]
) -> tuple[int, Sequence[Outcome]]:
    """How many trials a part has, and what became of those that were chosen."""
    folder.mkdir()
    end = time.monotonic() + 60 * options.minutes
    if part == "S3":
        with SeaweedFS(folder / "s3") as store, Shore(store) as shore:
            trials = shore.trials()
            chosen = [trial for trial in trials if options.only in trial.id]
            if options.sample:
                chosen = random.Random(options.seed).sample(chosen, min(len(chosen), options.sample // 10))
            outcomes: list[Outcome] = []
            random.Random(options.seed).shuffle(chosen)
            for trial in chosen[piece[0] - 1 :: piece[1]]:
                if time.monotonic() > end:
                    break
                outcomes.append(shore.play(trial))
                shown(outcomes[-1])
            return len(trials), outcomes
    with _weather(part, folder) as weather:
        every = weather.trials(every=options.every)
        picked = random.Random(options.seed).sample(every, min(options.sample or len(every), len(every)))
        picked = [(kind, trial) for kind, trial in picked if options.only in trial.id]
        picked = picked[piece[0] - 1 :: piece[1]]
        # The server of Prefect is the one thing that all flow runs share.
        threads = min(options.threads, 2) if part == "flows" else options.threads
        return len(every), weather.play(picked, threads=threads, on_outcome=shown, end=end)


@contextmanager
def _weather(part: str, folder: Path) -> Iterator[Weather]:
    with DockerRegistry(folder / "a") as source, DockerRegistry(folder / "b") as destination:
        ports = {"source": source.port, "destination": destination.port}
        if part == "library":
            with Weather(ports, folder / "stages") as weather:
                yield weather
            return
        with _fronts(part, folder) as operations, Weather(ports, folder / "stages", operations, (DOCKER,)) as weather:
            yield weather


@contextmanager
def _fronts(part: str, folder: Path) -> Iterator[Sequence[Operation]]:
    from tests.storm import fronts

    if part == "commands":
        yield fronts.COMMANDS
        return
    home = folder / "prefect"
    home.mkdir()
    with PostgreSQL() as database, PrefectServer(home, database) as server, settings_for(server):
        yield fronts.FLOWS


if __name__ == "__main__":
    sys.exit(main())
