"""Automations on the Prefect server: created, compared and removed by name.

A trigger starts a mirror when a registry reports a push. An alarm notifies people of runs that failed and of
destinations that drifted.
"""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

from prefect.automations import AutomationCore
from prefect.events.actions import CallWebhook, RunDeployment, SendNotification
from prefect.events.schemas.automations import EventTrigger
from prefect.events.schemas.events import ResourceSpecification

from flows.deploy.deployments import Declaration, Outcome, PushTrigger, Server, compared, group_tag, or_none
from flows.receiver.outbox import PUSHED, resource_id
from oci.errors import InvalidInput

_COMPARED = ("description", "trigger", "actions", "actions_on_trigger", "actions_on_resolve")


async def put_automation(server: Server, automation: AutomationCore, kind: str = "automation") -> None:
    """Creates it, or changes it where it differs. One that a person switched off stays off."""
    existing = await server.client.read_automations_by_name(automation.name)
    if not existing:
        if not server.dry_run:
            await server.client.create_automation(automation)
        server.note(kind, automation.name, Outcome.CREATED)
        return
    actual, expected = (_ordered(each.model_dump(mode="json")) for each in (existing[0], automation))
    outcome, differences = compared(key for key in _COMPARED if actual[key] != expected[key])
    if outcome is Outcome.UPDATED and not server.dry_run:
        # Only fields that were set are sent, and the server wants all of them.
        whole = AutomationCore.model_validate(
            automation.model_dump(exclude={"owner_resource"}) | {"enabled": existing[0].enabled}
        )
        await server.client.update_automation(existing[0].id, whole)
    server.note(kind, automation.name, outcome, differences)


def _ordered(value: Any) -> Any:
    """Removes the ids that the server gives, and sorts lists that stand for sets."""
    if isinstance(value, dict):
        return {key: _ordered(item) for key, item in value.items() if key != "id"}
    if isinstance(value, list):
        return sorted((_ordered(item) for item in value), key=repr)
    return value


KIND = "trigger"


def trigger_name(deployment: str) -> str:
    return f"transship: {deployment}"


def push_automation(declaration: Declaration, trigger: PushTrigger, deployment: UUID) -> AutomationCore:
    """Returns the automation of a push. A push to a repository runs the mirror for the pushed tag alone; a push of a
    bundle runs it whole, since a bundle is one tag."""
    match: dict[str, str | list[str]] = {"prefect.resource.id": resource_id(trigger.repository)}
    parameters = literal(declaration.parameters)
    if trigger.tag:
        match["transship.tag"] = trigger.tag
    else:
        parameters["only"] = ["{{ event.payload.repository }}:{{ event.payload.tag }}"]
    return AutomationCore(
        name=trigger_name(declaration.name),
        description="Mirrors a tag as soon as its registry tells that it was pushed.",
        trigger=EventTrigger(expect={PUSHED}, match=ResourceSpecification(match)),
        actions=[RunDeployment(source="selected", deployment_id=deployment, parameters=parameters, job_variables=None)],
    )


def literal(value: Any) -> Any:
    """Parameters of an action are templates; text that looks like one, such as a regular expression, stays as it is."""
    if isinstance(value, dict):
        return {key: literal(item) for key, item in value.items()}
    if isinstance(value, list):
        return [literal(item) for item in value]
    if isinstance(value, str) and ("{{" in value or "{%" in value or "{#" in value):
        return {"__prefect_kind": "none", "value": value}
    return value


async def put_trigger(server: Server, declaration: Declaration, trigger: PushTrigger, deployment: UUID | None) -> None:
    if deployment is None:  # the deployment would be made first
        server.note(KIND, trigger_name(declaration.name), Outcome.CREATED)
    else:
        await put_automation(server, push_automation(declaration, trigger, deployment), KIND)


async def remove_trigger(server: Server, deployment: str) -> None:
    """Removes the trigger of a deployment that is removed."""
    for existing in await server.client.read_automations_by_name(trigger_name(deployment)):
        if not server.dry_run:
            await server.client.delete_automation(existing.id)
        server.note(KIND, existing.name, Outcome.REMOVED)


def parse_block(name: str) -> tuple[str, str]:
    """`slack-webhook/ops` into its type and its name. Raises InvalidInput."""
    kind, slash, block = name.partition("/")
    if not (kind and slash and block) or "/" in block:
        raise InvalidInput(
            f"{name!r} names no block", hint="write TYPE/NAME, such as slack-webhook/ops or webhook/alerts"
        )
    return kind, block


async def put_alarms(server: Server, block: str, group: str) -> None:
    """`block` is TYPE/NAME: a block of the type webhook is called with JSON, any other is a notification block, such as
    Slack's. Where it isn't there yet, nothing is made. Raises InvalidInput."""
    kind, name = parse_block(block)
    document = await or_none(server.client.read_block_document_by_name(name, kind, include_secrets=False))
    if document is None:
        server.note("block", block, Outcome.MISSING, "make it in the UI under Blocks, then deploy again")
        return
    failure = AutomationCore(
        name=f"transship: a mirror failed ({group})",
        description="Tells that a run of a mirror failed, crashed or took too long.",
        trigger=EventTrigger(
            expect={"prefect.flow-run.Failed", "prefect.flow-run.Crashed", "prefect.flow-run.TimedOut"},
            match=ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"}),
            match_related=ResourceSpecification(
                {"prefect.resource.id": f"prefect.tag.{group_tag(group)}", "prefect.resource.role": "tag"}
            ),
        ),
        actions=[
            _tell(
                kind,
                document.id,
                "Mirror {{ deployment.name }}: {{ flow_run.state.name }}",
                {
                    "mirror": "{{ deployment.name }}",
                    "run": "{{ flow_run.name }}",
                    "state": "{{ flow_run.state.name }}",
                    "message": "{{ flow_run.state.message }}",
                    "address": "{{ flow_run | ui_url }}",
                },
            )
        ],
    )
    drift = AutomationCore(
        name=f"transship: a mirror drifted ({group})",
        description="Tells that a destination isn't what its source and the rules say.",
        trigger=EventTrigger(expect={"transship.mirror.drifted"}),
        actions=[
            _tell(
                kind,
                document.id,
                "Mirror {{ event.resource.name }} drifted",
                {"mirror": "{{ event.resource.name }}", "state": "drifted", "details": "{{ event.payload }}"},
            )
        ],
    )
    for alarm in (failure, drift):
        await put_automation(server, alarm)


def _tell(kind: str, block: UUID, subject: str, facts: dict[str, str]) -> SendNotification | CallWebhook:
    if kind == "webhook":
        return CallWebhook(block_document_id=block, payload=_as_json(facts))
    body = "\n".join(f"{name}: {fact}" for name, fact in facts.items())
    return SendNotification(block_document_id=block, subject=subject, body=body)


def _as_json(facts: dict[str, str]) -> str:
    """A template that gives JSON whatever quotes and line ends stand in what it is filled with."""
    pairs = []
    for name, fact in facts.items():
        value = f"{fact.removesuffix(' }}')} | tojson }}}}" if fact.startswith("{{") else json.dumps(fact)
        pairs.append(f"{json.dumps(name)}: {value}")
    return "{" + ", ".join(pairs) + "}"
