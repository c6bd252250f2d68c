"""The table of what was found names tests that exist."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.findings import FINDINGS, PAGE, page

TESTS = Path(__file__).parent


def test_every_test_that_the_table_names_exists() -> None:
    known: dict[str, set[str]] = {}
    missing = []
    for name in sorted({test for tests in FINDINGS.values() for test in tests}):
        path, _, function = name.partition("::")
        if path not in known:
            file = TESTS / path
            tree = ast.parse(file.read_text()) if file.is_file() else ast.Module([], [])
            known[path] = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        if function not in known[path]:
            missing.append(name)
    assert missing == []


def test_every_finding_has_its_line() -> None:
    numbers = [name.partition(" ")[0] for name in FINDINGS]

    assert numbers == [*(f"G{number}" for number in range(1, 15)), *(f"F{number}" for number in range(1, 11))]
    assert all(FINDINGS.values())


def test_the_page_is_that_of_the_table() -> None:
    assert PAGE.read_text() == page()
