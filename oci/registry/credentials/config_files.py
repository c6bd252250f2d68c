"""Logins from the configuration files of docker and podman (docker-config.json; containers-auth.json(5)), and from the
credential helpers that they name: programs called `docker-credential-NAME` (Docker's credential helper protocol)."""

from __future__ import annotations

import base64
import codecs
import contextlib
import os
import re
import threading
import time
from collections.abc import Iterator, Mapping
from typing import IO, Any, cast

from oci.descriptor import parse_json
from oci.errors import InvalidInput, Unauthorized
from oci.output import read_file
from oci.reference import HUB
from oci.registry.credentials.credential import RENEWAL_PAUSE, Credential, Memo
from oci.registry.http.origin import canonical_host, split_pattern

FILE_LIMIT = 1 << 20
_HUB_KEY = "https://index.docker.io/v1/"
_LEGACY = ".dockercfg"
_VARIABLE = "DOCKER_AUTH_CONFIG"
"""Has what a configuration file has, and goes before it (docker 28.3, GitLab's runners)."""

HELPER_TIMEOUT = 30.0
HELPER_ATTEMPTS = 5
HELPER_DELAY = 2.0
"""Seconds between two attempts."""

_HELPER_OUTPUT_LIMIT = 1 << 20
_MOMENT = 0.1
"""Seconds after which a waiting thread looks whether a helper has ended, though its outputs are open."""

_HELPER_NAME = re.compile(r"[A-Za-z0-9_.\-]+")
_HAS_NONE = ("credentials not found", "no credentials server url", "no credentials username")
_HELPER_LIFETIME = 1800.0
"""Seconds after which a helper is asked again: the protocol has no expiry, and the tokens of clouds end."""

_logins = Memo()


def config_paths(environ: Mapping[str, str]) -> list[str]:
    """Docker's file, then podman's: REGISTRY_AUTH_FILE, the one of this login session, the one in the home folder; at
    the end the file of Docker before 1.7, which podman reads, too."""
    home, runtime = environ.get("HOME") or os.path.expanduser("~"), environ.get("XDG_RUNTIME_DIR")
    paths = (
        os.path.join(environ.get("DOCKER_CONFIG") or os.path.join(home, ".docker"), "config.json"),
        environ.get("REGISTRY_AUTH_FILE"),
        os.path.join(runtime or f"/run/containers/{os.getuid()}", "containers" if runtime else "", "auth.json"),
        os.path.join(environ.get("XDG_CONFIG_HOME") or os.path.join(home, ".config"), "containers", "auth.json"),
        os.path.join(home, _LEGACY),
    )
    return list(dict.fromkeys(filter(None, paths)))


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


class HelperProgram:
    """The program `docker-credential-NAME`. All objects of one name and environment share the logins that it gave."""

    def __init__(self, name: str, environ: Mapping[str, str]) -> None:
        self.name = name
        self._environ = environ

    def get(self, server: str) -> Credential | None:
        """The helper's login for `server`, or None when it says that it has none. Started once for each server, and
        again when the login is old."""
        return _logins.get(self._key(server), lambda: self._ask(server))

    def forget(self, server: str, refused: Credential) -> None:
        """A registry refused the login: the next `get` starts the helper again."""
        _logins.forget(self._key(server), refused)

    def _key(self, server: str) -> tuple[str, str, frozenset[tuple[str, str]]]:
        return self.name, server, frozenset(self._environ.items())

    def _ask(self, server: str) -> Credential | None:
        """A helper that fails is tried again: keychains of desktops are slow to wake up."""
        if not _HELPER_NAME.fullmatch(self.name):
            raise InvalidInput(f"{self.name[:80]!r} is no name of a credential helper")
        import shutil  # noqa: PLC0415 - few configurations name a helper

        program = shutil.which(f"docker-credential-{self.name}", path=self._environ.get("PATH"))
        if program is None:
            raise InvalidInput(
                f"the docker config names the credential helper {self.name}, which isn't installed",
                hint=f"put docker-credential-{self.name} on PATH, or log in without it",
            )
        failure = ""
        for attempt in range(HELPER_ATTEMPTS):
            if attempt:
                time.sleep(HELPER_DELAY)
            code, output, complaint = self._run(program, server)
            if code == 0:
                return self._credential(output)
            failure = f"exit code {code}"
            if any(text in (output + complaint).decode(errors="replace").lower() for text in _HAS_NONE):
                return None
        raise self._failed(server, f"failed {HELPER_ATTEMPTS} times: {failure}")

    def _run(self, program: str, server: str) -> tuple[int, bytes, bytes]:
        """Gives the exit code and both outputs. Raises Unauthorized for a helper that gives no answer in time, which
        isn't started again, and for one that writes without end. What a helper leaves running, an agent for example,
        may keep its outputs open: they are read until it has ended itself."""
        import selectors  # noqa: PLC0415 - few configurations name a helper
        import subprocess  # noqa: PLC0415

        outputs = bytearray(), bytearray()
        deadline = time.monotonic() + HELPER_TIMEOUT
        with (
            subprocess.Popen(  # noqa: S603 - the user's own configuration names it
                [program, "get"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=dict(self._environ),
            ) as process,
            selectors.DefaultSelector() as open_outputs,
        ):
            try:
                with contextlib.suppress(BrokenPipeError), cast("IO[bytes]", process.stdin) as to_helper:
                    to_helper.write(server.encode())
                for pipe, output in zip((process.stdout, process.stderr), outputs, strict=True):
                    open_outputs.register(cast("IO[bytes]", pipe), selectors.EVENT_READ, output)
                while open_outputs.get_map():
                    ready = open_outputs.select(_MOMENT)
                    if not ready and process.poll() is not None:
                        break
                    if time.monotonic() > deadline:
                        raise self._failed(server, f"gave no answer within {HELPER_TIMEOUT:.0f} s")
                    for key, _ in ready:
                        piece = os.read(key.fd, 64 << 10)
                        key.data.extend(piece)
                        if not piece:
                            open_outputs.unregister(key.fileobj)
                        if len(key.data) > _HELPER_OUTPUT_LIMIT:
                            raise self._failed(server, "writes without end")
                code = process.wait(max(_MOMENT, deadline - time.monotonic()))
            except subprocess.TimeoutExpired as error:
                raise self._failed(server, "doesn't end") from error
            finally:
                process.kill()  # harmless where it has ended
        return code, bytes(outputs[0]), bytes(outputs[1])

    def _failed(self, server: str, how: str) -> Unauthorized:
        return Unauthorized(
            f"the credential helper docker-credential-{self.name} {how}",
            store=server,
            operation="logging in",
            hint=f"try `echo {server} | docker-credential-{self.name} get` by hand",
        )

    def _credential(self, output: bytes) -> Credential | None:
        try:
            body = parse_json(output)
            username, secret = body.get("Username", ""), body.get("Secret", "")
        except (ValueError, AttributeError) as error:
            raise Unauthorized(
                f"the credential helper docker-credential-{self.name} answered something that is no JSON object",
                operation="logging in",
            ) from error
        if not secret:
            return None
        origin, expires = f"docker-credential-{self.name}", time.time() + _HELPER_LIFETIME
        if username == "<token>":
            return Credential(username, identity_token=str(secret), origin=origin, expires_at=expires)
        return Credential(str(username), str(secret), origin=origin, expires_at=expires)


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
