"""A prune at registries that behave as well-known ones do: what is kept stays whole, the rest goes, or it is said."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

import oci
from oci.errors import Refused, StoreError
from oci.registry.credentials.credential import Credential, Credentials, Fixed
from oci.registry.options import RegistryOptions
from oci.relocation.driver import Relocation
from oci.relocation.request import RelocationRequest
from oci.relocation.session import Access, Session
from oci.signatures.artifacts import ALL
from tests.servers.profile_registry import PASSWORD, PROFILES, USER, Profile, ProfileRegistry
from tests.servers.strict_registry import StrictRegistry
from tests.support.content import artifact, image, index, push, signature, signature_tag

IMAGES = [image(1), image(2)]
KEPT, UNWANTED, ANOTHER = index(IMAGES), image(3), image(4)
KEPT_SBOM, UNWANTED_SBOM, UNWANTED_SIGNATURE = (
    artifact(9, subject=KEPT),
    artifact(10, subject=UNWANTED),
    signature(UNWANTED),
)
GAR = next(profile for profile in PROFILES if profile.name == "GAR")
UNTAGS_FIRST = replace(GAR, name="GAR, whose tags can be deleted", refuses={"PATCH": 404})
"""A manifest stays as long as a tag shows it."""


@pytest.fixture(scope="module")
def source() -> Iterator[str]:
    with StrictRegistry() as server:
        for tag, content in {
            "v1": KEPT,
            "v2": UNWANTED,
            "v3": ANOTHER,
            signature_tag(UNWANTED): UNWANTED_SIGNATURE,
        }.items():
            push(server.url, "lib/app", content, tag)
        push(server.url, "lib/app", KEPT_SBOM)
        push(server.url, "lib/app", UNWANTED_SBOM)
        yield f"{server.host}/lib/app"


def session() -> Session:
    access = Access(
        credentials=Credentials([Fixed(Credential(USER, PASSWORD))]), default=RegistryOptions(concurrency=9)
    )
    return Session(source=access, destination=access)


@pytest.mark.parametrize("profile", [*PROFILES, UNTAGS_FIRST], ids=lambda profile: profile.name)
def test_what_is_kept_stays_whole_and_the_rest_goes_where_it_may(profile: Profile, source: str) -> None:
    with ProfileRegistry(profile) as stub:
        name = f"{stub.host}/team/app"
        with session() as one:
            for tag in ("v1", "v2", "v3"):
                Relocation(one, RelocationRequest(image=f"{source}:{tag}", to=name, artifacts=ALL, tags=(tag,))).run()
        stored = stub.store.repositories["team/app"]
        before = set(stored.manifests)
        refuses = profile.features.no_deletes or "delete manifest" in profile.refuses
        with session() as one:
            if "list" in profile.refuses:
                with pytest.raises(StoreError) as caught:
                    oci.plan_prune(name, oci.Keep(tags=("v1",)), session=one)
                assert caught.value.status == profile.refuses["list"]
                return
            plan = oci.plan_prune(name, oci.Keep(tags=("v1",)), session=one)
            if refuses:
                with pytest.raises(Refused, match="doesn't delete"):
                    oci.execute_prune(plan, session=one)
                assert set(stored.manifests) == before
                return
            report = oci.execute_prune(plan, session=one)

        kept = {content.digest for content in (KEPT, *IMAGES, KEPT_SBOM)}
        assert stored.tags["v1"] == KEPT.digest
        assert kept <= set(stored.manifests)
        stays = profile.tagged_digest_stays and "delete tag" in profile.refuses
        unwanted = {content.digest for content in (UNWANTED, ANOTHER, UNWANTED_SIGNATURE)}
        assert bool(unwanted & set(stored.manifests)) == stays
        assert bool(report.failed) == stays
        assert ("v2" in stored.tags) == stays
        assert (UNWANTED_SBOM.digest in stored.manifests) == (stays or profile.tag_is_digest)
        assert report.skipped == ()
