"""One automation on the server, known by its name."""

from __future__ import annotations

from typing import Any

from prefect.automations import AutomationCore
from prefect.client.orchestration import PrefectClient

from flows.deploy.change import Change, Outcome, different

_COMPARED = ("description", "trigger", "actions", "actions_on_trigger", "actions_on_resolve")


async def put(
    client: PrefectClient, wanted: AutomationCore, *, kind: str = "automation", dry_run: bool = False
) -> Change:
    """Creates it, or changes it where it differs. One that a person switched off stays off."""
    existing = await client.read_automations_by_name(wanted.name)
    if not existing:
        if not dry_run:
            await client.create_automation(wanted)
        return Change(kind, wanted.name, Outcome.CREATED)
    there = existing[0]
    change = different(kind, wanted.name, (key for key in _COMPARED if _plain(there, key) != _plain(wanted, key)))
    if change.outcome is Outcome.UPDATED and not dry_run:
        # Only fields that were set are sent, and the server wants all of them.
        whole = AutomationCore.model_validate(
            wanted.model_dump(exclude={"owner_resource"}) | {"enabled": there.enabled}
        )
        await client.update_automation(there.id, whole)
    return change


def _plain(automation: AutomationCore, key: str) -> Any:
    return _ordered(automation.model_dump(mode="json")[key])


def _ordered(value: Any) -> Any:
    """Without the ids that the server gives, and with lists that stand for sets in one order."""
    if isinstance(value, dict):
        return {key: _ordered(one) for key, one in value.items() if key != "id"}
    if isinstance(value, list):
        return sorted((_ordered(one) for one in value), key=repr)
    return value
