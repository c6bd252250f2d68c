"""Which tests start a server: those with a fixture of a shared server, and those of modules that can start one. Which
tests stay together in a process."""

from __future__ import annotations

import ast
import socket
from collections.abc import Iterable
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


PREFECT_SERVERS = 3
"""Prefect servers of a run in several processes. A server takes 13 s of CPU until all is deployed, and one more in each
minute in which it does nothing."""
SECONDS = {
    "flows/test_fleet": 300,
    "storm/test_flow_crashes": 160,
    "flows/test_mirror": 110,
    "flows/test_archives": 100,
    "flows/test_mirror_deployments": 90,
    "deploy/test_deploy": 80,
    "flows/test_prune": 70,
    "flows/test_secrets": 70,
    "tasks/test_spread": 60,
    "flows/test_deployment": 60,
    "flows/test_relocate": 60,
    "flows/test_examples": 40,
    "storm/test_fronts": 30,
}
"""Seconds of modules that use a Prefect server, roughly; others take ten."""


def groups_of(items: Iterable[pytest.Item]) -> dict[pytest.Item, str]:
    """Returns the group of each test that stays in one process with others.

    Deployments, workers and automations belong to a module: all of its tests meet the same Prefect server. What a
    module makes once for its tests is made once, and not in each process.
    """
    groups: dict[pytest.Item, str] = {}
    with_prefect: dict[pytest.Item, str] = {}
    for item in items:
        module = f"{item.path.parent.name}/{item.path.stem}"
        if uses_prefect(item):
            with_prefect[item] = module
        elif not item.get_closest_marker("xdist_group") and _has_module_fixture(item):
            groups[item] = module
    seconds = [0.0] * PREFECT_SERVERS
    server: dict[str, int] = {}
    for module in sorted(set(with_prefect.values()), key=lambda module: (-SECONDS.get(module, 10), module)):
        server[module] = seconds.index(min(seconds))
        seconds[server[module]] += SECONDS.get(module, 10)
    return groups | {item: f"prefect {server[module]}" for item, module in with_prefect.items()}


def uses_prefect(item: pytest.Item) -> bool:
    """Says whether a test uses the Prefect server of its process."""
    return "prefect_server" in getattr(item, "fixturenames", ()) or _starts_prefect(item.path)


def _has_module_fixture(item: pytest.Item) -> bool:
    info = getattr(item, "_fixtureinfo", None)
    definitions = [definition for found in (info.name2fixturedefs.values() if info else ()) for definition in found]
    module = item.nodeid.partition("::")[0]
    return any(definition.scope == "module" and definition.baseid == module for definition in definitions)


@cache
def _starts_prefect(path: Path) -> bool:
    return "shared_server(" in path.read_text()


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
