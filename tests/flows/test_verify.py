"""The flow `verify`."""

from __future__ import annotations

import asyncio

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

from flows import VerifyParameters, verify_sync
from oci.errors import Incomplete, InvalidInput, NotFound
from tasks.artifacts.report import artifact_key
from tests.flows.cargo import delete_blob
from tests.servers.docker_registry import DockerRegistry
from tests.support.content import digest_of, image, push
from tests.support.flow_runs import newest_run


@pytest.fixture
def shop(registry: DockerRegistry, repository: str) -> str:
    push(registry.url, f"verify/{repository}", image(1), "1.0")
    push(registry.url, f"verify/{repository}", image(2), "2.0")
    return f"{registry.host}/verify/{repository}"


def page_of(place: str) -> str:
    async def main() -> str:
        async with get_client() as client:
            wanted = ArtifactFilter(key=ArtifactFilterKey(any_=[artifact_key("verify", place)]))
            return str([one.data for one in await client.read_artifacts(artifact_filter=wanted)])

    return asyncio.run(main())


def last_run() -> tuple[str, str, str]:
    async def main() -> tuple[str, str, str]:
        async with get_client() as client:
            run = await newest_run(client)
            return run.name, str(run.state_name), str(run.state and run.state.message)

    return asyncio.run(main())


@pytest.mark.usefixtures("prefect")
def test_a_complete_repository_is_reported_so(shop: str) -> None:
    report = verify_sync(VerifyParameters(repositories=(shop,), references=(f"{shop}:1.0",), deep=True))

    assert report.complete
    assert [(one.names, one.manifests, one.blobs) for one in report.places] == [([], 2, 4)]
    assert report.places[0].bytes_hashed > 4000
    assert "Complete" in page_of(shop)
    assert last_run()[:2] == (f"verify {shop.rpartition('/')[2]} 1.0 and 1 more deep", "Completed")


@pytest.mark.usefixtures("prefect")
def test_what_is_missing_fails_the_run_and_is_on_the_page(registry: DockerRegistry, shop: str) -> None:
    lost = digest_of(image(2).blobs[0].data)
    delete_blob(registry, shop.partition("/")[2], lost)

    with pytest.raises(Incomplete, match="1 problem: ") as caught:
        verify_sync(VerifyParameters(references=(f"{shop}:1.0", f"{shop}:2.0")))

    assert lost in str(caught.value.failures[0])
    assert lost in page_of(shop)
    assert last_run()[1] == "Failed"


@pytest.mark.usefixtures("prefect")
def test_a_repository_that_can_not_be_listed_fails_the_run(shop: str) -> None:
    with pytest.raises(NotFound):
        verify_sync(VerifyParameters(repositories=(f"{shop}/nothing",)))
    assert "404" in last_run()[2]


@pytest.mark.parametrize("form", [{}, {"references": ["a b"]}, {"repositories": ["registry.example/shop:1"]}])
def test_a_form_that_makes_no_sense_is_refused(form: dict[str, list[str]]) -> None:
    with pytest.raises(InvalidInput):
        VerifyParameters.read(form)
