"""What one flow run that works at one side only holds in its process: the connections, and what they have cost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar

from oci.errors import InvalidInput
from oci.meter import Meter
from oci.relocation.session import Session
from tasks.side import Side
from tasks.work import Work


class Visit(Work):
    """Used from one event loop; the work itself runs in threads."""

    def __init__(self, side: Side, name: str) -> None:
        super().__init__(side.settings.concurrency + 1)
        self.meter = Meter()
        self.side = side
        self._name = name
        self._session: Session | None = None
        self._opening = asyncio.Lock()

    async def session(self) -> Session:
        """Opened on first use inside the task that needs it: only there are blocks loaded."""
        async with self._opening:
            if self._session is None:
                access = await self.side.access(self._name)
                self._session = Session(
                    source=access,
                    destination=access,
                    concurrency=self.side.settings.concurrency,
                    meter=self.meter,
                    cancel=self.cancel,
                )
            return self._session

    async def close(self) -> None:
        if self._session is not None:
            await self.in_thread(self._session.close)
        await self.end()


@asynccontextmanager
async def visiting(side: Side, name: str) -> AsyncIterator[Visit]:
    """The visit that the tasks called inside work on; `name` is "source", "destination", or empty for neither."""
    visit = Visit(side, name)
    token = _CURRENT.set(visit)
    try:
        yield visit
    except BaseException:
        visit.cancel.cancel()
        raise
    finally:
        _CURRENT.reset(token)
        await visit.close()


def visited() -> Visit:
    """The visit of this flow run. Raises InvalidInput outside `visiting`."""
    visit = _CURRENT.get()
    if visit is None:
        raise InvalidInput(
            "no registry is visited here", hint="call the task inside `async with tasks.visit.visiting(side, name)`"
        )
    return visit


_CURRENT: ContextVar[Visit | None] = ContextVar("visit", default=None)
