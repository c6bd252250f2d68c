"""The parameters of the flows: one model each, so that the form in the Prefect UI explains itself."""

from flows.parameters.describe import DescribeParameters
from flows.parameters.fleet import FleetOptions
from flows.parameters.mirror import MirrorCheckParameters, MirrorParameters
from flows.parameters.parts import PartsParameters
from flows.parameters.prune import AfterPlan, KeepParameters, PruneApproval, PruneParameters
from flows.parameters.pull import PullParameters
from flows.parameters.push import PushParameters
from flows.parameters.registry import BlockName
from flows.parameters.relocate import RelocateParameters, SourceKind
from flows.parameters.shard import ShardParameters
from flows.parameters.tags import TagAction, TagsParameters
from flows.parameters.tarball import TarballOptions
from flows.parameters.verify import VerifyParameters
from oci.registry.form import RegistryForm as RegistryOptions
from oci.relocation.request import Artifact
from oci.relocation.run import Verify

__all__ = [
    "AfterPlan",
    "Artifact",
    "BlockName",
    "DescribeParameters",
    "FleetOptions",
    "KeepParameters",
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
