"""The HTTP side of the receiver: who may send, how much, and what is answered."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from flows.receiver.access import CONNECTIONS, CarefulProtocol, Tokens
from flows.receiver.notification import NotANotification, Notification, read
from flows.receiver.outbox import Full, Outbox
from oci.errors import InvalidInput

LARGEST_BODY = 1_000_000
BODY_SECONDS = 10.0
DRAIN_SECONDS = 10.0
_RETRY_AFTER = {"Retry-After": "10"}

_log = logging.getLogger("transship.receiver")


class _Unacceptable(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


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
        counts = outbox.counts
        return {
            "waiting": len(outbox),
            "capacity": outbox.capacity,
            "delivered": counts.delivered,
            "repeated": counts.repeated,
            "refused": counts.refused,
            "trouble": outbox.trouble,
        }

    @app.post("/notifications")
    async def notifications(request: Request) -> JSONResponse:
        try:
            registry = _registry_of(request, tokens)
            notification = read(await _body(request), request.query_params.get("registry", ""))
            _check(notification, registry)
            new = outbox.put(notification.pushes)
        except _Unacceptable as error:
            return _refusal(error.status, str(error))
        except NotANotification as error:
            return _refusal(400, str(error))
        except Full:
            return _refusal(503, "the Prefect server takes no events and the queue is full: send it again later")
        except OSError as error:
            return _refusal(503, f"the journal can't be written: {error.strerror or error}")
        return _accepted(notification, new)

    return app


def _registry_of(request: Request, tokens: Tokens) -> str:
    """Returns the registry that the sender speaks for; empty for all."""
    if not tokens:
        return ""
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    registry = tokens.registry_of(token.strip()) if kind.lower() == "bearer" else None
    if registry is None:
        raise _Unacceptable(401, "a header `Authorization: Bearer TOKEN` with the receiver's token is needed")
    return registry


def _check(notification: Notification, registry: str) -> None:
    """A token of one registry says nothing of another."""
    others = sorted({push.repository.registry for push in notification.pushes} - {registry})
    if registry and others:
        raise _Unacceptable(403, f"this token speaks for {registry} only, and the message is of {others[0]}")


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
    headers = {401: {"WWW-Authenticate": "Bearer"}, 503: _RETRY_AFTER}.get(status)
    return JSONResponse({"error": message}, status, headers)


def _accepted(notification: Notification, new: int) -> JSONResponse:
    for text in notification.broken:
        _log.warning("left out an event that can't be read: %s", text)
    answer = {
        "accepted": new,
        "repeated": len(notification.pushes) - new,
        "ignored": notification.ignored,
        "broken": len(notification.broken),
    }
    return JSONResponse(answer, 202)


def serve(*, host: str, port: int, token: str, outbox: Outbox) -> None:
    """Listens until SIGTERM or Ctrl-C, and delivers what waits before it returns. `token` has one token a line, see
    Tokens.

    Raises InvalidInput when everybody on the network could send, or when the address can't be listened on.
    """
    tokens = Tokens.parse(token)
    if not tokens and not _is_loopback(host):
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


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
