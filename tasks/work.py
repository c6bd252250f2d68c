"""The threads in which one flow run does the work of the synchronous core, and the token that stops them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import ParamSpec, TypeVar

from oci.cancel import CancelToken
from oci.errors import Cancelled, TransshipError
from tasks.limits import Slots, existing

P = ParamSpec("P")
T = TypeVar("T")


class Work:
    """Used from one event loop. `end` when nothing is awaited any more."""

    def __init__(self, threads: int) -> None:
        self.cancel = CancelToken()
        self.slots = Slots()
        """Of the named limits that hold for the registries of the work."""
        self.width = threads - 1
        """Images to have on their way at a time: not more than a named limit has slots."""
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="task")

    async def in_thread(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs a function of the synchronous core. When the caller is cancelled, all of the work is: the token that
        every loop over bytes looks at is set, and the thread's end is awaited, so that nothing runs on unseen."""
        context = copy_context()  # what is logged in the thread belongs to the run, too
        work = partial(context.run, function, *args, **kwargs)
        future = asyncio.get_running_loop().run_in_executor(self._threads, work)
        try:
            return await asyncio.shield(future)
        except (TransshipError, Cancelled) as error:
            raise error.with_traceback(None) from None  # says all by itself; Prefect logs every frame it comes through
        except asyncio.CancelledError:
            self.cancel.cancel()
            await _ended(future)
            raise

    async def limit(self, names: Iterable[str]) -> None:
        """Makes the work respect those of the named limits that the Prefect server has."""
        limits = await existing(names)
        self.width = max(1, min([self.width, *limits.values()]))
        self.slots = Slots(limits, self.width)

    async def end(self) -> None:
        await self.slots.close()
        self._threads.shutdown(wait=False)


async def _ended(future: asyncio.Future[T]) -> None:
    while not future.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait([future])
    if not future.cancelled():
        future.exception()
