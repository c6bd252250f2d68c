from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.servers.strict_registry import StrictRegistry


@pytest.fixture(scope="session")
def strict() -> Iterator[StrictRegistry]:
    with StrictRegistry() as server:
        yield server
