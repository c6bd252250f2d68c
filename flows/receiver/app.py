"""The HTTP side of the receiver: who may send (tokens, each for all registries or for one; connections of a peer), how
much, and what is answered."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import logging
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from typing import Any, ClassVar

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from flows.receiver.notification import NotANotification, read
from flows.receiver.outbox import Full, Outbox
from oci.errors import InvalidInput
from oci.registry.http.origin import canonical_host

LARGEST_BODY = 1_000_000
BODY_SECONDS = 10.0
DRAIN_SECONDS = 10.0
HEADER_SECONDS = 10.0
"""From the opening of a connection, or the end of the request before, to the end of the headers."""
CONNECTIONS = 100
CONNECTIONS_OF_A_PEER = 25
"""Connections of one address: no sender takes all CONNECTIONS."""

_log = logging.getLogger("transship.receiver")


Tokens = Sequence[tuple[str, str]]
"""Each token with the registry that it speaks for; an empty host stands for all of them. Without any token, all may
send."""


def parse_tokens(text: str) -> Tokens:
    """Reads one token a line: `TOKEN`, which speaks for every registry, or `HOST TOKEN`. Raises InvalidInput."""
    pairs = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if len(words) > 2:
            raise InvalidInput(f"line {number} of the tokens has {len(words)} words", hint="write HOST TOKEN")
        if words:
            host = canonical_host(words[0]) if len(words) == 2 else ""
            pairs.append((words[-1], host))
    return pairs


class CarefulProtocol(H11Protocol):
    """uvicorn's protocol, which ends a connection that doesn't send its headers in time: with nothing but half-open
    connections a stranger could take all places."""

    _open: ClassVar[Counter[str]] = Counter()
    _deadline: asyncio.TimerHandle | None = None
    _peer = ""

    def connection_made(self, transport: Any) -> None:
        name = transport.get_extra_info("peername")
        self._peer = str(name[0]) if name else ""
        self._open[self._peer] += 1
        super().connection_made(transport)
        if self._open[self._peer] > CONNECTIONS_OF_A_PEER:
            transport.abort()
        else:
            self._wait_for_headers()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._wait_for_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self._open[self._peer] -= 1
        if not self._open[self._peer]:
            del self._open[self._peer]
        self._forget_deadline()
        super().connection_lost(exc)

    def _wait_for_headers(self) -> None:
        """Starts the clock once for each request, and stops it when the request has begun."""
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is not None and not cycle.response_complete:
            self._forget_deadline()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(HEADER_SECONDS, self._end)

    def _forget_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _end(self) -> None:
        self._deadline = None
        if not self.transport.is_closing():
            self.transport.abort()


class _Unacceptable(Exception):
    """Has a status and a message."""


def receiver(outbox: Outbox, tokens: Tokens) -> FastAPI:
    """`POST /notifications[?registry=HOST]` for registries, `GET /health` for monitoring. Without tokens everybody may
    send."""

    @asynccontextmanager
    async def delivering(app: FastAPI) -> AsyncIterator[None]:
        del app
        delivery = asyncio.create_task(outbox.deliver())
        yield
        await outbox.emptied(DRAIN_SECONDS)
        delivery.cancel()
        with suppress(asyncio.CancelledError):
            await delivery

    app = FastAPI(title="transship receiver", lifespan=delivering, openapi_url=None)

    @app.get("/health")
    async def health() -> dict[str, object]:
        """Always 200 while the process lives: to restart it because Prefect is down would lose what waits."""
        counts = asdict(outbox.counts)
        return {"waiting": len(outbox), "capacity": outbox.capacity, **counts, "trouble": outbox.trouble}

    @app.post("/notifications")
    async def notifications(request: Request) -> JSONResponse:
        try:
            registry = _registry_of(request, tokens)
            notification = read(await _body(request), request.query_params.get("registry", ""))
            others = sorted({push.repository.registry for push in notification.pushes} - {registry})
            if registry and others:
                return _refusal(403, f"this token speaks for {registry} only, and the message is of {others[0]}")
            new = outbox.put(notification.pushes)
        except _Unacceptable as error:
            return _refusal(*error.args)
        except NotANotification as error:
            return _refusal(400, str(error))
        except Full:
            return _refusal(503, "the Prefect server takes no events and the queue is full: send it again later")
        except OSError as error:
            return _refusal(503, f"the journal can't be written: {error.strerror or error}")
        for text in notification.broken:
            _log.warning("left out an event that can't be read: %s", text)
        answer = {
            "accepted": new,
            "repeated": len(notification.pushes) - new,
            "ignored": notification.ignored,
            "broken": len(notification.broken),
        }
        return JSONResponse(answer, 202)

    return app


def _registry_of(request: Request, tokens: Tokens) -> str:
    """Returns the registry that the sender speaks for; empty for all. Compares with all tokens, so that the time says
    nothing."""
    if not tokens:
        return ""
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    registry = None
    for known_token, host in tokens:
        if hmac.compare_digest(token.strip().encode(), known_token.encode()) and kind.lower() == "bearer":
            registry = host
    if registry is None:
        raise _Unacceptable(401, "a header `Authorization: Bearer TOKEN` with the receiver's token is needed")
    return registry


async def _body(request: Request) -> bytes:
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > LARGEST_BODY:
                    raise _Unacceptable(413, f"a notification has at most {LARGEST_BODY} bytes")
    except TimeoutError:
        raise _Unacceptable(408, f"the body didn't arrive within {BODY_SECONDS:.0f} s") from None
    return bytes(body)


def _refusal(status: int, message: str) -> JSONResponse:
    _log.warning("answered %d: %s", status, message)
    headers = {401: {"WWW-Authenticate": "Bearer"}, 503: {"Retry-After": "10"}}.get(status)
    return JSONResponse({"error": message}, status, headers)


def serve(*, host: str, port: int, token: str, outbox: Outbox) -> None:
    """Listens until SIGTERM or Ctrl-C, and delivers what waits before it returns. `token` has one token a line, see
    parse_tokens.

    Raises InvalidInput when any program on the network could send, or when the address can't be listened on.
    """
    tokens = parse_tokens(token)
    is_loopback = host == "localhost"
    with suppress(ValueError):
        is_loopback = ipaddress.ip_address(host).is_loopback
    if not tokens and not is_loopback:
        raise InvalidInput(
            f"without a token, the receiver doesn't listen on {host}: any program that reaches it could start mirrors",
            hint="set TRANSSHIP_RECEIVER_TOKEN or --token-file, or listen on 127.0.0.1",
        )
    configuration = uvicorn.Config(
        receiver(outbox, tokens),
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        server_header=False,
        http=CarefulProtocol,
        limit_concurrency=CONNECTIONS,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=10,
    )
    try:
        listening = configuration.bind_socket()
    except SystemExit:
        raise InvalidInput(f"can't listen on {host}:{port}", hint="is another receiver running there?") from None
    with listening:
        address = listening.getsockname()
        listening.listen(configuration.backlog)  # uvicorn does so later than the next line says it
        _log.info("listening on %s port %d%s", address[0], address[1], "" if tokens else ", without a token")
        uvicorn.Server(configuration).run(sockets=[listening])
