"""Registries that ask for a login in their own way: any list of challenges, by path, late, or never."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from oci.errors import NotFound, StoreError, Unauthorized
from oci.registry.credentials.credential import CHALLENGE_LIMIT as LIMIT
from oci.registry.credentials.credential import Credential, parse_challenges, strongest
from tests.oci.registry.conftest import Client
from tests.servers.http_server import LoopbackServer, QuietHandler

BOB = Credential("bob", "secret", origin="the test")
BASIC = f"Basic {base64.b64encode(b'bob:secret').decode()}"
CONFIG = b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}'
Make = Callable[..., Client]


class _Handler(QuietHandler):
    def do_GET(self) -> None:
        owner: Any = self.server.owner  # type: ignore[attr-defined]
        path, _, query = self.path.partition("?")
        sent = self.headers.get("Authorization", "")
        with owner.lock:
            owner.seen.append((self.command, path, sent))
            if path.startswith("/token"):
                owner.tokens.append(query)
        status, headers, body = owner.respond(path, query, sent)
        self.answer(status, body, **headers)

    do_HEAD = do_GET  # noqa: N815


class Asking(LoopbackServer):
    """A registry with one manifest; `rule(path, sent)` gives None for "let in", or a status and headers."""

    handler = _Handler

    def __init__(self, rule: Callable[[str, str], tuple[int, Mapping[str, str]] | None]) -> None:
        super().__init__()
        self.rule = rule
        self.lock = threading.Lock()
        self.seen: list[tuple[str, str, str]] = []
        self.tokens: list[str] = []
        self.token_status = 200
        self.lifetime: Any = 300

    def respond(self, path: str, query: str, sent: str) -> tuple[int, Mapping[str, str], bytes]:
        if path.startswith("/token"):
            time.sleep(0.02)
            value = f"t{len(self.tokens)}" if sent == BASIC else "anonymous"
            body = json.dumps({"token": value, "expires_in": self.lifetime}).encode()
            return self.token_status, {"Content_Type": "application/json"}, body
        refusal = self.rule(path, sent)
        if refusal is not None:
            return refusal[0], refusal[1], b"{}"
        if path == "/v2/":
            return 200, {}, b"{}"
        return 200, {"Content_Type": "application/vnd.oci.image.index.v1+json"}, CONFIG

    def bearer(self, **more: str) -> str:
        return ",".join([f'Bearer realm="{self.url}/token"', *(f'{name}="{value}"' for name, value in more.items())])


def asks(text: str) -> dict[str, str]:
    return {"WWW_Authenticate": text}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('Negotiate, Basic realm="x"', [("basic", {"realm": "x"})]),
        ('Negotiate YII=, Basic realm="x"', [("basic", {"realm": "x"})]),
        ('NTLM TlRM==, Bearer realm="https://a/t",service="s"', [("bearer", {"realm": "https://a/t", "service": "s"})]),
        (
            'SCRAM-SHA-256 realm="q", data=abc, Bearer realm=https://a/t, service=s',
            [("bearer", {"realm": "https://a/t", "service": "s"})],
        ),
        ("Basic", [("basic", {})]),
        ('BASIC realm = "x" , charset="UTF-8"', [("basic", {"realm": "x", "charset": "UTF-8"})]),
        (',,, Bearer\trealm="z"', [("bearer", {"realm": "z"})]),
        ('Digest qop="auth,auth-int", nonce="a,Basic b", Basic realm="q"', [("basic", {"realm": "q"})]),
        ('Basic realm="not closed', [("basic", {"realm": "not closed"})]),
        ('Negotiate a/b+c-d._~==, Basic realm="x"', [("basic", {"realm": "x"})]),
        ("Negotiate", []),
        ("", []),
    ],
)
def test_every_list_of_challenges_is_read(text: str, expected: list[tuple[str, dict[str, str]]]) -> None:
    assert [(one.scheme, dict(one.parameters)) for one in parse_challenges(text)] == expected


def test_the_strongest_challenge_is_taken() -> None:
    both = parse_challenges('Basic realm="x", Negotiate, Bearer realm="https://a/t"')
    assert (strongest(both) or both[0]).scheme == "bearer"
    assert (strongest(parse_challenges('Bearer error="x", Basic realm="y"')) or both[1]).scheme == "basic"
    assert strongest([]) is None


def test_a_long_header_is_read_in_linear_time() -> None:
    started = time.process_time()
    for text in (
        '"' * LIMIT,
        "a " * LIMIT,
        'a="' * LIMIT,
        "a=" * LIMIT,
        "\\" * LIMIT,
        "a,=" * LIMIT,
    ):
        parse_challenges(text)
    assert time.process_time() - started < 2


@pytest.mark.parametrize("status", [401, 403, 404])
@pytest.mark.parametrize("scheme", ["basic", "bearer"])
def test_what_is_hidden_from_anonymous_requests_is_read_with_the_login(
    make_client: Make, status: int, scheme: str
) -> None:
    def rule(path: str, sent: str) -> tuple[int, Mapping[str, str]] | None:
        if sent == (BASIC if scheme == "basic" else "Bearer t1"):
            return None
        return (
            (401, asks('Basic realm="x"' if scheme == "basic" else server.bearer())) if path == "/v2/" else (status, {})
        )

    with Asking(rule) as server:
        store = make_client(BOB, side="source").repository(server.host, "a/b")
        assert store.get_manifest("v1").raw == CONFIG
        assert store.get_manifest("v2").raw == CONFIG

    assert [path for _, path, _ in server.seen].count("/v2/") == 1
    assert len(server.seen) == (4 if scheme == "basic" else 5)


def test_a_registry_that_never_asks_gets_basic_and_nothing_when_it_refuses_that(make_client: Make) -> None:
    """As go-containerregistry does where `/v2/` asks for nothing; a registry that chokes on it is asked without."""
    with Asking(lambda path, sent: (401, {}) if path != "/v2/" and sent != BASIC else None) as server:
        assert make_client(BOB).repository(server.host, "a/b").get_manifest("v1").raw == CONFIG

    def chokes(path: str, sent: str) -> tuple[int, Mapping[str, str]] | None:
        return (401, {}) if sent else (404, {}) if path != "/v2/" else None

    with Asking(chokes) as server:
        store = make_client(BOB).repository(server.host, "a/b")
        for _ in range(2):
            with pytest.raises(NotFound) as caught:
                store.get_manifest("v1")
        assert "asked as" not in str(caught.value)
        assert [sent for _, _, sent in server.seen] == ["", "", BASIC, "", ""]


def test_the_hint_names_the_login_that_was_sent(make_client: Make) -> None:
    with Asking(lambda path, sent: (403, {})) as server, pytest.raises(StoreError) as caught:
        make_client(BOB).repository(server.host, "a/b").get_manifest("v1")
    assert "asked as user bob (the test)" in str(caught.value)
    assert server.seen[-1][2] == BASIC

    with Asking(lambda path, sent: (403, {})) as server, pytest.raises(StoreError) as caught:
        make_client(Credential(identity_token="refresh")).repository(server.host, "a/b").get_manifest("v1")
    assert "asked as anonymous" in str(caught.value)
    assert {sent for _, _, sent in server.seen} == {""}


def test_challenges_belong_to_a_repository(make_client: Make) -> None:
    def rule(path: str, sent: str) -> tuple[int, Mapping[str, str]] | None:
        if "/docker/" in path:
            return None if sent == BASIC else (401, asks('Basic realm="docker"'))
        return None if sent.startswith("Bearer t") else (401, asks(server.bearer()))

    with Asking(rule) as server:
        client = make_client(BOB)
        for _ in range(2):
            for name in ("docker/a", "tokens/b", "docker/c", "tokens/d"):
                assert client.repository(server.host, name).get_manifest("v1").raw == CONFIG

    refused = [path for _, path, sent in server.seen if rule(path, sent) and not path.startswith("/token")]
    assert len(refused) == 3  # the first request, and the others whose way of logging in isn't the first one's
    assert len(server.tokens) <= 3


def test_a_destination_asks_for_pushing_from_the_first_request(make_client: Make) -> None:
    with Asking(lambda path, sent: None if sent else (401, asks(server.bearer(service="s")))) as server:
        make_client(BOB).repository(server.host, "a/b").get_manifest("v1")
        make_client(BOB, side="source").repository(server.host, "a/b").get_manifest("v1")

    assert [query.split("scope=")[1] for query in server.tokens] == [
        "repository%3Aa%2Fb%3Apull%2Cpush&account=bob",
        "repository%3Aa%2Fb%3Apull&account=bob",
    ]


def test_a_destination_that_may_only_be_read_is_read(make_client: Make) -> None:
    def narrow(path: str, query: str, sent: str) -> tuple[int, Mapping[str, str], bytes]:
        if path == "/token" and "push" in query:
            return 403, {}, b"{}"
        return Asking.respond(server, path, query, sent)

    with Asking(lambda path, sent: None if sent else (401, asks(server.bearer()))) as server:
        server.respond = narrow  # type: ignore[method-assign]
        store = make_client(BOB).repository(server.host, "a/b")
        for tag in ("v1", "v2", "v3"):
            assert store.get_manifest(tag).raw == CONFIG

    assert len(server.tokens) == 2


@pytest.mark.parametrize(
    ("offered", "asked"),
    [
        ("repository:a/b:pull,push,delete", {"repository:a/b:pull"}),
        ("repository:a/b:* registry:catalog:*", {"repository:a/b:pull"}),
        ("repository:other/secret:pull", {"repository:a/b:pull"}),
        ("repository:local/a/b:pull,push", {"repository:a/b:pull", "repository:local/a/b:pull"}),
        ("aws", {"repository:a/b:pull", "aws"}),
    ],
)
def test_no_scope_is_wider_than_the_request_needs(make_client: Make, offered: str, asked: set[str]) -> None:
    from urllib.parse import parse_qs

    with Asking(lambda path, sent: None if sent else (401, asks(server.bearer(scope=offered)))) as server:
        make_client(BOB, side="source").repository(server.host, "a/b").get_manifest("v1")

    assert set(parse_qs(server.tokens[0])["scope"]) == asked


def test_tokens_that_die_in_the_middle_cost_one_request_for_all_threads(make_client: Make) -> None:
    valid = ["Bearer t1"]
    with Asking(lambda path, sent: None if sent in valid else (401, asks(server.bearer()))) as server:
        store = make_client(BOB, side="source", concurrency=64).repository(server.host, "a/b")
        store.get_manifest("v0")
        valid[0] = "Bearer t2"
        with ThreadPoolExecutor(50) as threads:
            list(threads.map(lambda n: store.get_manifest(f"v{n}"), range(100)))

    assert len(server.tokens) == 2


@pytest.mark.parametrize(
    ("lifetime", "usable"),
    [(10**400, False), (-5, True), (0, True), (1, True), ("soon", False), (1e308, True), ([], True), ({"a": 1}, False)],
)
def test_lifetimes_that_make_no_sense(make_client: Make, lifetime: Any, usable: bool) -> None:
    with Asking(lambda path, sent: None if sent else (401, asks(server.bearer()))) as server:
        server.lifetime = lifetime
        store = make_client(BOB, side="source", retries=0).repository(server.host, "a/b")
        if usable:
            for _ in range(2):
                assert store.get_manifest("v1").raw == CONFIG
        else:
            with pytest.raises(StoreError, match="is not a token"):
                store.get_manifest("v1")
        assert len(server.tokens) == 1


def test_a_token_nested_without_end_is_refused(make_client: Make) -> None:
    def nested(path: str, query: str, sent: str) -> tuple[int, Mapping[str, str], bytes]:
        return (200, {}, b"[" * 100_000) if path == "/token" else Asking.respond(server, path, query, sent)

    with Asking(lambda path, sent: None if sent else (401, asks(server.bearer()))) as server:
        server.respond = nested  # type: ignore[method-assign]
        with pytest.raises(StoreError, match="is not a token"):
            make_client(BOB).repository(server.host, "a/b").get_manifest("v1")


def test_a_wrong_password_is_refused_and_said_so(make_client: Make) -> None:
    with Asking(lambda path, sent: (401, asks('Basic realm="x"'))) as server, pytest.raises(Unauthorized) as caught:
        make_client(BOB).repository(server.host, "a/b").get_manifest("v1")

    assert len(server.seen) == 2
    assert "check that password" in str(caught.value)


def test_no_cookie_is_ever_sent(make_client: Make) -> None:
    cookies: list[str | None] = []

    class Baker(_Handler):
        def do_GET(self) -> None:
            cookies.append(self.headers.get("Cookie"))
            self.answer(200, CONFIG, Content_Type="application/vnd.oci.image.index.v1+json", Set_Cookie="sid=1; Path=/")

    class Bakery(Asking):
        handler = Baker

    with Bakery(lambda path, sent: None) as server:
        store = make_client().repository(server.host, "a/b")
        for _ in range(3):
            store.get_manifest("v1")

    assert cookies == [None] * 3
