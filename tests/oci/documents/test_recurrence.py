"""When something starts next: by cron, by a recurrence rule, after an interval."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from dateutil.rrule import rrule, rrulestr

from oci.documents.recurrence import EPOCH, after_cron, after_rrule

NOON = datetime(2026, 11, 30, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.mark.parametrize(
    "rule", ["FREQ=HOURLY", "FREQ=HOURLY;INTERVAL=7", "FREQ=HOURLY;INTERVAL=5;BYDAY=SA", "freq=daily"]
)
def test_a_rule_counts_from_its_start_whatever_has_passed_since(rule: str) -> None:
    plain = rrulestr(rule, dtstart=EPOCH).after(NOON.replace(tzinfo=None))

    assert plain is not None
    assert after_rrule(rule, "UTC", NOON) == plain.replace(tzinfo=UTC)


def test_an_hourly_rule_is_not_counted_up_from_its_start_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    starts: list[datetime] = []
    replace = rrule.replace

    def noted(rule: rrule, **changes: Any) -> rrule:
        starts.append(changes["dtstart"])
        return replace(rule, **changes)

    monkeypatch.setattr(rrule, "replace", noted)
    after_rrule("FREQ=HOURLY;INTERVAL=7", "UTC", NOON)

    assert NOON.replace(tzinfo=None) - starts[0] < timedelta(hours=15)


@pytest.mark.parametrize("place", ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe"])
@pytest.mark.parametrize(
    "rule", ["FREQ=HOURLY", "FREQ=HOURLY;BYMINUTE=0,15,30,45", "FREQ=DAILY;BYHOUR=1,2,3;BYMINUTE=30"]
)
def test_where_clocks_are_set_back_the_next_start_is_never_over(rule: str, place: str) -> None:
    zone, begin = ZoneInfo(place), datetime(2026, 1, 1, tzinfo=UTC)
    hours = [begin + timedelta(hours=number) for number in range(24 * 365)]
    jumps = [hour for hour in hours if hour.astimezone(zone).utcoffset() != (hour + HOUR).astimezone(zone).utcoffset()]
    moments = [jump + timedelta(minutes=10 * number) for jump in jumps for number in range(-6, 18)]

    starts = [(moment, after_rrule(rule, place, moment)) for moment in moments]

    assert len(jumps) == 2
    assert not [moment for moment, start in starts if start is None or start <= moment]


def test_cron_goes_on_where_clocks_are_set_back() -> None:
    moment = datetime(2026, 10, 24, 22, tzinfo=UTC)
    starts = []
    for _ in range(30):
        moment = after_cron("*/15 * * * *", "Europe/Berlin", moment)
        starts.append(moment)

    assert all(
        after - before <= timedelta(hours=1, minutes=15) and after > before for before, after in pairwise(starts)
    )
