"""Credentials from the configuration files of docker and podman."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from oci.errors import InvalidInput
from oci.reference import HUB
from oci.registry.credentials.credential import Credential
from oci.registry.credentials.helpers import HelperProgram
from oci.registry.credentials.hosts import canonical_host, split_pattern

FILE_LIMIT = 1 << 20
_HUB_KEY = "https://index.docker.io/v1/"


def config_paths(environ: Mapping[str, str]) -> list[str]:
    """Where to look, first to last: the first that exists is the one."""
    home = environ.get("HOME", "") or os.path.expanduser("~")
    paths = [os.path.join(environ.get("DOCKER_CONFIG") or os.path.join(home, ".docker"), "config.json")]
    if environ.get("REGISTRY_AUTH_FILE"):
        paths.append(environ["REGISTRY_AUTH_FILE"])
    if environ.get("XDG_RUNTIME_DIR"):
        paths.append(os.path.join(environ["XDG_RUNTIME_DIR"], "containers", "auth.json"))
    return paths


@dataclass(frozen=True, slots=True)
class DockerConfig:
    """One configuration file. `auths` are looked up by the whole repository, then by each namespace above it, then by
    the host; then the helper of the host, then the default one."""

    path: str
    auths: Mapping[str, Mapping[str, Any]] = field(repr=False)
    helpers: Mapping[str, str]
    default_helper: str
    environ: Mapping[str, str] = field(repr=False)

    @classmethod
    def load(cls, environ: Mapping[str, str]) -> DockerConfig | None:
        """None when there is no such file. Raises InvalidInput, without showing a secret, when it can't be read."""
        for path in config_paths(environ):
            try:
                with open(path, "rb") as file:
                    raw = file.read(FILE_LIMIT + 1)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise InvalidInput(f"{path} can't be read: {error.strerror}", hint="check its permissions") from error
            return cls._parse(path, raw, environ)
        return None

    @classmethod
    def _parse(cls, path: str, raw: bytes, environ: Mapping[str, str]) -> DockerConfig:
        try:
            body = json.loads(raw) if raw.strip() else {}
        except (ValueError, RecursionError) as error:
            raise InvalidInput(f"{path} is not JSON", hint="log in again, or mend the file") from error
        if len(raw) > FILE_LIMIT or not isinstance(body, dict):
            raise InvalidInput(f"{path} is no docker configuration", hint="log in again, or mend the file")
        auths, helpers = body.get("auths") or {}, body.get("credHelpers") or {}
        store = body.get("credsStore") or ""
        if not isinstance(auths, dict) or not isinstance(helpers, dict) or not isinstance(store, str):
            raise InvalidInput(f"{path}: auths and credHelpers have to be objects, credsStore text")
        return cls(path, auths, {canonical_host(host): str(name) for host, name in helpers.items()}, store, environ)

    def find(self, registry: str, repository: str) -> Credential | None:
        host = canonical_host(registry)
        helper = self.helpers.get(host, "")
        if helper:
            return self._ask(helper, host)
        found = self._listed(host, repository)
        if found is not None and not found.is_anonymous:
            return found
        return self._ask(self.default_helper, host) if self.default_helper else None

    def _ask(self, helper: str, host: str) -> Credential | None:
        return HelperProgram(helper, self.environ).get(_HUB_KEY if host == HUB else host)

    def _listed(self, host: str, repository: str) -> Credential | None:
        by_name = {split_pattern(key): (key, entry) for key, entry in self.auths.items()}
        path = repository
        while True:
            if (host, path) in by_name:
                return self._credential(*by_name[(host, path)])
            if not path:
                return None
            path = path.rpartition("/")[0]

    def _credential(self, key: str, entry: Any) -> Credential:
        if not isinstance(entry, dict):
            raise InvalidInput(f"{self.path}: the entry of {key} is no object")
        username, password = str(entry.get("username") or ""), str(entry.get("password") or "")
        encoded = entry.get("auth")
        if encoded and not (username and password):
            try:
                username, _, password = base64.b64decode(str(encoded), validate=False).decode().partition(":")
            except ValueError as error:  # binascii's and UnicodeDecodeError among them
                raise InvalidInput(
                    f"{self.path}: `auth` of {key} is not base64 of user:password", hint="log in again"
                ) from error
        return Credential(
            username,
            password.rstrip("\0"),
            identity_token=str(entry.get("identitytoken") or ""),
            registry_token=str(entry.get("registrytoken") or ""),
            origin="docker config",
        )
