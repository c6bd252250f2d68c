"""The parameters of running and checking mirrors."""

from __future__ import annotations

import re
from typing import Any

from flows.parameters.fleet import FleetOptions, QueueName
from flows.parameters.forms import ShortText
from oci.errors import InvalidInput
from oci.mirror.config import Mirror, MirrorsConfig
from oci.options import Options, option, required
from oci.signatures.artifacts import MirrorReceipts
from tasks.blocks import read_mirrors
from tasks.fleet.queue import ShardQueue


class MirrorCheckParameters(Options):
    """Find where the destinations of mirrors differ from what the mirrors say. Nothing is written."""

    path: str = option(
        "",
        "mirrors.yaml on the machine of the run, or variable:NAME for a variable of Prefect; or give the mirrors "
        "themselves, at the end of this form.",
        title="File of mirrors",
        examples=["/etc/transship/mirrors.yaml", "variable:mirrors"],
        max_length=2000,
    )
    names: tuple[ShortText, ...] = option(
        (), "Run these mirrors only. Empty: all of them.", examples=[["shop-web"]], max_length=1000
    )
    only: tuple[ShortText, ...] = option(
        (),
        "Look at these tags only: REGISTRY/REPOSITORY:TAG, as `only` of a report with failures lists them. A tag that "
        "no mirror takes is ignored.",
        examples=[["registry.example/shop/web:1.4.0"]],
        max_length=10_000,
    )
    config: MirrorsConfig | None = option(
        None, "The mirrors themselves, in the form of a file of mirrors.", title="Mirrors", group="advanced"
    )

    def __post_init__(self) -> None:
        if bool(self.path) == (self.config is not None):
            raise InvalidInput("give either the file of mirrors or the mirrors themselves")
        if self.config is not None:
            self.config.chosen(self.names)

    def chosen(self) -> tuple[MirrorsConfig, tuple[Mirror, ...]]:
        """Raises InvalidDocument, InvalidInput or StoreError for a file that can't be used."""
        config = self.config or read_mirrors(self.path)
        return config, config.chosen(self.names)


class MirrorParameters(MirrorCheckParameters):
    """Copy what is missing or changed at the destinations of mirrors."""

    audit: bool = option(
        False,
        "Ask for immutable tags as well, which takes two requests each, and report when one has moved.",
        title="Audit immutable tags",
    )
    fleet: FleetOptions | None = option(
        None,
        "Spread many changed images over the workers of a work pool. None: this run carries all of them.",
        group="advanced",
    )


class MirrorShardParameters(Options):
    """Help with a mirror. Such runs are started by a run of the mirror."""

    config: MirrorsConfig = required("The mirror, and the registries that it uses.", title="Mirror")
    queue: QueueName = required("Where the shards are.")

    @classmethod
    def sent(cls, config: MirrorsConfig, mirror: Mirror, queue: ShardQueue) -> dict[str, Any]:
        """Returns the parameters of a flow run that helps with `mirror`."""
        # The run that is helped writes the receipts, with files of its own machine.
        named = mirror.with_(receipts=MirrorReceipts(), name=re.sub(r"[^a-z0-9]+", "-", mirror.name).strip("-")[:100])
        alone = config.with_(mirrors=(named,))
        return cls(config=alone, queue=QueueName.of(queue)).to_dict()
