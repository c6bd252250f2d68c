"""Which cloud keychains are active: IMGPKG_ACTIVE_KEYCHAINS, or IMGPKG_ENABLE_IAAS_AUTH for all of them."""

from __future__ import annotations

from collections.abc import Mapping

from oci.errors import InvalidInput
from oci.registry.credentials import CredentialSource
from oci.registry.keychains.azure import AzureKeychain
from oci.registry.keychains.ecr import EcrKeychain
from oci.registry.keychains.github import GitHubKeychain
from oci.registry.keychains.google import GoogleKeychain

NAMES = ("gke", "ecr", "aks", "github")


def active_keychains(environ: Mapping[str, str]) -> list[CredentialSource]:
    """In the order they are listed. Raises InvalidInput for a name that is none."""
    listed = [name.strip() for name in environ.get("IMGPKG_ACTIVE_KEYCHAINS", "").split(",") if name.strip()]
    if environ.get("IMGPKG_ENABLE_IAAS_AUTH") == "true":
        listed = list(NAMES)
    unknown = [name for name in listed if name not in NAMES]
    if unknown:
        raise InvalidInput(
            f"unknown keychain {unknown[0]!r} in IMGPKG_ACTIVE_KEYCHAINS", hint=f"known are {', '.join(NAMES)}"
        )
    made: dict[str, CredentialSource] = {
        "gke": GoogleKeychain(),
        "ecr": EcrKeychain(),
        "aks": AzureKeychain(),
        "github": GitHubKeychain(environ),
    }
    return [made[name] for name in dict.fromkeys(listed)]
