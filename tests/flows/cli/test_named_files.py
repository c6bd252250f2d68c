"""Every flag of every command that names a file: with one that isn't there, a folder, a link to itself, garbage."""

from __future__ import annotations

import os
from pathlib import Path

import click
import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.cli.app import run as run_here
from flows.cli.flags import OutputFile
from flows.cli.output import ExitCode
from tests.support.command import transship
from tests.support.hints import commands

MIRRORS = """version: 1
mirrors:
- name: app
  source: {{repository: "oci:{folder}/layout"}}
  destinations: [{{repository: "oci:{folder}/kept"}}]
  tags: [{{allow: [v1]}}]
"""
PLACES = frozenset({"FILE", "PATH", "ARCHIVE", "KEY", "FOLDER"})
"""Metavars of files."""

PERSON, TOOL = ExitCode.USAGE, ExitCode.FAILED
"""Who writes the file decides what garbage in it is: a mistake of a person, or a failure."""

COPY = "copy -i oci:{folder}/layout:v1 --to-repo oci:{folder}/to"
EXPORT = "copy -i oci:{folder}/layout:v1 --to-tar {folder}/new.tar"
PLAN = "archive plan -i oci:{folder}/layout:v1 --to-tar {folder}/new.tar"
PUSH = "push -i oci:{folder}/pushed:v1 -f {folder}/file"

READ = {
    ("copy", "--lock"): ("copy --to-repo oci:{folder}/to", TOOL),
    ("copy", "--tar"): ("copy --to-repo oci:{folder}/to", TOOL),
    ("copy", "--sign"): (EXPORT, PERSON),
    ("copy", "--base"): (EXPORT, TOOL),
    ("copy", "--delta-from"): (EXPORT, PERSON),
    ("copy", "--require-signature"): ("copy --tar {folder}/layout.tar --to-repo oci:{folder}/to", PERSON),
    ("copy", "--policy"): (COPY, PERSON),
    ("pull", "--lock"): ("pull -o {folder}/out", TOOL),
    ("pull", "--tar"): ("pull -o {folder}/out", TOOL),
    ("push", "--file"): ("push -i oci:{folder}/pushed:v1", None),
    ("archive plan", "--lock"): ("archive plan --to-tar {folder}/new.tar", TOOL),
    ("archive plan", "--tar"): ("archive plan --to-tar {folder}/new.tar", TOOL),
    ("archive plan", "--base"): (PLAN, TOOL),
    ("archive plan", "--delta-from"): (PLAN, PERSON),
    ("archive plan", "--require-signature"): (
        "archive plan --tar {folder}/layout.tar --to-tar {folder}/new.tar",
        PERSON,
    ),
    ("archive plan", "--policy"): (PLAN, PERSON),
    ("archive verify", "--key"): ("archive verify {folder}/layout.tar", PERSON),
    ("describe", "--tar"): ("describe", TOOL),
    ("inspect", "--tar"): ("inspect", TOOL),
    ("verify", "--lock"): ("verify", TOOL),
    ("policy check", "--policy"): ("policy check oci:{folder}/layout:v1", PERSON),
    ("receipt verify", "--key"): ("receipt verify {folder}/layout.tar", PERSON),
    ("prune", "--keep-lock"): ("prune oci:{folder}/layout --keep-tag v1", TOOL),
    ("prune", "--mirrors"): ("prune oci:{folder}/kept", PERSON),
    ("prune", "--approve"): ("prune", PERSON),
    ("mirror plan", "--file"): ("mirror plan", PERSON),
    ("mirror check", "--file"): ("mirror check", PERSON),
    ("mirror run", "--file"): ("mirror run", PERSON),
    ("mirror watch", "--file"): ("mirror watch", PERSON),
    ("mirror validate", "--file"): ("mirror validate", PERSON),
    ("mirror deploy", "--file"): ("mirror deploy", PERSON),
    ("mirror deploy", "--job-template"): ("mirror deploy -f {folder}/mirrors.yaml", PERSON),
    ("mirror plan", "--only"): ("mirror plan -f {folder}/mirrors.yaml", PERSON),
    ("mirror check", "--only"): ("mirror check -f {folder}/mirrors.yaml", PERSON),
    ("mirror run", "--only"): ("mirror run -f {folder}/mirrors.yaml", PERSON),
    ("receiver", "--token-file"): ("receiver", None),
}
"""Flags of files that are read: the command line without them, and the exit code for garbage; None where it is none."""

IMPORT_PREFECT = {("mirror deploy", "--job-template")}
"""Before the file is read, which takes a second of CPU for each try."""

WRITTEN = {
    ("copy", "--to-tar"): "copy -i oci:{folder}/layout:v1",
    ("copy", "--report"): COPY,
    ("copy", "--receipt"): COPY,
    ("copy", "--lock-output"): "copy -i oci:{folder}/layout:v1 --to-repo 127.0.0.1:1/copied/app",
    ("copy", "--metrics-file"): COPY,
    ("push", "--to-tar"): "push -i 127.0.0.1:1/shop/app:v1 -f {folder}/file",
    ("push", "--lock-output"): "push -b 127.0.0.1:1/shop/app:v1 -f {folder}/file",
    ("pull", "--output"): "pull -i oci:{folder}/layout:v1",
    ("archive plan", "--to-tar"): "archive plan -i oci:{folder}/layout:v1",
    ("prune", "--output"): "prune oci:{folder}/layout --keep-tag v1 --plan",
    ("prune", "--report"): "prune oci:{folder}/layout --keep-tag v1",
    ("mirror plan", "--output"): "mirror plan -f {folder}/mirrors.yaml",
    ("mirror check", "--report"): "mirror check -f {folder}/mirrors.yaml",
    ("mirror run", "--report"): "mirror run -f {folder}/mirrors.yaml",
    ("mirror run", "--metrics-file"): "mirror run -f {folder}/mirrors.yaml",
    ("mirror watch", "--metrics-file"): "mirror watch -f {folder}/mirrors.yaml",
    ("receiver", "--journal"): "receiver",
    ("help", "--man-pages"): "help",
}
FOLDERS = {("pull", "--output"), ("help", "--man-pages"), ("copy", "--metrics-file")}
FOLDERS |= {("mirror run", "--metrics-file"), ("mirror watch", "--metrics-file")}

SHARED = ("--registry-ca-cert-path", "--registry-client-cert", "--registry-client-key", "--s3-ca-cert-path")
"""Of every command that asks a registry or an object store; tried with two of them."""
ELSEWHERE = {("push", "--file-exclusion"), ("copy", "--policy-root")}
"""Paths inside what is packed."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tmp_path = tmp_path_factory.mktemp("named")
    (tmp_path / "file").write_text("file")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "link")
    (tmp_path / "garbage").write_bytes(b"\xff\xfe {[ \x00 no file of anything\n")
    (tmp_path / "mirrors.yaml").write_text(MIRRORS.format(folder=tmp_path))
    pushed = transship("push", "-i", f"oci:{tmp_path}/layout:v1", "-f", str(tmp_path / "file"))
    exported = transship("copy", "-i", f"oci:{tmp_path}/layout:v1", "--to-tar", str(tmp_path / "layout.tar"))
    assert (pushed.code, exported.code) == (0, 0), pushed.err + exported.err
    return tmp_path


def run(words: str, flag: str, path: Path) -> tuple[int, str]:
    places = {"PREFECT_API_URL": "http://127.0.0.1:1/api", "TRANSSHIP_RECEIVER_TOKEN": "word"}
    places |= {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
    done = transship(*words.format(folder=path.parents[path.name == "such"]).split(), flag, str(path), environ=places)
    return done.code, done.err


@pytest.mark.parametrize(
    ("name", "flag"),
    [pytest.param(*each, marks=pytest.mark.slow) if each in IMPORT_PREFECT else each for each in READ],
    ids=str,
)
def test_a_file_that_can_not_be_read_is_wrong_usage(folder: Path, name: str, flag: str) -> None:
    words, of_garbage = READ[name, flag]
    expected = dict.fromkeys(("nosuch", "no/such", "link"), ExitCode.USAGE)
    if (name, flag) != ("push", "--file"):
        expected["folder"] = ExitCode.USAGE
    if of_garbage is not None:
        expected["garbage"] = of_garbage
    done = {kind: run(words, flag, folder / kind) for kind in expected}

    assert {kind: code for kind, (code, _) in done.items()} == expected, done
    assert all(Path(kind).name in text for kind, (_, text) in done.items()), done


@pytest.mark.parametrize(("name", "flag"), WRITTEN, ids=str)
def test_a_file_that_can_not_be_written_is_wrong_usage(folder: Path, name: str, flag: str) -> None:
    kinds = ("file/such",) if (name, flag) in FOLDERS else ("no/such", "folder", "link")
    done = {kind: run(WRITTEN[name, flag], flag, folder / kind) for kind in kinds}

    assert {kind: code for kind, (code, _) in done.items()} == dict.fromkeys(kinds, ExitCode.USAGE), done


@pytest.mark.parametrize("flag", SHARED)
def test_a_certificate_that_can_not_be_used_is_wrong_usage(folder: Path, flag: str) -> None:
    words = "tag list -i 127.0.0.1:1/shop/app"
    if flag.startswith("--s3"):
        words = "archive list s3://bucket/key --s3-endpoint https://127.0.0.1:1"
    done = {kind: run(words, flag, folder / kind) for kind in ("nosuch", "no/such", "folder", "link", "garbage")}

    assert {kind: code for kind, (code, _) in done.items()} == dict.fromkeys(done, ExitCode.USAGE), done


def test_every_flag_of_a_file_is_in_a_table() -> None:
    flags = {
        (name, max(option.opts, key=len))
        for name, command in commands()
        for option in command.params
        if isinstance(option, click.Option)
        and not option.is_flag
        and (set((option.metavar or "").split("|")) & PLACES or isinstance(option.type, OutputFile))
    }
    shared = {(name, flag) for name, flag in flags if flag in SHARED}

    assert flags - shared - ELSEWHERE - READ.keys() - WRITTEN.keys() == set()


@pytest.mark.parametrize(("name", "flag"), [*READ, *((name, "") for name in SHARED)], ids=str)
def test_a_file_without_an_end_is_refused(folder: Path, name: str, flag: str) -> None:
    """Of a list of tokens or of certificates the beginning would be another list."""
    words = READ[name, flag][0] if flag else "tag list -i 127.0.0.1:1/shop/app"
    if name.startswith("--s3"):
        words = "archive list s3://bucket/key --s3-endpoint https://127.0.0.1:1"
    code, text = run(words.replace("{folder}", str(folder)), flag or name, Path("/dev/zero"))

    assert code == ExitCode.USAGE, text


@pytest.mark.parametrize("name", ["copy", "pull", "archive plan", "describe", "inspect"])
def test_an_archive_that_is_a_pipe_is_refused_at_once(folder: Path, name: str) -> None:
    """An archive is read at any place of it; who opened the pipe would wait for somebody to write."""
    pipe = folder / "pipe"
    pipe.unlink(missing_ok=True)
    os.mkfifo(pipe)
    for flag in [flag for of, flag in READ if of == name and flag in ("--tar", "--base")]:
        code, text = run(READ[name, flag][0], flag, pipe)
        assert (code, "no regular file" in text) == (ExitCode.USAGE, True), text


@pytest.mark.parametrize(("name", "flag"), [*READ, *((name, "") for name in SHARED)], ids=str)
def test_a_pipe_that_nobody_writes_to_is_not_waited_for(
    folder: Path, name: str, flag: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In this process: a minute is a second here."""
    monkeypatch.setattr("oci.output.PATIENCE", 0.05)
    pipe = folder / "silent"
    pipe.unlink(missing_ok=True)
    os.mkfifo(pipe)
    words = READ[name, flag][0] if flag else "tag list -i 127.0.0.1:1/shop/app"
    if name.startswith("--s3"):
        words = "archive list s3://bucket/key --s3-endpoint https://127.0.0.1:1"
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:1/api"}):
        code = run_here([*words.format(folder=folder).split(), flag or name, str(pipe)])
    text = capsys.readouterr().err

    assert (code, str(pipe) in text) == (ExitCode.USAGE, True), text
