"""Logins from the configuration files of docker and podman (docker-config.json; containers-auth.json(5))."""

from __future__ import annotations

import base64
import codecs
import os
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

from oci.descriptor import parse_json
from oci.errors import InvalidInput
from oci.output import read_file
from oci.reference import HUB
from oci.registry.credentials.credential import RENEWAL_PAUSE, Credential
from oci.registry.credentials.helpers import HelperProgram
from oci.registry.http.origin import canonical_host, split_pattern

FILE_LIMIT = 1 << 20
_HUB_KEY = "https://index.docker.io/v1/"
_LEGACY = ".dockercfg"
_VARIABLE = "DOCKER_AUTH_CONFIG"
"""Has what a configuration file has, and goes before it (docker 28.3, GitLab's runners)."""


def config_paths(environ: Mapping[str, str]) -> list[str]:
    """Docker's file, then podman's: REGISTRY_AUTH_FILE, the one of this login session, the one in the home folder; at
    the end the file of Docker before 1.7, which podman reads, too."""
    home = environ.get("HOME", "") or os.path.expanduser("~")
    paths = [os.path.join(environ.get("DOCKER_CONFIG") or os.path.join(home, ".docker"), "config.json")]
    if environ.get("REGISTRY_AUTH_FILE"):
        paths.append(environ["REGISTRY_AUTH_FILE"])
    if environ.get("XDG_RUNTIME_DIR"):
        paths.append(os.path.join(environ["XDG_RUNTIME_DIR"], "containers", "auth.json"))
    else:
        paths.append(f"/run/containers/{os.getuid()}/auth.json")
    paths.append(
        os.path.join(environ.get("XDG_CONFIG_HOME") or os.path.join(home, ".config"), "containers", "auth.json")
    )
    paths.append(os.path.join(home, _LEGACY))
    return list(dict.fromkeys(paths))


class ConfigFiles:
    """All configuration files, each read when a login is looked for and those before it have none: the first with a
    login for a repository decides."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._lock = threading.Lock()
        self._read_at = 0.0
        self._read: dict[str, ConfigFile | None] = {}

    def _files(self) -> Iterator[ConfigFile]:
        if self._environ.get(_VARIABLE):
            yield ConfigFile.parse(_VARIABLE, self._environ[_VARIABLE].encode(), self._environ)
        for path in config_paths(self._environ):
            with self._lock:
                if not self._read:
                    self._read_at = time.monotonic()
                if path not in self._read:
                    self._read[path] = ConfigFile.load(path, self._environ)
                file = self._read[path]
            if file is not None:
                yield file

    def find(self, registry: str, repository: str) -> Credential | None:
        host = canonical_host(registry)
        credentials = (file.find(host, repository) for file in self._files())
        return next((credential for credential in credentials if credential is not None), None)

    def renew(self, registry: str, repository: str, refused: Credential) -> None:
        """Reads the files again, at most every half minute, and lets the helpers make new logins."""
        host = canonical_host(registry)
        with self._lock:
            files = [file for file in self._read.values() if file is not None]
        for file in files:
            file.renew(host, repository, refused)
        with self._lock:
            if time.monotonic() - self._read_at >= RENEWAL_PAUSE:
                self._read = {}


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
        self._auths: dict[tuple[str, str], list[tuple[str, Any]]] = {}
        # A key as it is written for the host alone goes before its other spellings, as docker has it.
        for key, entry in sorted(auths.items(), key=lambda item: "://" in item[0]):
            self._auths.setdefault(split_pattern(key), []).append((key, entry))
        self._helpers = {split_pattern(key): str(name or "") for key, name in helpers.items()}
        self._default_helper = store
        self._environ = environ

    @classmethod
    def load(cls, path: str, environ: Mapping[str, str]) -> ConfigFile | None:
        """None when there is no such file. Raises InvalidInput, without showing a secret, when it can't be read."""
        try:
            raw = read_file(path, FILE_LIMIT + 1)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise InvalidInput(f"{path} can't be read: {error.strerror}", hint="check its permissions") from error
        return cls.parse(path, raw, environ)

    @classmethod
    def parse(cls, path: str, raw: bytes, environ: Mapping[str, str]) -> ConfigFile:
        """Editors and shells of Windows write a mark of the byte order, and UTF-16."""
        encoding = "utf-16" if raw[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"
        try:
            body = parse_json(raw.decode(encoding)) if raw.strip() else {}
        except ValueError as error:
            raise InvalidInput(f"{path} is not JSON", hint="log in again, or mend the file") from error
        if len(raw) > FILE_LIMIT or not isinstance(body, dict):
            raise InvalidInput(f"{path} is no docker configuration", hint="log in again, or mend the file")
        return cls(path, {"auths": body} if os.path.basename(path) == _LEGACY else body, environ)

    def find(self, host: str, repository: str) -> Credential | None:
        """`host` is canonical. Raises InvalidInput for an entry that can't be used, Unauthorized for a helper."""
        helper = _nearest(self._helpers, host, repository)
        if helper:
            credential = self._helper(helper).get(_server(host))
            if credential is not None:
                return credential
        for pattern in _patterns(host, repository):
            for key, entry in self._auths.get(pattern, ()):
                credential = self._credential(key, entry)
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
                username, _, password = _decoded(str(encoded)).partition(":")
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


def _decoded(text: str) -> str:
    """The text of base64 with or without its padding, in either alphabet. Raises ValueError."""
    plain = "".join(text.split()).rstrip("=").replace("-", "+").replace("_", "/")
    return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True).decode()


def _nearest(by_pattern: Mapping[tuple[str, str], str], host: str, repository: str) -> str:
    """The helper of a repository, else of the nearest namespace above it, else of its host; empty without any."""
    return next((name for pattern in _patterns(host, repository) if (name := by_pattern.get(pattern))), "")


def _patterns(host: str, repository: str) -> Iterator[tuple[str, str]]:
    """The repository, the namespaces above it, the host."""
    while repository:
        yield host, repository
        repository = repository.rpartition("/")[0]
    yield host, ""
