"""A token service for docker-registry (distribution's token specification): ES256 tokens that carry their certificate.

Users are `writer` and `reader`, whose password is `secret` unless another is given; anonymous may pull below `public/`.
The registry allows 60 seconds beyond a token's end, so a lifetime of -55 gives tokens that die 5 seconds after they are
issued.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
import time
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import NameOID

from tests.servers.docker_registry import TokenAuth
from tests.servers.http_server import LoopbackServer, QuietHandler

SERVICE = "tests"
ISSUER = "tests-issuer"
REFRESH = "refresh-of-"
_USERS = {"writer": {"pull", "push", "delete", "*"}, "reader": {"pull"}}


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class _Handler(QuietHandler):
    @property
    def service(self) -> TokenService:
        return self.server.owner  # type: ignore[attr-defined, no-any-return]

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        given = self.headers.get("Authorization", "")
        user = ""
        if given.startswith("Basic "):
            user, _, password = base64.b64decode(given[6:]).decode().partition(":")
            if user not in _USERS or password != self.service.password:
                self.answer(401, b'{"errors":[{"code":"UNAUTHORIZED","message":"wrong password"}]}')
                return
        self._grant(user, query.get("scope", []))

    def do_POST(self) -> None:
        form = parse_qs(self.rfile.read(int(self.headers.get("Content-Length", 0))).decode())
        token = form.get("refresh_token", [""])[0]
        if not self.service.oauth:
            self.answer(404, b"not found")
        elif form.get("grant_type") == ["refresh_token"] and token.startswith(REFRESH):
            self._grant(token.removeprefix(REFRESH), form.get("scope", []))
        else:
            self.answer(401, b'{"errors":[{"code":"UNAUTHORIZED"}]}')

    def _grant(self, user: str, scopes: list[str]) -> None:
        access: list[dict[str, Any]] = []
        for scope in (one for text in scopes for one in text.split()):
            kind, _, rest = scope.partition(":")
            name, _, actions = rest.rpartition(":")
            allowed = _USERS.get(user, {"pull"} if name.startswith("public/") else set())
            granted = [action for action in actions.split(",") if action in allowed]
            access.append({"type": kind, "name": name, "actions": granted})
        self.service.fetched.append((self.command, user, tuple(scopes)))
        token = self.service.sign(user, access)
        self.service.issued.append(token)
        body = {"token": token, "access_token": token, "expires_in": self.service.announced}
        self.answer(200, json.dumps(body).encode(), Content_Type="application/json")


class TokenService(LoopbackServer):
    """`fetched` lists (method, user, scopes) of every token given out, `issued` the tokens themselves."""

    handler = _Handler

    def __init__(
        self, folder: Path, *, lifetime: int = 300, announced: int = 300, oauth: bool = True, password: str = "secret"
    ) -> None:
        super().__init__()
        self.lifetime = lifetime
        self.announced = announced
        self.oauth = oauth
        self.fetched: list[tuple[str, str, tuple[str, ...]]] = []
        self.issued: list[str] = []
        self.password = password
        self._key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "token signer of the tests")])
        now = dt.datetime.now(dt.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=30))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self._x5c = base64.b64encode(certificate.public_bytes(serialization.Encoding.DER)).decode()
        folder.mkdir(parents=True, exist_ok=True)
        self._root = folder / "token-root.pem"
        self._root.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    @property
    def auth(self) -> TokenAuth:
        return TokenAuth(f"{self.url}/token", SERVICE, ISSUER, self._root)

    def sign(self, user: str, access: list[dict[str, Any]]) -> str:
        now = int(time.time())
        issued = now - 120 if self.lifetime < 0 else now
        claims = {
            "iss": ISSUER,
            "sub": user,
            "aud": SERVICE,
            "exp": now + self.lifetime,
            "nbf": now - 120,
            "iat": issued,
            "jti": str(uuid.uuid4()),
            "access": access,
        }
        head = _b64(json.dumps({"typ": "JWT", "alg": "ES256", "x5c": [self._x5c]}).encode())
        body = _b64(json.dumps(claims).encode())
        r, s = decode_dss_signature(self._key.sign(f"{head}.{body}".encode(), ec.ECDSA(hashes.SHA256())))
        return f"{head}.{body}.{_b64(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"
