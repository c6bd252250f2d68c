from __future__ import annotations

import asyncio
import uuid

import pytest
from pydantic import SecretStr, ValidationError

from oci.archive.s3_options import S3Options
from oci.errors import InvalidInput
from tasks.blocks import BlockCredentials, RegistryCredentials, S3Store, load_credentials, load_s3

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


def test_a_block_says_how_an_object_store_is_reached() -> None:
    store = S3Store(
        endpoint="https://s3.corp.example",
        access_key="key",
        secret_key=SecretStr(SECRET),
        encryption="aws:kms:key-1",
        tags={"team": "platform"},
        abandoned_after_days=2,
    )

    settings = store.settings()
    assert (settings.endpoint, settings.access_key, settings.secret_key) == ("https://s3.corp.example", "key", SECRET)
    assert (settings.encryption, settings.tags, settings.abandoned_after) == (
        "aws:kms:key-1",
        {"team": "platform"},
        172_800.0,
    )
    assert SECRET not in repr(store) + repr(settings)


def test_a_block_has_every_option_of_an_object_store() -> None:
    """`abandoned_after` is in days there."""
    fields = {name for name in S3Store.model_fields if not name.startswith("_")}

    assert set(S3Options.__struct_fields__) - fields == {"abandoned_after"}
    assert S3Store().settings() == S3Options()


@pytest.mark.parametrize("wrong", [{"endpoint": "https://a:b@s3.corp.example"}, {"encryption": "rot13"}])
def test_an_object_store_that_makes_no_sense_is_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        S3Store(**wrong)  # type: ignore[arg-type]


def test_without_a_name_the_environment_says_it() -> None:
    assert asyncio.run(load_s3("")) == S3Options()
