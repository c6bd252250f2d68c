from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule, RRuleSchedule
from prefect.events.schemas.automations import EventTrigger
from prefect.events.schemas.events import Resource, ResourceSpecification
from prefect.server.schemas import schedules

from flows.deploy.automations import literal, push_automation
from flows.deploy.deployments import PushTrigger, declared
from oci.errors import InvalidInput
from oci.mirror.config import MirrorsConfig
from oci.mirror.reader import make_config
from oci.reference import Repository

TO_CORP = [{"repository": "registry.corp.example/mirror/web"}]


def config(**mirror: Any) -> MirrorsConfig:
    described = {"name": "web", "source": {"repository": "registry.example/shop/web"}, "destinations": TO_CORP}
    return make_config(
        {
            "version": 1,
            "registries": {
                "registry.example": {"credentials": "reader", "images_at_a_time": 3},
                "registry.corp.example": {"credentials": "writer"},
                "other.example": {},
            },
            "buckets": {"handover": {"s3_store": "corp"}, "other": {}},
            "defaults": {"limits": {"concurrency": 3}},
            "mirrors": [described | mirror, {**described, "name": "other"}],
        }
    )


def test_a_deployment_carries_the_configuration_of_its_mirror_and_of_nothing_else() -> None:
    whole = config(tags=[{"semver": ["^1.4"]}])

    [kept] = [declared(whole, mirror) for mirror in whole.mirrors if mirror.name == "web"]

    carried = kept[0].parameters["config"]
    assert set(carried["registries"]) == {"registry.example", "registry.corp.example"}
    assert [mirror["name"] for mirror in carried["mirrors"]] == ["web"]
    assert make_config(carried).mirrors == (whole.mirror("web"),)
    assert make_config(carried).by_host["registry.example"].images_at_a_time == 3


def test_a_deployment_carries_the_buckets_that_its_archives_are_in() -> None:
    whole = config(destinations=[*TO_CORP, {"archive": "s3://handover/web.tar"}])

    [web, other] = [declared(whole, one)[0].parameters["config"] for one in whole.mirrors]

    assert web["buckets"] == {"handover": {"s3_store": "corp"}}
    assert "buckets" not in other


@pytest.mark.parametrize("source", [{"bundle": "registry.example/shop/bundle:1.0"}, {"lock": "/etc/images.yml"}])
def test_what_can_list_images_of_any_registry_knows_all_of_them(source: dict[str, str]) -> None:
    whole = config(source=source, on_push=True)

    carried = declared(whole, whole.mirror("web"))[0].parameters["config"]

    assert set(carried["registries"]) == {"registry.example", "registry.corp.example", "other.example"}


@pytest.mark.parametrize(
    ("schedule", "kind"),
    [
        ({"cron": "0 3 * * *", "timezone": "Europe/Berlin"}, CronSchedule),
        ({"interval": "6h"}, IntervalSchedule),
        ({"rrule": "RRULE:FREQ=WEEKLY;BYDAY=MO", "timezone": "Europe/Berlin"}, RRuleSchedule),
    ],
)
def test_a_schedule_becomes_prefects(
    schedule: dict[str, str], kind: type[CronSchedule | IntervalSchedule | RRuleSchedule]
) -> None:
    whole = config(schedule=schedule)

    made = declared(whole, whole.mirror("web"))[0].schedule

    assert isinstance(made, kind)
    assert made.timezone == schedule.get("timezone", "UTC")
    assert made == declared(whole, whole.mirror("web"))[0].schedule


def test_mirrors_of_one_interval_do_not_all_begin_at_once() -> None:
    names = [f"web-{number}" for number in range(20)]
    whole = make_config(
        {
            "version": 1,
            "defaults": {"schedule": {"interval": "1h"}},
            "mirrors": [
                {"name": name, "source": {"repository": "registry.example/shop/web"}, "destinations": TO_CORP}
                for name in names
            ],
        }
    )

    schedules = [declared(whole, mirror)[0].schedule for mirror in whole.mirrors]

    anchors = [schedule.anchor_date for schedule in schedules if isinstance(schedule, IntervalSchedule)]
    assert len(set(anchors)) == 20
    assert max(anchors) - min(anchors) < timedelta(hours=1)


@pytest.mark.parametrize("schedule", [{"cron": "0 99 * * *"}, {"rrule": "FREQ=OFTEN"}])
def test_a_schedule_that_prefect_would_not_understand_is_refused_with_the_configuration(
    schedule: dict[str, str],
) -> None:
    with pytest.raises(InvalidInput, match=r"mirrors\[0\].schedule.*is no (cron expression|recurrence rule)"):
        config(schedule=schedule)


@pytest.mark.parametrize(
    ("source", "trigger"),
    [
        ({"repository": "registry.example/shop/web"}, PushTrigger(Repository("registry.example", "shop/web"))),
        (
            {"bundle": "registry.example/shop/bundle:1.0"},
            PushTrigger(Repository("registry.example", "shop/bundle"), "1.0"),
        ),
        ({"bundle": f"registry.example/shop/bundle@sha256:{'0' * 64}"}, None),
        ({"lock": "/etc/images.yml"}, None),
        ({"repository": "oci:/srv/layout"}, None),
        ({"repository": "library/debian"}, None),
    ],
)
def test_a_push_starts_the_mirrors_that_can_hear_of_one(source: dict[str, str], trigger: PushTrigger | None) -> None:
    whole = config(source=source, on_push=True)

    made = declared(whole, whole.mirror("web"))

    assert made[-1].trigger == trigger
    assert [one.name for one in made] == ["web", "web.on-push"][: 2 if trigger else 1]


@pytest.mark.parametrize(
    ("namespace", "resource"),
    [
        ("registry.example/shop", "transship.registry.registry.example/shop/*"),
        ("registry.example", "transship.registry.registry.example/*"),
    ],
)
def test_a_push_anywhere_in_a_namespace_starts_its_mirror_for_what_was_pushed(namespace: str, resource: str) -> None:
    places = [{"repository": "registry.corp.example/{path}"}]
    whole = config(source={"namespace": namespace}, destinations=places, on_push=True)
    _, on_push = declared(whole, whole.mirrors[0])
    assert on_push.trigger is not None

    automation = push_automation(on_push, on_push.trigger, uuid4())

    assert isinstance(automation.trigger, EventTrigger)
    expected = Resource.model_validate({"prefect.resource.id": resource.replace("*", "web")})
    assert isinstance(automation.trigger.match, ResourceSpecification)
    assert automation.trigger.match.matches(expected)
    assert automation.trigger.match.root["prefect.resource.id"] == resource


def test_a_namespace_of_docker_hub_sends_no_pushes() -> None:
    places = [{"repository": "registry.corp.example/{path}"}]
    whole = config(source={"namespace": "docker.io/library"}, destinations=places, on_push=True)

    [main] = declared(whole, whole.mirrors[0])

    assert main.trigger is None


def test_text_that_looks_like_a_template_stays_text() -> None:
    assert literal({"a": ["v{{1}}", {"b": "x"}], "n": 3}) == {
        "a": [{"__prefect_kind": "none", "value": "v{{1}}"}, {"b": "x"}],
        "n": 3,
    }


SCHEDULES: list[dict[str, Any]] = [
    {"cron": "0 3 * * *", "timezone": "Europe/Berlin"},
    {"cron": "*/7 1-4 * * sun,mon", "timezone": "America/New_York"},
    {"cron": "30 2 29 2 *"},
    {"interval": "6h"},
    {"interval": "1h30m"},
    {"rrule": "FREQ=WEEKLY;BYDAY=MO,TH;BYHOUR=3", "timezone": "Europe/Berlin"},
    {"rrule": "RRULE:FREQ=MONTHLY;BYMONTHDAY=-1;BYHOUR=23;BYMINUTE=59"},
]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda one: next(iter(one.values())))
@pytest.mark.parametrize("moment", [datetime(2026, 3, 28, 12, tzinfo=UTC), datetime(2026, 10, 24, 21, 5, tzinfo=UTC)])
def test_a_watch_begins_when_prefect_would(schedule: dict[str, Any], moment: datetime) -> None:
    """Over the change to summer time and back."""
    whole = config(schedule=schedule)
    [web] = [mirror for mirror in whole.mirrors if mirror.name == "web"]
    ours = declared(whole, web)[0].schedule
    assert ours is not None
    kind: Any = {CronSchedule: schedules.CronSchedule, IntervalSchedule: schedules.IntervalSchedule}.get(
        type(ours), schedules.RRuleSchedule
    )
    prefects = kind.model_validate(ours.model_dump(exclude_unset=True))
    expected = asyncio.run(prefects.get_dates(n=5, start=moment + timedelta(seconds=1)))

    found = [moment]
    for _ in expected:
        following = web.schedule.following(found[-1], "web") if web.schedule else None
        assert following is not None
        found.append(following)

    assert [one.timestamp() for one in found[1:]] == [one.timestamp() for one in expected]
