"""Sizes, durations and counts, as people write and read them."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oci.units import counted, exact_size, parse_duration, parse_size, percent, show_duration, show_size


@pytest.mark.parametrize(
    ("number", "noun", "text"),
    [
        (0, "image", "0 images"),
        (1, "image", "1 image"),
        (2, "nested bundle", "2 nested bundles"),
        (1, "entry", "1 entry"),
        (3, "repository", "3 repositories"),
    ],
)
def test_a_noun_follows_its_number(number: int, noun: str, text: str) -> None:
    assert counted(number, noun) == text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (1 << 30, "1.0 GiB"), (1 << 60, "1024.0 PiB")]
)
def test_bytes_are_shown_in_the_largest_unit_that_gives_at_least_1(count: int, text: str) -> None:
    assert show_size(count) == text


def test_percent_of_nothing_is_all_and_never_more() -> None:
    assert percent(0, 0) == 100.0
    assert percent(3, 4) == 75.0
    assert percent(5, 4) == 100.0


@pytest.mark.parametrize(
    ("text", "size"),
    [("4GiB", 4 << 30), ("500MB", 500_000_000), ("1.5k", 1500), ("17", 17), (" 2 MiB ", 2 << 20), ("1B", 1)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "many", "-1", "4 GiBs", "1e9", "9" * 5000, "1 2"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="invalid size"):
        parse_size(text)


@given(st.integers(0, 1 << 60))
def test_an_exact_size_reads_back(size: int) -> None:
    assert parse_size(exact_size(size)) == size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("30s", 30),
        ("1m30s", 90),
        ("1.5h", 5400),
        (".5s", 0.5),
        ("1d12h", 129_600),
        ("2w", 1_209_600),
        ("90s", 90),
        ("", 0),
        ("0", 0),
        ("30m", 1800),
        ("10us", 1e-5),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text).total_seconds() == seconds
    assert parse_duration(show_duration(parse_duration(text))) == parse_duration(text)


@pytest.mark.parametrize("text", ["7 days", "7", "s", "1x", "1s ", "-1s", "1h 30m", "9" * 100 + "s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="is no length of time"):
        parse_duration(text)


def test_a_duration_has_an_end() -> None:
    with pytest.raises(ValueError, match="too long a time"):
        parse_duration("999999999999w")


@given(st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=100_000)))
def test_a_shown_duration_reads_back(duration: timedelta) -> None:
    assert abs(parse_duration(show_duration(duration)) - duration) <= timedelta(microseconds=1)
