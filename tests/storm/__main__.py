"""Plays the storm: `python -m tests.storm [--only TEXT] [--sample N] [--threads N] [--table FILE]`."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.servers.docker_registry import DockerRegistry
from tests.servers.seaweedfs import SeaweedFS
from tests.storm.s3 import Shore
from tests.storm.table import page
from tests.storm.trial import Kind, Outcome
from tests.storm.weather import Weather


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="", help="trials whose name has this text")
    parser.add_argument("--sample", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--notes", action="store_true", help="print clean errors, too")
    parser.add_argument("--table", default="", metavar="FILE", help="write the page of the book")
    options = parser.parse_args()

    def shown(outcome: Outcome) -> None:
        if options.notes or outcome.kind is Kind.OTHER or outcome.seconds > 20:
            print(f"--- {outcome.kind}: {outcome.trial.id} ({outcome.seconds:.1f} s)\n{outcome.note}", flush=True)

    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="storm-") as name:
        folder = Path(name)
        with (
            DockerRegistry(folder / "a") as source,
            DockerRegistry(folder / "b") as destination,
            Weather({"source": source.port, "destination": destination.port}, folder / "stages") as weather,
            SeaweedFS(folder / "s3") as store,
            Shore(store) as shore,
        ):
            every = weather.every_trial()
            chosen = weather.sample(options.sample, options.seed) if options.sample else every
            chosen = [(kind, trial) for kind, trial in chosen if options.only in trial.id]
            print(f"{len(chosen)} of {len(every)} trials; {time.monotonic() - started:.1f} s to begin", flush=True)
            outcomes = list(weather.play(chosen, threads=options.threads, on_outcome=shown))
            chores = [trial for trial in shore.trials() if options.only in trial.id]
            if options.sample:
                chores = random.Random(options.seed).sample(chores, min(len(chores), options.sample // 10))
            for trial in chores:
                outcomes.append(shore.play(trial))
                shown(outcomes[-1])
    if options.table:
        Path(options.table).write_text(page(outcomes, len(every) + len(shore.trials())))
    counts = Counter(outcome.kind.value for outcome in outcomes)
    print(f"{len(outcomes)} trials in {time.monotonic() - started:.0f} s: {dict(counts)}")
    return 1 if counts[Kind.OTHER.value] else 0


if __name__ == "__main__":
    sys.exit(main())
