"""Receipts and signed archives of flows: the key is a file of the worker or a block, and never a parameter."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from flows import RelocateParameters, relocate_sync
from flows.parameters import SourceKind, Verify
from flows.parameters.relocate import TarballOptions
from oci.errors import InvalidInput, NotSigned
from oci.relocation.request import CopyOptions, ReceiptOptions
from tasks.blocks import SigningKey
from tests.servers.docker_registry import DockerRegistry
from tests.support.content import OCI_INDEX
from tests.support.cosign_key import cosign_key
from tests.support.flow_runs import newest_run, with_client
from tests.support.sealing import SUFFIX, signed_statement
from tests.support.shop import Shop, push_shop
from tests.support.signing import Signer

pytestmark = pytest.mark.usefixtures("prefect")

SIGNER = Signer.make()
PASSWORD = "not-to-be-seen-5b1d"


@pytest.fixture(scope="module")
def shop(registry: DockerRegistry) -> Shop:
    return push_shop(registry.url, "flows/receipts", seed=61)


@pytest.fixture
def public(tmp_path: Path) -> Path:
    return SIGNER.write(tmp_path / "cosign.pub")


def test_a_flow_signs_its_receipt_with_a_block_and_names_its_run(
    shop: Shop, other_registry: DockerRegistry, repository: str, public: Path, tmp_path: Path
) -> None:
    block = SigningKey(key=SecretStr(cosign_key(SIGNER, PASSWORD).decode()), password=SecretStr(PASSWORD))
    asyncio.run(block.asave("receipts-key", overwrite=True))
    receipt = tmp_path / "shop.receipt.json"
    parameters = RelocateParameters(
        source=shop.reference,
        destination=f"{other_registry.host}/{repository}",
        receipts=ReceiptOptions(receipt=str(receipt), attach_receipt=True),
        signing_key="receipts-key",
        verify=Verify.HEAD,
    )

    relocate_sync(parameters)

    run = with_client(newest_run)
    said = signed_statement(receipt.read_bytes(), public, tmp_path)["predicate"]
    assert said["run"]["id"] == str(run.id)
    assert said["tags"]["1.4.0"] == shop.bundle.digest
    assert said["verification"]["mode"] == "head"
    assert said["verification"]["blobs"] > 0
    assert {image["status"] for image in said["images"]} == {"done"}
    assert PASSWORD not in json.dumps(run.parameters)
    fallback = f"{other_registry.url}/v2/{repository}/manifests/sha256-{shop.bundle.hex}"
    assert len(httpx.get(fallback, headers={"Accept": OCI_INDEX}).json()["manifests"]) == 1


def test_a_flow_signs_an_archive_and_another_asks_for_it(
    shop: Shop, other_registry: DockerRegistry, repository: str, public: Path, tmp_path: Path
) -> None:
    key = tmp_path / "cosign.key"
    key.write_bytes(SIGNER.private())
    archive, receipt = tmp_path / "shop.tar", tmp_path / "shop.receipt.json"
    out = RelocateParameters(
        source=shop.reference,
        destination=str(archive),
        receipts=ReceiptOptions(receipt=str(receipt), sign=str(key)),
        tarball=TarballOptions(sha256sums=True),
    )
    relocate_sync(out)

    said = signed_statement(receipt.read_bytes(), public, tmp_path)["predicate"]
    [(name, digest)] = said["files"].items()
    assert (tmp_path / "shop.tar.SHA256SUMS").read_text() == f"{digest}  {name}\n"

    back = RelocateParameters(
        kind=SourceKind.ARCHIVE,
        source=str(archive),
        destination=f"{other_registry.host}/{repository}",
        how=CopyOptions(require_signature=str(public)),
    )
    assert relocate_sync(back).published
    Path(f"{archive}{SUFFIX}").unlink()
    with pytest.raises(NotSigned):
        relocate_sync(back)


def test_a_block_that_is_not_there_is_said_before_any_work(
    shop: Shop, other_registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    parameters = RelocateParameters(
        source=shop.reference,
        destination=f"{other_registry.host}/{repository}",
        receipts=ReceiptOptions(receipt=str(tmp_path / "r.json")),
        signing_key="no-such-key",
    )
    with pytest.raises(InvalidInput) as refused:
        relocate_sync(parameters)

    assert "no-such-key" in refused.value.message
    assert other_registry.repository_tags(repository) == []
