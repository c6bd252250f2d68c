"""How fast a registry is asked, and what is tried again. Being told to slow down is a measurement: it sets the pace,
ends nothing, and isn't counted as a failed attempt.

Registries limit by kind of request (ECR: 10 PutImage a second, 500 UploadLayerPart), so each family of requests has
its own window of requests in flight and, once a limit showed or where it is known, its own rate:

- the window doubles in each round trip (slow start), grows by one in each after that (additive increase), stops where
  answers take twice as long as the quickest, and is halved at most once for all that was in flight when a registry
  asked for a slower pace (an epoch, RFC 5681);
- the rate is a little less than what the registry has taken in the last seconds, and rises slowly until it says no.

All windows share a ceiling. A pause that a registry asks for holds all threads of that family.
"""

from __future__ import annotations

import copy
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from types import MappingProxyType
from typing import ClassVar
from weakref import WeakKeyDictionary, WeakValueDictionary

import msgspec

from oci.errors import CancelToken, RateLimited, StoreError
from oci.meter import Meter

_BEGIN = 8.0
"""Size of a window before anything is known: enough for a fast network, harmless for a slow registry."""

COUNTED = 256 << 10
"""Bytes of a large body that count as much as the request itself, when the speeds of two are compared."""

_KNOWN_SHARE = 0.8
"""Of a documented limit, where the rate begins: other programs use the same account."""

_LONGEST_SHARE = 0.97
"""Of a documented limit, where the rate ends."""

_BACK_OFF = 0.85
_SLOWEST = 1.0
"""Requests a second that a rate never goes below."""

_MEASURED = 2.0
"""Seconds over which the requests that a registry took are counted."""

_EVIDENCE = 6
"""Requests that a registry took in that time, before a rate is concluded from them."""

_SLACK = 0.002
"""Seconds by which an answer may take longer than twice the quickest before a window stops growing."""

RETRIED_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
SLOW_DOWN_CODES = frozenset(
    {"TOOMANYREQUESTS", "TooManyRequestsException", "RESOURCE_EXHAUSTED", "ThrottlingException"}
)
"""Docker Hub's and the specification's, ECR's, Google's, AWS's: with 429, and with 400 or 403 as well."""

RETRIED_CODES = frozenset({"UNAVAILABLE", *SLOW_DOWN_CODES})
"""Whatever the status was: registries behind gateways send them with 400 or 403 as well."""

_FIRST_DELAY = 0.2
_LONGEST_DELAY = 20.0
_FIRST_THROTTLED_DELAY = 0.5
_SHORTEST_THROTTLED_DELAY = 0.01
_LEAST_PART = 0.001
_LONGEST_WAIT = 10 * 365 * 86400.0
"""Bound of what a Retry-After may say, in seconds."""

_random = random.SystemRandom()
_FORGETTING = 1.0001
"""By how much the quickest answer counts less with each that follows: networks change."""


class TokenBucket:
    """What a person allows one registry, or all of them together, in a second. All sessions of this process with that
    limit share it: a registry counts what comes from here, however many runs that is."""

    _shared: ClassVar[WeakValueDictionary[tuple[str, float], TokenBucket]] = WeakValueDictionary()
    _lent: ClassVar[WeakKeyDictionary[object, float]] = WeakKeyDictionary()
    _sharing = threading.Lock()

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._lock = threading.Lock()
        self._full_at = 0.0

    @classmethod
    def of(cls, name: str, rate: float) -> TokenBucket:
        """Returns the bucket that all callers with this name and rate share. The name is a kind of amount and a
        registry (`requests ghcr.io:443`); the rate is per second, 0 for no limit."""
        with cls._sharing:
            return cls._shared.setdefault((name, rate), cls(rate))

    @classmethod
    def lend(cls, holder: object, part: float) -> None:
        """Sets the part of every rate that is left to other processes for `holder`; what was set for it before ends."""
        with cls._sharing:
            cls._lent[holder] = part

    @classmethod
    def part(cls) -> float:
        """Returns the part of every rate that this process has, over 0."""
        with cls._sharing:
            return max(_LEAST_PART, 1 - sum(cls._lent.values()))

    def take(self, count: int) -> float:
        """Gives the seconds until what was taken before has filled again."""
        if not self._rate:
            return 0.0
        part = self.part()
        with self._lock:
            now = time.monotonic()
            wait = max(0.0, self._full_at - now)
            self._full_at = now + wait + count / (self._rate * part)
        return wait


class Window:
    """The requests of one family. All fields are guarded by the lock of its Pace."""

    def __init__(self, lock: threading.Lock, ceiling: int, cap: float) -> None:
        self.freed = threading.Condition(lock)
        self.waiting = 0
        self.in_flight = 0
        self.size = min(_BEGIN, ceiling)
        self.threshold = float(ceiling)
        self.rate = cap * _KNOWN_SHARE
        """Requests a second; 0 while no limit has shown."""
        self.highest = cap * _LONGEST_SHARE
        self.next_turn = 0.0
        self.paused_until = 0.0
        self.cut_at = 0.0
        self.quickest = float("inf")
        self.answered_at: deque[float] = deque(maxlen=4096)
        """Times at which requests were answered without complaint."""

    def wait(self, now: float) -> float:
        """Seconds until the next request may start, as far as pauses and the rate go."""
        return max(self.paused_until, self.next_turn) - now

    def start(self, now: float) -> None:
        self.in_flight += 1
        if self.rate:
            # After a rest, no more than a quarter of a second's requests at once.
            self.next_turn = max(self.next_turn, now - 0.25) + 1.0 / self.rate

    def succeeded(self, now: float, seconds: float, ceiling: int) -> None:
        limited = self.in_flight + 1 >= self.size or self.waiting > 0
        self.answered_at.append(now)
        self.quickest = min(self.quickest * _FORGETTING, seconds)
        if limited and seconds <= 2 * self.quickest + _SLACK:
            self.size = min(ceiling, self.size + (1.0 if self.size < self.threshold else 1.0 / self.size))
        if self.rate and self.waiting:
            # The longer nothing was refused, the faster: 1 % a second after one second, 10 % after ten.
            gain = 1.0 + min(0.2, 0.01 * (now - self.cut_at)) / self.rate
            self.rate = min(self.rate * gain, self.highest or float("inf"))

    def slowed(self, now: float, started: float) -> None:
        """Halves the window and sets the rate, once for all requests that were on their way together."""
        if started <= self.cut_at:
            return
        recent = sum(1 for moment in self.answered_at if moment > now - _MEASURED)
        if self.rate or recent >= _EVIDENCE or self.size == 1.0:
            measured = recent / _MEASURED
            self.rate = max(_SLOWEST, min(self.rate or measured, measured) * _BACK_OFF)
            self.next_turn = max(self.next_turn, now + 1.0 / self.rate)
        self.size = self.threshold = max(1.0, self.size / 2)
        self.cut_at = now


class Pace:
    """Shared by every thread that talks to one registry. Waiting ends when the run is cancelled."""

    def __init__(
        self,
        *,
        ceiling: int,
        meter: Meter,
        cancel: CancelToken,
        caps: Mapping[str, float] = MappingProxyType({}),
        learned: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        """`caps` are documented limits, see Profile; `learned` are rates that earlier runs have found where nothing is
        documented."""
        self.ceiling = max(1, ceiling)
        self._caps = caps
        self._learned = learned
        self._meter = meter
        self._cancel = cancel
        self._lock = threading.Lock()
        self._windows: dict[str, Window] = {}
        self._in_flight = 0
        self._large = 0
        self._ended: tuple[StoreError, float] | None = None

    def start(self, family: str, *, large: bool) -> float:
        """Waits for a turn. Large bodies never take the last slot, so that small requests don't wait behind them.
        Gives the moment for `finish` and `slow_down`. Raises the error of `end` while it counts."""
        self._cancel.check()
        limit = max(1, self.ceiling - 1) if large else self.ceiling
        with self._lock:
            window = self._window(family)
            while True:
                now = time.monotonic()
                if self._ended is not None and now < self._ended[1]:
                    raise copy.copy(self._ended[0])
                wait = window.wait(now)
                full = window.in_flight >= int(window.size) or self._in_flight >= self.ceiling or self._large >= limit
                if not full and wait <= 0:
                    break
                window.waiting += 1
                try:
                    window.freed.wait(0.2 if full else min(wait, 0.2))
                finally:
                    window.waiting -= 1
                self._cancel.check()
            window.start(now)
            self._in_flight += 1
            self._large += large
            return now

    def finish(self, family: str, *, large: bool, seconds: float | None) -> None:
        """Frees the slot. `seconds` is how long the answer took: until it began, and with a large body the whole
        exchange over its size in units of COUNTED. None for a request that failed."""
        with self._lock:
            window = self._window(family)
            window.in_flight -= 1
            self._in_flight -= 1
            self._large -= large
            if seconds is not None:
                window.succeeded(time.monotonic(), seconds, self.ceiling)
            if window.waiting:
                window.freed.notify()
            if self._in_flight + 2 >= self.ceiling:
                for other in self._windows.values():
                    if other is not window and other.waiting:
                        other.freed.notify()

    def slow_down(self, family: str, started: float, seconds: float | None, *, everything: bool = False) -> None:
        """Takes in that a registry asked for a slower pace, and for a pause of so many seconds. `everything`: the
        pause is meant for all requests, as with 503."""
        with self._lock:
            now = time.monotonic()
            window = self._window(family)
            window.slowed(now, started)
            if seconds:
                until = now + seconds
                paused = list(self._windows.values()) if everything else [window]
                if until > window.paused_until:
                    self._meter.throttled(until - max(window.paused_until, now))
                for paused_window in paused:
                    paused_window.paused_until = max(paused_window.paused_until, until)

    def rates(self) -> dict[str, float]:
        """Requests a second by family, where a limit showed that isn't documented."""
        with self._lock:
            windows = self._windows.items()
            return {name: round(window.rate, 1) for name, window in windows if window.rate and not window.highest}

    def end(self, error: StoreError, seconds: float) -> None:
        """Lets no request start for so many seconds: the quota is used up, or the registry asked for a pause that is
        longer than anybody here may wait."""
        with self._lock:
            self._ended = (error, time.monotonic() + seconds)

    def _window(self, family: str) -> Window:
        name = "*" if "*" in self._caps else family
        window = self._windows.get(name)
        if window is None:
            cap = self._caps.get(name, 0.0)
            window = self._windows[name] = Window(self._lock, self.ceiling, cap)
            if not cap and name in self._learned:
                window.rate = max(_SLOWEST, self._learned[name])
        return window


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds that a Retry-After header asks for: whole or with a fraction, or until a date (RFC 9110, 10.2.3). None
    without a usable one. Several values, which a proxy in between may make, count as the longest. Without any, GitHub's
    `x-ratelimit-reset` says when a budget that is used up begins anew, in seconds since the epoch."""
    text = headers.get("retry-after", "").strip()
    parts = text.split(",")
    numbers = [number for part in parts if (number := _number(part.strip())) is not None]
    if len(numbers) == len(parts):
        return max(numbers)
    wait = _until(text, now) if text else None  # a date has a comma of its own
    reset = headers.get("x-ratelimit-reset", "")
    if wait is None and headers.get("x-ratelimit-remaining") == "0" and reset.isascii() and reset.isdigit():
        wait = min(max(0.0, int(reset[:12]) - now.timestamp()), _LONGEST_WAIT)
    return wait


def is_slow_down(error: StoreError) -> bool:
    """Does the registry ask for a slower pace (429, its codes, 503 with Retry-After), without anything being wrong?"""
    return error.retryable and (
        isinstance(error, RateLimited) or (error.status == 503 and error.retry_after is not None)
    )


class Attempts(msgspec.Struct, kw_only=True):
    """The attempts of one call: counts those that failed, and waits between all within a budget of seconds."""

    retries: int
    budget: float
    meter: Meter
    cancel: CancelToken
    failed: int = 0
    slowed: int = 0

    def again(self, error: StoreError, requested_wait: float | None = None) -> None:
        """Waits until the next attempt may start, or raises `error`: not retryable, no attempt left, or a wait
        longer than the budget. `requested_wait` is the pause that the registry asks for, in seconds."""
        slowed = is_slow_down(error)
        if not error.retryable or (self.retries <= 0 and not slowed):
            raise error
        if requested_wait is not None:
            delay = requested_wait
        elif slowed:  # never zero, for the pace alone can't know how long the registry's window is
            longest = min(_LONGEST_DELAY, _FIRST_THROTTLED_DELAY * 2**self.slowed)
            delay = _random.uniform(longest / 4, longest)
        else:  # full jitter: many clients that failed together don't come back together
            delay = _random.uniform(0, min(_LONGEST_DELAY, _FIRST_DELAY * 2**self.failed))
        if slowed:  # a registry that says 0 each time would be asked without a pause, and for ever
            delay = max(delay, min(_FIRST_THROTTLED_DELAY, _SHORTEST_THROTTLED_DELAY * 2**self.slowed))
        if delay > self.budget:
            error.hint = (
                f"the registry asks to wait {delay:.0f} s, more than the {max(0.0, self.budget):.0f} s left for this "
                "call: try again later, or raise --registry-retry-budget"
            )
            error.retryable = False
            raise error
        if slowed:
            self.slowed += 1
        else:
            self.retries -= 1
            self.failed += 1
        self.meter.retry()
        started = time.monotonic()
        self.cancel.wait(delay)
        self.budget -= max(delay, time.monotonic() - started)


def _number(text: str) -> float | None:
    if not text.isascii() or len(text) > 400:
        return None
    try:
        value = float(text) if text.lstrip("+-")[:1].isdigit() else None
    except ValueError:
        return None
    return None if value is None else min(max(0.0, value), _LONGEST_WAIT)


def _until(text: str, now: datetime) -> float | None:
    from email.utils import parsedate_to_datetime  # noqa: PLC0415 - few registries send a date

    try:
        when = parsedate_to_datetime(text)
        when = when if when.tzinfo is not None else when.replace(tzinfo=UTC)
        return min(max(0.0, (when - now).total_seconds()), _LONGEST_WAIT)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


class Bandwidth:
    """Bytes a second, in buckets: one for each registry that has a limit of its own, and one for all others together.
    Each of `rates` says of a registry which bucket it takes from on one side, and how fast that fills; 0 is without a
    limit."""

    def __init__(self, rates: Sequence[Callable[[str], tuple[str, int]]], cancel: CancelToken) -> None:
        self._rates = rates
        self._cancel = cancel
        self._buckets: dict[tuple[str, int], TokenBucket] = {}

    def take(self, count: int, registries: Iterable[str]) -> None:
        """Waits until so many bytes may follow those before, by the slowest bucket. Raises Cancelled."""
        chosen = {bucket for registry in registries for bucket in (of(registry) for of in self._rates) if bucket[1]}
        waits = []
        for name, rate in chosen:
            bucket = self._buckets.setdefault((name, rate), TokenBucket.of(f"bytes {name}", rate))
            waits.append(bucket.take(count) + count / (rate * TokenBucket.part()))
        if waits:
            self._cancel.wait(max(waits))
