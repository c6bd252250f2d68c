"""Debian's docker-registry on a free loopback port, in the variants that the tests need."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import httpx
import yaml

from tests.servers.ports import free_port
from tests.support.parent import ending_with_parent
from tests.support.waiting import until

START_SECONDS = 120.0
_ACCESS = re.compile(r'"(?P<method>[A-Z]+) (?P<path>\S+) HTTP/[\d.]+" (?P<status>\d{3})')


class Seen(NamedTuple):
    """One request as the registry logged it; `path` with its query."""

    method: str
    path: str
    status: int


@dataclass(frozen=True, slots=True)
class TokenAuth:
    realm: str
    service: str
    issuer: str
    root_certificate: Path


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Who is told of pushes."""

    url: str
    token: str

    def describe(self) -> dict[str, Any]:
        endpoint = {
            "name": "tests",
            "url": self.url,
            "headers": {"Authorization": [f"Bearer {self.token}"]},
            "timeout": "5s",
            "threshold": 3,
            "backoff": "1s",
        }
        return {"notifications": {"endpoints": [endpoint]}}


class DockerRegistry:
    """Starts when entered and stops when left; `stop` and `start` again keep data and port."""

    def __init__(
        self,
        folder: Path,
        *,
        certificate: Path | None = None,
        key: Path | None = None,
        htpasswd: Path | None = None,
        token: TokenAuth | None = None,
        read_only: bool = False,
        relative_urls: bool = False,
        foreign_urls: bool = False,
        deletes: bool = True,
        notify: Endpoint | None = None,
    ) -> None:
        self.folder = folder
        self.port = free_port()
        self.host = f"127.0.0.1:{self.port}"
        self.scheme = "https" if certificate else "http"
        self.url = f"{self.scheme}://{self.host}"
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self._log = folder / "log"
        self._configuration = folder / "config.yml"
        self._configuration.write_text(
            yaml.safe_dump(
                self._describe(certificate, key, htpasswd, token, read_only, relative_urls, foreign_urls, deletes)
                | (notify.describe() if notify else {})
            )
        )

    def _describe(
        self,
        certificate: Path | None,
        key: Path | None,
        htpasswd: Path | None,
        token: TokenAuth | None,
        read_only: bool,
        relative_urls: bool,
        foreign_urls: bool,
        deletes: bool,
    ) -> dict[str, Any]:
        http: dict[str, Any] = {"addr": self.host, "secret": "a-secret-of-the-tests", "relativeurls": relative_urls}
        if certificate:
            http["tls"] = {"certificate": str(certificate), "key": str(key)}
            http["http2"] = {"disabled": True}
        settings: dict[str, Any] = {
            "version": "0.1",
            "log": {"level": "error", "accesslog": {"disabled": False}},
            "storage": {
                "filesystem": {"rootdirectory": str(self.folder / "data")},
                "cache": {"blobdescriptor": "inmemory"},
                "delete": {"enabled": deletes},
                "redirect": {"disable": True},
                "maintenance": {"uploadpurging": {"enabled": False}, "readonly": {"enabled": read_only}},
            },
            "http": http,
        }
        if foreign_urls:
            settings["validation"] = {"manifests": {"urls": {"allow": [".*"]}}}
        if htpasswd:
            settings["auth"] = {"htpasswd": {"realm": "tests", "path": str(htpasswd)}}
        if token:
            settings["auth"] = {
                "token": {
                    "realm": token.realm,
                    "service": token.service,
                    "issuer": token.issuer,
                    "rootcertbundle": str(token.root_certificate),
                }
            }
        return settings

    def start(self) -> None:
        program = shutil.which("docker-registry")
        if program is None:
            raise RuntimeError("docker-registry is not installed: apt-get install docker-registry")
        environment = {key: value for key, value in os.environ.items() if key != "AWS_CA_BUNDLE"}
        environment["GOGC"] = "1000"  # Go searches a heap of 4 MB for garbage every few requests: a fifth of its CPU
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                ending_with_parent([program, "serve", str(self._configuration)], "KILL"),
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,
            )
        until("docker-registry listens", self._listens, START_SECONDS, every=0.01)

    def _listens(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            raise RuntimeError(f"docker-registry ended at once:\n{self._log.read_text()[-2000:]}")
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return True
        except OSError:
            return False

    def stop(self, *, kill: bool = False) -> None:
        if self._process is None:
            return
        if kill:
            self._process.kill()
        else:
            self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def requests(self) -> list[Seen]:
        """All requests so far, oldest first."""
        found = (_ACCESS.search(line) for line in self._log.read_text(errors="replace").splitlines())
        return [Seen(one["method"], one["path"], int(one["status"])) for one in found if one]

    def repository_tags(self, repository: str, client: httpx.Client | None = None) -> list[str]:
        """By plain HTTP, independent of the client under test."""
        answer = (client or httpx).get(f"{self.url}/v2/{repository}/tags/list")
        return sorted(json.loads(answer.content).get("tags") or []) if answer.status_code == 200 else []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
