"""The parameters of the flows: one value each; forms are derived from its declarations."""

from flows.parameters.describe import DescribeParameters
from flows.parameters.fleet import FleetOptions
from flows.parameters.mirror import MirrorCheckParameters, MirrorParameters
from flows.parameters.parts import PartsParameters
from flows.parameters.prune import AfterPlan, PruneApproval, PruneParameters
from flows.parameters.pull import PullParameters
from flows.parameters.push import PushParameters
from flows.parameters.registry import BlockName
from flows.parameters.relocate import RelocateParameters, SourceKind
from flows.parameters.shard import ShardParameters
from flows.parameters.tags import TagAction, TagsParameters
from flows.parameters.tarball import TarballOptions
from flows.parameters.verify import VerifyParameters
from oci.prune.keep import KeepOptions
from oci.registry.options import RegistryOptions
from oci.relocation.request import Artifact
from oci.relocation.run import Verify

__all__ = [
    "AfterPlan",
    "Artifact",
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
]
