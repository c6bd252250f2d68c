"""`transship init`: what it writes is what the package has, is complete, and works as its own text says."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from flows.cli.output import ExitCode
from tests.servers.docker_registry import DockerRegistry
from tests.support.command import PROGRAM, transship
from tests.support.content import image, push
from tests.support.prefect_server import PREFECT, PrefectServer, shared_server

DEPLOYMENTS = Path(__file__).parents[3] / "deployments"
_COMMANDS = re.compile(r"^#   transship ((?:auth|mirror) (?!watch|deploy).*?)(?:  .*)?$", re.MULTILINE)
_COMMENTED = re.compile(r"^( *)# ( *(?:- )?(?:[\w.]+: .*|[\w.]+:|- \{.*))$", re.MULTILINE)
"""Keys that are comments, and no sentences."""


@pytest.fixture
def prefect_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> PrefectServer:
    return shared_server(request, tmp_path_factory)


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_folder_gets_the_files_that_the_package_has(tmp_path: Path) -> None:
    done = transship("init", str(tmp_path / "new"), "--json")

    assert done.code == ExitCode.DONE, done.err
    folder = tmp_path / "new"
    assert set(json.loads(done.out)["Result"]["files"]) == names(folder)
    for name in ("prefect.yaml", "server.env", "worker.env", "examples/demo.py", "examples/mirrors.yaml"):
        assert (folder / name).read_bytes() == (DEPLOYMENTS / name).read_bytes()
        assert not (folder / name).is_symlink()
    assert {"README.md", "mirrors.yaml", "examples/shop/config/app.yml"} <= names(folder)
    listed = set(re.findall(r"`([\w./]+\.(?:yaml|env))`", (folder / "README.md").read_text()))
    assert listed <= names(folder)
    for name in names(folder):
        loaded = re.findall(r"(?:^|[ ;(])\. (\S+\.env)", (folder / name).read_text(), re.MULTILINE)
        assert [path for path in loaded if not (folder / name).parent.joinpath(path).is_file()] == [], name


def test_nothing_is_overwritten_and_then_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "worker.env").write_text("mine")

    done = transship("init", str(tmp_path))

    assert done.code == ExitCode.USAGE
    assert "worker.env" in done.err
    assert names(tmp_path) == {"worker.env"}
    assert (tmp_path / "worker.env").read_text() == "mine"


def test_a_link_in_the_way_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "mirrors.yaml").symlink_to(tmp_path / "elsewhere")

    assert transship("init", str(tmp_path / "new")).code == ExitCode.USAGE
    assert not (tmp_path / "elsewhere").exists()


def test_the_mirror_works_as_its_text_says(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    for number, tag in enumerate(("1.0.0", "1.1.0", "1.2.0", "1.3.0", "latest")):
        push(registry.url, repository, image(700 + number), tag)
    sides = f"--source {registry.host}/{repository} --destination {other_registry.host}/{repository}".split()
    file = str(tmp_path / "mirrors.yaml")

    assert transship("init", str(tmp_path), *sides).code == ExitCode.DONE
    said = _COMMANDS.findall(Path(file).read_text())
    assert [words.split()[:2] for words in said] == [
        ["auth", "check"],
        ["mirror", "validate"],
        ["mirror", "plan"],
        ["mirror", "run"],
        ["mirror", "check"],
    ]
    for words in said:
        command = words.replace("mirrors.yaml", file).split()
        done = transship(*command, *(["-f", file] if command[0] == "mirror" else []))
        assert done.code == ExitCode.DONE, (words, done.err)
    tags = transship("tag", "list", "-i", f"{other_registry.host}/{repository}").out.split()
    assert tags == ["1.1.0", "1.2.0", "1.3.0", "latest"]


def test_a_shell_completes_the_names_of_mirrors(tmp_path: Path) -> None:
    assert transship("init", str(tmp_path)).code == ExitCode.DONE
    words = f"transship mirror run -f {tmp_path}/mirrors.yaml fi"
    environment = {"_TRANSSHIP_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": "5"}

    assert transship(environ=environment, program=PROGRAM).out == "plain,first\n"


def test_what_stands_in_comments_is_right_too(tmp_path: Path) -> None:
    assert transship("init", str(tmp_path)).code == ExitCode.DONE
    text = (tmp_path / "mirrors.yaml").read_text()
    keys = _COMMENTED.sub(r"\1\2", text)
    lines = [line for line in keys.splitlines() if not line.lstrip().startswith("#")]
    (tmp_path / "whole.yaml").write_text("\n".join(lines))
    assert {"platforms", "artifacts", "on_push"} <= set(yaml.safe_load("\n".join(lines))["mirrors"][0])

    done = transship("mirror", "validate", "-f", str(tmp_path / "whole.yaml"), "--json")

    assert done.code == ExitCode.DONE, done.err
    assert [one["mirror"] for one in json.loads(done.out)["Result"]["mirrors"]] == ["first", "tools"]
    assert transship("mirror", "validate", "-f", str(tmp_path / "examples/mirrors.yaml")).code == ExitCode.DONE


@pytest.mark.slow
def test_both_ways_onto_a_prefect_server_work(prefect_server: PrefectServer, tmp_path: Path) -> None:
    assert transship("init", str(tmp_path)).code == ExitCode.DONE
    environment = {**os.environ, **prefect_server.environment}
    prefect_server.deployed = False  # some names are those of deployments/
    before = {one["id"]: one["updated"] for one in prefect_server.request("POST", "/deployments/filter", {})}

    deployed = transship("mirror", "deploy", "-f", str(tmp_path / "mirrors.yaml"), environ=environment)
    assert deployed.code == ExitCode.DONE, deployed.err
    forms = subprocess.run(
        [PREFECT, "--no-prompt", "deploy", "--all"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )

    assert forms.returncode == 0, forms.stdout + forms.stderr
    deployments = prefect_server.request("POST", "/deployments/filter", {})
    found = {one["name"] for one in deployments if before.get(one["id"]) != one["updated"]}
    declared = {one["name"] for one in yaml.safe_load((tmp_path / "prefect.yaml").read_text())["deployments"]}
    assert declared | {"first"} <= found
