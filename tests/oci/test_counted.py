"""Numbers with what they count."""

from __future__ import annotations

import pytest

from oci.counted import counted


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
