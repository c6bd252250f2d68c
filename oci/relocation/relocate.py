"""The four steps in a row, for drivers that don't take them apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from oci.meter import Receipt
from oci.relocation.plan import Plan
from oci.relocation.planner import make_plan
from oci.relocation.publish import Published, publish
from oci.relocation.request import RelocationRequest
from oci.relocation.session import Session
from oci.relocation.transfer import ImageOutcome, transfer_all


@dataclass(frozen=True, slots=True, kw_only=True)
class RelocationResult:
    """A relocation that is complete."""

    plan: Plan
    outcomes: tuple[ImageOutcome, ...]
    published: Published
    receipt: Receipt


def relocate(
    session: Session,
    request: RelocationRequest,
    *,
    on_plan: Callable[[Plan], None] | None = None,
    on_done: Callable[[ImageOutcome], None] | None = None,
) -> RelocationResult:
    """Plans, transfers and publishes. Raises Incomplete, having moved no name, when an image failed."""
    plan = make_plan(session, request)
    if on_plan is not None:
        on_plan(plan)
    outcomes = transfer_all(session, plan, on_done=on_done)
    published = publish(session, plan, outcomes)
    return RelocationResult(plan=plan, outcomes=outcomes, published=published, receipt=session.meter.receipt())
