"""Completion in a shell: tags and repositories, asked of the registry."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from click.shell_completion import CompletionItem

from flows.cli.start.complete import references
from oci.layout.index import REF_NAME
from tests.servers.docker_registry import DockerRegistry
from tests.servers.http_server import LoopbackServer, QuietHandler
from tests.support.command import PROGRAM, transship
from tests.support.content import image, push

TYPE = """compopt() { :; }
COMP_LINE="$1" COMP_POINT=${#1}
_transship_completion transship
printf '%s\\n' "${COMPREPLY[@]}"
"""


def typed(line: str) -> list[str]:
    """What bash is given for a line, when Tab is pressed at its end."""
    script = f"{transship('completion', 'bash').out}\n{TYPE}"
    environment = os.environ | {"PATH": f"{PROGRAM.parent}:{os.environ['PATH']}", "HOME": "/nonexistent"}
    done = subprocess.run(
        ["bash", "-c", script, "bash", line], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stderr == ""
    return done.stdout.split()


def names(items: list[CompletionItem]) -> list[str]:
    return [item.value for item in items]


def test_bash_completes_tags_behind_a_colon(registry: DockerRegistry, repository: str) -> None:
    for number, tag in enumerate(("1.0", "1.1", "2.0")):
        push(registry.url, repository, image(700 + number), tag)

    assert typed(f"transship copy -i {registry.host}/{repository}:1") == ["1.0", "1.1"]
    assert typed("transship tag li") == ["list"]


def test_repositories_and_tags_complete(registry: DockerRegistry, repository: str) -> None:
    place = f"{registry.host}/{repository}"
    push(registry.url, repository, image(710), "stable")

    assert names(references(place[:-1])) == [place]
    assert names(references(f"docker://{place[:-1]}")) == [f"docker://{place}"]
    assert names(references(f"{place}:s")) == [f"{place}:stable"]


def test_tags_of_a_folder_complete(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert transship("push", "-i", f"oci:{tmp_path}/to:v1", "-f", str(tmp_path / "file")).code == 0

    assert names(references(f"oci:{tmp_path}/to:")) == [f"oci:{tmp_path}/to:v1"]


def test_what_can_not_be_asked_completes_nothing() -> None:
    for text in ("", "web", "127.0.0.1:1/", "127.0.0.1:1/shop/app:", "A.example/UPPER:1", "oci:/nonexistent:"):
        assert references(text) == []


HOSTILE = (
    "$(touch pwned)",
    "`touch pwned`",
    "a\nfile,/etc",
    "a\x1b[2J",
    "a;touch pwned",
    "a b",
    "\u202eb",
    "../ab",
)


class _Hostile(QuietHandler):
    def do_GET(self) -> None:
        if self.path.startswith("/v2/_catalog"):
            self.answer(200, json.dumps({"repositories": ["shop/ok", *(f"shop/{name}" for name in HOSTILE)]}).encode())
        elif "/tags/list" in self.path:
            self.answer(200, json.dumps({"name": "shop/ok", "tags": ["ok", *HOSTILE]}).encode())
        else:
            self.answer(404)


class Hostile(LoopbackServer):
    handler = _Hostile


def test_no_name_of_a_stranger_reaches_the_line_that_a_person_writes(tmp_path: Path) -> None:
    """What a shell completes is run with the next press of a key."""
    folder = tmp_path / "to"
    (tmp_path / "file").touch()
    assert transship("push", "-i", f"oci:{folder}:ok", "-f", str(tmp_path / "file")).code == 0
    index = json.loads((folder / "index.json").read_text())
    entry = index["manifests"][0]
    index["manifests"] += [{**entry, "annotations": {REF_NAME: name}} for name in HOSTILE]
    (folder / "index.json").write_text(json.dumps(index))
    with Hostile() as server:
        assert names(references(f"{server.host}/sh")) == [f"{server.host}/shop/ok"]
        assert names(references(f"{server.host}/shop/ok:")) == [f"{server.host}/shop/ok:ok"]
        # Bash breaks words at a colon, so that it is given what follows the last one.
        assert typed(f"transship copy -i {server.host}/shop/") == [f"{server.host.partition(':')[2]}/shop/ok"]
    assert names(references(f"oci:{folder}:")) == [f"oci:{folder}:ok"]
