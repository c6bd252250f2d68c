from __future__ import annotations

import pytest

from tasks.sizes import human, percent


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (1 << 30, "1.0 GiB"), (1 << 60, "1024.0 PiB")]
)
def test_bytes_are_told_in_the_largest_unit_that_leaves_one(count: int, text: str) -> None:
    assert human(count) == text


def test_percent_of_nothing_is_all_and_never_more() -> None:
    assert percent(0, 0) == 100.0
    assert percent(3, 4) == 75.0
    assert percent(5, 4) == 100.0
