"""Which tests start a server: those with a fixture of a shared server, and those of modules that can start one. Which
tests stay in one process."""

from __future__ import annotations

import ast
import socket
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
FIXTURES = {"registry", "other_registry", "object_store", "strict", "origin", "destination", "prefect_server"}
"""Those of the conftest.py files."""
SERVERS = ("tests.servers.", "tests.faults.", "tests.support.prefect_server", "tests.support.receiver")
LISTEN = {"listen", "create_server", "start_server"}
DATA = {"tests.servers.registry_data"}


def needs_server(item: pytest.Item) -> bool:
    return bool(FIXTURES & set(getattr(item, "fixturenames", ()))) or _can_start_server(item.path)


def stays_with_its_module(item: pytest.Item) -> bool:
    """Deployments, workers and automations belong to a module: all of its tests meet the same Prefect server. What a
    module makes once for its tests is made once, and not in each process."""
    if item.get_closest_marker("xdist_group"):
        return False
    info = getattr(item, "_fixtureinfo", None)
    made = [definition for found in (info.name2fixturedefs.values() if info else ()) for definition in found]
    return any(
        one.argname == "prefect_server" or (one.scope == "module" and one.baseid == item.nodeid.partition("::")[0])
        for one in made
    )


def refuse_to_listen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails a test that starts a server in this process although it isn't among those above."""

    def listen(*_: object) -> None:
        raise AssertionError("this test starts a server: make tests/support/selection.py see that")

    monkeypatch.setattr(socket.socket, "listen", listen)


@cache
def _can_start_server(path: Path) -> bool:
    """A module of tests that listens or imports a server, itself or through another module of tests."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    modules = _imports(nodes)
    return (
        any(isinstance(node, ast.Attribute) and node.attr in LISTEN for node in nodes)
        or any(name.startswith(SERVERS) and name not in DATA for name in modules)
        or any(_can_start_server(file) for name in modules if (file := _file(name)).exists())
    )


def _imports(nodes: list[ast.AST]) -> set[str]:
    whole = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    parts = {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
    return {name for name in whole | parts if name.startswith("tests.")}


def _file(module: str) -> Path:
    return (ROOT / Path(*module.split("."))).with_suffix(".py")
