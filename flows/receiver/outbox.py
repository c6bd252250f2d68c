"""Pushes that were accepted and are on their way to the Prefect server, as events; the file that keeps them when the
process ends."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import logging
import os
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from uuid import uuid4

from prefect.client.orchestration import get_client
from prefect.events import Event, Resource
from prefect.exceptions import PrefectHTTPStatusError
from pydantic import ValidationError

from flows.receiver.notification import Push
from oci.digest import parse_digest
from oci.errors import InvalidInput
from oci.output import open_own
from oci.reference import Repository, parse_tag

_ACCEPTED = b"+"
_DELIVERED = b"-"

_log = logging.getLogger("transship.receiver")


class Journal:
    """One line for each event that was accepted, on the disk before the registry is answered; one for each that was
    delivered. It is emptied whenever nothing waits, so it grows only while the Prefect server is away.

    Raises InvalidInput when the file can't be used, or another receiver uses it.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            self._file = open_own(path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InvalidInput(f"another receiver uses the journal {path}") from error
        except OSError as error:
            hint = "remove it, or name another file" if error.errno == errno.ELOOP else ""
            raise InvalidInput(f"can't use the journal {path}: {error.strerror}", hint=hint) from error

    def waiting(self) -> list[Event]:
        """Returns those of an earlier process, in their order."""
        undelivered: dict[str, Event] = {}
        with os.fdopen(os.dup(self._file), "rb") as file:  # not by its name, which may be another's by now
            file.seek(0)
            for line in file:
                body = line[1:].rstrip(b"\n")
                if line[:1] == _DELIVERED:
                    undelivered.pop(body.decode(errors="replace"), None)
                    continue
                try:
                    event = Event.model_validate_json(body)
                except ValidationError:  # the last line, when the power went
                    _log.warning("left out a line of %s that can't be read", self.path)
                    continue
                undelivered[str(event.id)] = event
        return list(undelivered.values())

    def accepted(self, events: Sequence[Event]) -> None:
        """Raises OSError when they can't be kept; then none of them is."""
        lines = b"".join(_ACCEPTED + event.model_dump_json().encode() + b"\n" for event in events)
        size = os.fstat(self._file).st_size
        try:
            while lines:  # a disk that is nearly full takes a part and refuses the rest
                lines = lines[os.write(self._file, lines) :]
            os.fsync(self._file)
        except OSError:
            os.ftruncate(self._file, size)
            raise

    def delivered(self, events: Sequence[Event], *, remaining: int) -> None:
        """Never raises: an event that is delivered once more after a crash has the same id and counts once."""
        try:
            if remaining:
                os.write(self._file, b"".join(_DELIVERED + str(event.id).encode() + b"\n" for event in events))
            else:
                os.ftruncate(self._file, 0)
        except OSError as error:
            _log.warning("can't note in %s what was delivered: %s", self.path, error.strerror)


PUSHED = "transship.registry.pushed"

BATCH = 100
_PASSING = frozenset({401, 403, 404, 408, 425, 429})
"""Answers of the client-error kind that say something of the server's or the receiver's settings, not of the events."""


class Full(Exception):
    """More pushes are waiting than the outbox holds. Nothing of the message was taken."""


def resource_id(repository: Repository | str) -> str:
    """Returns what triggers match, as `prefect.resource.id`."""
    return f"transship.registry.{repository}"


def event_of(push: Push) -> Event:
    """Its id is made once, so that the server counts an event that is sent twice as one."""
    where = str(push.repository)
    return Event(
        id=uuid4(),
        event=PUSHED,
        resource=Resource(
            {
                "prefect.resource.id": resource_id(where),
                "prefect.resource.name": where,
                "transship.registry": push.repository.registry,
                "transship.tag": push.tag,
            }
        ),
        payload={
            "registry": push.repository.registry,
            "repository": where,
            "tag": push.tag,
            "digest": push.digest,
        },
    )


def restored(event: Event) -> Event | None:
    """Returns the event of a push that a journal recorded, built again from its repository, tag and digest; None for a
    record without these. Others may have written into the file, and an event may start a flow."""
    try:
        repository, tag, digest = (event.payload[name] for name in ("repository", "tag", "digest"))
        push = Push(Repository.parse(repository), parse_tag(tag), parse_digest(digest))
    except (KeyError, TypeError, AttributeError, InvalidInput):
        return None
    return event_of(push).model_copy(update={"id": event.id, "occurred": event.occurred})


def _push(event: Event) -> str:
    return "{repository}:{tag}@{digest}".format_map(event.payload)


async def send_to_prefect(events: Sequence[Event]) -> None:
    """One request for all of them."""
    async with get_client() as client:
        await client.request("POST", "/events", json=[event.model_dump(mode="json") for event in events])


@dataclass(slots=True)
class DeliveryCounts:
    """Since the receiver was started."""

    delivered: int = 0
    repeated: int = 0
    refused: int = 0
    """The Prefect server said that it will never take them."""


class Outbox:
    """Takes pushes at once and delivers them in batches, in their order, for as long as it takes.

    A tag that is pushed with the same digest again within `quiet` seconds counts once: registries repeat themselves.
    """

    def __init__(
        self,
        *,
        capacity: int = 10_000,
        quiet: float = 10.0,
        pauses: tuple[float, float] = (0.5, 15.0),
        journal: Journal | None = None,
        send: Callable[[Sequence[Event]], Awaitable[None]] = send_to_prefect,
    ) -> None:
        self.capacity = capacity
        self.counts = DeliveryCounts()
        self.trouble = ""
        """Why the last attempt failed; empty when it didn't."""
        self._quiet = quiet
        self._first_pause, self._longest_pause = pauses
        self._send = send
        self._journal = journal
        self._waiting: deque[Event] = deque()
        self._filled = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        if journal:
            events = [restored(event) for event in journal.waiting()]
            if None in events:
                _log.warning("left out %d events of %s that aren't of pushes", events.count(None), journal.path)
            self._add([event for event in events if event is not None], "took up")
        self._lately: OrderedDict[tuple[Repository, str], tuple[Push, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, pushes: Iterable[Push]) -> int:
        """How many are new. Raises Full, or OSError when the journal can't be written, and then none was taken."""
        old = time.monotonic() - self._quiet
        while self._lately and next(iter(self._lately.values()))[1] < old:
            self._lately.popitem(last=False)
        pushes = list(pushes)
        new: list[Push] = []
        latest = {key: push for key, (push, _) in self._lately.items()}
        for push in pushes:
            key = (push.repository, push.tag)
            if latest.get(key) != push:
                latest[key] = push
                new.append(push)
        if len(self._waiting) + len(new) > self.capacity:
            raise Full
        events = [event_of(push) for push in new]
        if self._journal and events:
            self._journal.accepted(events)
        now = time.monotonic()
        for push in new:
            key = (push.repository, push.tag)
            self._lately[key] = (push, now)
            self._lately.move_to_end(key)
        self._add(events, "accepted")
        self.counts.repeated += len(pushes) - len(new)
        return len(new)

    def _add(self, events: Sequence[Event], how: str) -> None:
        for event in events:
            self._waiting.append(event)
            _log.info("%s %s", how, _push(event))
        if events:
            self._filled.set()
            self._empty.clear()

    async def deliver(self) -> None:
        """Runs until it is cancelled. After a refusal of several, each of them is sent by itself: one event that the
        server won't have must not cost the others."""
        pause, to_send_singly = self._first_pause, 0
        while True:
            await self._filled.wait()
            batch = list(islice(self._waiting, 1 if to_send_singly else BATCH))
            try:
                await self._send(batch)
            except Exception as error:  # noqa: BLE001 - whatever keeps the server from taking them, they are kept
                if not _for_ever(error):
                    self.trouble = f"{type(error).__name__}: {error}".partition("\n")[0][:300]
                    _log.warning(
                        "the Prefect server doesn't take events (%s); %d wait, next attempt in %.1f s",
                        self.trouble,
                        len(self._waiting),
                        pause,
                    )
                    await asyncio.sleep(pause)
                    pause = min(pause * 2, self._longest_pause)
                    continue
                if len(batch) > 1:
                    to_send_singly = len(batch)
                    continue
                self.counts.refused += 1
                _log.error("the Prefect server refuses the event of %s for good: %s", _push(batch[0]), error)
                self._take_out(batch)
            else:
                self._sent(batch)
            pause, to_send_singly = self._first_pause, max(to_send_singly - 1, 0)

    def _sent(self, batch: Sequence[Event]) -> None:
        self.counts.delivered += len(batch)
        self.trouble = ""
        for event in batch:
            _log.info("delivered %s", _push(event))
        self._take_out(batch)

    def _take_out(self, batch: Sequence[Event]) -> None:
        """From the front, where all that is sent comes from."""
        for _ in batch:
            self._waiting.popleft()
        if self._journal:
            self._journal.delivered(batch, remaining=len(self._waiting))
        if not self._waiting:
            self._filled.clear()
            self._empty.set()

    async def emptied(self, seconds: float) -> bool:
        """Waits for the last one to be delivered, up to so long. What is left then is named in the log."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._empty.wait()
        consequence = "the journal keeps it" if self._journal else "its mirror runs by schedule, or by hand"
        for event in self._waiting:
            _log.error("stopped before %s was delivered: %s", _push(event), consequence)
        return not self._waiting


def _for_ever(error: Exception) -> bool:
    if not isinstance(error, PrefectHTTPStatusError):
        return False
    status = error.response.status_code
    return 400 <= status < 500 and status not in _PASSING
