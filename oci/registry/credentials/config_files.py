"""Logins from the configuration files of docker and podman (docker-config.json; containers-auth.json(5))."""

from __future__ import annotations

import base64
import os
import threading
import time
from collections.abc import Mapping
from typing import Any

from oci.descriptor import parse_json
from oci.errors import InvalidInput
from oci.reference import HUB
from oci.registry.credentials.credential import RENEWAL_PAUSE, Credential
from oci.registry.credentials.helpers import HelperProgram
from oci.registry.http.origin import canonical_host, split_pattern

FILE_LIMIT = 1 << 20
_HUB_KEY = "https://index.docker.io/v1/"


def config_paths(environ: Mapping[str, str]) -> list[str]:
    """Docker's file, then podman's: REGISTRY_AUTH_FILE, the one of this login session, the one in the home folder."""
    home = environ.get("HOME", "") or os.path.expanduser("~")
    paths = [os.path.join(environ.get("DOCKER_CONFIG") or os.path.join(home, ".docker"), "config.json")]
    if environ.get("REGISTRY_AUTH_FILE"):
        paths.append(environ["REGISTRY_AUTH_FILE"])
    if environ.get("XDG_RUNTIME_DIR"):
        paths.append(os.path.join(environ["XDG_RUNTIME_DIR"], "containers", "auth.json"))
    paths.append(
        os.path.join(environ.get("XDG_CONFIG_HOME") or os.path.join(home, ".config"), "containers", "auth.json")
    )
    return list(dict.fromkeys(paths))


class ConfigFiles:
    """All configuration files, read when a login is looked for: the first with a login for a repository decides."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._lock = threading.Lock()
        self._read_at = 0.0
        self._read: list[ConfigFile] | None = None

    @property
    def _files(self) -> list[ConfigFile]:
        with self._lock:
            if self._read is None:
                files = (ConfigFile.load(path, self._environ) for path in config_paths(self._environ))
                self._read = [file for file in files if file is not None]
                self._read_at = time.monotonic()
            return self._read

    def find(self, registry: str, repository: str) -> Credential | None:
        host = canonical_host(registry)
        for file in self._files:
            credential = file.find(host, repository)
            if credential is not None:
                return credential
        return None

    def renew(self, registry: str, repository: str, refused: Credential) -> None:
        """Reads the files again, at most every half minute, and lets the helpers make new logins."""
        host = canonical_host(registry)
        for file in self._files:
            file.renew(host, repository, refused)
        with self._lock:
            if time.monotonic() - self._read_at >= RENEWAL_PAUSE:
                self._read = None


class ConfigFile:
    """A configuration file. The helper of a host decides first, then `auths`, each looked up by the whole repository,
    by the namespaces above it and by the host; then the default helper. A helper without a login, and an entry that is
    empty, leave the decision to the next."""

    def __init__(self, path: str, body: Mapping[str, Any], environ: Mapping[str, str]) -> None:
        auths, helpers = body.get("auths") or {}, body.get("credHelpers") or {}
        store = body.get("credsStore") or ""
        if not isinstance(auths, dict) or not isinstance(helpers, dict) or not isinstance(store, str):
            raise InvalidInput(f"{path}: auths and credHelpers have to be objects, credsStore text")
        self.path = path
        self._auths = {split_pattern(key): (key, entry) for key, entry in auths.items()}
        self._helpers = {split_pattern(key): str(name) for key, name in helpers.items()}
        self._default_helper = store
        self._environ = environ

    @classmethod
    def load(cls, path: str, environ: Mapping[str, str]) -> ConfigFile | None:
        """None when there is no such file. Raises InvalidInput, without showing a secret, when it can't be read."""
        try:
            with open(path, "rb") as file:
                raw = file.read(FILE_LIMIT + 1)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise InvalidInput(f"{path} can't be read: {error.strerror}", hint="check its permissions") from error
        try:
            body = parse_json(raw) if raw.strip() else {}
        except ValueError as error:
            raise InvalidInput(f"{path} is not JSON", hint="log in again, or mend the file") from error
        if len(raw) > FILE_LIMIT or not isinstance(body, dict):
            raise InvalidInput(f"{path} is no docker configuration", hint="log in again, or mend the file")
        return cls(path, body, environ)

    def find(self, host: str, repository: str) -> Credential | None:
        """`host` is canonical. Raises InvalidInput for an entry that can't be used, Unauthorized for a helper."""
        helper = _nearest(self._helpers, host, repository)
        if helper:
            credential = self._helper(helper).get(_server(host))
            if credential is not None:
                return credential
        entry = _nearest(self._auths, host, repository)
        if entry is not None:
            credential = self._credential(*entry)
            if not credential.is_anonymous:
                return credential
        return self._helper(self._default_helper).get(_server(host)) if self._default_helper else None

    def renew(self, host: str, repository: str, refused: Credential) -> None:
        for name in (_nearest(self._helpers, host, repository), self._default_helper):
            if name:
                self._helper(name).forget(_server(host), refused)

    def _helper(self, name: str) -> HelperProgram:
        return HelperProgram(name, self._environ)

    def _credential(self, key: str, entry: Any) -> Credential:
        if entry is None:
            return Credential()
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


def _server(host: str) -> str:
    """What a helper is asked for: docker keeps the login of Docker Hub under a URL (docker login)."""
    return _HUB_KEY if host == HUB else host


def _nearest(by_pattern: Mapping[tuple[str, str], Any], host: str, repository: str) -> Any:
    """The entry of a repository, else of the nearest namespace above it, else of its host; None without any."""
    path = repository
    while True:
        if (host, path) in by_pattern:
            return by_pattern[host, path]
        if not path:
            return None
        path = path.rpartition("/")[0]
