"""Nothing reads a persisted result: such a file names its own serializer, so a planted file could run code."""

from __future__ import annotations

import asyncio
import importlib
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect import Flow, Task, flow
from prefect.cache_policies import NO_CACHE

from tasks.run import remembered
from tests.support.prefect_server import PrefectServer

ROOT = Path(__file__).parent.parent.parent


def objects(kind: type[Any]) -> Iterator[Any]:
    """The flows or tasks of the product."""
    for path in sorted([*(ROOT / "tasks").glob("*.py"), *(ROOT / "flows").glob("*.py")]):
        if path.stem == "__init__":
            continue
        module = importlib.import_module(f"{path.parent.name}.{path.stem}")
        yield from (value for value in vars(module).values() if isinstance(value, kind))


def test_no_task_caches_and_none_persists_its_result() -> None:
    tasks: list[Task[..., Any]] = list({id(one): one for one in objects(Task)}.values())

    assert len(tasks) > 15
    assert [one.name for one in tasks if one.persist_result is not False or one.cache_policy != NO_CACHE] == []


def test_no_flow_persists_its_result() -> None:
    flows: list[Flow[..., Any]] = list({id(one): one for one in objects(Flow)}.values())

    assert len(flows) > 10
    assert [one.name for one in flows if one.persist_result is not False] == []


class Bomb:
    """A pickle that leaves a file behind when it is read."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.trace),)


def test_a_retried_run_gets_the_answer_of_the_attempt_before_and_reads_no_file(
    prefect: PrefectServer, tmp_path: Path
) -> None:
    asked: list[int] = []
    trace = tmp_path / "trace"

    async def ask() -> str:
        asked.append(1)
        return f"answer {len(asked)}"

    @flow(retries=1, retry_delay_seconds=0, persist_result=False)
    async def twice() -> str:
        answer = await remembered("the-answer", ask)
        if len(attempts) == 0:
            attempts.append(1)
            for path in [prefect.home / "results", prefect.home / "storage"]:
                path.mkdir(exist_ok=True)
                (path / "the-answer").write_bytes(pickle.dumps(Bomb(trace)))
            raise RuntimeError("the first attempt fails")
        return answer

    attempts: list[int] = []

    assert asyncio.run(twice()) == "answer 1"
    assert len(asked) == 1
    assert not trace.exists()


@pytest.mark.usefixtures("prefect")
def test_outside_of_a_flow_run_it_is_asked_each_time() -> None:
    async def ask() -> str:
        return "fresh"

    assert asyncio.run(remembered("the-answer", ask)) == "fresh"
