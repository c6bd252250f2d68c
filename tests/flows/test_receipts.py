"""Receipts and signed archives of flows: the key is a file of the worker or a block, and never a parameter."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from pydantic import SecretStr

from flows import (
    MirrorParameters,
    RelocateParameters,
    VerifyReceiptParameters,
    mirror_sync,
    relocate_sync,
    verify_receipt_sync,
)
from flows.mirror import MirrorShardParameters
from flows.parameters.relocate import SourceKind, TarballOptions
from oci.errors import Incomplete, InvalidInput, NotSigned
from oci.mirror.config import MirrorsConfig
from oci.receipts.check import LOST_IMAGE, LOST_TAG
from oci.relocation.driver import Verify
from oci.relocation.request import CopyOptions, ReceiptOptions
from tasks.blocks import SigningKey
from tasks.fleet.queue import ShardQueue
from tasks.run import DRIFT
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


def test_a_mirror_signs_its_receipts_with_a_block_and_a_flow_compares_them(
    shop: Shop, other_registry: DockerRegistry, repository: str, public: Path, tmp_path: Path
) -> None:
    asyncio.run(SigningKey(key=SecretStr(SIGNER.private().decode())).asave("mirror-key", overwrite=True))
    here, folder = f"{other_registry.host}/{repository}", tmp_path / "receipts"
    file = tmp_path / "mirrors.yaml"
    receipts = {"folder": str(folder), "attach": True, "signing_key": "mirror-key"}
    one = {"name": "shop", "source": {"bundle": shop.reference}, "destinations": [{"repository": here}]}
    file.write_text(json.dumps({"version": 1, "mirrors": [{**one, "receipts": receipts}]}))

    assert mirror_sync(MirrorParameters(path=str(file))).succeeded

    receipt = folder / "shop.receipt.json"
    said = signed_statement(receipt.read_bytes(), public, tmp_path)["predicate"]
    assert said["tags"] == {"1.4.0": shop.bundle.digest}
    assert said["run"]["id"] == str(with_client(newest_run).id)
    for name in (str(receipt), f"{here}:1.4.0"):
        checked = verify_receipt_sync(VerifyReceiptParameters(receipt=name, keys=(str(public),), deep=True))
        assert (checked.images, checked.differences) == (1, ())
    httpx.delete(f"{other_registry.url}/v2/{repository}/manifests/{shop.bundle.digest}").raise_for_status()
    with pytest.raises(Incomplete) as drift:
        verify_receipt_sync(VerifyReceiptParameters(receipt=str(receipt), keys=(str(public),)))
    assert {failure.message.partition(":")[0] for failure in drift.value.failures} == {LOST_IMAGE, LOST_TAG}
    state = with_client(newest_run).state
    assert state is not None
    assert state.name == DRIFT
    strange = Signer.make().write(tmp_path / "strange.pub")
    with pytest.raises(NotSigned):
        verify_receipt_sync(VerifyReceiptParameters(receipt=str(receipt), keys=(str(strange),)))


def test_a_run_that_helps_writes_no_receipts(tmp_path: Path) -> None:
    """Its consent, its key and its files are another machine's."""
    left = {"folder": str(tmp_path), "sign": "cosign.key"}
    body = {"name": "a", "source": {"repository": "a.example/xx"}, "destinations": [{"repository": "b.example/xx"}]}
    config = MirrorsConfig.make({"version": 1, "mirrors": [{**body, "receipts": left}]})

    sent = MirrorShardParameters.sent(config, config.mirrors[0], ShardQueue(uuid4(), "work", user="a"))

    assert "receipts" not in json.dumps(sent)
