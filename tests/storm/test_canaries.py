# ruff: noqa: E501 - a place is a line
"""A secret that is in one place is found in no other: neither in what a command prints, with --debug too, nor in a file
that it leaves or has for a while, nor in the list of processes; after runs that went well, and that didn't."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from tests.faults.proxy import Fault, FaultProxy
from tests.servers.strict_registry import Features, StrictRegistry
from tests.support.command import PROGRAM
from tests.support.content import image, push

CANARY = "canary/7f3a+e1c9=b5d2"
USER = "bob"
BASIC = base64.b64encode(f"{USER}:{CANARY}".encode()).decode()
SHAPES = tuple(
    text.encode() for text in (CANARY, quote(CANARY, safe=""), BASIC, base64.b64encode(CANARY.encode()).decode())
)

Place = Callable[[Path, str], tuple[dict[str, str], list[str], bytes]]
"""Makes what a login needs in a folder, for a host: environment, flags, standard input."""


def _by_host(folder: Path, host: str) -> tuple[dict[str, str], list[str], bytes]:
    del folder
    return (
        {
            f"IMGPKG_REGISTRY_{name}_0": value
            for name, value in {"HOSTNAME": host, "USERNAME": USER, "PASSWORD": CANARY}.items()
        },
        [],
        b"",
    )


def _for_all(folder: Path, host: str) -> tuple[dict[str, str], list[str], bytes]:
    del folder, host
    return {"IMGPKG_USERNAME": USER, "IMGPKG_PASSWORD": CANARY}, [], b""


def _config(folder: Path, host: str) -> tuple[dict[str, str], list[str], bytes]:
    (folder / "secrets" / "config.json").write_text(json.dumps({"auths": {host: {"auth": BASIC}}}))
    return {"DOCKER_CONFIG": str(folder / "secrets")}, [], b""


def _helper(folder: Path, host: str) -> tuple[dict[str, str], list[str], bytes]:
    program = folder / "secrets" / "docker-credential-canary"
    program.write_text(f"#!/bin/sh\ncat >/dev/null\necho '{json.dumps({'Username': USER, 'Secret': CANARY})}'\n")
    program.chmod(0o755)
    (folder / "secrets" / "config.json").write_text(json.dumps({"credHelpers": {host: "canary"}}))
    return {"DOCKER_CONFIG": str(folder / "secrets"), "PATH": f"{program.parent}:{os.environ['PATH']}"}, [], b""


def _stdin(folder: Path, host: str) -> tuple[dict[str, str], list[str], bytes]:
    del folder, host
    return {}, ["--registry-username", USER, "--registry-password-stdin"], CANARY.encode()


PLACES: Mapping[str, Place] = {
    "variables of a host": _by_host,
    "variables for all": _for_all,
    "a docker config": _config,
    "a credential helper": _helper,
    "standard input": _stdin,
}
ECHO = json.dumps({"errors": [{"code": "DENIED", "message": "you sent {authorization}, and may not"}]}).encode()
WEATHERS: Mapping[str, Fault | None] = {
    "well": None,
    "refused": Fault(path="/manifests/", status=401, headers={"WWW-Authenticate": 'Basic realm="x"'}),
    "told back": Fault(path="/manifests/", status=403, body=ECHO, headers={"Content-Type": "application/json"}),
    "told back in HTML": Fault(
        path="/blobs/", status=500, body=b"<html>{authorization}</html>", headers={"Content-Type": "text/html"}
    ),
    "reset": Fault(path="/blobs/", reset_after=0),
    "redirected": Fault(
        path="/manifests/",
        status=307,
        headers={"Location": f"http://{USER}:{quote(CANARY, safe='')}@127.0.0.1:1/x?secret={quote(CANARY, safe='')}"},
    ),
}


TOLD = ("well", "told back", "redirected")
FIRST = "variables of a host"


@pytest.fixture(scope="module")
def registry() -> Iterator[StrictRegistry]:
    with StrictRegistry(Features(user=f"{USER}:{CANARY}")) as server:
        with httpx.Client(base_url=server.url, auth=(USER, CANARY), timeout=60) as client:
            push(server.url, "shop/web", image(1), "v1", client=client)
        yield server


@pytest.mark.parametrize(
    ("place", "weather"),
    [(place, weather) for place in PLACES for weather in WEATHERS if place == FIRST or weather in TOLD],
)
def test_a_login_stays_where_it_is(registry: StrictRegistry, tmp_path: Path, place: str, weather: str) -> None:
    for name in ("secrets", "home", "tmp", "out"):
        (tmp_path / name).mkdir()
    fault = WEATHERS[weather]
    with FaultProxy(registry.port, *([fault] if fault else [])) as proxy:
        if fault:
            fault.matched = 0
        environ, flags, given = PLACES[place](tmp_path, proxy.host)
        arguments = [
            "copy", "-i", f"{proxy.host}/shop/web:v1", "--to-tar", str(tmp_path / "out" / "web.tar"), "--report", str(tmp_path / "out" / "report.json"),
            "--registry-retry-count", "1", "--debug", *(["--json"] if weather == "well" else []), *flags,
        ]  # fmt: skip
        process = subprocess.Popen(
            [str(PROGRAM), *arguments],
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(tmp_path / "home"),
                "TMPDIR": str(tmp_path / "tmp"),
                **environ,
            },
            cwd=tmp_path / "out",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        seen: list[tuple[str, bytes]] = []
        over = threading.Event()
        watch = threading.Thread(target=_watch, args=(tmp_path, seen, over))
        watch.start()
        out, err = process.communicate(given, timeout=120)
        over.set()
        watch.join()
        sent = [path for _, _, path in proxy.seen]

    assert (process.returncode == 0) == (weather == "well"), err.decode()
    assert sent
    everything = [("standard output", out), ("standard error", err), *seen, *_files(tmp_path)]
    assert [(where, shape) for where, data in everything for shape in SHAPES if shape in data] == []


def _watch(folder: Path, seen: list[tuple[str, bytes]], over: threading.Event) -> None:
    """What is in files for a while, and what the list of processes shows."""
    while not over.wait(0.05):
        seen += _files(folder)
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                seen.append((str(path), path.read_bytes()))
            except OSError:
                continue


def _files(folder: Path) -> list[tuple[str, bytes]]:
    found = []
    for path in folder.rglob("*"):
        if path.is_file() and path.parent.name != "secrets":
            try:
                found.append((str(path), path.read_bytes()))
            except OSError:
                continue
    return found
