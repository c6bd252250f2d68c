"""The chain of places where credentials are looked for, unless a driver builds its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from oci.registry.credentials.config_files import DockerConfig
from oci.registry.credentials.credential import Credential, Credentials, CredentialSource, Fixed
from oci.registry.credentials.environment import RegistrySets, general_identity
from oci.registry.credentials.keychains import active_keychains


def _ignore_warning(text: str) -> None:
    del text


def default_credentials(
    *,
    side: str = "",
    explicit: Credential | None = None,
    flags: Mapping[str, str] | None = None,
    anonymous: bool = False,
    environ: Mapping[str, str] | None = None,
    warn: Callable[[str], None] = _ignore_warning,
) -> Credentials:
    """As in imgpkg: the IMGPKG_REGISTRY_* sets; cloud keychains that are switched on; the one identity for every
    registry that `flags`, or the TRANSSHIP_SOURCE_*, TRANSSHIP_DESTINATION_* or IMGPKG_* variables name; without one,
    the docker or podman configuration with its helpers. What knows a host comes before what is for all of them.

    `explicit` is an identity for this side alone (`side` is "source", "destination" or empty), and nothing else counts.
    `anonymous`, or IMGPKG_ANON, leaves out the configuration files. Raises InvalidInput for a configuration that can't
    be read; `warn` is told what is ignored.
    """
    environ = os.environ if environ is None else environ
    if explicit is not None:
        return Credentials([Fixed(explicit)])
    sources: list[CredentialSource] = [RegistrySets(environ, warn), *active_keychains(environ, warn)]
    general = general_identity(environ, side, flags or {})
    if general is not None and not general.is_anonymous:
        sources.append(Fixed(general))
    elif general is None and not anonymous:
        config = DockerConfig.load(environ)
        sources.extend([config] if config else [])
    return Credentials(sources)
