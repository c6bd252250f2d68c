"""What running and checking mirrors need to know."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from flows.parameters.fields import MirrorsField
from flows.parameters.fleet import FleetOptions
from oci.errors import InvalidInput
from oci.mirror.config import Mirror, MirrorsConfig
from oci.mirror.policy import Policy
from oci.mirror.reader import read_config
from oci.mirror.work import WorkItem

_LAST: dict[str, JsonValue] = {"position": 1}
"""Where the form of the Prefect UI puts a field; others are at 0. Pages of rules come after what is changed often."""

_Name = Annotated[str, Field(min_length=1, max_length=2000)]


class MirrorCheckParameters(BaseModel):
    """Tell where the destinations of mirrors differ from what the mirrors say. Nothing is written."""

    model_config = ConfigDict(extra="forbid", title="Mirror check", hide_input_in_errors=True)

    path: str = Field(
        default="",
        title="File of mirrors",
        description="mirrors.yaml on the machine of the run; or give the mirrors themselves, at the end of this form.",
        examples=["/etc/transship/mirrors.yaml"],
        max_length=2000,
    )
    config: MirrorsField | None = Field(
        default=None,
        title="Mirrors",
        description="The mirrors themselves, as such a file has them.",
        json_schema_extra=_LAST,
    )
    names: list[_Name] = Field(
        default=[],
        title="Names",
        description="Run these mirrors only. Empty: all of them.",
        examples=[["shop-web"]],
        max_length=1000,
    )
    only: list[_Name] = Field(
        default=[],
        title="Only",
        description="Look at nothing but these: REGISTRY/REPOSITORY:TAG, one each, as the `only` of a report that had "
        "failures lists them. What no mirror takes is left alone.",
        examples=[["registry.example/shop/web:1.4.0"]],
        max_length=10_000,
    )

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if bool(self.path) == (self.config is not None):
            raise ValueError("give either the file of mirrors or the mirrors themselves")
        if self.config is not None:
            try:
                self.config.chosen(self.names)
            except InvalidInput as error:
                raise ValueError(str(error)) from error
        return self

    def read(self) -> tuple[MirrorsConfig, tuple[Mirror, ...]]:
        """Raises InvalidDocument, InvalidInput or StoreError for a file that can't be used."""
        config = self.config or read_config(self.path)
        return config, config.chosen(self.names)


class MirrorParameters(MirrorCheckParameters):
    """Copy what is missing or changed at the destinations of mirrors."""

    model_config = ConfigDict(extra="forbid", title="Mirror", hide_input_in_errors=True)

    audit: bool = Field(
        default=False,
        title="Audit immutable tags",
        description="Ask for immutable tags as well, which takes two requests each, and tell when one has moved.",
    )
    fleet: FleetOptions | None = Field(
        default=None,
        title="Fleet",
        description="Spread many changed images over the workers of a work pool. None: this run carries all of them.",
    )


class MirrorShardParameters(BaseModel):
    """Some of the changed images of a mirror. Such runs are started by a run of the mirror."""

    model_config = ConfigDict(extra="forbid", title="Mirror shard", hide_input_in_errors=True)

    config: MirrorsField = Field(title="Mirror", description="The mirror, and the registries that it uses.")
    items: list[dict[str, Any]] = Field(title="Work", description="The images to carry.", max_length=1000)

    @classmethod
    def sent(cls, config: MirrorsConfig, mirror: Mirror, items: Sequence[WorkItem]) -> dict[str, Any]:
        """As the flow run that is to carry them out gets them."""
        alone = config.with_(mirrors=(mirror,), defaults=Policy())
        parameters = cls(config=alone, items=[item.to_dict() for item in items])
        return {"parameters": parameters.model_dump(mode="json", exclude_defaults=True)}

    def work(self) -> tuple[WorkItem, ...]:
        """Raises InvalidDocument."""
        return tuple(map(WorkItem.from_dict, self.items))
