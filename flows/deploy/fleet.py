"""Deployments that all mirrors and relocations of a server share: those of the fleet, and the one that rescues runs."""

from __future__ import annotations

from flows.deploy.declaration import Declaration

NAME = "fleet"
WORK_POOL = "transship-fleet"
"""Not the one of the mirrors: there, runs that wait for their shards could hold every place that a shard needs."""


def fleet() -> tuple[Declaration, ...]:
    """As `deployments/prefect.yaml` has them, so that neither way to deploy undoes what the other did."""
    return (
        _declaration(
            "flows.shard.relocate_shard", "Copies a part of a large relocation, for a run that asks for a fleet."
        ),
        _declaration(
            "flows.mirror_shard.mirror_shard", "Carries some of a mirror's images, for a run that asks for a fleet."
        ),
    )


def rescue() -> Declaration:
    """What the automations of flows.zombie_runs start, where the mirrors run."""
    return Declaration(
        "rescue",
        "Looks after a run that seems dead, and starts it again once.",
        parameters={},
        places=None,
        entrypoint="flows.zombie_runs.rescue",
        unwatched=True,  # with the patience of other runs; it has a tag of its own, see flows.zombie_runs
    )


def _declaration(entrypoint: str, description: str) -> Declaration:
    return Declaration(NAME, description, parameters={}, places=None, entrypoint=entrypoint)
