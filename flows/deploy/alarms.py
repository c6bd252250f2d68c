"""Automations that tell people: of runs that failed, and of destinations that drifted from their source."""

from __future__ import annotations

import json
from uuid import UUID

from prefect.automations import AutomationCore
from prefect.client.orchestration import PrefectClient
from prefect.events.actions import CallWebhook, SendNotification
from prefect.events.schemas.automations import EventTrigger
from prefect.events.schemas.events import ResourceSpecification
from prefect.exceptions import ObjectNotFound

from flows.deploy.automation import put
from flows.deploy.change import Change, Outcome
from flows.deploy.deployments import group_tag
from oci.errors import InvalidInput

ENDED_BADLY = frozenset({"prefect.flow-run.Failed", "prefect.flow-run.Crashed", "prefect.flow-run.TimedOut"})
DRIFTED = frozenset({"transship.mirror.drifted"})

_KIND = "automation"
_WEBHOOK = "webhook"

Action = SendNotification | CallWebhook


def parse_block(name: str) -> tuple[str, str]:
    """`slack-webhook/ops` into its type and its name. Raises InvalidInput."""
    kind, slash, block = name.partition("/")
    if not (kind and slash and block) or "/" in block:
        raise InvalidInput(
            f"{name!r} names no block", hint="write TYPE/NAME, such as slack-webhook/ops or webhook/alerts"
        )
    return kind, block


async def put_alarms(client: PrefectClient, block: str, group: str, *, dry_run: bool) -> list[Change]:
    """`block` is TYPE/NAME: a block of the type webhook is called with JSON, any other is a notification block, such as
    Slack's. Where it isn't there yet, nothing is made. Raises InvalidInput."""
    kind, name = parse_block(block)
    try:
        found = await client.read_block_document_by_name(name, kind, include_secrets=False)
    except ObjectNotFound:
        return [Change("block", block, Outcome.MISSING, "make it in the UI under Blocks, then deploy again")]
    alarms = (failure(kind, found.id, group), drift(kind, found.id, group))
    return [await put(client, alarm, kind=_KIND, dry_run=dry_run) for alarm in alarms]


def failure(kind: str, block: UUID, group: str) -> AutomationCore:
    """Of any run of the group's deployments, whatever ended it."""
    return AutomationCore(
        name=f"transship: a mirror failed ({group})",
        description="Tells that a run of a mirror failed, crashed or took too long.",
        trigger=EventTrigger(
            expect=set(ENDED_BADLY),
            match=ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"}),
            match_related=ResourceSpecification(
                {"prefect.resource.id": f"prefect.tag.{group_tag(group)}", "prefect.resource.role": "tag"}
            ),
        ),
        actions=[
            _tell(
                kind,
                block,
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


def drift(kind: str, block: UUID, group: str) -> AutomationCore:
    """Of a check or a run that found a destination other than its source, or a tag that must not move moved."""
    return AutomationCore(
        name=f"transship: a mirror drifted ({group})",
        description="Tells that a destination isn't what its source and the rules say.",
        trigger=EventTrigger(expect=set(DRIFTED)),
        actions=[
            _tell(
                kind,
                block,
                "Mirror {{ event.resource.name }} drifted",
                {"mirror": "{{ event.resource.name }}", "state": "drifted", "details": "{{ event.payload }}"},
            )
        ],
    )


def _tell(kind: str, block: UUID, subject: str, facts: dict[str, str]) -> Action:
    if kind == _WEBHOOK:
        return CallWebhook(block_document_id=block, payload=_as_json(facts))
    return SendNotification(
        block_document_id=block, subject=subject, body="\n".join(f"{name}: {fact}" for name, fact in facts.items())
    )


def _as_json(facts: dict[str, str]) -> str:
    """A template that gives JSON whatever quotes and line ends stand in what it is filled with."""
    pairs = (f"{json.dumps(name)}: {_quoted(fact)}" for name, fact in facts.items())
    return "{" + ", ".join(pairs) + "}"


def _quoted(fact: str) -> str:
    return f"{fact.removesuffix(' }}')} | tojson }}}}" if fact.startswith("{{") else json.dumps(fact)
