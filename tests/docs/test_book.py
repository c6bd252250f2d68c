"""The book builds without a warning, without the network, and has what the declarations have."""

from __future__ import annotations

import html
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from flows.cli.output import ExitCode

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("book") / "site"
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text()
        for loading in ('src="http', 'rel="stylesheet" href="http', "fonts.googleapis"):
            assert loading not in text, page


@pytest.mark.parametrize("flag", ["--to-repo", "--registry-ca-cert-path", "--s3-endpoint", "--keep-latest", "--debug"])
def test_the_reference_has_the_flags(site: Path, flag: str) -> None:
    assert flag in (site / "reference" / "commands.html").read_text()


@pytest.mark.parametrize("key", ["immutable", "images_at_a_time", "path_style", "timezone"])
def test_the_reference_has_the_keys_of_mirrors(site: Path, key: str) -> None:
    assert f"<code>{key}</code>" in (site / "reference" / "mirrors.html").read_text()


def test_the_exit_codes_are_those_of_the_commands(site: Path) -> None:
    page = (site / "reference" / "exit-codes.html").read_text()

    assert [int(code) for code in re.findall(r"<td>(\d+)</td>", page)] == [code.value for code in ExitCode]
    for code in ExitCode:
        assert code.meaning.partition("`")[0] in html.unescape(page)
