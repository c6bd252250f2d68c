"""The page of crashes is that of the tests, and the tests that it names exist."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.storm.crash_table import OTHERS, PAGE, page


def test_the_page_is_that_of_the_tests() -> None:
    assert PAGE.read_text() == page()


def test_the_tests_that_it_names_exist() -> None:
    for name in OTHERS.values():
        path, _, function = name.partition("::")
        tree = ast.parse((Path(__file__).parent.parent / path).read_text())
        assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, name
