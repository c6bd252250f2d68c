"""Times that recur: cron expressions, recurrence rules (RFC 5545) and intervals, as Prefect's server computes them."""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime, timedelta
from itertools import dropwhile, islice
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from oci.units import show_duration

if TYPE_CHECKING:
    from dateutil.rrule import rrule

EPOCH = datetime(2020, 1, 1)  # noqa: DTZ001 - where intervals and rules begin in a schedule's own zone, as in Prefect
SHORTEST, LONGEST = timedelta(seconds=1), timedelta(days=3650)
"""Intervals: without time between them starts would follow each other in a loop, and after a time without end no
calendar has the next."""

_LATE = EPOCH.replace(year=9620)
"""A year of the same calendar, which repeats after 400. A rule that names no day from there on names none at all, and
dateutil looks for it until the year 9999."""

_UNITS = {"HOURLY": timedelta(hours=1), "DAILY": timedelta(days=1), "WEEKLY": timedelta(weeks=1)}
"""Of frequencies whose steps are of one length."""


def check_interval(interval: timedelta) -> None:
    """Raises ValueError; no time at all is for schedules of another kind."""
    if interval and not SHORTEST <= interval <= LONGEST:
        raise ValueError(
            f"{show_duration(interval)} is not between {show_duration(SHORTEST)} and {show_duration(LONGEST)}"
        )


def check_cron(text: str) -> None:
    """As the server of Prefect reads it: five fields, with names of months and days. Raises ValueError."""
    if not text:
        return
    from cronsim import CronSim, CronSimError  # noqa: PLC0415 - only where a schedule is a cron expression

    if len(text.split()) != 5:
        raise ValueError(f"{text!r} has not the five fields of cron: minute, hour, day, month, weekday")
    try:
        next(CronSim(text, EPOCH))
    except (CronSimError, StopIteration) as error:
        raise ValueError(f"{text!r} is no cron expression: {str(error) or 'it names no day'}") from error


def check_rrule(text: str) -> None:
    """Raises ValueError for what is no rule, for one that names no time, and for one of minutes or seconds: Prefect's
    server counts them up from EPOCH each time, and starts nothing else meanwhile."""
    if not text:
        return
    rule = text.removeprefix("RRULE:").upper()
    if "DTSTART" in rule or "\n" in rule:
        raise ValueError(f"{text!r} is more than a recurrence rule: write FREQ=WEEKLY;BYDAY=MO")
    if "FREQ=" not in rule:
        raise ValueError("a recurrence rule needs FREQ=")
    if re.search(r"FREQ=(SECOND|MINUTE)LY", rule):
        raise ValueError(f"{text!r} is too often for a recurrence rule: write an interval, or cron")
    if re.search(r"UNTIL=\w*Z", rule):
        raise ValueError("UNTIL is in the time zone of the schedule: write it without Z")
    if re.search(r"INTERVAL=0+(;|$)", rule):
        raise ValueError(f"{text!r} is no recurrence rule: INTERVAL must be at least 1")
    if "COUNT=" in rule:
        raise ValueError(f"{text!r} is no recurrence rule of a mirror: COUNT needs a start, write UNTIL")
    try:
        within = _parsed(rule).replace(dtstart=_LATE, until=None)
        second = next(islice(within, 1, None), None)  # the start itself may be the first
    except (ValueError, TypeError, KeyError, OverflowError, IndexError) as error:
        raise ValueError(f"{text!r} is no recurrence rule: {error}") from error
    if second is None:
        raise ValueError(f"{text!r} names no day")


def check_zone(name: str) -> None:
    """Raises ValueError."""
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise ValueError(f"{name!r} is no time zone that this machine knows") from error


def anchor(interval: timedelta, name: str) -> datetime:
    """A time at which the interval of a mirror begins, in UTC: spread by name, so that not all begin at once."""
    part = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4]) / 2**32
    return EPOCH.replace(tzinfo=UTC) + timedelta(seconds=int(interval.total_seconds() * part))


def after_cron(text: str, zone: str, moment: datetime) -> datetime:
    from cronsim import CronSim  # noqa: PLC0415 - as above

    return next(CronSim(text, moment.astimezone(ZoneInfo(zone)))).astimezone(UTC)


def after_rrule(text: str, zone: str, moment: datetime) -> datetime | None:
    """None after the last one. In the hour that a clock repeats in autumn, a time is its first, and may be over."""
    rule = _parsed(text.upper())
    place = ZoneInfo(zone)
    local = moment.astimezone(place).replace(tzinfo=None)
    unit = next((unit for name, unit in _UNITS.items() if f"FREQ={name}" in text.upper()), None)
    if unit:  # dateutil counts from the start, some 9,000 steps a year for FREQ=HOURLY
        interval = re.search(r"INTERVAL=(\d+)", text.upper())
        step = unit * (int(interval[1]) if interval else 1)
        rule = rule.replace(dtstart=EPOCH + max(0, (local - EPOCH) // step - 1) * step)
    following = (start.replace(tzinfo=place).astimezone(UTC) for start in rule.xafter(local))
    return next(dropwhile(lambda start: start <= moment, following), None)


def _parsed(rule: str) -> rrule:
    from dateutil import rrule as rules  # noqa: PLC0415 - only where a schedule is a recurrence rule

    parsed = rules.rrulestr(rule.removeprefix("RRULE:"), dtstart=EPOCH)
    if not isinstance(parsed, rules.rrule):
        raise ValueError("it is a set of rules")  # noqa: TRY004 - what a person wrote is wrong
    return parsed
