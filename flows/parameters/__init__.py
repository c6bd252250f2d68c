"""The parameters of the flows: one value each; forms are derived from its declarations."""

from flows.parameters.files import PullParameters, PushParameters
from flows.parameters.fleet import FleetOptions
from flows.parameters.inspect import (
    DescribeParameters,
    TagAction,
    TagsParameters,
    VerifyParameters,
    VerifyReceiptParameters,
)
from flows.parameters.mirror import MirrorCheckParameters, MirrorParameters
from flows.parameters.prune import AfterPlan, PruneApproval, PruneParameters
from flows.parameters.registry import BlockName
from flows.parameters.relocate import RelocateParameters, SourceKind, TarballOptions
from flows.parameters.shard import PartsParameters, ShardParameters
from oci.prune.keep import KeepOptions
from oci.registry.options import RegistryOptions
from oci.relocation.run import Verify

__all__ = [
    "AfterPlan",
    "BlockName",
    "DescribeParameters",
    "FleetOptions",
    "KeepOptions",
    "MirrorCheckParameters",
    "MirrorParameters",
    "PartsParameters",
    "PruneApproval",
    "PruneParameters",
    "PullParameters",
    "PushParameters",
    "RegistryOptions",
    "RelocateParameters",
    "ShardParameters",
    "SourceKind",
    "TagAction",
    "TagsParameters",
    "TarballOptions",
    "Verify",
    "VerifyParameters",
    "VerifyReceiptParameters",
]
