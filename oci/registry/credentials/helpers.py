"""Credential helpers: programs called `docker-credential-NAME` (Docker's credential helper protocol)."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping

from oci.descriptor import parse_json
from oci.errors import InvalidInput, Unauthorized
from oci.registry.credentials.credential import Credential, Memo

TIMEOUT = 30.0
ATTEMPTS = 5
DELAY = 2.0
OUTPUT_LIMIT = 1 << 20
_NAME = re.compile(r"[A-Za-z0-9_.\-]+")
_NOT_FOUND = ("credentials not found", "no credentials server url", "no credentials username")


LIFETIME = 1800.0
"""Seconds after which a helper is asked again: the protocol has no expiry, and the tokens of clouds end."""

_logins = Memo()


class HelperProgram:
    """The program `docker-credential-NAME`. All objects of one name and environment share the logins that it gave.
    `delay` is the time between two attempts in seconds."""

    def __init__(self, name: str, environ: Mapping[str, str], delay: float = DELAY) -> None:
        self.name = name
        self.delay = delay
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
        import subprocess  # noqa: PLC0415 - few configurations name a helper

        program = self._program()
        failure = ""
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(self.delay)
            try:
                result = subprocess.run(  # noqa: S603 - the user's own configuration names it
                    [program, "get"],
                    input=server.encode(),
                    capture_output=True,
                    timeout=TIMEOUT,
                    check=False,
                    env=dict(self._environ),
                )
            except subprocess.TimeoutExpired:
                failure = f"no answer within {TIMEOUT:.0f} s"
                continue
            if result.returncode == 0:
                return self._credential(result.stdout[:OUTPUT_LIMIT])
            failure = f"exit code {result.returncode}"
            if any(text in (result.stdout + result.stderr).decode(errors="replace").lower() for text in _NOT_FOUND):
                return None
        raise Unauthorized(
            f"the credential helper docker-credential-{self.name} failed {ATTEMPTS} times: {failure}",
            store=server,
            operation="logging in",
            hint=f"try `echo {server} | docker-credential-{self.name} get` by hand",
        )

    def _program(self) -> str:
        if not _NAME.fullmatch(self.name):
            raise InvalidInput(f"{self.name[:80]!r} is no name of a credential helper")
        import shutil  # noqa: PLC0415

        program = shutil.which(f"docker-credential-{self.name}", path=self._environ.get("PATH"))
        if program is None:
            raise InvalidInput(
                f"the docker config names the credential helper {self.name}, which isn't installed",
                hint=f"put docker-credential-{self.name} on PATH, or log in without it",
            )
        return program

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
        origin, expires = f"docker-credential-{self.name}", time.time() + LIFETIME
        if username == "<token>":
            return Credential(username, identity_token=str(secret), origin=origin, expires_at=expires)
        return Credential(str(username), str(secret), origin=origin, expires_at=expires)
