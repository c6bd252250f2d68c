"""The deployments that mirrors, the fleet and the rescue of runs ask for, and what became of each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from prefect.client.schemas.schedules import SCHEDULE_TYPES, CronSchedule, IntervalSchedule, RRuleSchedule
from pydantic import ValidationError

from oci.errors import InvalidInput
from oci.mirror.config import Mirror, MirrorsConfig
from oci.reference import HUB, Repository

ENTRYPOINT = "flows.mirror.mirror"
PUSH_SUFFIX = ".on-push"
"""What no mirror's name ends with: the deployment that a push starts."""

TAG = "transship"
_PUSHES_AT_A_TIME = 2
"""A release is often pushed under several tags at once; they have nothing to wait for each other for."""
_LARGEST_PARAMETERS = 480_000
"""Characters; Prefect takes 512 KB, and a trigger adds its own."""


@dataclass(frozen=True, slots=True)
class Declaration:
    """One deployment. At most `places` of its runs are under way, None for any number; `queued` says what happens to
    one more: it waits, or, being one of a schedule, it is left out."""

    name: str
    description: str
    parameters: dict[str, Any]
    schedule: SCHEDULE_TYPES | None = None
    places: int | None = 1
    queued: bool = False
    entrypoint: str = ENTRYPOINT
    mirror: str = ""
    """That it is of; empty for one that all mirrors share."""
    unwatched: bool = False
    """Its runs have a tag of their own, and not that of all other runs."""


@dataclass(frozen=True, slots=True)
class PushTrigger:
    """Which pushes start a mirror: those to `repository`, of `tag` when there is one. `REGISTRY/PATH/*` stands for the
    repositories of a namespace."""

    repository: Repository | str
    tag: str = ""


@dataclass(frozen=True, slots=True)
class DeclaredMirror:
    """All that one mirror asks for: `on_push` and `trigger` where it says so, and its source sends notifications."""

    mirror: Mirror
    main: Declaration
    on_push: Declaration | None = None
    trigger: PushTrigger | None = None
    registries: frozenset[str] = field(default_factory=frozenset)
    blocks: frozenset[str] = field(default_factory=frozenset)
    """Names of the blocks that its runs load."""

    @property
    def deployments(self) -> tuple[Declaration, ...]:
        return (self.main, self.on_push) if self.on_push else (self.main,)


def declared(config: MirrorsConfig, mirror: Mirror) -> DeclaredMirror:
    """Returns the deployments of a mirror. Its configuration travels in the parameters: a worker needs no file, every
    run shows its rules, and a change takes effect when it is deployed. Raises InvalidInput."""
    alone = config.alone(mirror)
    parameters = {"config": alone.to_dict() | {"version": config.version}}
    size = len(str(parameters))
    if size > _LARGEST_PARAMETERS:
        raise InvalidInput(f"mirror {mirror.name}: its configuration is {size} characters long, too much for Prefect")
    where = f"{mirror.source} -> {', '.join(map(str, mirror.destinations))}"
    main = Declaration(
        name=mirror.name,
        description=f"Mirrors {where}.",
        parameters=parameters,
        schedule=_schedule(mirror),
        mirror=mirror.name,
    )
    trigger = _trigger(mirror) if mirror.on_push else None
    on_push = Declaration(
        name=f"{mirror.name}{PUSH_SUFFIX}",
        description=f"Mirrors what was pushed: {where}. Started by the automation of the same name.",
        parameters=parameters,
        places=_PUSHES_AT_A_TIME,
        queued=True,
        mirror=mirror.name,
    )
    blocks = {registry.credentials for registry in alone.registries.values()}
    blocks |= {bucket.s3_store for bucket in alone.buckets.values()}
    return DeclaredMirror(
        mirror, main, on_push if trigger else None, trigger, mirror.registries, frozenset(blocks - {""})
    )


def _schedule(mirror: Mirror) -> SCHEDULE_TYPES | None:
    if mirror.schedule is None:
        return None
    try:
        if mirror.schedule.cron:
            return CronSchedule(cron=mirror.schedule.cron, timezone=mirror.schedule.timezone)
        if mirror.schedule.rrule:
            # With the start that Prefect would put there, so that both texts are the same.
            return RRuleSchedule(rrule=mirror.schedule.rule, timezone=mirror.schedule.timezone)
        return IntervalSchedule(
            interval=mirror.schedule.interval,
            anchor_date=mirror.schedule.anchor(mirror.name),  # type: ignore[arg-type,unused-ignore]  # see Prefect
            timezone=mirror.schedule.timezone,
        )
    except (ValidationError, ValueError) as error:
        raise InvalidInput(
            f"mirror {mirror.name}: Prefect doesn't understand its schedule",
            hint=str(error.errors()[0]["msg"]) if isinstance(error, ValidationError) else str(error),
        ) from error


def _trigger(mirror: Mirror) -> PushTrigger | None:
    within = mirror.source.within
    if within is not None:
        return None if within.registry == HUB else PushTrigger(f"{str(within).rstrip('/')}/*")
    store, reference = mirror.source.store, mirror.source.reference
    if not isinstance(store, Repository) or store.registry == HUB:  # Docker Hub sends none
        return None
    if reference is not None and not reference.tag:
        return None  # a digest doesn't move
    return PushTrigger(store, reference.tag if reference else "")


FLEET_NAME = "fleet"
_FLEET = {
    "flows.relocate.relocate_shard": "Copies a part of a large relocation, for a run that asks for a fleet.",
    "flows.mirror.mirror_shard": "Carries some of a mirror's images, for a run that asks for a fleet.",
    "flows.relocate.write_archive_parts": (
        "Writes a group of parts of a large archive, for a run that asks for a fleet."
    ),
}


def fleet() -> tuple[Declaration, ...]:
    """Returns what the machines of a fleet take their work from. Its work pool isn't the one of the mirrors: there,
    runs that wait for their shards could hold every place that a shard needs."""
    return tuple(
        Declaration(FLEET_NAME, description, parameters={}, places=None, entrypoint=entrypoint)
        for entrypoint, description in _FLEET.items()
    )


def rescue() -> Declaration:
    """Returns what the automations of flows.deploy.zombie_runs start, where the mirrors run."""
    return Declaration(
        "rescue",
        "Looks after a run that seems dead, and starts it again once.",
        parameters={},
        places=None,
        entrypoint="flows.deploy.zombie_runs.rescue",
        unwatched=True,  # with the patience of other runs; it has a tag of its own, see flows.deploy.zombie_runs
    )


class Outcome(StrEnum):
    CREATED = "created"
    UPDATED = "updated"
    UNCHANGED = "unchanged"
    REMOVED = "removed"
    KEPT = "kept"
    """Nothing in the configuration asks for it, and its removal was not asked for."""
    MISSING = "missing"
    """Something that only a person can make, such as a block with a login in it."""


@dataclass(frozen=True, slots=True)
class Change:
    """`kind` is "deployment", "trigger", "automation", "concurrency limit", "block", "block type" or "work pool"."""

    kind: str
    name: str
    outcome: Outcome
    detail: str = ""


def different(kind: str, name: str, differences: Iterable[str]) -> Change:
    """UPDATED with the names of what differs, or UNCHANGED without any."""
    named = ", ".join(differences)
    return Change(kind, name, Outcome.UPDATED if named else Outcome.UNCHANGED, named)
