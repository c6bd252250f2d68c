"""Logins that end without a challenge, ways of logging in that don't work here, and token services in odd places."""

from __future__ import annotations

import base64
import json
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from oci.errors import CancelToken, StoreError, Unauthorized
from oci.meter import Meter
from oci.reference import Repository
from oci.registry import auth
from oci.registry.credentials.config_files import ConfigFiles
from oci.registry.credentials.credential import Credential, Credentials
from oci.registry.options import RegistryOptions
from oci.registry.repository import Registries
from tests.oci.registry.conftest import Client
from tests.oci.registry.test_challenges import BASIC, BOB, CONFIG, Asking, asks
from tests.servers.certificates import make_certificates

Make = Callable[..., Client]
MARK = "<token>"
"""Docker's name of a user who has an identity token."""

Rule = tuple[int, Mapping[str, str]] | None


def test_a_token_that_ends_without_a_challenge_is_replaced_once(make_client: Make) -> None:
    valid = ["Bearer t1"]

    def rule(path: str, sent: str) -> Rule:
        return None if sent in valid else (401, {} if sent else asks(server.bearer()))

    with Asking(rule) as server:
        store = make_client(BOB, side="source").repository(server.host, "a/b")
        assert store.get_manifest("v1").raw == CONFIG
        valid[:] = ["Bearer t2"]
        assert store.get_manifest("v2").raw == CONFIG
        valid.clear()
        with pytest.raises(Unauthorized):
            store.get_manifest("v3")
    assert len(server.tokens) == 3


@pytest.mark.parametrize(("status", "after"), [(401, 600.0), (403, 0.0)])
def test_a_password_that_ends_without_a_challenge_is_looked_up_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, after: float
) -> None:
    """ECR answers 403 when its twelve hours are over. A 403 to a fresh login is about the repository."""
    monkeypatch.setattr("oci.registry.credentials.config_files.RENEWAL_PAUSE", 0.0)
    monkeypatch.setattr(auth, "LONG", after)
    valid = ["first"]

    def login(password: str) -> str:
        return base64.b64encode(f"bob:{password}".encode()).decode()

    def rule(path: str, sent: str) -> Rule:
        if sent == f"Basic {login(valid[0])}":
            return None
        return (status, {}) if sent else (401, asks('Basic realm="x"'))

    def write(host: str, password: str) -> None:
        (tmp_path / "config.json").write_text(json.dumps({"auths": {host: {"auth": login(password)}}}))

    with (
        Asking(rule) as server,
        Registries(
            side="source",
            settings=lambda _: RegistryOptions(),
            credentials=Credentials([ConfigFiles({"HOME": str(tmp_path), "DOCKER_CONFIG": str(tmp_path)})]),
            meter=Meter(),
            cancel=CancelToken(),
        ) as registries,
    ):
        write(server.host, "first")
        store = registries.repository(Repository(server.host, "a/b"))
        assert store.get_manifest("v1").raw == CONFIG
        valid[0] = "second"
        write(server.host, "second")
        if after and status == 403:
            with pytest.raises(StoreError):
                store.get_manifest("v2")
        else:
            assert store.get_manifest("v2").raw == CONFIG


@pytest.mark.parametrize("status", [400, 401, 403, 404])
@pytest.mark.parametrize("other", ["basic", "anonymous", "token"])
def test_a_token_service_that_knows_nothing_of_another_path(make_client: Make, status: int, other: str) -> None:
    """The challenge of the first repository is assumed for all: a refusal of its token service decides nothing."""

    def rule(path: str, sent: str) -> Rule:
        if "/docker/" not in path or other == "token":
            return None if sent.startswith("Bearer t") else (401, asks(server.bearer()))
        if other == "anonymous":
            return (401, {}) if sent else None
        return None if sent == BASIC else (401, asks('Basic realm="docker"'))

    def respond(path: str, query: str, sent: str) -> tuple[int, Mapping[str, str], bytes]:
        if path == "/token" and "docker" in query:
            return status, {}, b"{}"
        return Asking.respond(server, path, query, sent)

    with Asking(rule) as server:
        server.respond = respond  # type: ignore[method-assign]
        client = make_client(BOB, side="source", retries=0)
        assert client.repository(server.host, "tokens/b").get_manifest("v1").raw == CONFIG
        store = client.repository(server.host, "docker/a")
        for _ in range(2):
            if other == "token":
                with pytest.raises(Unauthorized, match=f"token service .* answered {status}"):
                    store.get_manifest("v1")
            else:
                assert store.get_manifest("v1").raw == CONFIG
        refused = [query for query in server.tokens if "docker" in query]
    assert other == "token" or len(refused) == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_basic_beside_a_bearer_whose_token_service_refuses(make_client: Make, status: int) -> None:
    with Asking(
        lambda path, sent: None if sent == BASIC else (401, asks(f"{server.bearer()}, Basic realm=x"))
    ) as server:
        server.token_status = status
        store = make_client(BOB, side="source", retries=0).repository(server.host, "a/b")
        for tag in ("v1", "v2"):
            assert store.get_manifest(tag).raw == CONFIG
        assert len(server.tokens) == 1

        with pytest.raises(Unauthorized):
            make_client(side="source", retries=0).repository(server.host, "a/b").get_manifest("v1")


@pytest.mark.parametrize("status", [400, 401, 404, 405, 501])
@pytest.mark.parametrize("user", ["<token>", "", "00000000-0000-0000-0000-000000000000"])
def test_a_refresh_token_goes_by_get_where_post_is_refused(
    make_client: Make, status: int, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def respond(path: str, query: str, sent: str) -> tuple[int, Mapping[str, str], bytes]:
        if path != "/token":
            return Asking.respond(server, path, query, sent)
        login = base64.b64encode(f"{user or MARK}:refresh".encode()).decode()
        is_bob = sent == f"Basic {login}"
        return 200, {}, json.dumps({"token": "of-bob" if is_bob else "anonymous"}).encode()

    def refuse(call: Any) -> None:
        call.rfile.read(int(call.headers["Content-Length"]))
        call.answer(status, b"{}")

    with Asking(lambda path, sent: None if sent == "Bearer of-bob" else (401, asks(server.bearer()))) as server:
        monkeypatch.setattr(server.handler, "do_POST", refuse, raising=False)
        server.respond = respond  # type: ignore[method-assign]
        store = make_client(Credential(user, identity_token="refresh"), side="source").repository(server.host, "a/b")
        assert store.get_manifest("v1").raw == CONFIG


@pytest.mark.parametrize("realm", ["/token", "http://{host}/token", "https://{host}/token", "HTTPS://{host}/token"])
@pytest.mark.parametrize("tls", [True, False])
def test_a_realm_at_the_registry_itself_keeps_its_scheme(
    make_client: Make, tmp_path: Path, realm: str, tls: bool
) -> None:
    """Nexus behind a proxy that ends TLS names its token service with http: no password goes there in clear."""
    asked = asks(f'Bearer realm="{realm}",service="s"')
    with Asking(lambda path, sent: None if sent == "Bearer t1" else (401, asked)) as server:
        asked["WWW_Authenticate"] = asked["WWW_Authenticate"].format(host=server.host)
        settings: dict[str, Any] = {"side": "source", "retries": 0}
        if tls:
            made = make_certificates(tmp_path)
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(made.certificate, made.key)
            server._server.socket = context.wrap_socket(server._server.socket, server_side=True)
            settings["ca_files"] = (str(made.ca),)
        assert make_client(BOB, **settings).repository(server.host, "a/b").get_manifest("v1").raw == CONFIG
        assert len(server.tokens) == 1


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_token_service_may_move_within_itself(make_client: Make, status: int) -> None:
    def respond(path: str, query: str, sent: str) -> tuple[int, Mapping[str, str], bytes]:
        if path == "/token":
            return status, {"Location": f"/token/v2?{query}"}, b""
        return Asking.respond(server, path, query, sent)

    with Asking(lambda path, sent: None if sent.startswith("Bearer t") else (401, asks(server.bearer()))) as server:
        server.respond = respond  # type: ignore[method-assign]
        assert make_client(BOB, side="source").repository(server.host, "a/b").get_manifest("v1").raw == CONFIG
        server.respond = lambda path, query, sent: (  # type: ignore[method-assign]
            (status, {"Location": "/token"}, b"") if path == "/token" else Asking.respond(server, path, query, sent)
        )
        with pytest.raises(StoreError):
            make_client(BOB, side="source", retries=0).repository(server.host, "a/b").get_manifest("v1")
