"""Credential helpers: programs called `docker-credential-NAME` (Docker's credential helper protocol)."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from oci.errors import InvalidInput, Unauthorized
from oci.registry.credentials.credential import Credential

TIMEOUT = 30.0
ATTEMPTS = 5
DELAY = 2.0
OUTPUT_LIMIT = 1 << 20
_NAME = re.compile(r"[A-Za-z0-9_.\-]+")
_NOT_FOUND = ("credentials not found", "no credentials server url", "no credentials username")


@dataclass(frozen=True, slots=True)
class HelperProgram:
    name: str
    environ: Mapping[str, str] = field(repr=False)
    delay: float = DELAY
    """Seconds between attempts."""

    def get(self, server: str) -> Credential | None:
        """What the helper has for `server`, or None when it says that it has nothing. A helper that fails is tried
        again: keychains of desktops are slow to wake up."""
        program = self._program()
        said = ""
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(self.delay)
            try:
                done = subprocess.run(  # noqa: S603 - the user's own configuration names it
                    [program, "get"],
                    input=server.encode(),
                    capture_output=True,
                    timeout=TIMEOUT,
                    check=False,
                    env=dict(self.environ),
                )
            except subprocess.TimeoutExpired:
                said = f"no answer within {TIMEOUT:.0f} s"
                continue
            if done.returncode == 0:
                return self._credential(done.stdout[:OUTPUT_LIMIT])
            said = f"exit code {done.returncode}"
            if any(text in (done.stdout + done.stderr).decode(errors="replace").lower() for text in _NOT_FOUND):
                return None
        raise Unauthorized(
            f"the credential helper docker-credential-{self.name} failed {ATTEMPTS} times: {said}",
            store=server,
            operation="logging in",
            hint=f"try `echo {server} | docker-credential-{self.name} get` by hand",
        )

    def _program(self) -> str:
        if not _NAME.fullmatch(self.name):
            raise InvalidInput(f"{self.name[:80]!r} is no name of a credential helper")
        program = shutil.which(f"docker-credential-{self.name}", path=self.environ.get("PATH"))
        if program is None:
            raise InvalidInput(
                f"the docker config names the credential helper {self.name}, which isn't installed",
                hint=f"put docker-credential-{self.name} on PATH, or log in without it",
            )
        return program

    def _credential(self, output: bytes) -> Credential:
        try:
            body = json.loads(output)
            username, secret = body.get("Username", ""), body.get("Secret", "")
        except (ValueError, AttributeError) as error:
            raise Unauthorized(
                f"the credential helper docker-credential-{self.name} answered something that is no JSON object",
                operation="logging in",
            ) from error
        origin = f"docker-credential-{self.name}"
        if username == "<token>":
            return Credential(username, identity_token=str(secret), origin=origin)
        return Credential(str(username), str(secret), origin=origin)
