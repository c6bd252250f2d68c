"""What is tried again, and after how long. The policy is the tables; the code only reads them."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime

from oci.cancel import CancelToken
from oci.errors import StoreError
from oci.meter import Meter

RETRIED_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
RETRIED_CODES = frozenset({"TOOMANYREQUESTS", "UNAVAILABLE"})
"""Whatever the status was: registries behind gateways send them with 400 or 403 as well."""

_FIRST_DELAY = 0.2
_LONGEST_DELAY = 20.0
_random = random.SystemRandom()


def worth_retrying(status: int, code: str) -> bool:
    return status in RETRIED_STATUSES or code in RETRIED_CODES


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds that a Retry-After header asks for (RFC 9110, 10.2.3: seconds or a date); None without a usable one."""
    text = headers.get("retry-after", "").strip()
    if not text:
        return None
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        when = parsedate_to_datetime(text)
        return max(0.0, (when - now).total_seconds())
    except (ValueError, TypeError):
        return None


class Attempts:
    """The attempts of one call: counts them, and waits between them within a budget of seconds."""

    def __init__(self, *, retries: int, budget: float, meter: Meter, cancel: CancelToken) -> None:
        self._left = retries
        self._budget = budget
        self._made = 0
        self._meter = meter
        self._cancel = cancel

    def again(self, error: StoreError, asked: float | None = None) -> None:
        """Waits until the next attempt may start, or raises `error`: not retryable, no attempt left, or a wait
        longer than the budget. `asked` is what the registry wants us to wait."""
        if not error.retryable or self._left <= 0:
            raise error
        delay = self._delay() if asked is None else asked
        if delay > self._budget:
            error.hint = (
                f"the registry asks to wait {delay:.0f} s, more than the {self._budget:.0f} s left for this call: "
                "try again later, or raise the retry budget"
            )
            raise error
        self._left -= 1
        self._made += 1
        self._budget -= delay
        self._meter.retry()
        started = time.monotonic()
        self._cancel.wait(delay)
        self._budget -= max(0.0, time.monotonic() - started - delay)

    def _delay(self) -> float:
        """Full jitter: many clients that failed together don't come back together."""
        return _random.uniform(0, min(_LONGEST_DELAY, _FIRST_DELAY * 2**self._made))
