"""Where logins go: only the registry itself may ask for one, and no name leads out of its repository."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from oci.descriptor import Descriptor
from oci.digest import digest_of
from oci.errors import InvalidReference, Refused, StoreError
from oci.reference import Repository
from oci.registry import endpoints
from oci.registry.credentials.credential import Credential
from oci.registry.endpoints import BASE
from oci.registry.http.origin import normal_host, origin_of, split_url
from oci.store import reader_of
from tests.oci.registry.conftest import Client
from tests.servers.http_server import LoopbackServer, QuietHandler

Make = Callable[..., Client]
SECRETS = ("basic-secret", "identity-secret", "registry-secret", "issued-secret")
CREDENTIALS = {
    "basic": Credential("bob", SECRETS[0], origin="the test"),
    "identity token": Credential("bob", identity_token=SECRETS[1], origin="the test"),
    "registry token": Credential(registry_token=SECRETS[2], origin="the test"),
}
DATA = b"x" * 70_000
BLOB = Descriptor("application/octet-stream", digest_of(DATA), len(DATA))


@dataclass(frozen=True, slots=True)
class Heard:
    line: str
    authorization: str
    body: bytes


class _Logged(QuietHandler):
    def do_GET(self) -> None:
        owner: Any = self.server.owner  # type: ignore[attr-defined]
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        owner.log.append(Heard(f"{self.command} {self.path}", self.headers.get("Authorization", ""), body))
        owner.reply(self)

    do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = do_GET  # noqa: N815


class _Server(LoopbackServer):
    handler = _Logged

    def __init__(self) -> None:
        super().__init__()
        self.log: list[Heard] = []


class Stranger(_Server):
    """Asks for a login with a realm of its own, and writes down what it gets."""

    scheme = "Bearer"
    leads_to = ""
    """Where it sends those who ask for a blob."""

    def reply(self, call: QuietHandler) -> None:
        if self.leads_to and call.path == "/blob":
            call.answer(307, Location=self.leads_to)
        elif call.path.startswith("/token"):
            call.answer(200, b'{"token":"issued-by-the-stranger"}')
        else:
            call.answer(401, b"{}", WWW_Authenticate=f'{self.scheme} realm="{self.url}/token",service="s"')

    def secrets(self) -> list[Heard]:
        """What it heard that carries a login, in whatever form."""

        def told(heard: Heard) -> bool:
            text = f"{heard.line} {heard.authorization} {heard.body.decode(errors='replace')}"
            encoded = heard.authorization.removeprefix("Basic ")
            plain = base64.b64decode(encoded + "==").decode(errors="replace") if " " not in encoded else ""
            return bool(heard.authorization) or any(secret in text + plain for secret in SECRETS)

        return [heard for heard in self.log if told(heard)]


class Registry(_Server):
    """Wants a token of its own service, and then leads to the stranger at `place`."""

    def __init__(self, stranger: Stranger, place: str) -> None:
        super().__init__()
        self.stranger = stranger
        self.place = place

    def reply(self, call: QuietHandler) -> None:
        path = urlsplit(call.path).path
        if path == "/token":
            if self.place == "token service":
                call.answer(307, Location=f"{self.stranger.url}/token")
            else:
                call.answer(200, json.dumps({"token": "issued-secret", "expires_in": 300}).encode())
            return
        if self.place == "first realm" or (self.place == "realm" and "tags" in path):
            call.answer(401, WWW_Authenticate=f'Bearer realm="{self.stranger.url}/token",service="s"')
            return
        if call.headers.get("Authorization", "") not in ("Bearer issued-secret", "Bearer registry-secret"):
            call.answer(401, WWW_Authenticate=f'Bearer realm="{self.url}/token",service="s"')
            return
        self._lead(call, path)

    def _lead(self, call: QuietHandler, path: str) -> None:
        if call.command == "POST":
            call.answer(202, Location=f"{self.stranger.url}/upload/1")
        elif path.endswith("/tags/list"):
            more = {"Link": f'<{self.stranger.url}/v2/a/b/tags/list?last=v1>; rel="next"'}
            first = "last" not in parse_qs(urlsplit(call.path).query)
            call.answer(200, json.dumps({"tags": ["v1" if first else "v2"]}).encode(), **(more if first else {}))
        elif self.place == "redirect":
            call.answer(307, Location=f"{self.stranger.url}/blob")
        else:
            call.answer(404, b"{}")


@pytest.fixture(params=["Bearer", "Basic"])
def stranger(request: pytest.FixtureRequest) -> Iterator[Stranger]:
    with Stranger() as one:
        one.scheme = request.param
        yield one


@pytest.mark.parametrize("kind", CREDENTIALS)
@pytest.mark.parametrize("place", ["redirect", "urls", "link", "location", "realm", "token service"])
def test_no_login_reaches_a_stranger(stranger: Stranger, make_client: Make, place: str, kind: str) -> None:
    with Registry(stranger, place) as server:
        store = make_client(CREDENTIALS[kind], retries=0).repository(server.host, "a/b")
        if place in ("redirect", "token service"):
            with pytest.raises(StoreError):
                b"".join(store.read_blob(BLOB))
        elif place == "urls":
            named = Descriptor(BLOB.media_type, BLOB.digest, BLOB.size, urls=(f"{stranger.url}/layer",))
            with pytest.raises(StoreError):
                b"".join(store.read_blob(named))
        elif place == "link":
            assert list(store.tags()) == ["v1", "v2"]
        elif place == "location":
            with pytest.raises(StoreError):
                store.put_blob(BLOB, reader_of(DATA))
        else:
            assert store.head_manifest("v1") is None  # with the registry's own realm, first
            with pytest.raises(StoreError):
                list(store.tags())

        assert any(heard.authorization or heard.body for heard in server.log), "the registry itself got the login"

    assert bool(stranger.log) == (place in ("redirect", "urls", "location"))
    assert stranger.secrets() == []


@pytest.mark.parametrize("kind", ["basic", "identity token"])
def test_another_token_service_than_the_first_is_refused_by_name(make_client: Make, kind: str) -> None:
    with Stranger() as stranger, Registry(stranger, "realm") as server:
        store = make_client(CREDENTIALS[kind]).repository(server.host, "a/b")
        store.head_manifest("v1")

        with pytest.raises(Refused, match="names another token service than before") as caught:
            list(store.tags())

    assert stranger.url in caught.value.message
    assert server.url in caught.value.message
    assert stranger.log == []


@pytest.mark.parametrize("kind", CREDENTIALS)
def test_a_layers_urls_get_no_login_even_at_the_registry(stranger: Stranger, make_client: Make, kind: str) -> None:
    """A bundle chose that URL: with a login, it could read what only this identity may read."""
    with Registry(stranger, "urls") as server:
        store = make_client(CREDENTIALS[kind], retries=0).repository(server.host, "a/b")
        url = f"{server.url}/v2/secret/repository/blobs/{BLOB.digest}"
        with pytest.raises(StoreError):
            b"".join(store.read_blob(Descriptor(BLOB.media_type, BLOB.digest, BLOB.size, urls=(url,))))

    assert [heard.authorization for heard in server.log if "/secret/" in heard.line] == [""]


@pytest.mark.parametrize("kind", CREDENTIALS)
def test_a_redirect_that_comes_back_from_a_stranger_brings_no_login(make_client: Make, kind: str) -> None:
    """The stranger chose where to: another repository, which only this identity may read."""
    with Stranger() as stranger, Registry(stranger, "redirect") as server:
        stranger.leads_to = f"{server.url}/v2/secret/repository/blobs/{BLOB.digest}"
        store = make_client(CREDENTIALS[kind], retries=0).repository(server.host, "a/b")
        with pytest.raises(StoreError):
            b"".join(store.read_blob(BLOB))

    assert {heard.authorization for heard in server.log if "/secret/" in heard.line} == {""}
    assert stranger.secrets() == []


REPOSITORY = Repository("registry.example", "a/b")
HOSTILE = [
    "../../../admin/prod/manifests/latest",
    "..",
    ".",
    "",
    "v1/..",
    "a/b",
    "v1?x=y",
    "v1#x",
    "%2e%2e",
    "v%2f1",
    "v1%5c",
    "v1\\..",
    "v1\r\nX: y",
    "v1 ",
    "v1\n",
    "é",
    "x" * 129,
    "sha256:abc",
    f"sha256:{'a' * 64}/..",
]


@pytest.mark.parametrize("identifier", HOSTILE)
def test_a_hostile_tag_never_becomes_a_url(make_client: Make, identifier: str) -> None:
    with pytest.raises(InvalidReference):
        endpoints.manifest(REPOSITORY, identifier)
    with pytest.raises(InvalidReference):
        endpoints.blob(REPOSITORY, identifier)
    with pytest.raises(InvalidReference):
        make_client().repository("registry.example", "a/b").head_manifest(identifier)


@pytest.mark.parametrize(
    "path", ["../x", "a/../b", "a//b", "/a", "a/", "a/.", "..", "", "a%2fb", "a?b", "a#b", "A", "a\\b", "a b", "a\n"]
)
def test_a_hostile_repository_never_becomes_a_url(path: str) -> None:
    for build in (endpoints.tags, endpoints.uploads):
        with pytest.raises(InvalidReference):
            build(Repository("registry.example", path))
    with pytest.raises(InvalidReference):
        endpoints.uploads(REPOSITORY, mount=BLOB.digest, source=Repository("registry.example", path))


def test_targets_are_the_end_points_of_the_specification() -> None:
    digest = BLOB.digest
    assert endpoints.manifest(REPOSITORY, "v1.0_x-Y").path == "/v2/a/b/manifests/v1.0_x-Y"
    assert endpoints.manifest(REPOSITORY, digest).path == f"/v2/a/b/manifests/{digest}"
    assert endpoints.blob(REPOSITORY, digest).path == f"/v2/a/b/blobs/{digest}"
    assert endpoints.uploads(REPOSITORY).path == "/v2/a/b/blobs/uploads/"
    assert endpoints.uploads(REPOSITORY, digest=digest).path.endswith(f"/?digest={digest.replace(':', '%3A')}")
    assert endpoints.tags(REPOSITORY, n="5", last="a&b").path == "/v2/a/b/tags/list?n=5&last=a%26b"
    assert endpoints.catalog(n="5").path == "/v2/_catalog?n=5"
    assert BASE.path == "/v2/"


@pytest.mark.parametrize(
    "link",
    [
        "/v2/a/b/tags/list?last=x&n=5",
        "https://stranger.example/elsewhere?last=x&n=5",
        "../../../admin/prod/tags/list?last=x&n=5#part",
        "?last=x&n=5",
    ],
)
def test_a_link_decides_the_query_only(link: str) -> None:
    assert endpoints.tags(REPOSITORY, n="5").next_page(link).path == "/v2/a/b/tags/list?last=x&n=5"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("https://registry.example/x", "https://registry.example:443/y"),
        ("https://registry.example", "HTTPS://Registry.EXAMPLE/"),
        ("https://registry.example/", "https://registry.example./"),
        ("http://registry.example:80/", "http://registry.example/"),
        ("https://bücher.example/", "https://xn--bcher-kva.example/"),
        ("https://[::1]:443/", "https://[0:0:0:0:0:0:0:1]/"),
    ],
)
def test_two_spellings_of_one_origin_are_equal(one: str, other: str) -> None:
    assert split_url(one)[0] == split_url(other)[0]


@pytest.mark.parametrize(
    "other",
    ["http://registry.example/", "https://registry.example:444/", "https://registry.example.evil.example/"],
)
def test_another_origin_is_not_equal(other: str) -> None:
    assert split_url(other)[0] != origin_of("registry.example")


@pytest.mark.parametrize(
    "host",
    ["a" * 64, f"{'a' * 63}.{'b' * 63}.{'c' * 63}.{'d' * 63}", "", "a..b", "-a", "a b", "fe80::1%eth0", "ü" * 70],
)
def test_what_is_no_host_is_a_typed_error(host: str, make_client: Make) -> None:
    with pytest.raises(InvalidReference):
        normal_host(host)
    name = f"[{host}]" if ":" in host else host
    with pytest.raises(InvalidReference):
        make_client().repository(name, "a/b").head_manifest("v1")


@pytest.mark.parametrize(
    "target", ["/x?sig=a+b/c==&x=~!$'()*,;:@/?", "/x?a=%7e%2a&b=%zz", "/x?x=[1]&y={a|b}^`", "/x?", "/?a=b"]
)
def test_a_signed_query_stays_as_it_was_written(target: str) -> None:
    assert split_url(f"https://store.example{target}")[1] == target
