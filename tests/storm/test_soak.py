"""A minute of `make soak`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.storm.soak import Sample, Soaked, soak


@pytest.mark.parametrize("runs", [False, True], ids=["idle", "always a run but once"])
@pytest.mark.parametrize("leak", [0, 4])
def test_threads_of_a_run_are_no_leak(runs: bool, leak: int) -> None:
    """Four threads more for each twenty seconds are one; those of runs that last longer than before are none."""
    idle = [3 + leak * (second // 20) for second in range(60)]
    threads = [count + 5 * (runs and second > 40 and second % 20 != 10) for second, count in enumerate(idle)]
    found = Soaked(samples=[Sample(50 << 20, 20, count) for count in threads])

    assert len(found.grown()) == (leak > 0)


@pytest.mark.slow
def test_a_minute_of_mirroring_with_faults_leaves_everything_as_it_was(tmp_path: Path) -> None:
    found = soak(tmp_path, 60.0, 20261129)

    print(found)
    assert found.wrong == []
    assert found.runs > 4
    assert found.faults
