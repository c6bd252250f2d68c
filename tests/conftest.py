"""Servers that many tests share. Each test uses repositories of its own, so that a registry may be shared."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from tests.servers.docker_registry import DockerRegistry
from tests.servers.seaweedfs import BUCKET, SeaweedFS

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    """Debian's docker-registry, plain http."""
    with DockerRegistry(tmp_path_factory.mktemp("registry")) as server:
        yield server


@pytest.fixture(scope="session")
def other_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    """A second one, to copy to."""
    with DockerRegistry(tmp_path_factory.mktemp("other-registry")) as server:
        yield server


@pytest.fixture(scope="session")
def object_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    """SeaweedFS with the one bucket that all tests share."""
    with SeaweedFS(tmp_path_factory.mktemp("seaweedfs")) as server:
        yield server


@pytest.fixture
def s3_location() -> str:
    """An object that no other test uses."""
    return f"s3://{BUCKET}/test{next(_numbers)}/shop.tar"


@pytest.fixture
def repository() -> str:
    """A repository path that no other test uses."""
    return f"test{next(_numbers)}/repository"
