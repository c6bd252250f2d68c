"""Pruning a repository: plan, a person's approval, deletion, report."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import cast
from uuid import UUID

import msgspec
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.client.schemas.responses import SetStateStatus
from prefect.exceptions import Pause
from prefect.input import RunInput, keyset_from_paused_state
from prefect.logging import get_run_logger
from prefect.runtime import deployment, flow_run
from prefect.states import Suspended
from pydantic import Field

from flows.parameters.forms import OneSide, ShortText, alone, flat, named, without_scheme
from oci.errors import Incomplete, InvalidInput, StoreError, TransshipError
from oci.options import option, required
from oci.prune.plan import PrunePlan, PruneRunReport, Remaining
from oci.prune.policy import Keep, KeepOptions
from oci.reference import ARCHIVE_PREFIX, StoreName, parse_store
from tasks.artifacts.report import artifact_key
from tasks.prune import PrunePolicy, carry_out, in_words, plan_prune, report_prune, undone
from tasks.run import completed, failed, running

GRACE_OR_PERSON = "without a grace period a person has to be asked"


class AfterPlan(StrEnum):
    """What happens when the plan is made."""

    ASK = "ask"
    DELETE = "delete"
    STOP = "stop"


class PruneParameters(OneSide):
    """Find what a repository has beyond what is to be kept, have it approved, and delete it."""

    destination: ShortText = required(
        "The repository to prune, such as registry.corp.example/mirror/shop, or oci:PATH for a layout folder.",
        examples=["registry.corp.example/mirror/shop"],
    )
    keep: KeepOptions = option(KeepOptions(), "What to keep. A manifest that any of these options names is kept.")
    mirrors: str = option(
        "",
        "File of mirrors on the worker, or variable:NAME. What its mirrors to this destination take is kept, too.",
        examples=["/etc/transship/mirrors.yaml"],
        max_length=2000,
    )
    keep_vanished: bool = option(
        True,
        "Keep a tag that the rules of the mirrors take by its name, although the source no longer has it.",
        title="Keep what vanished",
    )
    grace: timedelta = option(
        timedelta(0),
        "Delete only what has been unwanted for this long, such as 7d, as earlier runs have noted in the repository "
        "itself.",
        title="Grace period",
    )
    after_plan: AfterPlan = option(
        AfterPlan.ASK,
        "ask: wait for a person's approval. delete: delete what has outlasted its grace period, without approval. "
        "stop: only show the plan.",
        title="After the plan",
    )
    wait: timedelta = option(
        timedelta(days=7),
        "A run that gets no answer within this time fails, and deletes nothing.",
        title="Wait for approval",
    )

    def __post_init__(self) -> None:
        destination = without_scheme(self.destination)
        store, keep = parse_store(destination), self.policy_keep()
        if destination.startswith(ARCHIVE_PREFIX):
            raise InvalidInput("nothing can be taken out of an archive")
        if keep.is_empty and not (keep.nothing or self.mirrors):
            raise InvalidInput("say what to keep, or that it is nothing")
        if self.after_plan is AfterPlan.DELETE and not self.grace:
            raise InvalidInput(GRACE_OR_PERSON)
        if self.wait < timedelta(seconds=1):
            raise InvalidInput("a person can't answer within no time")
        msgspec.structs.force_setattr(self, "destination", str(store))

    def store(self) -> StoreName:
        return parse_store(self.destination)

    def policy_keep(self) -> Keep:
        return Keep(**msgspec.structs.asdict(self.keep))

    def policy(self) -> PrunePolicy:
        return PrunePolicy(keep=self.policy_keep(), mirrors=self.mirrors, vanished=self.keep_vanished)


class PruneApproval(RunInput):
    """What a person answers."""

    approve: bool = Field(
        default=False, title="Delete", description="On: delete what the plan lists. Off: delete nothing."
    )
    note: str = Field(
        default="", title="Note", description="Text for the report: the reason, or who decided.", max_length=2000
    )


WAITING = "waiting for a person's approval"
"""The message of a run that is suspended begins so."""
HOW_TO_ANSWER = (
    "On the page of this run, press Resume (in the newer UI it is in the menu at the top right), switch Delete on to "
    "delete what the plan lists, or leave it off to delete nothing, and press Resume in the form."
)
ONLY_DEPLOYMENTS_ASK = "no person can be asked: only the run of a deployment can be suspended"


@named(PruneParameters)
def run_name(parameters: PruneParameters) -> str:
    """`prune registry.corp.example/mirror/shop`"""
    return f"prune {parameters.store()}"


@flow(name="prune", flow_run_name=run_name, persist_result=False)
@flat
async def prune(parameters: PruneParameters) -> PruneRunReport:
    """Deletes what a repository has beyond a policy, when a person has approved the plan.

    A run that has something to delete is suspended, which ends its process, until a person resumes it in the UI and
    fills in the form; that takes a deployment. What is deleted is what the plan of this run says, and of that only what
    is unwanted still. Raises Incomplete when something could not be deleted, and any other TransshipError when nothing
    was, because no plan could be made or the registry doesn't delete.
    """
    destination = parameters.store()
    async with running(parameters.run("destination")):
        try:
            written = await _pruned(parameters)
        except TransshipError as error:
            failure = Remaining(subject=str(destination), reason=str(error), retryable=error.retryable)
            report = PruneRunReport(destination=str(destination), outcome="failed", failed=(failure,))
            await report_prune(destination, report)
            return cast("PruneRunReport", failed(error))
        await report_prune(destination, written)
    if not written.failed:
        return completed(written)
    incomplete = Incomplete(
        f"{written.destination}: {len(written.failed)} of {written.planned} could not be deleted",
        [each.as_error for each in written.failed],
        some_done=bool(written.deleted),
        hint="run it again: what is gone is not asked for again",
    )
    return cast("PruneRunReport", failed(incomplete))


async def _pruned(parameters: PruneParameters) -> PruneRunReport:
    if parameters.after_plan is AfterPlan.ASK and deployment.id is None:
        raise InvalidInput(
            ONLY_DEPLOYMENTS_ASK,
            hint="run the deployment prune, or ask for a plan only (after_plan: stop)",
        )
    destination = parameters.store()
    policy = parameters.policy()
    plan = await plan_prune(destination, policy, parameters.grace.total_seconds())
    if plan.is_empty:
        return undone(plan, "nothing to delete")
    if parameters.after_plan is AfterPlan.STOP:
        return undone(plan, "planned")
    note = ""
    if parameters.after_plan is AfterPlan.ASK:
        answer = await _approval(plan, int(parameters.wait.total_seconds()))
        note = answer.note
        if not answer.approve:
            return undone(plan, "denied", note)
    return await carry_out(destination, plan, policy, note)


async def _approval(plan: PrunePlan, seconds: int) -> PruneApproval:
    """Ends this process; when the run is resumed, its next one gets the answer here. The key says what is asked for: if
    the plan should be another by then, because its result was lost, that one is asked for anew. Prefect's own function
    takes no message for the state; one that is put there afterwards may meet the moment in which the run goes on."""
    state: State[None] = Suspended(
        timeout_seconds=seconds,
        pause_key=f"prune-{plan.fingerprint}",
        message=f"{WAITING}: {in_words(plan)}. {HOW_TO_ANSWER}",
    )
    key = artifact_key("prune-plan", plan.destination)
    question = PruneApproval.with_initial_data(
        description=f"**{in_words(plan)}**\n\nUnder Artifacts, `{key}` lists all of it."
    )
    keys = keyset_from_paused_state(state)
    state.state_details.run_input_keyset = {str(kind): key for kind, key in keys.items()}
    async with get_client() as client:
        answer = await client.set_flow_run_state(UUID(flow_run.id), state)
    if answer.status is SetStateStatus.REJECT and answer.state is not None:
        if answer.state.is_paused():
            raise Pause(state=answer.state)
        if answer.state.is_running():
            return await question.aload(keys)  # this was asked before, and the run was resumed
    if answer.status is not SetStateStatus.ACCEPT:
        raise StoreError(f"the run can't be suspended: {getattr(answer.details, 'reason', answer.status)}")
    await question.asave(keys)
    get_run_logger().warning("%s. %s", WAITING, HOW_TO_ANSWER)
    raise Pause(state=Suspended())  # its message would be in the log a second time


prune_sync = alone(prune, PruneParameters)
