"""The driver: the order of its steps, and what its result says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from oci.errors import Incomplete, InvalidInput
from oci.reference import LayoutFolder
from oci.relocation.driver import Relocation, Step, Verify
from oci.relocation.request import RelocationRequest
from tests.servers.docker_registry import DockerRegistry
from tests.support.content import image, push
from tests.support.relocating import session


def blob_path(folder: Path, digest: str) -> Path:
    return folder / "blobs" / "sha256" / digest.removeprefix("sha256:")


def tags_of(folder: Path) -> list[str]:
    with session() as one:
        return list(one.destination(LayoutFolder(str(folder))).tags())


@pytest.fixture
def source(registry: DockerRegistry, repository: str) -> str:
    push(registry.url, repository, image(1), "1.0")
    return f"{registry.host}/{repository}:1.0"


@pytest.mark.parametrize("mode", [Verify.HEAD, Verify.DEEP])
def test_names_move_after_the_proof(source: str, other_registry: DockerRegistry, repository: str, mode: Verify) -> None:
    begun = len(other_registry.requests())
    with session() as one:
        result = Relocation(
            one, RelocationRequest(image=source, to=f"{other_registry.host}/{repository}"), verify=mode
        ).run()

    assert result.published.tags == ("1.0",)
    assert result.verification is not None
    assert (result.verification.manifests, result.verification.blobs) == (1, 2)
    seen = [(one.method, one.path.rpartition("/")[2]) for one in other_registry.requests()[begun:]]
    named = seen.index(("PUT", "1.0"))
    digest = str(result.plan.root)
    assert ("GET", digest) in seen[:named]
    assert seen[named + 1 :] == [("HEAD", "1.0")]  # which is read back


@pytest.mark.parametrize("mode", [Verify.HEAD, Verify.DEEP])
def test_no_name_moves_when_the_proof_fails(source: str, tmp_path: Path, mode: Verify) -> None:
    to = f"oci:{tmp_path}"
    with session() as one:
        Relocation(one, RelocationRequest(image=source, to=to, tags=("old",))).run()
        lost = one.destination(LayoutFolder(str(tmp_path))).get_manifest("old").layers[0].digest
    blob_path(tmp_path, lost).unlink()

    with session() as one:
        relocation = Relocation(one, RelocationRequest(image=source, to=to, tags=("new",)), verify=mode)
        with pytest.raises(Incomplete) as caught:
            relocation.run()
        result = relocation.result()

    assert lost in str(caught.value.failures[0])
    assert "new" not in tags_of(tmp_path)
    assert result.published.tags == ()
    assert result.verification is not None
    assert len(result.verification.problems) == 1
    assert result.error is caught.value
    body = json.loads(json.dumps(result.to_dict()))
    assert body["verification"]["problems"] == list(result.verification.problems)
    assert "1 problem" in body["error"]


def test_a_root_that_its_tag_holds_is_verified_before_the_tag_moves(source: str, tmp_path: Path) -> None:
    request = RelocationRequest(image=source, to=f"oci:{tmp_path}", tag_keeps_alive=True)
    with session() as one:
        result = Relocation(one, request, verify=Verify.HEAD).run()

    assert result.verification is not None
    assert result.verification.problems == ()
    assert tags_of(tmp_path) == ["1.0"]


def test_a_driver_may_take_the_steps_one_by_one(source: str, tmp_path: Path) -> None:
    with session() as one:
        relocation = Relocation(one, RelocationRequest(image=source, to=f"oci:{tmp_path}"), verify=Verify.HEAD)
        with pytest.raises(InvalidInput):
            relocation.result()
        for image_ in relocation.make_plan().images:
            relocation.transfer(image_.digest)
        assert relocation.closing_steps == (Step.CONTENT, Step.VERIFY, Step.NAMES)
        for step in relocation.closing_steps:
            relocation.take(step)
        result = relocation.result()

    assert [outcome.status for outcome in result.outcomes] == ["done"]
    assert result.published.tags == ("1.0",)


def test_nothing_is_published_of_an_incomplete_transfer(source: str, tmp_path: Path) -> None:
    with session() as one:
        relocation = Relocation(one, RelocationRequest(image=source, to=f"oci:{tmp_path}"))
        relocation.make_plan()
        with pytest.raises(Incomplete):
            relocation.take(Step.PUBLISH)


def test_a_copy_between_registries_loads_no_archives() -> None:
    code = "import sys; import oci.relocation.driver; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    loaded = set(done.stdout.split())
    assert not loaded & {
        "oci.archive.source",
        "oci.archive.s3",
        "oci.export.export",
        "boto3",
        "pydantic",
        "prefect",
        "rich",
    }
