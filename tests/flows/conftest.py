from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from oci.documents.variables import CONSENT
from tests.support.prefect_server import delete_automations, filter_prefect_leaks, prefect, prefect_server

__all__ = ["prefect", "prefect_server"]


@pytest.fixture(scope="session", autouse=True)
def local_paths() -> Iterator[None]:
    """This machine, and the workers that tests start on it, let mirrors name its files."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CONSENT, "paths")
        yield


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    filter_prefect_leaks(items, Path(__file__).parent)


@pytest.fixture(scope="module", autouse=True)
def no_automation_outlives_its_module(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    delete_automations(request.config)
