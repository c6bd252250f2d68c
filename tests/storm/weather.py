"""Trials, many at a time, each thread on a stage of its own."""

from __future__ import annotations

import contextvars
import math
import random
import time
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Self

from tests.servers.strict_registry import StrictRegistry
from tests.storm.operations import OPERATIONS, Operation
from tests.storm.stage import SIDES, Stage
from tests.storm.trial import Outcome, Trial, play, rehearse, trials

DOCKER, STRICT = KINDS = ("docker-registry", "strict")


class Weather:
    """`docker` are the ports of the two docker-registries, by side. Use it as a context manager."""

    def __init__(
        self,
        docker: Mapping[str, int],
        folder: Path,
        operations: Sequence[Operation] = OPERATIONS,
        kinds: Sequence[str] = KINDS,
    ) -> None:
        self._docker = dict(docker)
        self._kinds = kinds
        self._operations = {one.name: one for one in operations}
        self._folder = folder
        self._stack = ExitStack()
        self._lock = Lock()
        self._count = 0

    def __enter__(self) -> Self:
        self._strict = {side: self._stack.enter_context(StrictRegistry()).port for side in SIDES}
        self._first = {kind: self._open(kind, whole=True) for kind in self._kinds}
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def trials(self, *, every: bool = True) -> list[tuple[str, Trial]]:
        """With the kind of registry: half of them with each."""
        operations = [*self._operations.values()]
        by_kind = {
            kind: {one.id: one for one in trials(self._first[kind], operations, every=every)} for kind in self._kinds
        }
        found = []
        for name in dict.fromkeys(name for named in by_kind.values() for name in named):
            kinds = [kind for kind in self._kinds if name in by_kind[kind]]
            kind = kinds[zlib.crc32(name.encode()) % len(kinds)]
            found.append((kind, by_kind[kind][name]))
        return found

    def sample(self, count: int, seed: int) -> list[tuple[str, Trial]]:
        return random.Random(seed).sample(self.trials(), count)

    def play(
        self,
        chosen: Iterable[tuple[str, Trial]],
        *,
        threads: int,
        on_outcome: Callable[[Outcome], None] | None = None,
        end: float = math.inf,
    ) -> Sequence[Outcome]:
        """No trial begins after `end`, by the monotonic clock."""
        left: SimpleQueue[tuple[str, Trial] | None] = SimpleQueue()
        for one in chosen:
            left.put(one)
        outcomes: list[Outcome] = []

        def work(stages: dict[str, Stage]) -> None:
            while (one := left.get()) is not None and time.monotonic() < end:
                kind, trial = one
                with self._lock:
                    stage = stages.get(kind) or stages.setdefault(kind, self._open(kind))
                outcome = play(stage, self._operations[trial.operation], trial)
                with self._lock:
                    outcomes.append(outcome)
                    if on_outcome is not None:
                        on_outcome(outcome)

        workers = [
            # Settings of Prefect are in the context.
            Thread(target=contextvars.copy_context().run, args=(work, self._first if not number else {}))
            for number in range(threads)
        ]
        for worker in workers:
            left.put(None)
            worker.start()
        for worker in workers:
            worker.join()
        return outcomes

    def _open(self, kind: str, *, whole: bool = False) -> Stage:
        self._count += 1
        ports = self._docker if kind == DOCKER else self._strict
        stage = self._stack.enter_context(Stage(ports, self._folder / str(self._count)))
        rehearse(stage, self._operations.values(), whole=whole)
        return stage
