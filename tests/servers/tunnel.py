"""An HTTP proxy whose tunnels (RFC 9110, 9.3.6) all lead to one port of this machine, whatever they ask for."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from tests.servers.certificates import Certificates
from tests.servers.http_server import LoopbackServer, QuietHandler

_OWN = frozenset({"connection", "transfer-encoding", "content-length", "date", "server", "proxy-authorization"})
Quirk = Callable[[Any], bool]
"""Given a call: answers it in place of the proxy, or says that it doesn't."""


class _Handler(QuietHandler):
    def do_CONNECT(self) -> None:
        owner: Any = self.server.owner  # type: ignore[attr-defined]
        owner.tunnels.append(self.path)
        owner.logins.append(self.headers.get("Proxy-Authorization", ""))
        if owner.quirk(self):
            return
        with socket.create_connection(("127.0.0.1", owner.leads_to)) as far:
            self.send_response(owner.status)
            self.end_headers()
            back = threading.Thread(target=self._pump, args=(far, self.connection), daemon=True)
            back.start()
            self._pump(self.connection, far)
            back.join()
        self.close_connection = True

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)

    def do_GET(self) -> None:
        """Plain http, with the whole URL in the request line (RFC 9112, 3.2.2)."""
        owner: Any = self.server.owner  # type: ignore[attr-defined]
        owner.plain.append(self.path)
        owner.logins.append(self.headers.get("Proxy-Authorization", ""))
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if owner.quirk(self):
            return
        url = urlsplit(self.path)
        far = http.client.HTTPConnection("127.0.0.1", owner.leads_to)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _OWN}
        far.request(self.command, f"{url.path}?{url.query}", body, {**headers, "Content-Length": str(len(body))})
        answer = far.getresponse()
        found = {name.replace("-", "_"): value for name, value in answer.getheaders() if name.lower() not in _OWN}
        self.answer(answer.status, answer.read(), Content_Length=answer.headers.get("Content-Length", "0"), **found)
        far.close()

    do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = do_GET  # noqa: N815


class Tunnel(LoopbackServer):
    """`leads_to` is the port of all tunnels, `tunnels` the HOST:PORT that each was asked for, `plain` the URLs of
    requests without one, `logins` the Proxy-Authorization of each. `made` has the proxy itself speak TLS."""

    handler = _Handler

    def __init__(
        self,
        leads_to: int = 0,
        quirk: Quirk = lambda call: False,
        *,
        status: int = 200,
        made: Certificates | None = None,
    ) -> None:
        super().__init__()
        self.leads_to, self.quirk, self.status = leads_to, quirk, status
        self.tunnels: list[str] = []
        self.plain: list[str] = []
        self.logins: list[str] = []
        if made is not None:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(made.certificate, made.key)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
            self.url = f"https://{self.host}"
