"""Help: examples that are right, the flags that most calls need first, every flag on request."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from flows.cli.app import root
from flows.cli.click_ext import Verb
from flows.cli.output import ExitCode

SCREENS = 72
"""Lines that `--help` has at the most on a terminal of 80 columns: less than two screens of 40."""


def verbs(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        if isinstance(command, click.Group):
            yield from verbs(command, (*path, name))
        elif command is not None:
            yield " ".join((*path, name)), command


VERBS = {path: command for path, command in verbs(root) if isinstance(command, Verb)}


def shown(path: str, flag: str) -> str:
    result = CliRunner().invoke(root, [*path.split(), flag], prog_name="transship", terminal_width=80)
    assert result.exit_code == 0
    return result.output


def test_what_is_no_verb_is_known() -> None:
    assert {path for path, _ in verbs(root)} - set(VERBS) == {"completion", "help"}


@pytest.mark.parametrize("path", VERBS)
def test_three_examples_are_right_calls(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    command = VERBS[path]
    assert len(set(command.examples)) >= 3
    for example in command.examples:
        command.make_context(path, shlex.split(example))  # raises for a flag or a value that the command hasn't


@pytest.mark.parametrize("path", VERBS)
def test_help_is_two_screens_at_most_and_all_is_all(path: str) -> None:
    command = VERBS[path]
    brief = shown(path, "--help")
    assert len(brief.splitlines()) <= SCREENS
    if command.rare:
        everything = shown(path, "--help-all")
        flags = [option for option in command.params if isinstance(option, click.Option) and not option.hidden]
        assert [option.opts for option in flags if option.opts[-1] not in everything] == []
        assert not any(f"\n  {option.opts[0]} " in brief for option in command.rare)


def test_help_has_the_first_sentence_of_each_flag_and_all_has_every_one() -> None:
    brief, everything = (" ".join(shown("copy", flag).split()) for flag in ("--help", "--help-all"))
    said = "--platform OS/ARCH Copy these platforms of an index only. "

    assert f"{said}(repeatable)" in brief
    assert f"{said}The index is rewritten and gets a new digest (repeatable)." in everything
    assert "With ! in front" not in brief
    assert "[default: imgpkg]" in everything


@pytest.mark.parametrize("path", ["", "copy", "tag", "mirror run"])
def test_a_manual_page_is_shown_without_a_warning_and_has_every_flag(path: str) -> None:
    page = CliRunner().invoke(root, ["help", "--man", *path.split()], prog_name="transship").output
    plainly = {**os.environ, "MANWIDTH": "100", "MANPAGER": "cat"}
    shown = subprocess.run(
        ["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-"],
        input=page,
        capture_output=True,
        text=True,
        check=True,
        env=plainly,
    )

    assert shown.stderr == ""
    plain = re.sub(r"\x1b\[[0-9;]*m|.\x08", "", shown.stdout)
    assert ExitCode.DRIFT.meaning.split(":")[0] in plain
    command: click.Command = root
    for word in path.split():
        assert isinstance(command, click.Group)
        command = command.get_command(click.Context(command), word) or command
    flags = [one for one in command.params if isinstance(one, click.Option) and not one.hidden]
    assert [one.opts for one in flags if one.opts[-1] not in plain] == []


def test_every_command_has_a_page(tmp_path: Path) -> None:
    assert CliRunner().invoke(root, ["help", "--man-pages", str(tmp_path)], prog_name="transship").exit_code == 0
    names = {f"transship-{name.replace(' ', '-')}.1" for name, _ in verbs(root)}
    assert names | {"transship.1", "transship-mirror.1"} <= {path.name for path in tmp_path.iterdir()}
