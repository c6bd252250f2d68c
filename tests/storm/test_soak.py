"""A minute of `make soak`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.storm.soak import soak


@pytest.mark.slow
def test_a_minute_of_mirroring_with_faults_leaves_everything_as_it_was(tmp_path: Path) -> None:
    found = soak(tmp_path, 60.0, 20261129)

    print(found)
    assert found.wrong == []
    assert found.runs > 4
    assert found.faults
