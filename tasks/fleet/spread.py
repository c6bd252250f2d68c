"""Work that a run does itself, and shares with helpers as soon as that is faster.

The run begins at once. When its pace shows that helpers would save time, it puts what it has not begun into a queue of
shards, the big ones first and small ones last, and starts helpers: flow runs that take shards until there are none. It
goes on, and takes from the queue as well. While it still plans, the queue grows by what planning has found. Helpers
that come too late find nothing to do; the shards of one that is lost go back into the queue, in halves. So nothing
waits for a helper, and nothing is lost with one; where the Prefect server refuses shards or helpers, or no worker takes
them, the run does all of it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID, uuid4

from prefect.logging import get_run_logger
from prefect.runtime import flow_run

from oci.registry.http.pace import TokenBucket
from oci.units import counted
from tasks.fleet.dispatch import Fleet, Job, JobEnd, find_deployment, recent_start, refusal, run_on_fleet
from tasks.fleet.queue import BEGUN, Do, Feed, ShardQueue, Unit, fewer_logs

_FIRST_LOOK = 3.0
"""Seconds of work before its pace says anything."""
_LEAST_SAVING = 2.0
"""Seconds that a helper has to save, to be worth its process and its requests to the Prefect server."""
_LOOK = 1.0
_WEIGHED = 5000
"""Units a second that are weighed: it takes this run's own processor."""
_NEWS, _SELDOM = 1.0, 10.0
"""Seconds between two looks at the queue: while this run has nothing else to do, and otherwise."""
_SHARD = 3.0
"""Seconds of one run's work in the last shards: what the others wait for at the end, at most."""
_SHARDS = 400
"""The most shards of a run: the Prefect server keeps each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HelperDecision:
    """How many helpers are started, and why not more or fewer. `pace` is what this run does in a second."""

    helpers: int = 0
    reason: str
    pace: float = 0.0


def decide(
    *, elapsed: float, progress: float, remaining: float, start: float, most: int, busy: float = 0.0
) -> HelperDecision:
    """Counts how many helpers, at most `most`, each save some seconds, when this run goes on at its pace and each
    helper has the same. What was done in `elapsed` seconds, `progress`, and what is not begun, `remaining`, are in one
    unit, whatever it is. Helpers took `start` seconds lately from being sent to their first line. What is begun takes
    at least `busy` seconds, whoever does the rest: one slow image among many.

    Alone, the rest takes L seconds. N helpers that start after S seconds leave S + (L - S) / (N + 1), and nothing ends
    before what is begun."""
    if most < 1:
        return HelperDecision(reason="done by this run alone: no helper is allowed")
    pace = progress / elapsed if elapsed >= _FIRST_LOOK else 0.0
    if pace <= 0:
        return HelperDecision(reason="done by this run alone: it ended before its pace was known")
    alone = remaining / pace

    def lasts(helpers: int) -> float:
        return max(busy, start + (alone - start) / (helpers + 1) if helpers else alone)

    helpers = 0
    while helpers < most and lasts(helpers) - lasts(helpers + 1) >= _LEAST_SAVING:
        helpers += 1
    measured = f"{alone:.0f} s of work were left at its pace, and a helper starts in {start:.0f} s"
    if not helpers:
        begun = f"; what was begun takes {busy:.0f} s" if busy > start else ""
        return HelperDecision(reason=f"done by this run alone: {measured}{begun}", pace=pace)
    reason = f"shared with {counted(helpers, 'helper')}: {measured}, so that about {lasts(helpers):.0f} s were expected"
    return HelperDecision(helpers=helpers, reason=reason, pace=pace)


class Work(Protocol[Unit]):
    """What is shared: units, of which each is done by one run. Weights and progress are in one unit."""

    def progress(self) -> float:
        """Returns what this run has done so far, parts of units included: its pace, by which helpers get work while it
        plans."""

    def weight(self, units: Sequence[Unit]) -> float: ...

    def busy(self) -> float:
        """Returns the seconds that what is on its way takes at least, by how it moved since the last call; 0 where that
        isn't known."""
        return 0.0

    def cut(self, units: Sequence[Unit], *, workers: int, least: float) -> list[list[Unit]]:
        """Returns shards for so many runs, the heaviest first, of a weight of `least` at the end."""

    def pack(self, units: Sequence[Unit], *, again: bool) -> str:
        """Returns the text of a shard, from which a helper can do it; `again` when some of it may be done."""

    def parameters(self, queue: ShardQueue) -> Mapping[str, Any]:
        """Returns the parameters of a helper."""

    def note(self, helper: str, text: str) -> None:
        """Takes in what a helper says of a shard that it has ended."""

    async def remaining(self, units: Sequence[Unit]) -> list[Unit]:
        """Returns what is still to do of a shard whose helper was lost."""

    def fail(self, units: Sequence[Unit], reason: str) -> None:
        """Notes units that cost one helper after the other."""


class Spread(Feed[Unit]):
    """The work of one run. `decision` is what was decided about helpers, in the end."""

    def __init__(self, name: str, work: Work[Unit], fleet: Fleet) -> None:
        super().__init__()
        self.decision = HelperDecision(reason="")
        self._name = name
        self._shared = work
        self._fleet = fleet
        self._queue: ShardQueue | None = None
        """None until there are shards."""
        self._news = asyncio.Event()
        self._cutting = False
        self._putting = asyncio.Lock()
        self._shards: dict[int, list[Unit]] = {}
        self._tries: dict[int, int] = {}
        self._settled: set[int] = set()
        """Shards that were done, taken by this run, or put back in halves."""
        self._refused: list[Unit] = []
        """What the Prefect server didn't take as shards, and this run hasn't begun."""
        self._whole = asyncio.Event()
        """Set when all units are there."""
        self._offered: list[Unit] = []
        """Units that are there before all are."""
        self._away: set[Unit] = set()
        """Those of them that were put into the queue."""
        self._share_found = 1.0
        self._began, self._done_before = time.monotonic(), 0.0
        """When that began of which the pace is measured, and what was done by then."""
        self._closed = False  # the queue takes no more
        self._refusals = 0
        self._idle = asyncio.Event()  # set while this run waits for what helpers do
        self._over = False

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Looks for helpers while the block plans, offering what it finds, and then carries out all of it.

        Raises InvalidInput when there is no deployment for helpers."""
        run = flow_run.id
        if run is None:
            raise RuntimeError("work is shared inside a flow run")
        deployment = await find_deployment(self._fleet.deployment)
        queue = ShardQueue(UUID(run), f"shards-{uuid4().hex[:8]}", user=str(run))
        self._began, self._done_before = time.monotonic(), self._shared.progress()
        async with queue:
            async with asyncio.TaskGroup() as group:
                sharing = group.create_task(self._share(queue, deployment))
                yield
                self._over = True
                sharing.cancel()
            await self._end(queue)
        if self.decision.helpers and not queue.helpers:
            self._go_on_alone("no worker took a shard")
        if not self.decision.reason:
            self.decision = HelperDecision(reason="done by this run alone: it ended before a helper could begin")

    def offer(self, units: Sequence[Unit], share: float) -> None:
        """Gives helpers something to do before all units are there; `share` of them were found by now, over 0 and up
        to 1."""
        if not self._whole.is_set():
            self._offered += units
            self._share_found = share

    async def carry_out(self, units: Sequence[Unit], do: Do[Unit], *, width: int, images_together: int = 1) -> None:
        """Does all units, here and elsewhere: here by `width` calls of `do` at a time, each for at least
        `images_together` units as far as a shard has them. Called in `opened`."""
        self._width, self._least_together = width, images_together
        self._begin(BEGUN, [unit for unit in units if unit not in self._away] if self._away else units)
        self._began, self._done_before = time.monotonic(), self._shared.progress()
        self._whole.set()
        async with asyncio.TaskGroup() as workers:
            for _ in range(width):
                workers.create_task(self._work(do))

    async def _end(self, queue: ShardQueue) -> None:
        """Tells helpers that wait for more that there is none."""
        try:
            await queue.end()
        except Exception as error:  # noqa: BLE001 - all is done, and helpers end by themselves in a while
            get_run_logger().warning("the Prefect server doesn't take the end of the shards: %s", refusal(error))

    def _go_on_alone(self, problem: str) -> None:
        """Says so in the log, and in what the report says of the decision."""
        decided = f"{self.decision.reason}; " if self.decision.reason else ""
        self.decision = HelperDecision(reason=f"{decided}done by this run alone: {problem}")
        get_run_logger().warning("%s", self.decision.reason)

    async def _next_shard(self) -> tuple[int, list[Unit]] | None:
        while True:
            self._news.clear()
            if not self._cutting:
                number = await self._queue.take_back() if self._queue else None
                if number is not None:
                    self._settled.add(number)
                    return number, self._shards[number]
                if self._refused:
                    units, self._refused = self._refused, []
                    return BEGUN, units
                if self._settled.issuperset(self._shards):
                    return None
                self._idle.set()
            await self._news.wait()
            self._idle.clear()

    async def _share(self, queue: ShardQueue, deployment: UUID) -> None:
        try:
            start = await recent_start(deployment)
        except Exception as error:  # noqa: BLE001 - whatever the server's reason is, the work goes on
            self._go_on_alone(refusal(error))
            return
        if not await self._is_worth(start):
            return
        get_run_logger().info("%s", self.decision.reason)
        queue.part = TokenBucket.part() / (1 + self.decision.helpers)
        queue.grows = not self._whole.is_set()
        if queue.grows:
            self._cutting = True
            await self._put_offered(queue)
        else:
            await self._fill(queue)
            if not self._shards:
                return  # the queue took none
        jobs = [
            Job(name=f"{self._name}, helper {number}", parameters=self._shared.parameters(queue))
            for number in range(1, self.decision.helpers + 1)
        ]

        async def ended(end: JobEnd) -> None:
            if end.end is not None:
                await self._put_back(queue, str(end.run))
                return
            self._refusals += 1
            if self._refusals == len(jobs):
                self._go_on_alone(end.message)

        with fewer_logs():
            async with asyncio.TaskGroup() as group:
                group.create_task(self._listen(queue))
                if queue.grows:
                    group.create_task(self._grow(queue))
                sent = run_on_fleet(
                    jobs,
                    self._fleet,
                    again=lambda: not (self._whole.is_set() and self._settled.issuperset(self._shards)),
                    on_end=ended,
                    # While so many may be at work, this run keeps to what it has of each rate.
                    on_count=lambda helpers: TokenBucket.lend(queue, helpers * queue.part),
                    is_over=lambda: self._over,
                )
                group.create_task(sent)

    async def _is_worth(self, start: float) -> bool:
        """Looks at the pace of this run until helpers are worth it, or until nothing is left that they could do."""
        while True:
            is_whole = self._whole.is_set()
            waiting = [unit for _, unit in self._pending] if is_whole else self._offered
            share = 1.0 if is_whole else self._share_found
            most = min(self._fleet.helpers, round(len(waiting) / share) - 1)
            if self._fleet.always and most > 0:
                self.decision = HelperDecision(
                    helpers=most, reason=f"shared with {counted(most, 'helper')}, as asked for"
                )
                return True
            if most < 1 and is_whole:
                return False
            self.decision = decide(
                elapsed=time.monotonic() - self._began,
                progress=self._shared.progress() - self._done_before,
                remaining=self._shared.weight(waiting) / share,
                start=start,
                most=most,
                busy=self._shared.busy(),
            )
            if self.decision.helpers:
                return True
            await asyncio.sleep(max(_LOOK, len(waiting) / _WEIGHED))

    async def _grow(self, queue: ShardQueue) -> None:
        """Puts what is offered into the queue until all units are there, and then the rest."""
        while not self._whole.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._whole.wait(), _LOOK)
            await self._put_offered(queue)
        await self._fill(queue)
        await self._end(queue)

    async def _put_offered(self, queue: ShardQueue) -> None:
        """Puts what is offered into the queue, when that is enough for a shard."""
        weight = self._shared.weight([*self._offered, *self._away])
        pace = (self._shared.progress() - self._done_before) / (time.monotonic() - self._began)
        least = max(pace * _SHARD, weight / self._share_found / _SHARDS)
        if self._whole.is_set() or not self._offered or self._shared.weight(self._offered) < least:
            return
        units, self._offered = self._offered, []
        self._away.update(units)
        for shard in await asyncio.to_thread(self._shared.cut, units, workers=self.decision.helpers, least=least):
            await self._put(queue, shard, tries=0)

    async def _fill(self, queue: ShardQueue) -> None:
        """Puts what isn't begun into the queue, but for what keeps this run busy meanwhile."""
        self._cutting = True
        try:
            retained = 0 if self._fleet.always else min(2 * self._width, len(self._pending) // 4)
            waiting = [unit for _, unit in self._pending]
            while len(self._pending) > retained:
                self._pending.pop()
            shared = waiting[retained:]
            if shared:
                self._open[BEGUN] -= len(shared)
                if not self._open[BEGUN]:
                    del self._open[BEGUN]
            least = max(self.decision.pace * _SHARD, self._shared.weight(shared) / _SHARDS)
            workers = self.decision.helpers + 1
            for shard in await asyncio.to_thread(self._shared.cut, shared, workers=workers, least=least):
                await self._put(queue, shard, tries=0)
        finally:
            self._queue, self._cutting = queue, False
            self._freed.set()
            self._news.set()

    async def _put(self, queue: ShardQueue, units: list[Unit], *, tries: int) -> None:
        text = await asyncio.to_thread(self._shared.pack, units, again=tries > 0)
        async with self._putting:
            if not self._closed:
                self._shards[queue.size], self._tries[queue.size] = units, tries  # before anybody can take it
                try:
                    await queue.put(text)
                except Exception as error:  # noqa: BLE001 - whatever the server's reason is, the work goes on
                    del self._shards[queue.size]
                    self._closed = True
                    if not self._shards:
                        self._go_on_alone(refusal(error))
                else:
                    return
            self._refused += units

    async def _listen(self, queue: ShardQueue) -> None:
        """Takes in what helpers say of shards that have ended."""
        noted: set[int] = set()
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), _SELDOM - _NEWS)
            await asyncio.sleep(_NEWS)
            await queue.look()
            news = sorted(set(queue.results) - noted)
            for number in news:
                self._shared.note(queue.users.get(number, ""), queue.results[number])
            noted.update(news)
            self._settled.update(news)
            self._news.set()

    async def _put_back(self, queue: ShardQueue, helper: str) -> None:
        """Gives what a helper has left undone to the others, in halves."""
        await queue.look()
        lost = [number for number, user in queue.users.items() if user == helper and number not in queue.results]
        for number in lost:
            remaining, tries = await self._shared.remaining(self._shards[number]), self._tries[number] + 1
            if remaining and tries > self._fleet.retries:
                self._shared.fail(remaining, f"the helpers that had it were lost, {tries} times")
                remaining = []
            middle = -(-len(remaining) // 2)
            for half in (remaining[:middle], remaining[middle:]):
                if half:
                    await self._put(queue, half, tries=tries)
            self._settled.add(number)
        self._news.set()
