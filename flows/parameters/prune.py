"""The parameters of a prune, and what a person is asked before anything is deleted."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import Annotated

import msgspec
from prefect.input import RunInput
from pydantic import Field

from flows.parameters.forms import Concurrency, Credentials, OneSide, Registry, ShortText, without_scheme
from oci.errors import InvalidInput
from oci.options import Options, option
from oci.prune.plan import Keep, KeepOptions
from oci.reference import ARCHIVE_PREFIX, StoreName, parse_store
from oci.registry.options import DEFAULT_CONCURRENCY, RegistryOptions
from tasks.prune import PrunePolicy

GRACE_OR_PERSON = "without a grace period a person has to be asked"


class AfterPlan(StrEnum):
    """What happens when the plan is made."""

    ASK = "ask"
    DELETE = "delete"
    STOP = "stop"


class PruneParameters(OneSide, Options, frozen=True, kw_only=True):
    """Find what a repository has beyond what is to be kept, have it approved, and delete it."""

    destination: Annotated[
        ShortText,
        option(
            "Destination",
            "The repository to prune, such as registry.corp.example/mirror/shop, or oci:PATH for a layout folder.",
            examples=["registry.corp.example/mirror/shop"],
        ),
    ]
    keep: Annotated[
        KeepOptions, option("Keep", "What to keep. A manifest that any of these options names is kept.")
    ] = KeepOptions()
    mirrors: Annotated[
        str,
        option(
            "Mirrors",
            "File of mirrors on the worker, or variable:NAME. What its mirrors to this destination take is kept, too.",
            examples=["/etc/transship/mirrors.yaml"],
            max_length=2000,
        ),
    ] = ""
    keep_vanished: Annotated[
        bool,
        option(
            "Keep what vanished",
            "Keep a tag that the rules of the mirrors take by its name, although the source no longer has it.",
        ),
    ] = True
    grace: Annotated[
        timedelta,
        option(
            "Grace period",
            "Delete only what has been unwanted for this long, such as 7d, as earlier runs have noted in the "
            "repository itself.",
        ),
    ] = timedelta(0)
    after_plan: Annotated[
        AfterPlan,
        option(
            "After the plan",
            "ask: wait for a person's approval. delete: delete what has outlasted its grace period, without approval. "
            "stop: only show the plan.",
        ),
    ] = AfterPlan.ASK
    wait: Annotated[
        timedelta,
        option("Wait for approval", "A run that gets no answer within this time fails, and deletes nothing."),
    ] = timedelta(days=7)
    concurrency: Concurrency = DEFAULT_CONCURRENCY
    credentials: Credentials = ()
    registry: Registry = RegistryOptions()

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
