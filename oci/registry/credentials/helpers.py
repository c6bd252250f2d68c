"""Credential helpers: programs called `docker-credential-NAME` (Docker's credential helper protocol)."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Mapping
from typing import IO, cast

from oci.descriptor import parse_json
from oci.errors import InvalidInput, Unauthorized
from oci.registry.credentials.credential import Credential, Memo

TIMEOUT = 30.0
ATTEMPTS = 5
DELAY = 2.0
OUTPUT_LIMIT = 1 << 20
_MOMENT = 0.1
"""Seconds after which a waiting thread looks whether a helper has ended, though its outputs are open."""

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
        program = self._program()
        failure = ""
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(self.delay)
            code, output, complaint = self._run(program, server)
            if code == 0:
                return self._credential(output)
            failure = f"exit code {code}"
            if any(text in (output + complaint).decode(errors="replace").lower() for text in _NOT_FOUND):
                return None
        raise self._failed(server, f"failed {ATTEMPTS} times: {failure}")

    def _run(self, program: str, server: str) -> tuple[int, bytes, bytes]:
        """Gives the exit code and both outputs. Raises Unauthorized for a helper that gives no answer in time, which
        isn't started again, and for one that writes without end. What a helper leaves running, an agent for example,
        may keep its outputs open: they are read until it has ended itself."""
        import selectors  # noqa: PLC0415 - few configurations name a helper
        import subprocess  # noqa: PLC0415

        outputs = bytearray(), bytearray()
        deadline = time.monotonic() + TIMEOUT
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
                        raise self._failed(server, f"gave no answer within {TIMEOUT:.0f} s")
                    for key, _ in ready:
                        piece = os.read(key.fd, 64 << 10)
                        key.data.extend(piece)
                        if not piece:
                            open_outputs.unregister(key.fileobj)
                        if len(key.data) > OUTPUT_LIMIT:
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
