"""The work of one flow run in its process: threads, the token that stops them, the session, and slots of named limits;
how the run reaches registries and object stores: by names of blocks, or by what the calling program has; and how it
ends: with a message in its state, and with a report although it was cancelled.

Tasks take small plain values as parameters and find everything else in the run. Nothing of it outlives the process: a
run that is retried elsewhere opens a new session, because only the destination knows what is in place.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, nullcontext, suppress
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ParamSpec, TypeVar, cast

from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State, TaskRun
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.states import Completed, Failed
from prefect.tasks import Task
from pydantic import BaseModel

from oci.errors import Cancelled, CancelToken, InvalidInput, StoreError, TransshipError
from oci.meter import Meter, Receipt
from oci.registry.credentials.credential import Credentials
from oci.registry.credentials.keychains import default_credentials
from oci.registry.http.origin import named_hosts
from oci.registry.options import RegistryOptions
from oci.relocation.session import Access, Session
from tasks.artifacts.markdown import in_forms
from tasks.artifacts.report import signs_of_life
from tasks.blocks import load_credentials, load_s3
from tasks.fleet.limits import Slots, existing

P = ParamSpec("P")
T = TypeVar("T")

TASKS_AT_ONCE = 16
"""Task runs on their way in one flow run, at the most: the Prefect server hears of the beginning and end of each."""


class Run:
    """Used from one event loop; the work itself runs in threads. `concurrency` is the most images on their way at a
    time."""

    def __init__(self, concurrency: int, sides: Mapping[str, Side] | None = None) -> None:
        """`sides` says how registries are reached, by the names of Side.access: the source and the destination, or one
        side that is both."""
        self.sides = sides or {}
        self.cancel = CancelToken()
        self.meter = Meter()
        self.slots = Slots()
        """Slots of the named limits that hold for the registries of the work."""
        self.width = min(concurrency, TASKS_AT_ONCE)
        """Images to have on their way at a time: not more than a named limit has slots."""
        self.elsewhere: dict[str, Receipt] = {}
        """What other machines have spent on parts of the work, by the names of these parts."""
        self._concurrency = concurrency
        self._session: Session | None = None
        self._opening = asyncio.Lock()
        self._threads = ThreadPoolExecutor(concurrency + 1, thread_name_prefix="task")

    async def session(self) -> Session:
        """Returns the session of the run. It loads blocks, so it is opened in the first task that needs it."""
        async with self._opening:
            if self._session is None:
                self._session = await self._open()
            return self._session

    async def _open(self) -> Session:
        accesses = given_access() or [await side.access(name) for name, side in self.sides.items()]
        return Session(
            source=accesses[0],
            destination=accesses[-1],
            concurrency=self._concurrency,
            meter=self.meter,
            cancel=self.cancel,
        )

    async def in_thread(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs a function of the synchronous core. When the caller is cancelled, all of the work is: the token that
        every loop over bytes looks at is set, and the end of the thread is awaited, so that nothing runs on unseen."""
        context = copy_context()  # what is logged in the thread belongs to the run, too
        work = partial(context.run, function, *args, **kwargs)
        future = asyncio.get_running_loop().run_in_executor(self._threads, work)
        try:
            return await asyncio.shield(future)
        except (TransshipError, Cancelled) as error:
            raise error.with_traceback(None) from None  # the sentence says all; Prefect logs every frame
        except asyncio.CancelledError:
            self.cancel.cancel()
            while not future.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.wait([future])
            if not future.cancelled():
                future.exception()  # seen, so that asyncio doesn't log it
            raise

    async def limit(self, names: Iterable[str]) -> None:
        """Makes the work respect those of the named limits that the Prefect server has."""
        limits = await existing(names)
        self.width = max(1, min([self.width, *limits.values()]))
        self.slots = Slots(limits, self.width)

    def receipt(self) -> Receipt:
        """Returns what was spent so far, here and elsewhere; the seconds are those of this run."""
        total = self.meter.receipt()
        for other in list(self.elsewhere.values()):
            total = total.plus(other)
        return total

    async def close(self) -> None:
        await self.slots.close()
        if self._session is not None:
            await self.in_thread(self._session.close)
        self._threads.shutdown(wait=False)


R = TypeVar("R", bound=Run)


@asynccontextmanager
async def running(run: R, beats: AbstractAsyncContextManager[None] | None = None) -> AsyncIterator[R]:
    """Makes it the run that the tasks called inside work on, and closes it. Errors of a TaskGroup come out alone.
    `beats` sends heartbeats of its own kind meanwhile, in the place of those of every other run."""
    if beats is None:
        beats = signs_of_life() if _CURRENT.get() is None else nullcontext()
    token = _CURRENT.set(run)
    try:
        async with beats:
            yield run
    except BaseException as error:  # noqa: BLE001 - what ends the block also ends its threads, and is raised again
        run.cancel.cancel()
        raise the_error(error) from None
    finally:
        _CURRENT.reset(token)
        await run.close()


def current(kind: type[R]) -> R:
    """Returns the run of this flow run. Raises InvalidInput outside `running`, or where it is of another kind."""
    run = _CURRENT.get()
    if not isinstance(run, kind):
        problem = f"the run here is a {type(run).__name__}" if run else "no run is open here"
        raise InvalidInput(
            f"{problem}, and the task needs a {kind.__name__}",
            hint="call the task inside `async with tasks.run.running`",
        )
    return run


async def together(*work: Coroutine[Any, Any, T]) -> list[T]:
    """Awaits all of it. The first error cancels the rest and is raised by itself."""
    with errors_alone():
        async with asyncio.TaskGroup() as group:
            begun = [group.create_task(coroutine) for coroutine in work]
    return [task.result() for task in begun]


async def some_at_a_time(width: int, do: Callable[[list[T]], Awaitable[None]], items: Sequence[T]) -> None:
    """Does the items in as many task runs as `shared_out` makes, `width` of them at a time."""
    places = asyncio.Semaphore(width)

    async def limited(share: list[T]) -> None:
        async with places:
            await do(share)

    await together(*(limited(share) for share in shared_out(items)))


@contextmanager
def errors_alone() -> Iterator[None]:
    """Raises, of a group of errors of the block, the one that Prefect has to see."""
    try:
        yield
    except BaseExceptionGroup as group_of_errors:
        raise the_error(group_of_errors) from None


def the_error(error: BaseException) -> BaseException:
    """Out of exception groups, what Prefect has to see: its signal to end this run before any other error. Cancelled
    becomes asyncio's, from which Prefect makes the state Cancelled and not Crashed."""
    while isinstance(error, BaseExceptionGroup):
        error = min(error.exceptions, key=lambda inner: (isinstance(inner, Exception), isinstance(inner, Cancelled)))
    return asyncio.CancelledError() if isinstance(error, Cancelled) else error


_CURRENT: ContextVar[Run | None] = ContextVar("run", default=None)


TASK_RUN_LIMIT = 1000
"""Task runs that one flow run makes at most: the Prefect server keeps some 19 KB and works some 7 ms for each."""


def together_in_a_task(count: float) -> int:
    """Returns how many of so many items a task run takes, so that there are TASK_RUN_LIMIT of them at the most."""
    return max(1, math.ceil(count / TASK_RUN_LIMIT))


def shared_out(items: Sequence[T]) -> list[list[T]]:
    """One item for each task run, as long as TASK_RUN_LIMIT of them are enough; else the first half of the task runs
    stays so, and the other half shares all the other items."""
    alone = len(items) if len(items) <= TASK_RUN_LIMIT else TASK_RUN_LIMIT // 2
    shared, shares = items[alone:], TASK_RUN_LIMIT - alone
    groups = [list(shared[number::shares]) for number in range(min(shares, len(shared)))]
    return [*([item] for item in items[:alone]), *groups]


async def worth_retrying(task: Task[..., Any], task_run: TaskRun, state: State[Any]) -> bool:  # noqa: ARG001 - Prefect's signature
    error = await state.aresult(raise_on_failure=False)
    return bool(getattr(error, "retryable", False))


ONCE: dict[str, Any] = {"cache_policy": NO_CACHE, "persist_result": False}
"""Options of a task. Nothing is cached: only the registries know what is in place. Nothing is persisted: the files of
Prefect's results say themselves how they are read, pickles among them, so that a program with access to a shared folder
of results could run code in a worker."""
REPEATABLE: dict[str, Any] = ONCE | {
    "retries": 2,
    "retry_delay_seconds": [10.0, 60.0],  # a registry that outlasted the retries of the requests needs some time
    "retry_condition_fn": worth_retrying,
    "retry_jitter_factor": 0.5,
}
"""Options of a task that may be run again. Requests are retried where they are made, in `oci.registry`; a task is run
again only when that was not enough, and its error says that trying again can help."""


async def remembered(key: str, make: Callable[[], Awaitable[str]]) -> str:
    """Returns the JSON that `make` gave in an earlier attempt of this flow run, or gives now. `key` has letters, digits
    and dashes. It is in the inputs of the flow run, which the Prefect server keeps."""
    run = flow_run.id
    if run is None:
        return await make()
    async with get_client() as client:
        try:
            return await client.read_flow_run_input(run, key)
        except (ObjectNotFound, PrefectHTTPStatusError):
            text = await make()
        await client.create_flow_run_input(run, key, text)
        return text


_REFERENCES = frozenset({"source", "destination", "bundle", "image", "repository", "reference"})
"""Parameters of flows whose values name registries; in the plan of a shard, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """How the registries of one side are reached. Credentials are names of Registry Credentials blocks; registries
    that none of them covers use the environment and, unless `anonymous`, the docker config of the machine."""

    settings: RegistryOptions = field(default_factory=RegistryOptions)
    credentials: tuple[str, ...] = ()
    anonymous: bool = False
    s3_store: str = ""
    """Name of an S3 Store block; without one, the environment says how object stores are reached."""

    async def access(self, name: str) -> Access:
        """`name` is "source", "destination", or empty for neither."""
        blocks = await load_credentials(self.credentials)
        warn = get_run_logger().warning
        # The login of a worker's variables goes to the registries that the parameters of the flow run name, and not to
        # those that only a lock or a bundle names.
        hosts = named_hosts(_references(flow_run.parameters)) if flow_run.id else None
        default = await asyncio.to_thread(
            default_credentials, side=name, anonymous=self.anonymous, hosts=hosts, warn=warn
        )
        return Access(
            default=self.settings,
            credentials=Credentials([blocks, default]),
            per_registry=blocks.settings(self.settings),
            named=hosts,
            s3=await load_s3(self.s3_store),
        )


def _references(parameters: Any) -> Iterator[str]:
    values = parameters.model_dump() if isinstance(parameters, BaseModel) else parameters
    if isinstance(values, Mapping):
        for key, value in values.items():
            if isinstance(value, str) and key in _REFERENCES and "/" in value:
                yield value
            elif isinstance(value, BaseModel | Mapping):
                yield from _references(value)


@contextmanager
def reached_by(*, source: Access, destination: Access) -> Iterator[None]:
    """Runs opened inside use these accesses instead of loading blocks: for a program that has credentials already and
    must not give them to the Prefect server."""
    token = _ACCESSES.set((source, destination))
    try:
        yield
    finally:
        _ACCESSES.reset(token)


def given_access() -> tuple[Access, Access] | None:
    """Returns how the calling program has said that source and destination are reached, which no other machine can
    have; None where it hasn't."""
    return _ACCESSES.get()


_ACCESSES: ContextVar[tuple[Access, Access] | None] = ContextVar("given_access", default=None)


REPORT_SECONDS = 15.0
"""A worker kills a cancelled run after 30 seconds."""
_LONGEST_MESSAGE = 1000


DRIFT = "Drift"
"""Name of the state, of the type Failed, that a check ends in which found drift."""


def failed(error: TransshipError, name: str = "Failed") -> Any:
    """Returns a state that Prefect raises the error of, when the flow is awaited. Returned from a flow, because an
    error that is raised fills the log with a traceback and the state with its prefix, where one sentence says it
    all."""
    state: State[Any] = Failed(name=name, message=_one_line(in_forms(str(error))), data=error)
    return state


def completed(result: T, message: str = "") -> T:
    """Returns a state with a message, that Prefect gives the result of when the flow is awaited."""
    return cast("T", Completed(message=_one_line(message or str(result)), data=result))


def _one_line(message: str) -> str:
    return "; ".join(message.splitlines())[:_LONGEST_MESSAGE]


def failed_images(failures: Sequence[str], images: int) -> State[None] | None:
    """Returns the state of a helper's run in which images failed: an error that is raised would fill the log."""
    if not failures:
        return None
    return Failed(message=f"{len(failures)} of {images} images failed, the first: {failures[0]}")


async def or_failed(work: Awaitable[T], message: Callable[[T], str] = str) -> T:
    """Awaits `work` and returns the state in which the flow ends: completed with its result, failed with its error."""
    try:
        result = await work
    except TransshipError as error:
        return cast("T", failed(error))
    return completed(result, message(result))


def cancelled() -> TransshipError:
    """Returns what the report of a cancelled run has as its cause and its next step."""
    return StoreError("the run was cancelled", hint="run it again: what has arrived is not sent again", retryable=True)


@asynccontextmanager
async def reported_when_cancelled(report: Callable[[], Awaitable[object]]) -> AsyncIterator[None]:
    """Awaits `report` when the block is cancelled. It must not be a task, for Prefect runs none in a cancelled run."""
    try:
        yield
    except asyncio.CancelledError:
        try:
            async with asyncio.timeout(REPORT_SECONDS):
                await report()
        except Exception as error:  # noqa: BLE001 - the run ends whatever becomes of its report
            get_run_logger().warning("the report of the cancelled run can't be written: %s", error)
        raise
