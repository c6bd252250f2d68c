"""The logins of clouds: which are active (IMGPKG_ACTIVE_KEYCHAINS, or IMGPKG_ENABLE_IAAS_AUTH for all of them)."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Protocol

from oci.errors import InvalidInput
from oci.registry.credentials.clouds import AzureKeychain, EcrKeychain, GoogleKeychain
from oci.registry.credentials.credential import Credential, Memo
from oci.registry.http.origin import canonical_host

VARIABLE = "IMGPKG_ACTIVE_KEYCHAINS"
_ALL = "IMGPKG_ENABLE_IAAS_AUTH"
_GITHUB = "ghcr.io"
_COVERS: Mapping[str, Callable[[str], bool]] = {
    "gke": GoogleKeychain.covers,
    "ecr": EcrKeychain.covers,
    "aks": AzureKeychain.covers,
    "github": _GITHUB.__eq__,
}
NAMES = tuple(_COVERS)

_logins = Memo()


class Cloud(Protocol):
    """Gets the login of a registry from its cloud; None for a registry of another cloud."""

    def find(self, registry: str, repository: str) -> Credential | None: ...


class Keychain:
    """A cloud's login is for a whole registry, and slow to get: each is fetched once in a process, for all repositories
    and both sides, until it expires or is refused."""

    def __init__(self, name: str, cloud: Cloud, environ: Mapping[str, str], identity: str = "") -> None:
        """`identity` tells logins of one cloud apart."""
        self._name = name
        self._cloud = cloud
        self._identity = identity
        self._environ = frozenset(environ.items())

    def find(self, registry: str, repository: str) -> Credential | None:
        host = canonical_host(registry)
        if not _COVERS[self._name](host):
            return None
        return _logins.get(
            (self._name, host, self._identity, self._environ), lambda: self._cloud.find(host, repository)
        )

    def renew(self, registry: str, repository: str, refused: Credential) -> None:
        del repository
        _logins.forget((self._name, canonical_host(registry), self._identity, self._environ), refused)


class GitHubKeychain:
    """`ghcr.io` with GITHUB_TOKEN; the user is GITHUB_ACTOR, which the registry doesn't look at."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def find(self, registry: str, repository: str) -> Credential | None:
        del repository
        token = self._environ.get("GITHUB_TOKEN", "")
        if registry != _GITHUB or not token:
            return None
        return Credential(self._environ.get("GITHUB_ACTOR") or "unset", token, origin="GITHUB_TOKEN")


def active_keychains(environ: Mapping[str, str], warn: Callable[[str], None]) -> list[Keychain]:
    """In the order they are listed. Raises InvalidInput for an unknown name, with imgpkg's sentence."""
    if _ALL in environ:
        warn(f"{_ALL} is deprecated: name the keychains in {VARIABLE}={','.join(NAMES)}")
    listed = [name.strip() for name in environ.get(VARIABLE, "").split(",") if name.strip()]
    if environ.get(_ALL) == "true":
        listed = list(NAMES)
    unknown = [name for name in listed if name not in NAMES]
    if unknown:
        available = ", ".join(sorted(NAMES, key=("aks", "ecr", "gke", "github").index))  # in imgpkg's order
        raise InvalidInput(
            f"Unable to load keychain for {unknown[0]}, available keychains [{available}]",
            hint=f"correct the variable {VARIABLE}",
        )
    clouds: dict[str, Callable[[], Cloud]] = {
        "gke": GoogleKeychain,
        "ecr": EcrKeychain,
        "aks": AzureKeychain,
        "github": lambda: GitHubKeychain(environ),
    }
    return [Keychain(name, clouds[name](), environ) for name in dict.fromkeys(listed)]


def amazon(profile: str, role: str) -> Keychain:
    """The login of a profile of the AWS config files, or of a role, whatever keychains are active."""
    return Keychain("ecr", EcrKeychain(profile, role), os.environ, f"{profile} {role}")


def advice(registry: str) -> str:
    """What to set for the keychain that has a registry's logins; empty for a registry of no cloud."""
    name = next((name for name, covers in _COVERS.items() if covers(registry)), "")
    return f"{VARIABLE}={name} uses the login of its cloud" if name else ""
