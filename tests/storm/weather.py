"""Trials, many at a time, each thread on a stage of its own."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Self

from tests.servers.strict_registry import StrictRegistry
from tests.storm.stage import SIDES, Stage
from tests.storm.trial import Outcome, Trial, play, rehearse, trials

DOCKER, STRICT = KINDS = ("docker-registry", "strict")


class Weather:
    """`docker` are the ports of the two docker-registries, by side. Use it as a context manager."""

    def __init__(self, docker: Mapping[str, int], folder: Path) -> None:
        self._docker = dict(docker)
        self._folder = folder
        self._stack = ExitStack()
        self._lock = Lock()
        self._count = 0

    def __enter__(self) -> Self:
        self._strict = {side: self._stack.enter_context(StrictRegistry()).port for side in SIDES}
        self._first = {kind: self._open(kind, whole=True) for kind in KINDS}
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def every_trial(self) -> list[tuple[str, Trial]]:
        """With the kind of registry: half of them with each."""
        both = {kind: {one.id: one for one in trials(self._first[kind])} for kind in KINDS}
        found = []
        for name in dict.fromkeys((*both[DOCKER], *both[STRICT])):
            kinds = [kind for kind in KINDS if name in both[kind]]
            kind = kinds[zlib.crc32(name.encode()) % len(kinds)]
            found.append((kind, both[kind][name]))
        return found

    def sample(self, count: int, seed: int) -> list[tuple[str, Trial]]:
        return random.Random(seed).sample(self.every_trial(), count)

    def play(
        self, chosen: Iterable[tuple[str, Trial]], *, threads: int, on_outcome: Callable[[Outcome], None] | None = None
    ) -> Sequence[Outcome]:
        left: SimpleQueue[tuple[str, Trial] | None] = SimpleQueue()
        for one in chosen:
            left.put(one)
        outcomes: list[Outcome] = []

        def work(stages: dict[str, Stage]) -> None:
            while (one := left.get()) is not None:
                kind, trial = one
                with self._lock:
                    stage = stages.get(kind) or stages.setdefault(kind, self._open(kind))
                outcome = play(stage, trial)
                with self._lock:
                    outcomes.append(outcome)
                    if on_outcome is not None:
                        on_outcome(outcome)

        workers = [Thread(target=work, args=(self._first if not number else {},)) for number in range(threads)]
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
        rehearse(stage, whole=whole)
        return stage
