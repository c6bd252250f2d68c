"""What a prune needs to know, and what a person is asked before anything is deleted."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Self

from prefect.input import RunInput
from pydantic import BaseModel, ConfigDict, Field, model_validator

from flows.parameters.fields import Duration
from flows.parameters.registry import Concurrency, Credentials, StoreText, side
from oci.digest import Digest
from oci.errors import InvalidInput
from oci.prune.keep import Keep
from oci.reference import ARCHIVE_PREFIX, StoreName, parse_store
from oci.registry.form import RegistryForm as RegistryOptions
from tasks.access import Side
from tasks.prune_policy import Policy

Text = Annotated[str, Field(min_length=1, max_length=500)]


class AfterPlan(StrEnum):
    """What happens when the plan is made."""

    ASK = "ask"
    DELETE = "delete"
    STOP = "stop"


class KeepParameters(BaseModel):
    """What is to be kept; any one of these is enough. What a kept manifest needs is kept with it."""

    model_config = ConfigDict(extra="forbid", title="Policy")

    tags: list[Text] = Field(
        default=[], title="Tags", description="By their names.", examples=[["latest"]], max_length=10_000
    )
    patterns: list[Text] = Field(
        default=[],
        title="Patterns",
        description="Regular expressions for whole names of tags.",
        examples=[[r"v\d+\.\d+\.\d+"]],
        max_length=100,
    )
    versions: list[Text] = Field(
        default=[],
        title="Versions",
        description="Ranges of semantic versions, as npm writes them.",
        examples=[["^1.4", ">=2 <3"]],
        max_length=100,
    )
    latest: int = Field(
        default=0, title="Newest versions", description="The tags of so many newest versions.", ge=0, le=100_000
    )
    digests: list[Text] = Field(
        default=[], title="Digests", description="Manifests by digest, with all they list.", max_length=10_000
    )
    locks: list[Text] = Field(
        default=[],
        title="Locks",
        description="ImagesLock and BundleLock files on the worker: what they pin, whatever repository they name.",
        examples=[["/etc/transship/images.lock.yml"]],
        max_length=1000,
    )
    bundles: list[Text] = Field(
        default=[],
        title="Bundles",
        description="Bundles of any repository, by reference: they and all they list are kept.",
        examples=[["registry.corp.example/mirror/shop:1.4.0"]],
        max_length=1000,
    )
    nothing: bool = Field(
        default=False, title="Keep nothing", description="On purpose. A policy that keeps nothing is refused without."
    )

    def keep(self) -> Keep:
        return Keep(
            tags=tuple(self.tags),
            patterns=tuple(self.patterns),
            versions=tuple(self.versions),
            latest=self.latest,
            digests=tuple(map(Digest, self.digests)),
            locks=tuple(self.locks),
            bundles=tuple(self.bundles),
            nothing=self.nothing,
        )


class PruneParameters(BaseModel):
    """Find what a repository has beyond what is to be kept, have it approved, and delete it."""

    model_config = ConfigDict(extra="forbid", title="Prune", hide_input_in_errors=True)

    destination: StoreText = Field(
        title="Destination",
        description="The repository to prune, such as registry.corp.example/mirror/shop, or oci:PATH for a layout "
        "folder.",
        examples=["registry.corp.example/mirror/shop"],
    )
    keep: KeepParameters = Field(
        default_factory=KeepParameters,
        title="Keep",
        description="What is to be kept; any one of these is enough.",
    )
    mirrors: str = Field(
        default="",
        title="Mirrors",
        description="File of mirrors on the worker: what all mirrors to this destination take is kept, too.",
        examples=["/etc/transship/mirrors.yaml"],
        max_length=2000,
    )
    keep_vanished: bool = Field(
        default=True,
        title="Keep what vanished",
        description="What the mirrors' rules take by its name is kept although the source has it no longer.",
    )
    grace: Duration = Field(
        default=timedelta(0),
        title="Grace period",
        description="Delete only what was seen unwanted for so long, such as 7d; each run looks. Since when is kept in "
        "the repository itself.",
    )
    after_plan: AfterPlan = Field(
        default=AfterPlan.ASK,
        title="After the plan",
        description="ask: wait for a person's approval. delete: what has outlasted its grace period goes without "
        "asking. stop: only tell.",
    )
    wait: Duration = Field(
        default=timedelta(days=7),
        title="Wait for approval",
        description="A run that nobody answers within this time fails, and deletes nothing.",
    )
    concurrency: Concurrency = 8
    credentials: Credentials = []
    registry: RegistryOptions = Field(
        default_factory=RegistryOptions, title="Registry", description="How the registry is reached."
    )

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        try:
            store, keep = self.store(), self.keep.keep()
        except InvalidInput as error:
            raise ValueError(str(error)) from error
        if self.destination.startswith(ARCHIVE_PREFIX):
            raise ValueError("nothing can be taken out of an archive")
        if keep.is_empty and not (keep.nothing or self.mirrors):
            raise ValueError("say what to keep, or that it is nothing")
        if self.after_plan is AfterPlan.DELETE and not self.grace:
            raise ValueError("without a grace period somebody has to be asked")
        if self.wait < timedelta(seconds=1):
            raise ValueError("nobody can answer within no time")
        self.destination = str(store)
        return self

    def store(self) -> StoreName:
        return parse_store(self.destination)

    def policy(self) -> Policy:
        return Policy(keep=self.keep.keep().to_dict(), mirrors=self.mirrors, vanished=self.keep_vanished)

    def side(self) -> Side:
        return side(self.registry, self.credentials, self.concurrency)


class PruneApproval(RunInput):
    """What a person answers."""

    approve: bool = Field(
        default=False, title="Delete", description="On: what the plan lists is deleted. Off: nothing is."
    )
    note: str = Field(default="", title="Note", description="For the report: why, or who was asked.", max_length=2000)
