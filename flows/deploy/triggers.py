"""Automations that start a mirror when a registry has told of a push to its source."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from prefect.automations import AutomationCore
from prefect.client.orchestration import PrefectClient
from prefect.events.actions import RunDeployment
from prefect.events.schemas.automations import EventTrigger
from prefect.events.schemas.events import ResourceSpecification

from flows.deploy.automation import put
from flows.deploy.change import Change, Outcome
from flows.deploy.declaration import Declaration, PushTrigger
from flows.receiver.outbox import PUSHED, resource_id

KIND = "trigger"
_PREFIX = "transship: "
_PUSHED_TAG = "{{ event.payload.repository }}:{{ event.payload.tag }}"


def trigger_name(deployment: str) -> str:
    return f"{_PREFIX}{deployment}"


def automation(declaration: Declaration, trigger: PushTrigger, deployment: UUID) -> AutomationCore:
    """A repository's push runs the mirror for the pushed tag alone; a bundle's runs it whole, since it is one tag."""
    match: dict[str, str | list[str]] = {"prefect.resource.id": resource_id(trigger.repository)}
    parameters = literal(declaration.parameters)
    if trigger.tag:
        match["transship.tag"] = trigger.tag
    else:
        parameters["only"] = [_PUSHED_TAG]
    return AutomationCore(
        name=trigger_name(declaration.name),
        description="Mirrors a tag as soon as its registry tells that it was pushed.",
        trigger=EventTrigger(expect={PUSHED}, match=ResourceSpecification(match)),
        actions=[RunDeployment(source="selected", deployment_id=deployment, parameters=parameters, job_variables=None)],
    )


def literal(value: Any) -> Any:
    """Parameters of an action are templates; text that looks like one, such as a regular expression, stays as it is."""
    if isinstance(value, dict):
        return {key: literal(one) for key, one in value.items()}
    if isinstance(value, list):
        return [literal(one) for one in value]
    if isinstance(value, str) and ("{{" in value or "{%" in value or "{#" in value):
        return {"__prefect_kind": "none", "value": value}
    return value


async def put_trigger(
    client: PrefectClient, declaration: Declaration, trigger: PushTrigger, deployment: UUID | None, *, dry_run: bool
) -> Change:
    name = trigger_name(declaration.name)
    if deployment is None:  # the deployment would be made first
        return Change(KIND, name, Outcome.CREATED)
    return await put(client, automation(declaration, trigger, deployment), kind=KIND, dry_run=dry_run)


async def remove_trigger(client: PrefectClient, deployment: str, *, dry_run: bool) -> list[Change]:
    """Of a deployment that goes away."""
    found = await client.read_automations_by_name(trigger_name(deployment))
    for one in found:
        if not dry_run:
            await client.delete_automation(one.id)
    return [Change(KIND, one.name, Outcome.REMOVED) for one in found]
