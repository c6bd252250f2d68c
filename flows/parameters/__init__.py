"""The parameters of the flows: one model each, so that the form in the Prefect UI explains itself."""

from flows.parameters.registry import BlockName, RegistryOptions
from flows.parameters.relocate import Artifact, RelocateParameters, SourceKind, Verify

__all__ = ["Artifact", "BlockName", "RegistryOptions", "RelocateParameters", "SourceKind", "Verify"]
