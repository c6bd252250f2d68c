"""The former name of RegistryOptions, until all of `oci/registry/http` imports the new one."""

from __future__ import annotations

from oci.registry.options import RegistryOptions as RegistrySettings

__all__ = ["RegistrySettings"]
