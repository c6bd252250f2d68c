"""Logging in at real registries: Basic over TLS, a token service, and what goes wrong there."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from oci.descriptor import Descriptor
from oci.digest import digest_of
from oci.errors import Cancelled, Denied, InvalidInput, RateLimited, Refused, StoreError, Unauthorized, Unavailable
from oci.registry.credentials.credential import Credential, parse_challenges
from oci.store import reader_of
from tests.faults.proxy import Fault, FaultProxy
from tests.oci.registry.conftest import Client
from tests.servers.certificates import Certificates, make_certificates
from tests.servers.docker_registry import DockerRegistry
from tests.servers.htpasswd import PASSWORD, USER, write_htpasswd
from tests.servers.http_server import LoopbackServer, QuietHandler
from tests.servers.strict_registry import Features, StrictRegistry
from tests.servers.token_service import REFRESH, TokenService
from tests.support.waiting import until

WRITER = Credential("writer", "secret", origin="the test")
READER = Credential("reader", "secret", origin="the test")
LARGE = bytes(range(256)) * 4000
Make = Callable[..., Client]


def blob(data: bytes) -> Descriptor:
    return Descriptor("application/octet-stream", digest_of(data), len(data))


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def basic_registry(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[DockerRegistry]:
    folder = tmp_path_factory.mktemp("basic")
    htpasswd = write_htpasswd(folder / "htpasswd")
    with DockerRegistry(
        folder, certificate=certificates.certificate, key=certificates.key, htpasswd=htpasswd
    ) as server:
        yield server


@pytest.fixture
def service(tmp_path: Path) -> Iterator[TokenService]:
    with TokenService(tmp_path / "tokens") as one:
        yield one


@pytest.fixture
def token_registry(tmp_path: Path, service: TokenService) -> Iterator[DockerRegistry]:
    with DockerRegistry(tmp_path / "registry", token=service.auth) as server:
        yield server


def test_basic_over_tls_with_an_authority_of_our_own(
    basic_registry: DockerRegistry, certificates: Certificates, make_client: Make
) -> None:
    client = make_client(Credential(USER, PASSWORD, origin="the test"), ca_files=(str(certificates.ca),))
    store = client.repository(basic_registry.host, "a/b")
    store.put_blob(blob(LARGE), reader_of(LARGE))

    assert b"".join(store.read_blob(blob(LARGE))) == LARGE
    assert client.meter.receipt().identities == {f"destination {basic_registry.host}": "user user (the test)"}
    refused = [seen for seen in basic_registry.requests() if seen.status == 401]
    assert len(refused) == 1


def test_a_wrong_password_is_said_with_the_side_and_what_to_do(
    basic_registry: DockerRegistry, certificates: Certificates, make_client: Make
) -> None:
    client = make_client(Credential(USER, "wrong-one"), ca_files=(str(certificates.ca),))
    with pytest.raises(Unauthorized) as caught:
        client.repository(basic_registry.host, "a/b").put_blob(blob(LARGE), reader_of(LARGE))

    said = str(caught.value)
    assert f"destination {basic_registry.host}" in said
    assert f"asked as user {USER}: check that password" in said
    assert "wrong-one" not in said
    assert not caught.value.retryable


def test_an_unknown_authority_is_refused_unless_verification_is_off(
    basic_registry: DockerRegistry, make_client: Make
) -> None:
    credential = Credential(USER, PASSWORD)
    with pytest.raises(Unavailable, match="isn't trusted") as caught:
        make_client(credential).repository(basic_registry.host, "a/b").head_manifest("v1")
    assert not caught.value.retryable

    assert make_client(credential, verify_tls=False).repository(basic_registry.host, "a/b").head_manifest("v1") is None


def test_a_ca_file_that_is_none_is_named(make_client: Make, tmp_path: Path) -> None:
    for text in (None, "no certificate"):
        path = tmp_path / "ca.pem"
        if text is not None:
            path.write_text(text)
        with pytest.raises(InvalidInput, match=r"ca\.pem can't be used as a CA file"):
            make_client(ca_files=(str(path),)).repository("registry.example", "a/b").head_manifest("v1")


def test_one_token_serves_eight_threads_and_no_repository_is_refused_twice(
    token_registry: DockerRegistry, service: TokenService, make_client: Make
) -> None:
    client = make_client(WRITER)
    stores = [client.repository(token_registry.host, f"a/repo{number % 2}") for number in range(8)]
    datas = [bytes([number]) * 1000 for number in range(8)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda one: one[0].put_blob(blob(one[1]), reader_of(one[1])), zip(stores, datas, strict=True)))

    assert len([seen for seen in token_registry.requests() if seen.status == 401]) == 1
    assert sorted(scopes for _, _, scopes in service.fetched) == [
        ("repository:a/repo0:pull,push",),
        ("repository:a/repo1:pull,push",),
    ]


def test_a_push_token_is_used_for_pulls_too(
    token_registry: DockerRegistry, service: TokenService, make_client: Make
) -> None:
    store = make_client(WRITER).repository(token_registry.host, "a/b")
    store.put_blob(blob(LARGE), reader_of(LARGE))
    assert b"".join(store.read_blob(blob(LARGE))) == LARGE
    assert store.head_manifest("v1") is None

    assert len(service.fetched) == 1


def test_a_mount_asks_for_both_repositories(
    token_registry: DockerRegistry, service: TokenService, make_client: Make
) -> None:
    client = make_client(WRITER)
    first = client.repository(token_registry.host, "a/first")
    first.put_blob(blob(LARGE), reader_of(LARGE))
    second = client.repository(token_registry.host, "a/second")

    assert second.put_blob(blob(LARGE), reader_of(LARGE), mount_from=[first.name], fresh=True).value == "mounted"
    assert ("repository:a/first:pull", "repository:a/second:pull,push") in [scopes for _, _, scopes in service.fetched]


def test_tokens_that_die_are_renewed_in_the_middle_of_a_run(tmp_path: Path, make_client: Make) -> None:
    """The registry allows 60 seconds beyond a token's end: these die two seconds after they are issued."""
    with (
        TokenService(tmp_path / "tokens", lifetime=-58, announced=300) as service,
        DockerRegistry(tmp_path / "registry", token=service.auth) as server,
    ):
        store = make_client(WRITER).repository(server.host, "a/b")
        store.put_blob(blob(b"first"), reader_of(b"first"))
        _until_refused(server, service)
        store.put_blob(blob(LARGE), reader_of(LARGE))

        assert b"".join(store.read_blob(blob(LARGE))) == LARGE
        assert len(service.fetched) >= 3  # ours, the one that was watched dying, the renewed one


def _until_refused(server: DockerRegistry, service: TokenService) -> None:
    """Waits until a token made now would be refused."""
    import httpx

    token = service.sign("writer", [{"type": "repository", "name": "a/b", "actions": ["pull"]}])
    service.fetched.append(("", "", ()))
    headers = {"Authorization": f"Bearer {token}"}
    address = f"{server.url}/v2/a/b/tags/list"
    until("the end of the token", lambda: httpx.get(address, headers=headers).status_code == 401, every=0.2)


def test_a_reader_that_pushes_is_refused_once_and_for_all(
    token_registry: DockerRegistry, service: TokenService, make_client: Make
) -> None:
    client = make_client(READER)
    with pytest.raises((Unauthorized, Denied)) as caught:
        client.repository(token_registry.host, "a/b").put_blob(blob(LARGE), reader_of(LARGE))

    assert not caught.value.retryable
    assert len(service.fetched) <= 2
    assert sum(client.counts.values()) <= 6


def test_anonymous_pulls_where_that_is_allowed(token_registry: DockerRegistry, make_client: Make) -> None:
    make_client(WRITER).repository(token_registry.host, "public/b").put_blob(blob(LARGE), reader_of(LARGE))

    assert b"".join(make_client().repository(token_registry.host, "public/b").read_blob(blob(LARGE))) == LARGE


def test_a_wrong_password_at_the_token_service(token_registry: DockerRegistry, make_client: Make) -> None:
    client = make_client(Credential("writer", "wrong-one", origin="the test"), side="source")
    with pytest.raises(Unauthorized, match=r"token service .* answered 401 for user writer \(the test\)") as caught:
        client.repository(token_registry.host, "a/b").head_manifest("v1")

    assert "wrong-one" not in str(caught.value)


@pytest.mark.parametrize("oauth", [True, False], ids=["refresh token", "basic instead"])
def test_identity_tokens(tmp_path: Path, make_client: Make, oauth: bool) -> None:
    identity = Credential("<token>", identity_token=f"{REFRESH}writer")
    with (
        TokenService(tmp_path / "tokens", oauth=oauth) as service,
        DockerRegistry(tmp_path / "registry", token=service.auth) as server,
    ):
        store = make_client(identity).repository(server.host, "a/b")
        if oauth:
            store.put_blob(blob(LARGE), reader_of(LARGE))
            assert [method for method, _, _ in service.fetched] == ["POST"]
        else:
            with pytest.raises(Unauthorized):
                store.put_blob(blob(LARGE), reader_of(LARGE))


def test_a_registry_token_is_sent_as_it_is(
    token_registry: DockerRegistry, service: TokenService, make_client: Make
) -> None:
    token = service.sign("writer", [{"type": "repository", "name": "a/b", "actions": ["pull", "push"]}])
    store = make_client(Credential(registry_token=token)).repository(token_registry.host, "a/b")
    store.put_blob(blob(LARGE), reader_of(LARGE))

    assert service.fetched == []


class _Teller(QuietHandler):
    """Answers whatever is asked, and remembers the Authorization headers."""

    def do_GET(self) -> None:
        owner: Any = self.server.owner  # type: ignore[attr-defined]
        owner.authorizations.append(self.headers.get("Authorization"))
        self.answer(200, LARGE, Content_Type="application/octet-stream")

    do_HEAD = do_GET  # noqa: N815


class Teller(LoopbackServer):
    handler = _Teller

    def __init__(self) -> None:
        super().__init__()
        self.authorizations: list[str | None] = []


def test_credentials_never_follow_a_redirect_to_another_host(make_client: Make) -> None:
    with Teller() as elsewhere, StrictRegistry(Features(user="user:password", blobs_at=elsewhere.url)) as server:
        server.store.repository("a/b").blobs.add(digest_of(LARGE))
        store = make_client(Credential("user", "password")).repository(server.host, "a/b")

        assert b"".join(store.read_blob(blob(LARGE))) == LARGE
        assert elsewhere.authorizations == [None]


def test_a_429_pauses_every_thread_for_as_long_as_it_says(make_client: Make) -> None:
    with StrictRegistry() as server:
        server.store.add_blob("a/b", LARGE)
        slow = Fault(path="/blobs/", last=1, status=429, headers={"Retry-After": "4"})
        with FaultProxy(server.port, slow) as proxy:
            client = make_client()
            store = client.repository(proxy.host, "a/b")
            store.head_manifest("v1")
            with ThreadPoolExecutor(4) as threads:
                list(threads.map(lambda _: b"".join(store.read_blob(blob(LARGE))), range(4)))
            times = [when for when, _, path in proxy.seen if "/blobs/" in path]

    assert len([when for when in times if when > times[0] + 3.95]) >= 1
    assert not [when for when in times if times[0] + 3.0 < when < times[0] + 3.95]
    assert client.meter.receipt().throttled_seconds >= 3.9


def test_a_date_is_a_retry_after_as_well(make_client: Make) -> None:
    from email.utils import formatdate

    with StrictRegistry() as server:
        soon = Fault(path="tags", last=1, status=503, headers={"Retry-After": formatdate(time.time() + 1, usegmt=True)})
        server.store.repository("a/b").tags["v1"] = "x"
        with FaultProxy(server.port, soon) as proxy:
            assert list(make_client().repository(proxy.host, "a/b").tags()) == ["v1"]


def test_a_wait_beyond_the_budget_is_refused_at_once(make_client: Make) -> None:
    with StrictRegistry() as server:
        slow = Fault(path="tags", status=429, headers={"Retry-After": "3600"})
        with FaultProxy(server.port, slow) as proxy, pytest.raises(RateLimited, match="asks to wait 3600 s"):
            list(make_client(retry_budget=10.0).repository(proxy.host, "a/b").tags())


def test_a_cancel_ends_every_wait(make_client: Make) -> None:
    with StrictRegistry() as server:
        slow = Fault(path="tags", status=429, headers={"Retry-After": "60"})
        with FaultProxy(server.port, slow) as proxy:
            client = make_client()
            threading.Timer(0.2, client.cancel.cancel).start()
            started = time.monotonic()
            with pytest.raises(Cancelled):
                list(client.repository(proxy.host, "a/b").tags())

    assert time.monotonic() - started < 40  # and not the minute that was asked for


def test_the_last_pulls_of_a_quota_can_be_kept(make_client: Make) -> None:
    quota = {"ratelimit-limit": "100;w=21600", "ratelimit-remaining": "9;w=21600"}
    with StrictRegistry() as server:
        server.store.repository("a/b").tags["v1"] = "x"
        with FaultProxy(server.port, Fault(replace_headers=quota)) as proxy:
            assert list(make_client(quota_reserve=5).repository(proxy.host, "a/b").tags()) == ["v1"]
            with pytest.raises(RateLimited, match="9 pulls are left"):
                list(make_client(quota_reserve=10).repository(proxy.host, "a/b").tags())


@pytest.mark.parametrize("location", ["http://localhost:1/x", "gopher://example.com/", "http://user@127.0.0.1/x"])
def test_a_location_that_is_no_place_to_go(make_client: Make, location: str) -> None:
    with StrictRegistry() as server:
        away = Fault(method="GET", path="/blobs/", status=307, headers={"Location": location})
        with FaultProxy(server.port, away) as proxy, pytest.raises(StoreError):
            list(make_client(retries=0).repository(proxy.host, "a/b").read_blob(blob(LARGE)))


def test_redirects_in_a_circle_end(make_client: Make) -> None:
    with StrictRegistry() as server:
        circle = Fault(method="GET", path="/blobs/", status=307, headers={"Location": "/v2/a/b/blobs/again"})
        with FaultProxy(server.port, circle) as proxy, pytest.raises(Refused, match=r"more than \d+ redirects"):
            list(make_client().repository(proxy.host, "a/b").read_blob(blob(LARGE)))


def test_garbage_as_an_error_is_shown_short_and_clean(make_client: Make) -> None:
    page = b"<html><script>alert(1)</script><h1>Bad\x1b[31m gateway</h1>" + b"x" * 5000
    with StrictRegistry() as server:
        broken = Fault(path="tags", status=418, headers={"Content-Type": "text/html"}, body=page)
        with FaultProxy(server.port, broken) as proxy, pytest.raises(Refused) as caught:
            list(make_client().repository(proxy.host, "a/b").tags())

    said = str(caught.value)
    assert "Bad [31m gateway" in said
    assert "alert" not in said
    assert "\x1b" not in said
    assert len(said) < 500


def test_challenges_are_read_as_they_come() -> None:
    text = (
        'Basic realm="a \\"b\\"", Bearer realm="https://auth/token",service="s",'
        'scope="repository:a:pull repository:b:pull", Negotiate x=y'
    )
    basic, bearer = parse_challenges(text)

    assert basic.realm == 'a "b"'
    assert bearer.realm == "https://auth/token"
    assert bearer.scopes == {"repository:a:pull", "repository:b:pull"}
    (other,) = parse_challenges('Bearer realm="https://x",scope="repository:a:push,pull"')
    assert other.scopes == {"repository:a:pull,push"}
    assert parse_challenges("") == []
    assert parse_challenges(json.dumps({"no": "challenge"})) == []
