"""Every operation against every registry: it ends complete and proven, whatever the registry refuses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import pytest

from oci.digest import Digest
from oci.errors import Incomplete, StoreError
from oci.reference import Repository
from oci.registry import profiles
from oci.registry.credentials.credential import Credential, Credentials, Fixed
from oci.registry.endpoints import KINDS
from oci.registry.options import RegistryOptions
from oci.registry.profiles import Profile
from oci.registry.referrers import fallback_tag
from oci.relocation.driver import Relocation, RelocationResult, Verify
from oci.relocation.request import RelocationRequest
from oci.relocation.session import Access, Session
from oci.signatures.artifacts import ALL
from tests.servers import profile_registry
from tests.servers.profile_registry import PASSWORD, USER, ProfileRegistry
from tests.servers.strict_registry import StrictRegistry
from tests.support.content import artifact, digest_of, image, index, layer, noise, push, signature, signature_tag

SHARED = layer(7, 400_000)
BIG = noise(1, 2_500_000)
IMAGES = [image(1, layers=(SHARED, BIG)), image(2, layers=(SHARED,)), image(3)]
ROOT = index(IMAGES)
SBOM = artifact(9, subject=ROOT)
SIGNATURE = signature(ROOT)
STUBS = {stub.name: stub for stub in profile_registry.PROFILES}


@pytest.fixture(scope="module")
def source() -> Iterator[StrictRegistry]:
    with StrictRegistry() as server:
        push(server.url, "lib/app", ROOT, "v1")
        push(server.url, "lib/app", SIGNATURE, signature_tag(ROOT))
        push(server.url, "lib/app", SBOM)
        yield server


@contextmanager
def session() -> Iterator[Session]:
    credentials = Credentials([Fixed(Credential(USER, PASSWORD, origin="the test"))])
    options = RegistryOptions(retries=3, header_timeout=10.0, concurrency=9)
    access = Access(credentials=credentials, default=options)
    with Session(source=access, destination=access) as one:
        yield one


def copied(from_: str, to: str) -> RelocationResult:
    with session() as one:
        request = RelocationRequest(image=from_, to=to, artifacts=ALL, tags=("v1",))
        try:
            return Relocation(one, request, verify=Verify.DEEP).run()
        except Incomplete as error:
            raise AssertionError([str(failure) for failure in error.failures]) from error


def assert_complete(server: StrictRegistry, repository: str, *, sbom: bool = True) -> None:
    """An independent look into the registry's store."""
    stored = server.store.repositories[repository]
    assert stored.tags["v1"] == ROOT.digest
    assert stored.tags[signature_tag(ROOT)] == SIGNATURE.digest
    expected = (ROOT, *IMAGES, SIGNATURE, *([SBOM] if sbom else []))
    for content in expected:
        assert stored.manifests[content.digest][1] == content.raw
        for blob in content.blobs:
            assert digest_of(blob.data) in stored.blobs
            assert server.store.blobs[digest_of(blob.data)] == blob.data
    if (
        sbom
        and not server.features.referrers
        and not (isinstance(server, ProfileRegistry) and server.profile.tag_is_digest)
    ):
        listed = json.loads(stored.manifests[stored.tags[fallback_tag(Digest(ROOT.digest))]][1])
        assert [child["digest"] for child in listed["manifests"]] == [SBOM.digest]


@pytest.mark.parametrize("known", [False, True], ids=["unknown host", "profile"])
@pytest.mark.parametrize("name", STUBS)
def test_every_operation_ends_complete_and_proven(
    name: str, known: bool, source: StrictRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = next((profile for profile in profiles.PROFILES if profile.name == name), None)
    if known:  # a profile may be wrong: then everything that can be refused is expected to work
        ours = ours or Profile(name="", works={kind: True for kind in KINDS.values() if kind.plain_way})
        monkeypatch.setattr(profiles, "profile_of", lambda host, chosen: ours)
    with ProfileRegistry(STUBS[name]) as stub, StrictRegistry() as other:
        first = copied(f"{source.host}/lib/app:v1", f"{stub.host}/team/app")
        assert first.error is None
        assert first.verification is not None
        assert first.verification.problems == ()
        assert_complete(stub, "team/app")

        again = copied(f"{source.host}/lib/app:v1", f"{stub.host}/team/app")
        assert again.error is None
        assert again.receipt.blobs_written == 0

        within = copied(f"{stub.host}/team/app:v1", f"{stub.host}/team/second")
        assert within.error is None
        assert_complete(stub, "team/second", sbom=not stub.profile.tag_is_digest)
        told = [text for result in (first, again, within) for text in chain(*result.receipt.fallbacks.values())]
        assert stub.profile.ends_older or profiles.ENDS_OLDER not in told

        stub.cached.clear()
        back = copied(f"{stub.host}/team/app:v1", f"{other.host}/back/app")
        assert back.error is None
        assert_complete(other, "back/app", sbom=not stub.profile.tag_is_digest)

        with session() as one:
            repository = one.destination(Repository(stub.host, "team/app"))
            if "list" in stub.profile.refuses:
                with pytest.raises(StoreError):
                    list(repository.tags())
            else:
                assert {"v1", signature_tag(ROOT)} <= set(repository.tags())
            listed = [child.digest for child in repository.referrers(Digest(ROOT.digest))]
            assert listed == ([] if stub.profile.tag_is_digest else [SBOM.digest])
            said = [text for texts in first.receipt.fallbacks.values() for text in texts]
            assert any("can't be listed" in text for text in said) == stub.profile.tag_is_digest
            _delete(stub, repository)


def _delete(stub: ProfileRegistry, repository: Any) -> None:
    """A tag goes where that is allowed, and nothing else goes; a refusal is an error that says so."""
    stored = stub.store.repositories["team/app"]
    refused = "delete tag" in stub.profile.refuses or stub.features.no_deletes or not stub.features.tag_delete
    if refused:
        with pytest.raises(StoreError):
            repository.delete_tag("v1")
        assert stored.tags["v1"] == ROOT.digest
    else:
        repository.delete_tag("v1")
        assert "v1" not in stored.tags
        assert ROOT.digest in stored.manifests
