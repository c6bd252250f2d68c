"""The places where logins are looked for, in their order, the environment first: IMGPKG_USERNAME and its like, and the
IMGPKG_REGISTRY_* sets."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Mapping
from fnmatch import fnmatchcase

from oci.meter import unheard
from oci.registry.credentials.credential import ANONYMOUS, Credential, Credentials, CredentialSource, Fixed
from oci.registry.http.origin import canonical_host, split_pattern

PREFIX = "IMGPKG_REGISTRY_"
_FIELDS = ("HOSTNAME", "USERNAME", "PASSWORD", "IDENTITY_TOKEN", "REGISTRY_TOKEN")
_VARIABLE = re.compile(rf"{PREFIX}({'|'.join(_FIELDS)})(?:_(.+))?")
_FOREIGN = frozenset({f"{PREFIX}AZURE_CR_CONFIG"})


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
    # Imported here, so that a program with a login of its own loads none of them.
    from oci.registry.credentials.config_files import ConfigFiles  # noqa: PLC0415
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


class RegistrySets:
    """The `IMGPKG_REGISTRY_HOSTNAME[_N]` sets. A set that matches ends the search, even when it has no credentials."""

    def __init__(self, environ: Mapping[str, str], warn: Callable[[str], None]) -> None:
        sets: dict[str, dict[str, str]] = {}
        for name, value in environ.items():
            match = _VARIABLE.fullmatch(name)
            if match:
                sets.setdefault(match.group(2) or "", {})[match.group(1)] = value
            elif name.startswith(PREFIX) and name not in _FOREIGN:
                warn(f"unknown environment variable {name} is ignored: known are {PREFIX}{{{','.join(_FIELDS)}}}[_N]")
        entries = [
            (
                fields["HOSTNAME"],
                Credential(
                    fields.get("USERNAME", ""),
                    fields.get("PASSWORD", ""),
                    fields.get("IDENTITY_TOKEN", ""),
                    fields.get("REGISTRY_TOKEN", ""),
                    origin=f"{PREFIX}HOSTNAME{'_' if suffix else ''}{suffix}",
                ),
            )
            for suffix, fields in sets.items()
            if fields.get("HOSTNAME")
        ]
        self._entries = sorted(entries, key=lambda entry: entry[0], reverse=True)

    def find(self, registry: str, repository: str) -> Credential | None:
        for pattern, credential in self._entries:
            if _matches(pattern, registry, repository):
                return ANONYMOUS if credential.is_anonymous else credential
        return None


def _matches(pattern: str, registry: str, repository: str) -> bool:
    """Host labels one by one, with globs; the same port or none on both sides; the path up to a segment's end (imgpkg
    would take `reg/app` for `reg/application` too)."""
    host, path = split_pattern(pattern)
    host_pattern, _, port = host.partition(":")
    name, _, registry_port = canonical_host(registry).partition(":")
    globs, labels = host_pattern.split("."), name.split(".")
    return (
        port == registry_port
        and len(globs) == len(labels)
        and all(map(fnmatchcase, labels, globs))
        and (not path or repository == path or repository.startswith(f"{path}/"))
    )


def general_identity(environ: Mapping[str, str], side: str, flags: Mapping[str, str]) -> Credential | None:
    """The one identity for every registry of a side: what flags say (`username`, `password`, `token`), each filled up
    from its IMGPKG_* variable as in imgpkg, or what TRANSSHIP_SOURCE_*, TRANSSHIP_DESTINATION_* or IMGPKG_* say.
    ANONYMOUS for IMGPKG_ANON=true; None when nothing is said. A user name outranks a token, as in imgpkg."""
    flagged = flags.get("username") or flags.get("token")
    if side and not flagged:
        of_side = _named(environ, f"TRANSSHIP_{side.upper()}_", {})
        if of_side is not None:
            return of_side
    return _named(environ, "IMGPKG_", flags)


def _named(environ: Mapping[str, str], prefix: str, flags: Mapping[str, str]) -> Credential | None:
    def value(name: str) -> str:
        return flags.get(name) or environ.get(f"{prefix}{name.upper()}", "")

    def origin(name: str) -> str:
        return f"--registry-{name}" if flags.get(name) else f"{prefix}{name.upper()}"

    if value("username"):
        return Credential(value("username"), value("password"), origin=origin("username"))
    if value("token"):
        return Credential(registry_token=value("token"), origin=origin("token"))
    return ANONYMOUS if environ.get(f"{prefix}ANON") == "true" else None
