"""The parameters of a prune, and what a person is asked before anything is deleted."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum

import msgspec
from prefect.input import RunInput
from pydantic import Field

from flows.parameters.forms import CONCURRENCY, CREDENTIALS, REGISTRY, BlockName, OneSide, ShortText, without_scheme
from oci.errors import InvalidInput
from oci.options import Options, option, required
from oci.prune.plan import Keep, KeepOptions
from oci.reference import ARCHIVE_PREFIX, StoreName, parse_store
from oci.registry.options import RegistryOptions
from tasks.prune import PrunePolicy

GRACE_OR_PERSON = "without a grace period a person has to be asked"


class AfterPlan(StrEnum):
    """What happens when the plan is made."""

    ASK = "ask"
    DELETE = "delete"
    STOP = "stop"


class PruneParameters(OneSide, Options):
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
    concurrency: int = CONCURRENCY
    credentials: tuple[BlockName, ...] = CREDENTIALS
    registry: RegistryOptions = REGISTRY

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
