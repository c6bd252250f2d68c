"""Commands in the README, in the READMEs of deployments and in the book that no console block runs: each is a right
call, and what starts a server and a worker is run as it stands."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import click
import httpx
import pytest

from flows.cli.app import root
from flows.cli.output import ExitCode
from tests.support.command import PROGRAM, transship
from tests.support.waiting import until

ROOT = Path(__file__).parent.parent.parent
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "deployments").rglob("*.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    ROOT / "flows" / "starter" / "README.md",
]
SHELL = re.compile(r"^```(?:sh|bash|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CALL = re.compile(r"(?:\w+=\S* )*(?:exec )?transship (.*)")
"""One command of a line, with variables before it."""

CODE = re.compile(r"`(transship [^`]+)`")
TABLE = re.compile(r"^\| `([^`|]+)`.*?\| (.*) \|$", re.MULTILINE)
PEERS = {
    "imgpkg": {"push", "pull", "copy", "describe", "tag"},
    "skopeo": {"copy", "sync", "inspect", "delete", "list-tags"},
    "crane": {"copy", "digest"},
    "regsync": {"once", "server", "check"},
    "oras": {"cp"},
    "oc-mirror": {"to"},
}
"""Commands of other tools, from their documentation."""


def calls(text: str) -> Iterator[str]:
    """Each call of transship, without what a shell does around it."""
    for block in SHELL.findall(text):
        for line in block.replace("\\\n", " ").splitlines():
            for part in re.split(r"&&|\|\||[;|&]", line.split("#")[0].removeprefix("$ ")):
                words = part.strip().split("transship ", 1)
                if part.strip().startswith(("transship ", "exec transship ")) or re.match(
                    r"^\w+=\S* .*transship ", part
                ):
                    yield words[1]
    for code in CODE.findall(text):
        yield code.removeprefix("transship ")


def check_call(words: str) -> None:
    """Raises click.UsageError for a command or a flag that there isn't; placeholders stand for values."""
    group: click.Command = root
    context = click.Context(root, info_name="transship")
    rest = [
        word for word in shlex.split(words.replace("...", "X").split(" >")[0]) if word not in ("<", ">", "<<'YAML'")
    ]
    while isinstance(group, click.Group) and rest:
        name, *rest = rest
        below = group.get_command(context, name)
        if below is None:
            raise click.UsageError(f"there is no command {name}: {words}")
        group, context = below, click.Context(below, info_name=name, parent=context)
    group.make_context(str(context.info_name), rest, parent=context.parent, resilient_parsing=True)
    flags = {flag for option in group.get_params(context) for flag in (*option.opts, *option.secondary_opts)}
    named = [word.partition("=")[0] for word in rest if word.startswith("-") and len(word) > 1]
    assert [flag for flag in named if flag not in flags and flag[:2] not in flags] == [], words


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_call_of_a_page_is_right(page: Path) -> None:
    for words in calls(page.read_text()):
        check_call(words)


def test_a_wrong_call_is_found() -> None:
    for words in ("copi -i a", "copy --no-such-flag", "mirror rum"):
        with pytest.raises((click.UsageError, AssertionError)):
            check_call(words)


def table() -> list[tuple[str, str]]:
    text = (ROOT / "README.md").read_text().partition("## Your command, and ours")[2].partition("\n## ")[0]
    return TABLE.findall(text)


def test_the_table_names_commands_that_there_are() -> None:
    rows = table()
    assert {theirs.split()[0] for theirs, _ in rows} == set(PEERS)
    for theirs, ours in rows:
        program, *words = theirs.replace(",", "").split()
        assert not words or words[0] in PEERS[program] or program == "imgpkg", theirs
        assert program == "imgpkg" or CODE.findall(ours), theirs


@pytest.mark.parametrize("row", [row for row in table() if row[0].startswith("skopeo")], ids=lambda row: row[0])
def test_skopeo_has_what_the_table_says_of_it(row: tuple[str, str]) -> None:
    program, command, *words = row[0].split()
    shown = subprocess.run([program, command, "--help"], capture_output=True, text=True, check=True).stdout

    assert [word for word in words if word.startswith("--") and word not in shown] == []


def test_imgpkgs_words_are_the_same() -> None:
    for command in PEERS["imgpkg"]:
        assert root.get_command(click.Context(root), command) is not None


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def block_that_starts_a_worker(page: Path) -> str:
    (block,) = [block for block in SHELL.findall(page.read_text()) if "prefect server start" in block]
    return str(block)


@pytest.mark.slow
@pytest.mark.parametrize("place", ["deployments", "starter"])
def test_a_server_and_a_worker_start_as_the_page_says(place: str, tmp_path: Path) -> None:
    """With a free port in place of Prefect's, which another server may have."""
    port = free_port()
    if place == "starter":
        assert transship("init", str(tmp_path / "begin")).code == ExitCode.DONE
        folder, block = tmp_path / "begin", block_that_starts_a_worker(ROOT / "flows/starter/README.md")
        (folder / "worker.env").write_text((folder / "worker.env").read_text().replace("4200", str(port)))
    else:
        folder, block = ROOT, block_that_starts_a_worker(ROOT / "deployments/README.md")
        for name in ("worker.env", "server.env"):
            (tmp_path / name).write_text((ROOT / "deployments" / name).read_text().replace("4200", str(port)))
            block = block.replace(f"deployments/{name}", str(tmp_path / name))
    environment = {
        "PATH": f"{PROGRAM.parent}:/usr/bin:/bin",
        "HOME": str(tmp_path),
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "LC_ALL": "C.UTF-8",
    }
    with (tmp_path / "log").open("w+") as log:
        shell = subprocess.Popen(
            ["bash", "-e", "-c", block], cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
        )
        try:
            until("a worker polls", lambda: _polls(port) or shell.poll() is not None)
            assert shell.poll() is None, (tmp_path / "log").read_text()[-3000:]
            names = {
                one["name"] for one in httpx.post(f"http://127.0.0.1:{port}/api/deployments/filter", json={}).json()
            }
            assert "relocate" in names
        finally:
            os.killpg(shell.pid, signal.SIGTERM)
            # On a busy machine Prefect's server waits longer for its clients.
            with suppress(subprocess.TimeoutExpired):
                shell.wait(30)
            with suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGKILL)
            shell.wait()


def _polls(port: int) -> bool:
    """Whether a worker of the pool has told the server that it lives."""
    try:
        answer = httpx.post(f"http://127.0.0.1:{port}/api/work_pools/transship/workers/filter", json={}, timeout=5)
    except httpx.HTTPError:
        return False
    return answer.status_code == 200 and any(one["status"] == "ONLINE" for one in answer.json())
