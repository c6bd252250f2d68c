"""Which cloud keychains are active: IMGPKG_ACTIVE_KEYCHAINS, or IMGPKG_ENABLE_IAAS_AUTH for all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from oci.errors import InvalidInput
from oci.registry.credentials import azure, ecr, github, google
from oci.registry.credentials.azure import AzureKeychain
from oci.registry.credentials.credential import CredentialSource
from oci.registry.credentials.ecr import EcrKeychain
from oci.registry.credentials.github import GitHubKeychain
from oci.registry.credentials.google import GoogleKeychain

_COVERS = {"gke": google.covers, "ecr": ecr.covers, "aks": azure.covers, "github": github.covers}
NAMES = tuple(_COVERS)
VARIABLE = "IMGPKG_ACTIVE_KEYCHAINS"
_ALL = "IMGPKG_ENABLE_IAAS_AUTH"


def active_keychains(environ: Mapping[str, str], warn: Callable[[str], None]) -> list[CredentialSource]:
    """In the order they are listed. Raises InvalidInput for a name that is none."""
    if _ALL in environ:
        warn(f"{_ALL} is deprecated: name the keychains in {VARIABLE}={','.join(NAMES)}")
    listed = [name.strip() for name in environ.get(VARIABLE, "").split(",") if name.strip()]
    if environ.get(_ALL) == "true":
        listed = list(NAMES)
    unknown = [name for name in listed if name not in NAMES]
    if unknown:
        raise InvalidInput(f"unknown keychain {unknown[0]!r} in {VARIABLE}", hint=f"known are {', '.join(NAMES)}")
    made: dict[str, CredentialSource] = {
        "gke": GoogleKeychain(),
        "ecr": EcrKeychain(),
        "aks": AzureKeychain(),
        "github": GitHubKeychain(environ),
    }
    return [made[name] for name in dict.fromkeys(listed)]


def advice(registry: str) -> str:
    """What to set for the keychain that knows a registry's logins; empty for a registry of no cloud."""
    name = next((name for name, covers in _COVERS.items() if covers(registry)), "")
    return f"{VARIABLE}={name} uses the login of its cloud" if name else ""
