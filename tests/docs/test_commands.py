"""The console blocks of the book and of the README, run as they stand, against servers that bear the names in them."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers.docker_registry import DockerRegistry
from tests.servers.seaweedfs import ACCESS_KEY, BUCKET, SECRET_KEY, SeaweedFS
from tests.support.command import PROGRAM
from tests.support.content import image, push
from tests.support.shop import push_shop

ROOT = Path(__file__).parent.parent.parent
PAGES = [
    path for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))) if "```console" in path.read_text()
]
CONSOLE = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MEASURED = re.compile(r"\d+(?:\.\d+)? (?=s\b|B\b|KiB\b|MiB\b|requests?\b)")
"""What depends on the machine or on the content: its unit is compared, its number isn't."""


def steps(page: Path) -> Iterator[tuple[str, str]]:
    """The commands of a page in order, each with the output that stands below it."""
    for block in CONSOLE.findall(page.read_text()):
        command, output = "", ""
        for line in block.splitlines(keepends=True):
            if line.startswith("$ "):
                if command:
                    yield command, output
                command, output = line[2:], ""
            elif line.startswith("> ") and not output:
                command += line[2:]
            else:
                output += line
        yield command, output


def comparable(output: str) -> str:
    """Without measured numbers, columns of tables, and empty lines, whose place depends on how two streams meet."""
    lines = (" ".join(line.split()) for line in MEASURED.sub("N ", output).splitlines())
    return "\n".join(filter(None, lines))


def pattern(output: str) -> re.Pattern[str]:
    """`...` stands for any text, on its own line for any number of lines."""
    return re.compile(re.escape(comparable(output)).replace(r"\.\.\.", ".*"), re.DOTALL)


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The registries that the pages name: the first has the shop, pages write to repositories of the second."""
    with (
        DockerRegistry(tmp_path_factory.mktemp("example")) as registry,
        DockerRegistry(tmp_path_factory.mktemp("corp")) as corp,
    ):
        push_shop(registry.url, "shop")
        push(registry.url, "shop/web", image(7), "1.2.3")
        yield {"registry.corp.example": corp.host, "registry.example": registry.host}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_commands_of_a_page_print_what_stands_there(
    page: Path, tmp_path: Path, hosts: dict[str, str], object_store: SeaweedFS
) -> None:
    names = {**hosts, "s3://archives": f"s3://{BUCKET}/{tmp_path.name}"}
    environment = {
        "PATH": f"{PROGRAM.parent}:/usr/bin:/bin",
        "HOME": str(tmp_path),
        "AWS_ENDPOINT_URL_S3": object_store.endpoint,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_DEFAULT_REGION": "us-east-1",
        "LC_ALL": "C.UTF-8",
    }
    for command, expected in steps(page):
        given = command
        for name, real in names.items():
            given = given.replace(name, real)
        done = subprocess.run(
            ["bash", "-c", given],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=120,
            check=False,
        )
        printed = done.stdout
        for name, real in names.items():
            printed = printed.replace(real, name)
        assert done.returncode == 0, f"{command}{done.stdout}"
        if expected:
            matches = pattern(expected).fullmatch(comparable(printed)) is not None
            assert matches, f"$ {command}{printed}\nexpected:\n{expected}"
