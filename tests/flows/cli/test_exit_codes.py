"""One table of exit codes, against every command."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.cli.output import ExitCode
from tests.support.command import PROGRAM, transship
from tests.support.hints import commands, strange_flags

COMMANDS = tuple(name for name, _ in commands())

BAD_LOCK = "apiVersion: imgpkg.carvel.dev/v1alpha1\nkind: ImagesLock\nimages:\n- imagge: x\n"
BAD_MIRRORS = "version: 1\nmirrors:\n- name: a\n  sauce: {}\n"
MIRRORS = """version: 1
mirrors:
- name: app
  source: {{repository: {host}/shop/app}}
  destinations: [{{repository: "oci:{folder}"}}]
  tags: [{{allow: [v1]}}]
"""

WRONG = {
    "copy": (
        "-b A.example/UPPER --to-repo b.example/cc",
        "-b a.example/bb --to-repo oci:{mirrors}",
        "-b a.example/bb --to-repo oci-archive:{folder}/none/x.tar",
        "-b a.example --to-repo b.example/cc",
        "-b a.example/bb --to-repo oci:{folder}/cc --concurrency many",
    ),
    "pull": ("-i https://a.example/bb -o {folder}/out",),
    "push": ("-i a.example/bb@sha256:1 -f {folder}", "-i a.example/bb", "-i oci:{mirrors}:1 -f {folder}"),
    "describe": ("-b a.example/bb:", "-b a.example/bb:1 -o json"),
    "verify": ("https://a.example/bb",),
    "tag list": ("-i a.example/UPPER", "-i a.example:5000", "-i localhost:5000"),
    "tag resolve": ("-i a.example/UPPER",),
    "tag delete": ("-i a.example/UPPER", "-i a.example/bb@sha256:" + "1" * 64),
    "inspect": ("", "a.example/UPPER", "a.example/bb --platform linux"),
    "init": ("{mirrors}", "{folder} --source a.example/UPPER", "{folder} --destination a.example/bb:1"),
    "auth check": ("", "a.example/UPPER", "{mirrors}"),
    "prune": ("a.example/bb --keep-digest sha256:12", "a.example/bb -f {mirrors}"),
    "policy check": ("https://a.example/bb --policy {mirrors}", "{host}/shop/app:1 --policy {mirrors}"),
    "receipt verify": ("", "{folder}/nosuch.json --key {folder}/nosuch.pub", "a.example/UPPER --key {mirrors}"),
    "mirror plan": ("-f {mirrors}",),
    "mirror validate": ("-f {mirrors}",),
    "mirror watch": ("-f {mirrors}",),
    "mirror check": ("-f {mirrors}",),
    "mirror run": ("-f {mirrors}",),
    "mirror deploy": ("-f {mirrors}",),
    "archive list": ("",),
    "archive verify": ("",),
    "archive diff": ("one",),
    "archive plan": ("-b a.example/bb",),
    "completion": ("nosuchshell",),
    "help": ("nosuchcommand",),
    "version": ("extra",),
    "mirror schema": ("extra",),
}
"""Flags, references and files of a person that can't be used."""

UNREACHABLE = {
    "copy": "-b {host}/shop/app:1 --to-repo oci:{folder}/to",
    "pull": "-i {host}/shop/app:1 -o {folder}/out",
    "push": "-i {host}/shop/app:1 -f {folder}/bad.yml",
    "describe": "-b {host}/shop/app:1",
    "verify": "{host}/shop/app:1",
    "tag list": "-i {host}/shop/app",
    "tag resolve": "-i {host}/shop/app:1",
    "tag delete": "-i {host}/shop/app:1",
    "inspect": "{host}/shop/app:1",
    "auth check": "{host}/shop/app",
    "prune": "{host}/shop/app --keep-tag 1",
    "mirror plan": "-f {good}",
    "mirror check": "-f {good}",
    "mirror run": "-f {good}",
    "archive plan": "-b {host}/shop/app:1 --to-tar {folder}/x.tar",
}
"""Command lines that ask a registry for something."""


def filled(words: str, folder: Path, host: str = "127.0.0.1:1") -> list[str]:
    (folder / "bad.yml").write_text(BAD_LOCK)
    (folder / "mirrors.yaml").write_text(BAD_MIRRORS)
    (folder / "good.yaml").write_text(MIRRORS.format(host=host, folder=folder / "to"))
    names = {"lock": folder / "bad.yml", "mirrors": folder / "mirrors.yaml", "good": folder / "good.yaml"}
    return [word.format(host=host, folder=folder, **names) for word in words.split()]


@pytest.mark.parametrize("name", COMMANDS)
def test_an_unknown_flag_is_wrong_usage_of_every_command(name: str) -> None:
    done = transship(*name.split(), "--nosuchflag")

    assert (done.code, done.out) == (ExitCode.USAGE, "")
    assert "unknown flag: --nosuchflag" in done.err
    assert f"transship {name} --help" in done.err


@pytest.mark.parametrize(
    ("name", "words"), [(name, words) for name, several in WRONG.items() for words in several], ids=str
)
def test_what_a_person_wrote_and_can_not_be_used_is_wrong_usage(name: str, words: str, tmp_path: Path) -> None:
    assert name in COMMANDS
    done = transship(*name.split(), *filled(words, tmp_path))

    assert done.code == ExitCode.USAGE, done.err
    assert strange_flags(name, done.err) == set()


@pytest.mark.parametrize("words", ["copy --to-repo b.example/cc", "pull -o {folder}/out", "verify"])
def test_a_lock_that_can_not_be_used_is_a_failure(words: str, tmp_path: Path) -> None:
    done = transship(*filled(f"{words} --lock {{lock}}", tmp_path))

    assert done.code == ExitCode.FAILED, done.err
    assert "imagge" in done.err


@pytest.mark.parametrize("name", UNREACHABLE)
def test_a_registry_that_can_not_be_reached_is_a_failure(name: str, tmp_path: Path) -> None:
    done = transship(*name.split(), *filled(UNREACHABLE[name], tmp_path), "--registry-retry-count", "1")

    assert done.code == ExitCode.FAILED, done.err
    assert "127.0.0.1:1" in done.err
    assert strange_flags(name, done.err) == set()


@pytest.mark.parametrize("name", ["archive", "auth", "mirror", "policy", "receipt", "tag"])
def test_a_group_without_a_command_is_wrong_usage_and_its_json_is_a_document(name: str) -> None:
    done, told = transship(name), transship(name, "--json")

    assert (done.code, done.out, told.code) == (ExitCode.USAGE, "", ExitCode.USAGE)
    assert f"Hint: transship {name} --help" in done.err
    assert json.loads(told.out)["Error"]["Kind"] == "Usage"


def test_a_login_that_no_registry_heard_of_is_not_called_refused() -> None:
    done = transship("auth", "check", "127.0.0.1:1/shop/app", "--registry-retry-count", "1")

    assert "Error: 1 of 1 login does not work\n" in done.err


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """A registry that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(60)
        yield listener


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, ExitCode.INTERRUPTED), (signal.SIGTERM, ExitCode.TERMINATED)]
)
@pytest.mark.parametrize("name", UNREACHABLE)
def test_a_signal_ends_every_command_with_its_code(
    name: str, number: signal.Signals, code: ExitCode, silent: socket.socket, tmp_path: Path
) -> None:
    words = filled(UNREACHABLE[name], tmp_path, f"127.0.0.1:{silent.getsockname()[1]}")
    words += ["--registry-connect-timeout", "10m"]
    process = subprocess.Popen([str(PROGRAM), *name.split(), *words], stderr=subprocess.PIPE, text=True)
    connection, _ = silent.accept()
    with connection:
        process.send_signal(number)
        _, said = process.communicate(timeout=60)

    assert process.returncode == code, said
    assert "interrupted; " in said


def test_every_command_is_in_a_table() -> None:
    servers = {"receiver"}
    """Runs until it is ended."""
    assert set(COMMANDS) == {*WRONG, *servers}


@pytest.mark.parametrize(
    "words", [("version",), ("version", "--json"), ("help", "copy"), ("nonsense", "--json")], ids=str
)
def test_a_standard_output_that_is_full_is_a_failure_that_is_said(words: tuple[str, ...]) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run([PROGRAM, *words], stdout=full, stderr=subprocess.PIPE, text=True, check=False)

    assert done.returncode == ExitCode.FAILED
    assert "standard output can't be written to: no space left" in done.stderr
    assert "Traceback" not in done.stderr


def test_standard_streams_that_are_closed_are_no_files_of_ours(tmp_path: Path) -> None:
    """The next file that is opened gets the number of a closed stream, and what is printed would go into it."""
    (tmp_path / "file").write_text("file")
    archive = tmp_path / "archive.tar"
    push = f"push -i oci:{tmp_path}/a:v1 -f {tmp_path}/file"
    for words in (push, f"copy -i oci:{tmp_path}/a:v1 --to-tar {archive} --tty", "help"):
        done = subprocess.run(["sh", "-c", f'exec "$0" {words} <&- >&- 2>&-', PROGRAM], check=False)
        assert done.returncode == ExitCode.DONE
    assert transship("archive", "verify", "--deep", str(archive)).code == ExitCode.DONE


def test_a_working_folder_that_is_gone_is_wrong_usage() -> None:
    for words in ("copy -i oci:a:v1 --to-repo oci:b", "archive verify a.tar", "pull -i oci:/a:v1 -o x"):
        script = f'd=$(mktemp -d) && cd "$d" && rmdir "$d" && exec "$0" {words}'
        command = ["sh", "-c", script, str(PROGRAM)]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=60
        )

        assert done.returncode in (ExitCode.USAGE, ExitCode.FAILED), done.stderr
        assert "[Errno" not in done.stderr, done.stderr
