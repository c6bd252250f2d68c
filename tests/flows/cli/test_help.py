"""What the command says of itself."""

from __future__ import annotations

import re

import click
import pytest

from flows.cli.app import root
from tests.support.command import transship

COMMANDS = root.list_commands(click.Context(root))


def sections(text: str) -> dict[str, str]:
    parts = re.split(r"^(\w[\w ]*):\n", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_help_begins_with_the_commands() -> None:
    assert list(sections(transship("--help").out)) == ["Commands", "Options", "Every command"]


@pytest.mark.parametrize("command", ["copy", "pull"])
def test_a_command_explains_its_own_flags_before_those_of_registries(command: str) -> None:
    found = sections(transship(command, "--help").out)

    assert next(iter(found)) == "Options"
    assert list(found)[-1] == "Every command"
    assert "--registry-username" in found["Registries"]
    assert "--registry-username" not in found["Options"]
    assert "--json" in found["Every command"]


def test_a_flag_that_is_off_is_shown_by_what_switches_it_on_and_one_that_is_on_by_both() -> None:
    shown = transship("copy", "--help").out

    assert "--no-repair" not in shown
    assert "--registry-verify-certs / --no-registry-verify-certs" in shown


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_that_fits_a_terminal(command: str) -> None:
    done = transship(command, "--help", environ={"COLUMNS": "80"})

    assert done.code == 0
    assert done.out.startswith(f"Usage: transship {command}")
    assert not [line for line in done.out.splitlines() if len(line) > 80]
