"""Counting what a relocation costs: requests by kind and registry, bytes by outcome, retries, seconds.

"Fewer requests" is a promise, so every store counts from the first line on. A display of progress reads
`Meter.receipt()` as often as it likes.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field, replace
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar


@dataclass(frozen=True, slots=True)
class Receipt:
    """What was spent so far. Sizes in bytes. `requests[registry][kind]` counts every HTTP request sent, retries and
    token fetches included; a layout folder counts none. `written` are bytes sent to a destination, `mounted` and
    `skipped` bytes that didn't have to travel."""

    seconds: float = 0.0
    requests: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    retries: int = 0
    throttled_seconds: float = 0.0
    bytes_read: int = 0
    bytes_written: int = 0
    bytes_mounted: int = 0
    bytes_skipped: int = 0
    blobs_written: int = 0
    blobs_mounted: int = 0
    blobs_skipped: int = 0
    identities: Mapping[str, str] = field(default_factory=dict)
    fallbacks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By registry: what it refused, and what was done instead."""

    @property
    def total_requests(self) -> int:
        return sum(sum(kinds.values()) for kinds in self.requests.values())

    def plus(self, other: Receipt) -> Receipt:
        """With what was spent elsewhere meanwhile: everything is added but the seconds."""
        requests = {registry: Counter(kinds) for registry, kinds in self.requests.items()}
        for registry, kinds in other.requests.items():
            requests.setdefault(registry, Counter()).update(kinds)
        return replace(
            self,
            requests={registry: dict(kinds) for registry, kinds in requests.items()},
            throttled_seconds=self.throttled_seconds + other.throttled_seconds,
            identities={**other.identities, **self.identities},
            fallbacks={
                registry: tuple(dict.fromkeys((*self.fallbacks.get(registry, ()), *other.fallbacks.get(registry, ()))))
                for registry in {**other.fallbacks, **self.fallbacks}
            },
            **{name: getattr(self, name) + getattr(other, name) for name in _NUMBERS},
        )

    def to_dict(self) -> dict[str, Any]:
        return {
            "seconds": round(self.seconds, 3),
            "requests": {registry: dict(sorted(kinds.items())) for registry, kinds in sorted(self.requests.items())},
            "retries": self.retries,
            "throttled_seconds": round(self.throttled_seconds, 3),
            "bytes": {
                "read": self.bytes_read,
                "written": self.bytes_written,
                "mounted": self.bytes_mounted,
                "skipped": self.bytes_skipped,
            },
            "blobs": {
                "written": self.blobs_written,
                "mounted": self.blobs_mounted,
                "skipped": self.blobs_skipped,
            },
            "identities": dict(sorted(self.identities.items())),
            "fallbacks": {registry: list(texts) for registry, texts in sorted(self.fallbacks.items())},
        }


_NUMBERS = (
    "retries",
    "bytes_read",
    "bytes_written",
    "bytes_mounted",
    "bytes_skipped",
    "blobs_written",
    "blobs_mounted",
    "blobs_skipped",
)


P = ParamSpec("P")
T = TypeVar("T")
_PART: ContextVar[Meter | None] = ContextVar("part of a run", default=None)


def _in_part_too(count: Callable[Concatenate[Meter, P], None]) -> Callable[Concatenate[Meter, P], None]:
    @wraps(count)
    def both(meter: Meter, /, *args: P.args, **kwargs: P.kwargs) -> None:
        count(meter, *args, **kwargs)
        part = _PART.get()
        if part is not None and part is not meter:
            count(part, *args, **kwargs)

    return both


class PartThreads(ThreadPoolExecutor):
    """Threads that count for the part of a run that their work was given by."""

    def submit(self, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        return super().submit(copy_context().run, function, *args, **kwargs)


class Meter:
    """The one mutable counter of a run; safe from any thread. What a part of the run spends (one mirror among several)
    is counted in a meter of its own as well, see `part`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._started = time.monotonic()
        self._requests: dict[str, Counter[str]] = {}
        self._numbers: Counter[str] = Counter()
        self._throttled = 0.0
        self._identities: dict[str, str] = {}
        self._fallbacks: dict[str, dict[str, None]] = {}

    @_in_part_too
    def request(self, registry: str, kind: str) -> None:
        """`kind` is METHOD and endpoint, such as `GET manifest`, `POST upload`, `GET token`."""
        with self._lock:
            self._requests.setdefault(registry, Counter())[kind] += 1

    @_in_part_too
    def retry(self) -> None:
        with self._lock:
            self._numbers["retries"] += 1

    @_in_part_too
    def throttled(self, seconds: float) -> None:
        with self._lock:
            self._throttled += seconds

    @_in_part_too
    def read(self, count: int) -> None:
        with self._lock:
            self._numbers["bytes_read"] += count

    @_in_part_too
    def sent(self, count: int) -> None:
        """Bytes on their way to a destination, counted while they flow."""
        with self._lock:
            self._numbers["bytes_written"] += count

    @_in_part_too
    def blob(self, outcome: str, size: int) -> None:
        """`outcome` is `written`, `mounted` or `skipped`; the bytes of a written one were counted by `sent`."""
        with self._lock:
            self._numbers[f"blobs_{outcome}"] += 1
            if outcome != "written":
                self._numbers[f"bytes_{outcome}"] += size

    @_in_part_too
    def identity(self, registry: str, identity: str) -> None:
        """Says who we are at a registry, in words without a secret: `user bob (docker config)`, `anonymous`."""
        with self._lock:
            self._identities[registry] = identity

    @_in_part_too
    def fallback(self, registry: str, text: str) -> None:
        """Says what a registry refused and what was done instead: `single POST refused (405), PUT used`."""
        with self._lock:
            self._fallbacks.setdefault(registry, {})[text] = None

    @contextmanager
    def part(self, part: Meter | None = None) -> Iterator[Meter]:
        """Counts in a second meter what is spent inside, in this thread and in the `PartThreads` that it starts."""
        part = part or Meter()
        token = _PART.set(part)
        try:
            yield part
        finally:
            _PART.reset(token)

    def receipt(self) -> Receipt:
        with self._lock:
            return Receipt(
                seconds=time.monotonic() - self._started,
                requests={registry: dict(kinds) for registry, kinds in self._requests.items()},
                throttled_seconds=self._throttled,
                identities=dict(self._identities),
                fallbacks={registry: tuple(texts) for registry, texts in self._fallbacks.items()},
                **self._numbers,
            )
