"""What companies put before a registry: a proxy that ends TLS, sets a cookie, and lets so many requests through."""

from __future__ import annotations

import http.client
import ssl
import threading
import time
from typing import Any

from tests.servers.certificates import Certificates
from tests.servers.http_server import LoopbackServer, QuietHandler

_OWN = frozenset({"connection", "transfer-encoding", "content-length", "date", "server"})


class _Handler(QuietHandler):
    def do_GET(self) -> None:
        front: Any = self.server.owner  # type: ignore[attr-defined]
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if "Cookie" in self.headers:
            front.cookies += 1
            self.answer(403, b'{"errors":[{"code":"DENIED","message":"CSRF token invalid"}]}')
            return
        if not front.lets_through():
            front.limited += 1
            self.answer(429, b'{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}')
            return
        front.passed += 1
        registry = http.client.HTTPConnection(front.target, timeout=60)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _OWN}
        registry.request(self.command, self.path, body, {**headers, "Content-Length": str(len(body))})
        answer = registry.getresponse()
        found = {name: value for name, value in answer.getheaders() if name.lower() not in _OWN}
        length = answer.headers.get("Content-Length", "0")
        self.answer(
            answer.status,
            answer.read(),
            Content_Length=length,
            Set_Cookie="sid=abc; Path=/; HttpOnly",
            **{name.replace("-", "_"): value for name, value in found.items()},
        )
        registry.close()

    do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = do_GET  # noqa: N815


class Front(LoopbackServer):
    """In front of the registry at `target` (host:port); more requests than `per_second` are answered 429. A request
    with the cookie is refused, as Harbor does (CSRF)."""

    handler = _Handler

    def __init__(self, target: str, certificates: Certificates, *, per_second: float) -> None:
        super().__init__()
        self.target = target
        self.cookies = self.limited = self.passed = 0
        self._rate = self._tokens = per_second
        self._filled = time.monotonic()
        self._lock = threading.Lock()
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificates.certificate, certificates.key)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"https://{self.host}"

    def lets_through(self) -> bool:
        with self._lock:
            now = time.monotonic()
            self._tokens = min(self._rate, self._tokens + (now - self._filled) * self._rate)
            self._filled = now
            if self._tokens < 1:
                return False
            self._tokens -= 1
            return True
