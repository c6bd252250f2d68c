"""`transship receiver` in a process of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from tests.support.command import PROGRAM
from tests.support.waiting import until

TOKEN = "only-for-the-tests"


class Receiver:
    """Listens when entered, with TOKEN; `stop` sends SIGTERM and gives the exit code."""

    def __init__(self, folder: Path, environment: Mapping[str, str], *flags: str, tokens: str = TOKEN) -> None:
        self._log_file = folder / "receiver.log"
        token = folder / "receiver-token"
        token.write_text(f"{tokens}\n")
        command = [str(PROGRAM), "receiver", "--port", "0", "--token-file", str(token), *flags]
        with self._log_file.open("wb") as log:
            self._process = subprocess.Popen(
                command, env={**os.environ, **environment}, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=folder
            )
        self.url = ""

    @property
    def log(self) -> str:
        return self._log_file.read_text()

    def __enter__(self) -> Self:
        listening = re.compile(r"listening on (127\.0\.0\.1) port (\d+)")
        until("the receiver listens", lambda: listening.search(self.log) or self._process.poll() is not None)
        if not (address := listening.search(self.log)):
            raise RuntimeError(f"the receiver ended:\n{self.log}")
        self.url = f"http://{address[1]}:{address[2]}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def post(self, body: object, *, token: str = TOKEN, query: str = "") -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return httpx.post(f"{self.url}/notifications{query}", content=content, headers=headers, timeout=20)

    def health(self) -> dict[str, Any]:
        answer = httpx.get(f"{self.url}/health", timeout=20)
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def stop(self) -> int:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(40)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise
