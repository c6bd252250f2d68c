"""The parameters of the flows: one model each, so that the form in the Prefect UI explains itself."""

from flows.parameters.registry import BlockName
from flows.parameters.relocate import RelocateParameters, SourceKind, Verify
from oci.registry.options import RegistryOptions
from oci.relocation.request import Artifact

__all__ = ["Artifact", "BlockName", "RegistryOptions", "RelocateParameters", "SourceKind", "Verify"]
