"""A sample of the storm; `make storm` plays all of it."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.servers.docker_registry import DockerRegistry
from tests.servers.seaweedfs import SeaweedFS
from tests.storm.faults import ROWS
from tests.storm.s3 import Shore
from tests.storm.trial import POSITIONS, Kind
from tests.storm.weather import Weather

SAMPLE = 150
SEED = 20261129


@pytest.fixture(scope="module")
def weather(
    registry: DockerRegistry, other_registry: DockerRegistry, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Weather]:
    ports = {"source": registry.port, "destination": other_registry.port}
    with Weather(ports, tmp_path_factory.mktemp("storm")) as one:
        yield one


def test_the_table_is_as_large_as_promised(weather: Weather) -> None:
    assert len({row.name for row in ROWS}) == len(ROWS) >= 80
    chosen = weather.trials(every=False)
    assert len(chosen) >= 900
    assert {trial.row.name for _, trial in weather.trials()} == {trial.row.name for _, trial in chosen}
    assert {trial.position for _, trial in chosen} == set(POSITIONS)


@pytest.mark.slow
def test_every_end_is_proven_or_a_clean_error(weather: Weather) -> None:
    """150 of the thousands of trials, always the same."""
    outcomes = weather.play(weather.sample(SAMPLE, SEED), threads=4)

    wrong = [f"{one.trial.id}: {one.note}" for one in outcomes if one.kind is Kind.OTHER]
    assert not wrong, "\n".join(wrong)
    counts = Counter(one.kind for one in outcomes)
    assert counts[Kind.COMPLETED] + counts[Kind.CLEAN] + counts[Kind.UNSEEN] == SAMPLE
    assert min(counts[Kind.COMPLETED], counts[Kind.CLEAN]) > 20


MENDED_S3 = (
    # boto3 followed it until Python's stack was full.
    "S3: a redirect to the metadata service | export to S3 | destination | first",
    # Each of 11,000 requests brought a thousand bytes, and counted as progress.
    "S3: always truncated | import from S3 | source | middle",
    # The body of the note of an upload was read where boto3's errors aren't ours.
    "S3: stalls | export to S3 | destination | last",
)


@pytest.mark.slow
def test_object_stores_do_wrong_things_too(object_store: SeaweedFS) -> None:
    with Shore(object_store) as shore:
        every = shore.trials()
        assert len({trial.row.name for trial in every}) >= 24
        chosen = [*random.Random(SEED).sample(every, 10), *(trial for trial in every if trial.id in MENDED_S3)]
        assert len(chosen) == 10 + len(MENDED_S3)
        outcomes = [shore.play(trial) for trial in chosen]

    assert [f"{one.trial.id}: {one.note}" for one in outcomes if one.kind is Kind.OTHER] == []


MENDED = (
    # An index that can't be read was taken for a registry without the API, and thus for no referrers.
    "referrers: not an index | mirror | source | middle",
    # A deletion that was answered with 404 was taken for done.
    "a deletion is 404 | prune | destination | middle",
    # An object without tags was taken for an empty list of tags.
    "another body | tag list | source | first",
    # Errors of redirects named no reference.
    "a redirect to a file | export | source | last",
    # A mirror's report said how many images failed, and not why.
    "a redirect to a file | mirror | source | middle",
    # The second of two answers was taken for the answer to the next request.
    "the answer twice | describe | source | middle",
    # Names were moved after the proof, and not looked at.
    "a manifest taken and not kept | copy and verify | destination | last",
)
"""Trials that ended otherwise once."""


def test_what_was_mended_stays_so(weather: Weather) -> None:
    chosen = [(kind, trial) for kind, trial in weather.trials() if trial.id in MENDED]
    assert len(chosen) == len(MENDED)

    outcomes = weather.play(chosen, threads=2)

    assert [f"{one.trial.id}: {one.note}" for one in outcomes if one.kind in (Kind.OTHER, Kind.UNSEEN)] == []
