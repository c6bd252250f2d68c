"""The places where logins are looked for, in their order."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

from oci.meter import unheard
from oci.registry.credentials.credential import ANONYMOUS, Credential, Memo
from oci.registry.http.origin import canonical_host


class CredentialSource(Protocol):
    """A place where logins are kept."""

    def find(self, registry: str, repository: str) -> Credential | None:
        """The login for a repository (a path without the host), or None when this place has none.
        ANONYMOUS ends the search: no other place is asked."""


class Credentials:
    """Asks the places in order; the first that has a login decides. Safe from any thread: while a login of a registry
    is fetched, other threads that want a login of that registry wait for it; nothing else waits."""

    def __init__(self, sources: Sequence[CredentialSource]) -> None:
        self._sources = tuple(sources)
        self._logins = Memo()

    def find(self, registry: str, repository: str) -> Credential:
        """ANONYMOUS when no place has a login. Raises InvalidInput, Unauthorized."""
        return self._logins.get((registry, repository), lambda: self._search(registry, repository)) or ANONYMOUS

    def named(self, hosts: Collection[str]) -> Credentials:
        """The same places, where a login without a host of its own is for `hosts` alone (see `default_credentials`)."""
        return Credentials(
            [source.named(hosts) if isinstance(source, Credentials | Fixed) else source for source in self._sources]
        )

    def renew(self, registry: str, repository: str, refused: Credential) -> Credential:
        """The login after the registry refused `refused`: places that can make a new one are asked again."""
        current = self.find(registry, repository)
        if not current.same_secret(refused):
            return current
        for source in self._sources:
            renew = getattr(source, "renew", None)
            if renew is not None:
                renew(registry, repository, refused)
        self._logins.forget((registry, repository), refused)
        return self.find(registry, repository)

    def _search(self, registry: str, repository: str) -> Credential:
        for source in self._sources:
            credential = source.find(registry, repository)
            if credential is not None:
                return credential
        return ANONYMOUS


class Fixed:
    """A login for the registries in `hosts`, or for every registry when that is None."""

    def __init__(self, credential: Credential, hosts: Collection[str] | None = None) -> None:
        self.credential = credential
        self._hosts = None if hosts is None else frozenset(map(canonical_host, hosts))

    def named(self, hosts: Collection[str]) -> Fixed:
        return Fixed(self.credential, hosts)

    def find(self, registry: str, repository: str) -> Credential | None:
        del repository
        return self.credential if self._hosts is None or canonical_host(registry) in self._hosts else None


def default_credentials(
    *,
    side: str = "",
    explicit: Credential | None = None,
    flags: Mapping[str, str] | None = None,
    anonymous: bool = False,
    hosts: Collection[str] | None = None,
    environ: Mapping[str, str] | None = None,
    warn: Callable[[str], None] = unheard,
) -> Credentials:
    """As in imgpkg: the IMGPKG_REGISTRY_* sets; cloud keychains that are switched on; the login for every registry that
    `flags`, or the TRANSSHIP_SOURCE_*, TRANSSHIP_DESTINATION_* or IMGPKG_* variables name; without such a login, the
    docker and podman configuration with its helpers. What is for a host comes before what is for all of them.

    `explicit` is a login for this side alone (`side` is "source", "destination" or empty) and comes before all.
    `hosts` are the registries that the caller named: `explicit`, flags and the variables that name no host are sent to
    these alone, never to a registry that only a lock, a bundle or a layer's `urls` names. None stands for all.
    `anonymous`, or IMGPKG_ANON, leaves out the configuration files. Raises InvalidInput for a configuration that can't
    be read; `warn` gets a line for each variable that is ignored.
    """
    # Each place is imported here, so that a program with a login of its own loads none of them.
    from oci.registry.credentials.config_files import ConfigFiles  # noqa: PLC0415
    from oci.registry.credentials.environment import RegistrySets, general_identity  # noqa: PLC0415
    from oci.registry.credentials.keychains import active_keychains  # noqa: PLC0415

    environ = os.environ if environ is None else environ
    sources: list[CredentialSource] = [Fixed(explicit, hosts)] if explicit is not None else []
    sources += [RegistrySets(environ, warn), *active_keychains(environ, warn)]
    general = general_identity(environ, side, flags or {})
    if general is not None and not general.is_anonymous:
        sources.append(Fixed(general, hosts))
    if not anonymous and (general is None or not general.is_anonymous):
        sources.append(ConfigFiles(environ))
    return Credentials(sources)
