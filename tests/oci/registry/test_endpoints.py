"""The table of request kinds against the distribution-spec, and every refusal of what is optional."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from oci.descriptor import Descriptor
from oci.digest import Digest, digest_of
from oci.errors import StoreError
from oci.meter import Meter
from oci.registry import endpoints
from oci.registry.endpoints import KINDS, Kind
from oci.registry.options import PROFILES as OPTION_WORDS
from oci.registry.profiles import PROFILES, Learned, option_word, profile_of
from oci.store import BlobOutcome, reader_of
from tests.oci.registry.conftest import Client
from tests.servers.strict_registry import Refusal, StrictHandler, StrictRegistry

Make = Callable[..., Client]
MANIFEST = b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}'
INDEX = "application/vnd.oci.image.index.v1+json"
DATA = bytes(range(256)) * 1000
SMALL = b"small"
REFUSALS = [400, 401, 403, 405, 406, 411, 413, 415, 422, 500, 501, 503]

SPECIFIED = {
    "end-1": ("GET", {200}, {401, 404}),
    "end-2": ("GET / HEAD", {200}, {404}),
    "end-3": ("GET / HEAD", {200}, {404}),
    "end-4a": ("POST", {202}, {404}),
    "end-4b": ("POST", {201, 202}, {404, 400}),
    "end-5": ("PATCH", {202}, {404, 416}),
    "end-6": ("PUT", {201}, {404, 400, 416}),
    "end-7": ("PUT", {201}, {404, 413}),
    "end-8a": ("GET", {200}, {404}),
    "end-8b": ("GET", {200}, {404}),
    "end-9": ("DELETE", {202}, {404, 400, 405}),
    "end-10": ("DELETE", {202}, {404, 405}),
    "end-11": ("POST", {201, 202}, {404}),
    "end-12": ("GET", {200}, {404, 400}),
    "end-13": ("GET", {204}, {404}),
    "end-14": ("DELETE", {204}, {404}),
}
"""distribution-spec 1.1, "Endpoints": method, success, failure. end-14 is of the draft of 1.2."""


@pytest.mark.parametrize("name", KINDS)
def test_the_table_agrees_with_the_specification(name: str) -> None:
    kind = KINDS[name]
    if kind is endpoints.GET_CATALOG:
        return  # Docker's own
    method, success, failure = SPECIFIED[kind.endpoint]
    assert kind.method in method.split(" / ")
    assert success <= kind.expect
    assert not kind.expect & failure
    assert kind.absent <= failure | {400, 405}


def test_every_endpoint_that_a_client_needs_is_in_the_table() -> None:
    """end-1 is the login's, end-10 deletes a blob, which no operation does."""
    assert {kind.endpoint for kind in KINDS.values()} >= SPECIFIED.keys() - {"end-1", "end-10"}


class _Refusing(StrictHandler):
    def _route(self, path: str) -> None:
        registry: Any = self.registry
        match = registry.refuses(self, path)
        if match:
            registry.refused += 1
            raise Refusal(registry.status, "UNSUPPORTED", "not here")
        super()._route(path)


class Refusing(StrictRegistry):
    """Refuses what `refuses` matches with `status`, always."""

    handler = _Refusing

    def __init__(self, refuses: Callable[[Any, str], bool], status: int) -> None:
        super().__init__()
        self.refuses = refuses
        self.status = status
        self.refused = 0


def described(data: bytes) -> Descriptor:
    return Descriptor("application/octet-stream", digest_of(data), len(data))


def head_manifest(call: Any, path: str) -> bool:
    return call.command == "HEAD" and "/manifests/" in path


def head_blob(call: Any, path: str) -> bool:
    return call.command == "HEAD" and "/blobs/" in path


def ranges(call: Any, path: str) -> bool:
    return call.command == "GET" and "/blobs/" in path and "Range" in call.headers


def mounts(call: Any, path: str) -> bool:
    return call.command == "POST" and "mount" in call.query


def single_post(call: Any, path: str) -> bool:
    return call.command == "POST" and "digest" in call.query


def page_size(call: Any, path: str) -> bool:
    return path.endswith("/tags/list") and "n" in call.query


def referrers_api(call: Any, path: str) -> bool:
    return "/referrers/" in path


def cancelling(call: Any, path: str) -> bool:
    return call.command == "DELETE" and "/uploads/" in path


def _look(store: Any) -> None:
    digest = Digest(digest_of(MANIFEST))
    assert store.head_manifest("v1") == Descriptor(INDEX, digest, len(MANIFEST))
    assert store.head_manifest("v2") is None
    assert store.blob_size(digest_of(DATA)) == len(DATA)
    assert store.blob_size(digest_of(b"absent")) is None
    assert b"".join(store.read_blob(described(DATA), 1000, 50)) == DATA[1000:1050]
    assert list(store.tags()) == ["v1"]
    assert store.referrers(digest) == ()


def _write(store: Any, server: StrictRegistry, mark: bytes) -> None:
    for data in (DATA + mark, SMALL + mark):
        assert store.put_blob(described(data), reader_of(data)) is BlobOutcome.WRITTEN
        assert digest_of(data) in server.store.repositories["a/b"].blobs
    assert store.put_blob(described(DATA), reader_of(DATA)) is BlobOutcome.SKIPPED


CASES = [
    *((head_manifest, endpoints.HEAD_MANIFEST, status) for status in REFUSALS),
    *((head_blob, endpoints.HEAD_BLOB, status) for status in REFUSALS),
    *((single_post, endpoints.POST_BLOB, status) for status in REFUSALS),
    *((cancelling, endpoints.DELETE_UPLOAD, status) for status in REFUSALS),
    *((ranges, endpoints.GET_RANGE, status) for status in REFUSALS if status != 503),
    # What is about access, or out of order, would be answered to the plain way as well: errors, not refusals.
    *((page_size, endpoints.GET_TAGS_PAGE, status) for status in REFUSALS if status not in (401, 403, 500, 503)),
    # A denied mount, and a referrers API that is out of order, have tests of their own below.
    *((mounts, endpoints.POST_SELF_MOUNT, status) for status in REFUSALS if status not in (401, 403)),
    *((referrers_api, endpoints.GET_REFERRERS, status) for status in REFUSALS if status not in (500, 503)),
]


@pytest.mark.parametrize(
    ("refuses", "kind", "status"), CASES, ids=[f"{refuses.__name__}-{status}" for refuses, _, status in CASES]
)
def test_no_refusal_of_what_is_optional_is_fatal(
    make_client: Make, refuses: Callable[[Any, str], bool], kind: Kind, status: int
) -> None:
    with Refusing(refuses, status) as server:
        server.store.add_blob("a/b", DATA)
        repository = server.store.repository("a/b")
        repository.manifests[digest_of(MANIFEST)] = (INDEX, MANIFEST)
        repository.tags["v1"] = digest_of(MANIFEST)
        client = make_client(retries=1)
        store = client.repository(server.host, "a/b")
        _look(store)
        _write(store, server, b"1")
        before = server.refused
        _look(store)
        _write(store, server, b"2")

        if kind is endpoints.DELETE_UPLOAD or (kind is endpoints.GET_REFERRERS and status in (401, 403)):
            return  # not remembered: nothing waits for it; perhaps of this repository alone
        if status < 500 or status == 501:
            assert server.refused == before  # once, remembered
            said = client.meter.receipt().fallbacks.get(server.host, ())
            title, plain_way = endpoints._PLAIN_WAYS[kind]
            assert not before or f"{title} refused ({status}), {plain_way}" in said


@pytest.mark.parametrize("status", [401, 403])
def test_a_denied_mount_leads_to_a_plain_upload(make_client: Make, status: int) -> None:
    with Refusing(mounts, status) as server:
        store = make_client(retries=1).repository(server.host, "a/b")
        for data in (DATA, SMALL):
            assert store.put_blob(described(data), reader_of(data)) is BlobOutcome.WRITTEN
        for data in (DATA, SMALL):
            assert store.put_blob(described(data), reader_of(data)) is BlobOutcome.SKIPPED
        assert server.refused == 1


@pytest.mark.parametrize("status", [500, 503])
def test_a_referrers_api_that_is_out_of_order_is_not_an_empty_list(make_client: Make, status: int) -> None:
    with Refusing(referrers_api, status) as server:
        server.store.repository("a/b").manifests[digest_of(MANIFEST)] = (INDEX, MANIFEST)
        with pytest.raises(StoreError):
            make_client(retries=1).repository(server.host, "a/b").referrers(Digest(digest_of(MANIFEST)))


@pytest.mark.parametrize("status", [401, 403])
def test_what_a_destination_denies_is_missing_and_what_a_source_denies_is_an_error(
    make_client: Make, status: int
) -> None:
    with Refusing(lambda call, path: call.command in ("GET", "HEAD"), status) as server:
        store = make_client(side="destination").repository(server.host, "a/b")
        assert store.head_manifest("v1") is None
        assert store.blob_size(digest_of(DATA)) is None
        assert store.put_blob(described(DATA), reader_of(DATA)) is BlobOutcome.WRITTEN

        source = make_client(side="source").repository(server.host, "a/b")
        for ask in (lambda: source.head_manifest("v1"), lambda: source.blob_size(digest_of(DATA))):
            with pytest.raises(StoreError):
                ask()


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("123456789012.dkr.ecr.eu-west-1.amazonaws.com", "ECR"),
        ("123456789012.dkr-ecr.eu-west-1.on.aws", "ECR"),
        ("public.ecr.aws", "ECR Public"),
        ("docker.io", "Docker Hub"),
        ("registry-1.docker.io", "Docker Hub"),
        ("GHCR.io", "GHCR"),
        ("europe-docker.pkg.dev", "GAR"),
        ("eu.gcr.io", "GAR"),
        ("shop.azurecr.io", "ACR"),
        ("quay.io", "Quay"),
        ("registry.gitlab.com", "GitLab"),
        ("shop.jfrog.io", "Artifactory"),
        ("cgr.dev", "Chainguard"),
        ("registry.example", ""),
        ("ghcr.io.evil.example", ""),
        ("127.0.0.1:5000", ""),
    ],
)
def test_profiles_are_found_by_host(host: str, name: str) -> None:
    assert profile_of(host).name == name


@pytest.mark.parametrize(
    ("host", "chosen", "name"),
    [
        ("registry.corp.example", "harbor", "Harbor"),
        ("registry.corp.example", "ecr-public", "ECR Public"),
        ("registry.corp.example", "unknown", ""),
        ("harbor.corp.example", "auto", "Harbor"),
        ("harbor.corp.example", "nexus", "Nexus"),
        ("harbor.corp.example", "unknown", ""),
        ("ghcr.io", "harbor", "GHCR"),
    ],
)
def test_a_chosen_profile_goes_before_a_guess_and_not_before_a_service(host: str, chosen: str, name: str) -> None:
    assert profile_of(host, chosen).name == name


def test_the_option_names_every_profile() -> None:
    assert tuple(map(option_word, PROFILES)) == OPTION_WORDS


MARKS = [
    ({"x-harbor-csrf-token": "abc"}, "Harbor"),
    ({"www-authenticate": 'Bearer realm="https://r.example/service/token",service="harbor-registry"'}, "Harbor"),
    ({"server": "Artifactory/7.77.3"}, "Artifactory"),
    ({"x-jfrog-version": "Artifactory/7.77.3 77703900"}, "Artifactory"),
    ({"server": "Nexus/3.68.1-02 (OSS)"}, "Nexus"),
    ({"www-authenticate": 'BASIC realm="Sonatype Nexus Repository Manager"'}, "Nexus"),
    ({"gitlab-container-registry-version": "3.88.1"}, "GitLab"),
    ({"www-authenticate": 'Bearer realm="https://git.example/jwt/auth",service="container_registry"'}, "GitLab"),
    ({"www-authenticate": 'Bearer realm="https://r.example/v2/auth",service="r.example"'}, "Quay"),
    ({"server": "AzureContainerRegistry"}, "ACR"),
    ({"server": "nginx", "docker-distribution-api-version": "registry/2.0"}, ""),
    ({"www-authenticate": 'Bearer realm="https://auth.example/token",service="registry"'}, ""),
]


@pytest.mark.parametrize(("headers", "name"), MARKS, ids=[f"{next(iter(marks))}-{name}" for marks, name in MARKS])
def test_software_is_recognised_by_its_answers(headers: dict[str, str], name: str) -> None:
    learned = Learned("registry.example", Meter())
    learned.recognise(headers)
    assert learned.profile.name == name
    assert not name or all(learned.works(kind) is works for kind, works in learned.profile.works.items())

    chosen = Learned("registry.example", Meter(), "zot")
    chosen.recognise(headers)
    assert chosen.profile.name == "zot"


class _Nexus(StrictHandler):
    def version_string(self) -> str:
        return "Nexus/3.68.1-02 (OSS)"


class Nexus(StrictRegistry):
    handler = _Nexus


def test_what_is_recognised_begins_where_its_profile_says(make_client: Make) -> None:
    with Nexus() as server:
        client = make_client()
        store = client.repository(server.host, "a/b")
        store.head_manifest("v1")
        assert store.put_blob(described(SMALL), reader_of(SMALL)) is BlobOutcome.WRITTEN
        assert client.registries.transport(server.host).learned.profile.name == "Nexus"
        assert not any("digest=" in seen.path for seen in server.requests() if seen.method == "POST")


def test_every_profile_is_a_valid_beginning() -> None:
    for profile in PROFILES:
        re.compile(profile.hosts)
        learned = Learned("registry.example", Meter(), option_word(profile))
        for kind, works in profile.works.items():
            assert kind.plain_way
            assert learned.works(kind) is works
            assert learned.is_assumed(kind)
        assert all(cap > 0 for cap in profile.caps.values())


def test_limits_of_bodies_are_halved_down_to_a_floor() -> None:
    meter = Meter()
    learned = Learned("registry.example", meter)
    assert learned.limit_body(100_000_000, "refused (413)")
    assert learned.body_limit == 16 << 20
    while learned.limit_body(learned.body_limit, "refused (413)"):
        pass
    assert 256 << 10 <= learned.body_limit < 1 << 20
    assert (
        "a body of 100000000 bytes refused (413), chunks of 16777216 bytes used"
        in (meter.receipt().fallbacks["registry.example"])
    )
