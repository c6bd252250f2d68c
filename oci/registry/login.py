"""The chain of places where credentials are looked for, unless a driver builds its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from oci.registry.credentials import ANONYMOUS, Credential, Credentials, CredentialSource, Fixed
from oci.registry.docker_config import DockerConfig
from oci.registry.environment import RegistrySets, explicit_from
from oci.registry.keychains.chosen import active_keychains


def _ignore_warning(text: str) -> None:
    del text


def default_credentials(
    *,
    side: str = "",
    explicit: Credential | None = None,
    anonymous: bool = False,
    environ: Mapping[str, str] | None = None,
    warn: Callable[[str], None] = _ignore_warning,
) -> Credentials:
    """In order: `explicit` (flags); the IMGPKG_REGISTRY_* sets; the one identity for every registry that the
    TRANSSHIP_SOURCE_*, TRANSSHIP_DESTINATION_* or IMGPKG_* variables name; cloud keychains that are switched on; the
    docker or podman configuration with its helpers. `side` is "source", "destination" or empty. `anonymous`, or
    IMGPKG_ANON, leaves out the configuration files.

    Raises InvalidInput for a configuration that can't be read; `warn` is told what is ignored.
    """
    environ = os.environ if environ is None else environ
    if explicit is not None:
        return Credentials([Fixed(explicit)])
    sources: list[CredentialSource] = [RegistrySets(environ, warn)]
    general = ANONYMOUS if anonymous else explicit_from(environ, side)
    if general is not None and not general.is_anonymous:
        return Credentials([*sources, Fixed(general)])
    sources.extend(active_keychains(environ))
    config = DockerConfig.load(environ) if general is None else None
    return Credentials([*sources, config] if config else sources)
