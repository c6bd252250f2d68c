"""Who may send to the receiver: tokens, each for all registries or for one, and connections of a peer."""

from __future__ import annotations

import asyncio
import hmac
from collections import Counter
from dataclasses import dataclass
from typing import Any, ClassVar

from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from oci.errors import InvalidInput
from oci.registry.http.origin import canonical_host

HEADER_SECONDS = 10.0
"""From the opening of a connection, or the end of the request before, to the end of the headers."""
CONNECTIONS = 100
CONNECTIONS_OF_A_PEER = 25
"""Connections of one address: no sender takes all CONNECTIONS."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """`registries` by token; an empty host stands for all of them. Without any token everybody may send."""

    registries: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, text: str) -> Tokens:
        """One token a line: `TOKEN`, which speaks for every registry, or `HOST TOKEN`. Raises InvalidInput."""
        pairs = []
        for number, line in enumerate(text.splitlines(), 1):
            words = line.split()
            if len(words) > 2:
                raise InvalidInput(f"line {number} of the tokens has {len(words)} words", hint="write HOST TOKEN")
            if words:
                host = canonical_host(words[0]) if len(words) == 2 else ""
                pairs.append((words[-1], host))
        return cls(tuple(pairs))

    def __bool__(self) -> bool:
        return bool(self.registries)

    def registry_of(self, token: str) -> str | None:
        """Returns the registry that a token speaks for, empty for all; None for a token that is not one of these.
        Compares with all of them, so that the time says nothing."""
        match = None
        for known_token, host in self.registries:
            if hmac.compare_digest(token.encode(), known_token.encode()):
                match = host
        return match


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
