from __future__ import annotations

import asyncio
import importlib
import json
import tomllib
import uuid
from pathlib import Path
from typing import Any
from uuid import UUID

import prefect.server
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import BlockDocumentCreate, BlockSchemaCreate, BlockTypeCreate
from prefect.exceptions import ObjectNotFound
from prefect.logging import disable_run_logger
from pydantic import SecretStr, ValidationError

from oci.archive.options import S3Options
from oci.errors import InvalidInput
from oci.registry.options import RegistryOptions
from oci.relocation.session import Access
from tasks.blocks import BlockCredentials, RegistryCredentials, S3Store, load_credentials, load_s3
from tasks.run import Side

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
    """`abandoned_after` is in days there, and the origin is the block."""
    fields = {name for name in S3Store.model_fields if not name.startswith("_")}

    assert set(S3Options.__struct_fields__) - fields == {"abandoned_after", "origin"}
    assert S3Store().settings() == S3Options()


@pytest.mark.parametrize("wrong", [{"endpoint": "https://a:b@s3.corp.example"}, {"encryption": "rot13"}])
def test_an_object_store_that_makes_no_sense_is_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        S3Store(**wrong)  # type: ignore[arg-type]


def test_without_a_name_the_environment_says_it() -> None:
    assert asyncio.run(load_s3("")) == S3Options()


async def save_foreign(slug: str, data: dict[str, Any]) -> tuple[str, UUID]:
    """Keeps a block of a package that isn't installed, by the schema that Prefect's catalogue has of it."""
    catalogue = json.loads(Path(prefect.server.__file__).with_name("collection_blocks_data.json").read_text())
    kinds = [one["block_types"][slug] for one in catalogue["collections"].values() if slug in one["block_types"]]
    async with get_client() as client:
        try:
            kind = await client.read_block_type_by_slug(slug)
        except ObjectNotFound:
            kind = await client.create_block_type(BlockTypeCreate(name=kinds[0]["name"], slug=slug))
        schema = await client.create_block_schema(
            BlockSchemaCreate(fields=kinds[0]["block_schema"]["fields"], block_type_id=kind.id)
        )
        name = f"foreign-{uuid.uuid4().hex[:8]}"
        document = await client.create_block_document(
            BlockDocumentCreate(name=name, data=data, block_type_id=kind.id, block_schema_id=schema.id)
        )
    return name, document.id


@pytest.mark.usefixtures("prefect")
def test_the_logins_of_prefect_docker_serve_by_their_type_and_name_and_by_id() -> None:
    async def main() -> list[BlockCredentials]:
        login = {"username": "bob", "password": SECRET, "registry_url": "https://corp.example:5000/v2/"}
        name, key = await save_foreign("docker-registry-credentials", login)
        return [await load_credentials([f"docker-registry-credentials/{name}"]), await load_credentials([str(key)])]

    for found in asyncio.run(main()):
        credential = found.find("corp.example:5000", "r")
        assert credential is not None
        assert (credential.username, credential.password) == ("bob", SECRET)


@pytest.mark.usefixtures("prefect")
def test_the_blocks_of_prefect_aws_say_how_a_store_is_reached() -> None:
    async def main() -> list[S3Options]:
        keys = {
            "aws_access_key_id": "key",
            "aws_secret_access_key": SECRET,
            "region_name": "eu-central-1",
            "aws_client_parameters": {"endpoint_url": "https://s3.corp.example", "verify": False},
        }
        name, key = await save_foreign("aws-credentials", keys)
        bucket, _ = await save_foreign(
            "s3-bucket", {"bucket_name": "a", "credentials": {"$ref": {"block_document_id": str(key)}}}
        )
        return [await load_s3(f"aws-credentials/{name}"), await load_s3(f"s3-bucket/{bucket}")]

    for found in asyncio.run(main()):
        assert (found.access_key, found.secret_key, found.region) == ("key", SECRET, "eu-central-1")
        assert (found.endpoint, found.verify_tls) == ("https://s3.corp.example", False)
        assert found.origin.startswith("block foreign-")


@pytest.mark.usefixtures("prefect")
def test_a_block_of_another_kind_is_refused_with_the_kinds_that_serve() -> None:
    async def main() -> None:
        name = f"store-{uuid.uuid4().hex[:8]}"
        await S3Store().asave(name)
        await load_credentials([f"s3-store/{name}"])

    with pytest.raises(InvalidInput, match="is of the type s3-store") as refused:
        asyncio.run(main())
    assert "registry-credentials" in refused.value.hint


@pytest.mark.usefixtures("prefect")
def test_a_block_says_how_its_registry_is_reached() -> None:
    name = f"corp-{uuid.uuid4().hex[:8]}"

    async def main() -> Access:
        await RegistryCredentials(registry="corp.example", settings={"insecure": True}).asave(name)
        side = Side(credentials=(name,), settings=RegistryOptions(retries=7))
        with disable_run_logger():
            return await side.access("destination")

    access = asyncio.run(main())

    assert (access.settings("corp.example").insecure, access.settings("corp.example").retries) == (True, 7)
    assert not access.settings("other.example").insecure


def test_settings_that_no_registry_has_are_refused() -> None:
    with pytest.raises(ValidationError, match="insecur: unknown option"):
        RegistryCredentials(registry="corp.example", settings={"insecur": True})


def test_prefect_knows_the_blocks_as_a_collection_of_this_package() -> None:
    project = tomllib.loads((Path(__file__).parent.parent.parent / "pyproject.toml").read_text())["project"]
    module = importlib.import_module(project["entry-points"]["prefect.collections"]["transship"])

    assert {module.RegistryCredentials, module.S3Store} == {RegistryCredentials, S3Store}
