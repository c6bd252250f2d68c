"""Proxies between the registry and us: tunnels, what a proxy refuses, who is exempt, and what the errors say."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from oci.descriptor import Descriptor
from oci.digest import digest_of
from oci.errors import InvalidInput, StoreError, Unavailable
from oci.registry.credentials.credential import Credential
from oci.registry.http.connections import environment_proxy
from oci.registry.http.errors import PROXY_LOGIN
from oci.registry.http.origin import origin_of
from oci.store import reader_of
from tests.oci.registry.conftest import Client
from tests.servers.certificates import Certificates, make_certificates
from tests.servers.docker_registry import DockerRegistry
from tests.servers.quirky_registry import Quirky
from tests.servers.strict_registry import StrictRegistry
from tests.servers.tunnel import Tunnel

Make = Callable[..., Client]
DATA = bytes(range(256)) * 4000
BLOB = Descriptor("application/octet-stream", digest_of(DATA), len(DATA))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory, made: Certificates) -> Iterator[DockerRegistry]:
    with DockerRegistry(tmp_path_factory.mktemp("registry"), certificate=made.certificate, key=made.key) as server:
        yield server


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY", "REQUEST_METHOD"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def round_trip(client: Client, host: str = "registry.example") -> None:
    store = client.repository(host, "a/b")
    store.put_blob(BLOB, reader_of(DATA))
    assert b"".join(store.read_blob(BLOB)) == DATA
    assert store.head_manifest("missing") is None


@pytest.mark.parametrize("status", [200, 201, 204])
def test_every_status_of_success_opens_a_tunnel(make_client: Make, registry: DockerRegistry, status: int) -> None:
    with Tunnel(registry.port, status=status) as proxy:
        round_trip(make_client(proxy=proxy.url, verify_tls=False, retries=0))
    assert set(proxy.tunnels) == {"registry.example:443"}


def test_a_login_for_the_proxy_goes_to_the_proxy_alone(
    make_client: Make, registry: DockerRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = f"Basic {base64.b64encode(b'bob:p@ss').decode()}"

    def asks(call: Any) -> bool:
        if call.headers.get("Proxy-Authorization") == expected:
            return False
        call.answer(407, Proxy_Authenticate='Basic realm="proxy"')
        return True

    with Tunnel(registry.port, asks) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://bob:p%40ss@{proxy.host}")
        round_trip(make_client(verify_tls=False, retries=0))
        assert set(proxy.logins) == {expected}
        for url in (proxy.url, f"http://bob:wrong@{proxy.host}"):
            monkeypatch.setenv("HTTPS_PROXY", url)
            before = len(proxy.tunnels)
            with pytest.raises(Unavailable) as caught:
                make_client(verify_tls=False, retries=3).repository("registry.example", "a/b").get_manifest("v1")
            assert caught.value.hint == PROXY_LOGIN
            assert f"the proxy {proxy.url} answers 407" in caught.value.message
            assert "wrong" not in str(caught.value)
            assert len(proxy.tunnels) == before + 1, "another attempt would be refused as well"


@pytest.mark.parametrize(("status", "attempts"), [(302, 1), (400, 1), (403, 1), (429, 3), (502, 3), (503, 3)])
@pytest.mark.parametrize("http2", [False, True])
def test_a_tunnel_that_is_refused_is_the_proxys_refusal(
    make_client: Make, status: int, attempts: int, http2: bool
) -> None:
    """A redirect of a tunnel is never followed: it would be the proxy that says where our login goes."""

    def refuses(call: Any) -> bool:
        call.answer(status, b"<html>a page of the proxy's</html>", Location="https://login.proxy.example/")
        return True

    with Tunnel(0, refuses) as proxy:
        client = make_client(Credential("bob", "secret"), proxy=proxy.url, retries=2, http2=http2)
        with pytest.raises(Unavailable) as caught:
            client.repository("registry.example", "a/b").get_manifest("v1")
    assert f"the proxy {proxy.url} answers {status}" in caught.value.message
    assert "NO_PROXY" in caught.value.hint
    assert proxy.tunnels == ["registry.example:443"] * attempts


def test_a_proxy_that_is_out_of_order_for_a_moment_costs_an_attempt(
    make_client: Make, registry: DockerRegistry
) -> None:
    ways = iter(["closes", "502", "garbage"])

    def stumbles(call: Any) -> bool:
        way = next(ways, "")
        if way == "502":
            call.answer(502)
        elif way == "garbage":
            call.wfile.write(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
        call.close_connection = True
        return bool(way)

    with Tunnel(registry.port, stumbles) as proxy:
        round_trip(make_client(proxy=proxy.url, verify_tls=False, retries=3))


@pytest.mark.parametrize("http2", [False, True])
@pytest.mark.parametrize("way", ["refuses", "has no address"])
def test_a_proxy_that_is_not_there_is_named(make_client: Make, way: str, http2: bool) -> None:
    url = {"refuses": "http://127.0.0.1:1", "has no address": "http://proxy.invalid:3128"}[way]
    with pytest.raises(Unavailable, match=f"the proxy {url}: ") as caught:
        make_client(proxy=url, retries=0, http2=http2).repository("registry.example", "a/b").get_manifest("v1")
    assert "NO_PROXY" in caught.value.hint


@pytest.mark.parametrize("way", ["closes", "hangs", "garbage", "endless header"])
def test_what_fails_at_the_proxy_is_said_of_the_proxy(make_client: Make, way: str) -> None:
    def fails(call: Any) -> bool:
        call.close_connection = True
        if way == "hangs":
            call.rfile.read(1)
        elif way == "garbage":
            call.wfile.write(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
        elif way == "endless header":
            call.wfile.write(b"HTTP/1.1 200 OK\r\n" + b"X-Filler: 0123456789\r\n" * 20_000)
        return True

    with Tunnel(0, fails) as proxy:
        client = make_client(proxy=proxy.url, retries=0, connect_timeout=1.0)
        with pytest.raises(Unavailable) as caught:
            client.repository("registry.example", "a/b").get_manifest("v1")
    assert f"the proxy {proxy.url}: " in caught.value.message
    assert "the proxy" in caught.value.hint
    assert "NO_PROXY" in caught.value.hint


@pytest.mark.parametrize("login", [True, False])
def test_a_proxy_that_fails_is_no_reason_to_do_without_tls(make_client: Make, login: bool) -> None:
    """`insecure` permits plain http where a registry has no TLS; that one can't be reached says nothing of it."""

    def closes(call: Any) -> bool:
        call.close_connection = True
        return bool(call.command == "CONNECT")

    with Quirky() as server, Tunnel(server.port, closes) as proxy:
        credential = [Credential("bob", "secret")] if login else []
        client = make_client(*credential, proxy=proxy.url, insecure=True, retries=0)
        with pytest.raises(Unavailable, match="the proxy"):
            client.repository("registry.example", "a/b").get_manifest("v1")
    assert proxy.plain == []


def test_plain_http_goes_through_a_proxy(make_client: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def refuses(call: Any) -> bool:
        asked.append(call.command)
        if call.command != "CONNECT":
            return False
        call.wfile.write(b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 400 this is plain http\r\n\r\n")  # as nothing with TLS does
        call.close_connection = True
        return True

    with Quirky() as server, Tunnel(server.port, refuses) as proxy:
        monkeypatch.setenv("ALL_PROXY", proxy.url)
        round_trip(make_client(insecure=True, retries=0))
        assert {url.partition("/v2/")[0] for url in proxy.plain} == {"http://registry.example"}

        proxy.quirk = lambda call: refuses(call) or bool(call.answer(407)) or True
        with pytest.raises(StoreError) as caught:
            make_client(insecure=True, retries=0).repository("registry.example", "a/b").get_manifest("v1")
        assert caught.value.hint == PROXY_LOGIN


def test_a_port_that_is_not_exempt_is_reached_through_the_proxy(
    make_client: Make, registry: DockerRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Tunnel(registry.port) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        monkeypatch.setenv("NO_PROXY", "other.example:5000, registry.example:443, .storage.example")
        round_trip(make_client(verify_tls=False, retries=0), "registry.example:5000")
        assert set(proxy.tunnels) == {"registry.example:5000"}


def test_a_proxy_is_used_from_settings_and_environment_and_never_for_loopback(
    make_client: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Tunnel(0, lambda call: bool(call.answer(502)) or True) as proxy, StrictRegistry() as server:
        with pytest.raises(Unavailable):
            make_client(proxy=proxy.url, retries=0).repository("registry.example", "a/b").get_manifest("v1")
        assert proxy.tunnels == ["registry.example:443"]

        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        with pytest.raises(Unavailable):
            make_client(retries=0).repository("other.example", "a/b").head_manifest("v1")
        assert proxy.tunnels == ["registry.example:443", "other.example:443"]

        assert make_client().repository(server.host, "a/b").head_manifest("v1") is None
        assert len(proxy.tunnels) == 2


EXEMPT = [
    ("registry.corp.example", "corp.example", True),
    ("registry.corp.example", ".corp.example", True),
    ("registry.corp.example", "*.corp.example", True),
    ("corp.example", "corp.example", True),
    ("evilcorp.example", "corp.example", False),
    ("registry.corp.example", "other.example, corp.example", True),
    ("registry.corp.example", "other.example corp.example", True),
    ("registry.corp.example:5000", "corp.example:5000", True),
    ("registry.corp.example", "corp.example:5000", False),
    ("registry.corp.example", "corp.example:443", True),
    ("registry.corp.example", "*", True),
    ("REGISTRY.Corp.Example", "CORP.example", True),
    ("10.1.2.3", "10.0.0.0/8", True),
    ("10.1.2.3:5000", "10.0.0.0/8", True),
    ("11.1.2.3", "10.0.0.0/8", False),
    ("10.1.2.3", "10.1.2.3", True),
    ("10.1.2.3:5000", "10.1.2.3:5000", True),
    ("10.1.2.3", "10.1.2.3:5000", False),
    ("[2001:db8::7]", "2001:db8::/32", True),
    ("[2001:db8::7]", "2001:db8::7", True),
    ("[2001:db8::7]:5000", "[2001:db8::7]:5000", True),
    ("registry.corp.example", "10.0.0.0/8", False),
    ("registry.corp.example", "10.0.0.0/99,,", False),
    ("registry.corp.example", "", False),
]


@pytest.mark.parametrize(("host", "text", "exempt"), EXEMPT, ids=[f"{host}-{text}" for host, text, _ in EXEMPT])
def test_no_proxy_is_read_as_go_and_curl_read_it(host: str, text: str, exempt: bool) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        environ = {"HTTPS_PROXY": "http://proxy.example:3128", name: text}
        assert (environment_proxy(origin_of(host), environ) is None) == exempt


@pytest.mark.parametrize(
    ("text", "origin", "has_login"),
    [
        ("proxy.example:3128", "http://proxy.example:3128", False),
        ("http://proxy.example:3128/", "http://proxy.example:3128", False),
        ("https://proxy.example", "https://proxy.example", False),
        ("http://[::1]:3128", "http://[::1]:3128", False),
        ("user:p%40ss@proxy.example:3128", "http://proxy.example:3128", True),
    ],
)
def test_a_proxy_is_written_with_and_without_a_scheme(text: str, origin: str, has_login: bool) -> None:
    proxy = environment_proxy(origin_of("registry.example"), {"HTTPS_PROXY": text})
    assert proxy is not None
    assert str(proxy.origin) == origin
    assert bool(proxy.authorization) == has_login


def test_tls_inside_the_tls_of_a_proxy(tmp_path: Path, make_client: Make) -> None:
    made = make_certificates(tmp_path / "certificates")
    data = bytes(range(256)) * 4000
    blob = Descriptor("application/octet-stream", digest_of(data), len(data))
    with (
        DockerRegistry(tmp_path / "registry", certificate=made.certificate, key=made.key) as server,
        Tunnel(server.port, made=made) as proxy,
    ):
        client = make_client(proxy=proxy.url, ca_files=(str(made.ca),))
        store = client.repository(server.host, "a/b")
        store.put_blob(blob, reader_of(data))
        assert b"".join(store.read_blob(blob)) == data
    assert set(proxy.tunnels) == {server.host}


ENVIRONMENTS = [
    ("registry.example", {"HTTPS_PROXY": "http://p:1", "no_proxy": "registry.example."}, False),
    ("registry.example", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": " , ,registry.example ,"}, False),
    ("a.registry.example", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "*.registry.example:443"}, False),
    ("a.registry.example:5000", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": ".registry.example:443"}, True),
    ("a.registry.example", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": ".REGISTRY.example."}, False),
    ("[2001:db8::7]:5000", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "[2001:DB8:0::7]"}, False),
    ("[2001:db8::7]:5000", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "[2001:db8::7]:443"}, True),
    ("[::ffff:10.1.2.3]", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "10.0.0.0/8"}, False),
    ("10.1.2.3", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "10.1.2.0/255.255.255.0"}, False),
    ("10.1.2.3", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "::ffff:10.0.0.0/104"}, True),
    ("10.1.2.3", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": ".2.3"}, True),
    ("bücher.example", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "BÜCHER.example"}, False),
    ("xn--bcher-kva.example", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "bücher.example"}, False),
    ("registry.example", {"HTTPS_PROXY": "  http://p:1  "}, True),
    ("registry.example", {"https_proxy": "", "HTTPS_PROXY": "http://p:1"}, True),
    ("registry.example", {"HTTPS_PROXY": "http://p:1", "no_proxy": "", "NO_PROXY": "registry.example"}, False),
    ("registry.example", {"HTTP_PROXY": "http://p:1"}, False),
    ("registry.example", {"ALL_PROXY": "p:1"}, True),
    ("localhost:5000", {"HTTPS_PROXY": "http://p:1"}, False),
    ("127.1.2.3:5000", {"HTTPS_PROXY": "http://p:1"}, False),
    ("[::1]:5000", {"HTTPS_PROXY": "http://p:1"}, False),
    ("REGISTRY.localhost.", {"HTTPS_PROXY": "http://p:1"}, False),
]


@pytest.mark.parametrize(("host", "environ", "proxied"), ENVIRONMENTS)
def test_which_hosts_are_reached_through_the_proxy(host: str, environ: dict[str, str], proxied: bool) -> None:
    proxy = environment_proxy(origin_of(host), environ)
    assert str(proxy.origin if proxy else "") == ("http://p:1" if proxied else "")


def test_a_proxy_for_plain_http_from_the_header_of_a_client_is_ignored() -> None:
    """Httpoxy: a CGI program has a client's `Proxy` header as HTTP_PROXY."""
    origin = origin_of("registry.example", "http")
    assert environment_proxy(origin, {"HTTP_PROXY": "http://p:1", "REQUEST_METHOD": "GET"}) is None
    assert environment_proxy(origin, {"HTTP_PROXY": "http://p:1"}) is not None


@pytest.mark.parametrize("text", ["socks5://p:1080", "socks5h://u:secret@p:1080", "SOCKS4://p"])
def test_a_socks_proxy_is_refused_with_what_works(
    make_client: Make, registry: DockerRegistry, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", text)
    with pytest.raises(InvalidInput, match="SOCKS") as caught:
        make_client(verify_tls=False).repository("registry.example", "a/b").get_manifest("v1")
    assert "secret" not in str(caught.value)
    with Tunnel(registry.port) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        round_trip(make_client(verify_tls=False, retries=0))
    monkeypatch.delenv("HTTPS_PROXY")
    monkeypatch.setenv("NO_PROXY", "registry.invalid")
    with pytest.raises(Unavailable):
        make_client(retries=0).repository("registry.invalid", "a/b").head_manifest("v1")


@pytest.mark.parametrize(
    "text", ["http://[::1", "http://p:99999", "http://p:x", "ftp://p:21", "http://", "http://a b:1"]
)
def test_a_proxy_that_is_none_is_refused_in_words(
    make_client: Make, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", text)
    with pytest.raises(InvalidInput, match="the proxy can't be used") as caught:
        make_client().repository("registry.example", "a/b").get_manifest("v1")
    assert caught.value.hint
