"""Wheel and sdist, built from a copy of the repository and installed into empty environments on every Python of this
machine that the project is for."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.servers.docker_registry import DockerRegistry
from tests.support.authorities import as_on_machine
from tests.support.content import image, push

ROOT = Path(__file__).parents[2]
UV = Path(sys.executable).with_name("uv")
STARTER = ("README.md", "mirrors.yaml", "prefect.yaml", "server.env", "worker.env", "examples/demo.py")
OLDEST = (3, 11)


def pythons() -> list[str]:
    """Each minor version once: that of the tests, and what pyenv or the system has."""
    found: dict[tuple[int, ...], str] = {tuple(sys.version_info[:2]): sys.executable}
    places = [*Path("~/.pyenv/versions").expanduser().glob("3.*/bin/python3"), *Path("/usr/bin").glob("python3.*")]
    for place in sorted(places, reverse=True):
        said = subprocess.run([place, "-V"], capture_output=True, text=True, check=False).stdout.removeprefix("Python ")
        version = tuple(int(part) for part in said.split(".")[:2] if part.isdigit())
        if len(version) == 2 and version >= OLDEST:
            found.setdefault(version, str(place))
    return list(found.values())


def run(*words: object, cwd: Path, environ: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        [str(word) for word in words],
        cwd=cwd,
        env={**as_on_machine(), "PYTHONPATH": "", **(environ or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("built")
    source = folder / "source"
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).exists():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, source / name, follow_symlinks=False)
    run(
        UV,
        "build",
        "--quiet",
        "--no-build-isolation",
        "--python",
        sys.executable,
        source,
        "--out-dir",
        folder,
        cwd=folder,
    )
    return folder


def test_both_have_all_that_the_documentation_points_to(built: Path) -> None:
    wheel = zipfile.ZipFile(next(built.glob("*.whl"))).namelist()
    with tarfile.open(next(built.glob("*.tar.gz"))) as packed:
        sdist = [name.partition("/")[2] for name in packed.getnames()]

    for names in (wheel, sdist):
        assert [name for name in STARTER if f"flows/starter/{name}" not in names] == []
        assert "flows/cli/start/init.py" in names
    assert not [name for name in wheel if name.split("/")[0] in ("tests", "deployments", "docs")]
    assert any(name.endswith("licenses/LICENSE") for name in wheel)


@pytest.mark.slow
@pytest.mark.parametrize("python", pythons())
def test_the_wheel_works_in_an_empty_environment(
    built: Path, python: str, registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    """Dependencies are those of the lock, so that nothing new is resolved."""
    home = {"HOME": str(tmp_path / "home"), "XDG_CONFIG_HOME": "", "XDG_CACHE_HOME": ""}
    cache = os.environ.get("UV_CACHE_DIR") or run(UV, "cache", "dir", cwd=tmp_path).strip()
    environment, there = tmp_path / "environment", {"UV_CACHE_DIR": cache}
    run(UV, "venv", "--quiet", "--python", python, environment, cwd=tmp_path)
    install = (UV, "pip", "install", "--quiet", "--python", environment / "bin" / "python")
    run(*install, "--require-hashes", "-r", ROOT / "deployments" / "requirements.lock", cwd=tmp_path, environ=there)
    run(*install, "--no-deps", next(built.glob("*.whl")), cwd=tmp_path, environ=there)
    transship = environment / "bin" / "transship"
    content = image(911)
    push(registry.url, repository, content, "1.0.0")

    assert "transship version" in run(transship, "--version", cwd=tmp_path, environ=home)
    run(transship, "init", "begin", cwd=tmp_path, environ=home)
    assert [name for name in STARTER if not (tmp_path / "begin" / name).is_file()] == []
    run(transship, "mirror", "validate", cwd=tmp_path / "begin", environ=home)
    run(
        transship,
        "copy",
        "-i",
        f"{registry.host}/{repository}:1.0.0",
        "--to-repo",
        "oci:one",
        cwd=tmp_path,
        environ=home,
    )
    run(transship, "copy", "-i", "oci:one:1.0.0", "--to-repo", "oci:two", cwd=tmp_path, environ=home)
    assert content.digest in run(transship, "tag", "resolve", "-i", "oci:two:1.0.0", cwd=tmp_path, environ=home)
    run(environment / "bin" / "python", "-c", "import flows.relocate, tasks.blocks, flows.deploy.deploy", cwd=tmp_path)
