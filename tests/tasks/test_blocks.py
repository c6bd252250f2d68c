from __future__ import annotations

import asyncio
import uuid

import pytest
from pydantic import SecretStr, ValidationError

from oci.errors import InvalidInput
from tasks.blocks import BlockCredentials, RegistryCredentials, load_credentials

SECRET = "s3cr3t-of-the-test"


def block(registry: str) -> RegistryCredentials:
    return RegistryCredentials(registry=registry, username="bob", password=SecretStr(SECRET))


def test_a_block_answers_for_its_own_registry_and_for_no_other() -> None:
    found = BlockCredentials([block("corp.example:5000")])

    credential = found.find("corp.example:5000", "any/repository")
    assert credential is not None
    assert (credential.username, credential.password) == ("bob", SECRET)
    assert found.find("corp.example", "any/repository") is None


def test_the_first_of_two_blocks_for_one_registry_wins() -> None:
    second = RegistryCredentials(registry="corp.example", username="eve")

    credential = BlockCredentials([block("corp.example"), second]).find("corp.example", "r")

    assert credential is not None
    assert credential.username == "bob"


def test_docker_hub_has_one_name() -> None:
    assert BlockCredentials([block("docker.io")]).find("index.docker.io", "library/busybox") is not None


@pytest.mark.parametrize("host", ["https://corp.example", "corp.example/shop", "bob@corp.example", ""])
def test_a_block_takes_a_host_and_nothing_more(host: str) -> None:
    with pytest.raises(ValidationError):
        block(host)


def test_no_secret_shows_in_what_is_printed() -> None:
    assert SECRET not in repr(block("corp.example"))
    assert SECRET not in repr(block("corp.example").credential())


@pytest.mark.usefixtures("prefect")
def test_saved_blocks_are_loaded_by_name() -> None:
    name = f"corp-{uuid.uuid4().hex[:8]}"

    async def main() -> BlockCredentials:
        await block("corp.example").asave(name)
        return await load_credentials([name])

    credential = asyncio.run(main()).find("corp.example", "r")

    assert credential is not None
    assert credential.password == SECRET
    assert credential.origin == f"block {name}"


@pytest.mark.usefixtures("prefect")
def test_a_name_that_no_block_has_is_said() -> None:
    with pytest.raises(InvalidInput, match="no Registry Credentials block named 'no-such-block'"):
        asyncio.run(load_credentials(["no-such-block"]))
