from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.prefect_server import filter_prefect_leaks, prefect_server

__all__ = ["prefect_server"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    filter_prefect_leaks(items, Path(__file__).with_name("test_fronts.py"))
