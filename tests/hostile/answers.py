"""What registries and token services answer: challenges, tokens, Links, Locations."""

# ruff: noqa: E501 - a case is a line

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from oci.descriptor import Descriptor
from oci.errors import Refused, Unauthorized
from oci.library import Registry
from oci.registry.credentials.credential import Credential
from oci.registry.options import RegistryOptions
from oci.store import reader_of
from tests.hostile.case import ACCEPTED, Case, given
from tests.servers.http_server import LoopbackServer, QuietHandler
from tests.support.content import Blob

Answer = tuple[str, Any]
"""Where it stands, and what it says."""

CHALLENGES = (
    "", " ", ",", "Negotiate", "Basic", 'Basic realm="', "Bearer", "Bearer realm", 'Bearer realm=""', "Digest realm=x, nonce=y", 'Bearer realm="\\',
    "Bearer " + "a=b," * 10_000, '"' * 50_000, "Basic " + "\\" * 50_000,
)  # fmt: skip
REALMS = (
    "x", "file:///etc/passwd", "http://169.254.169.254/token", "http://[::ffff:169.254.169.254]/token", "http://[64:ff9b::a9fe:a9fe]/token",
    "http://[::1", "https://" + "l" * 70 + ".example/token", "http://a:b@127.0.0.1:1/token",
)  # fmt: skip
TOKENS: tuple[bytes, ...] = (
    b"", b"null", b"[]", b"7", b"{}", b"<html>", b'{"token": 7}', b'{"token": ""}', b'{"token": ["x"]}', b'{"token": "a\\r\\nX-Header: 1"}', b'{"token": "\\u0000"}', b'{"token": "\xff"}',
    b"[" * 100_000, b'{"token": "' + b"x" * (17 << 20) + b'"}',
)  # fmt: skip
LIFETIMES = (b"-1", b"null", b"[]", b"0", b"true")
NO_LIFETIMES = (b"1e400", b"9" * 400, b'"soon"')
LINKS = (
    "", "<>", "<", '<>; rel="next"', '<http://169.254.169.254/>; rel="next"', '</v2/other/repository/tags/list?n=1>; rel="next"', '<../../../admin?n=1>; rel="next"',
    '<//127.0.0.1:1/v2/>; rel="next"', '<http://[>; rel="next"', "<?" + "x" * 30_000 + '>; rel="next"', '<?a b>; rel="next"', "<" * 30_000,
)  # fmt: skip
LOCATIONS = (
    "", "http://169.254.169.254/upload", "http://[::1", "file:///etc/passwd", "ftp://127.0.0.1/x", "http://a b/", "http://127.0.0.1:99999/x", "gopher://x/", "https:", "https:x", "https:/x",
)  # fmt: skip


class _Handler(QuietHandler):
    def do_GET(self) -> None:
        place, said = self.server.owner.answer  # type: ignore[attr-defined]
        if self.path.startswith("/token"):
            self.answer(200, said, Content_Type="application/json")
        elif place == "challenge":
            self.answer(401, WWW_Authenticate=said)
        elif place == "token" and "Bearer" not in self.headers.get("Authorization", ""):
            self.answer(401, WWW_Authenticate=f'Bearer realm="http://{self.headers["Host"]}/token",service="x"')
        elif "tags/list" in self.path:
            more = {"Link": said} if place == "link" else {}
            self.answer(200, json.dumps({"name": "a/b", "tags": ["v1"]}).encode(), **more)
        else:
            self.answer(404)

    do_HEAD = do_GET  # noqa: N815

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        place, said = self.server.owner.answer  # type: ignore[attr-defined]
        self.answer(202, **({"Location": said} if place == "location" else {}))

    do_PUT = do_PATCH = do_DELETE = do_POST  # noqa: N815


class Liar(LoopbackServer):
    handler = _Handler

    def __init__(self) -> None:
        super().__init__()
        self.answer: Answer = ("", "")


def ask(server: Liar, answer: Answer) -> None:
    """Lists tags, or uploads a blob, where such an answer stands."""
    server.answer = answer
    options = RegistryOptions(retries=0, retry_budget=0.0, header_timeout=5.0, idle_timeout=5.0, connect_timeout=5.0)
    login = Credential("bob", "secret", origin="the corpus")
    with Registry(server.host, login=login, options=options) as registry:
        repository = registry.repository("a/b")
        if answer[0] != "location":
            assert list(repository.tags()) == ["v1"]
            return
        blob = Blob("application/octet-stream", b"x" * 100_000)
        repository.put_blob(Descriptor.from_dict(blob.descriptor(), "blob"), reader_of(blob.data))


def cases() -> Iterator[Case[Answer]]:
    for text in CHALLENGES:
        yield Case(f"the challenge {text[:60]!r}", given(("challenge", text)), Unauthorized)
    for realm in REALMS:
        yield Case(f"the realm {realm[:60]!r}", given(("challenge", f'Bearer realm="{realm}"')), Refused)
    for body in TOKENS:
        yield Case(f"the token {body[:40]!r}", given(("token", body)), Refused)
    for lifetime in (*LIFETIMES, *NO_LIFETIMES):
        body = b'{"token": "x", "expires_in": ' + lifetime + b"}"
        expected = Refused if lifetime in NO_LIFETIMES else ACCEPTED
        yield Case(f"a token for {lifetime[:20]!r} seconds", given(("token", body)), expected)
    for link in LINKS:
        yield Case(f"the Link {link[:60]!r}", given(("link", link)), ACCEPTED)
    for location in LOCATIONS:
        yield Case(f"the Location {location[:60]!r}", given(("location", location)), Refused)
