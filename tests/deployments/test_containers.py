"""compose.yaml and the Dockerfile."""

from __future__ import annotations

import fnmatch
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from oci.mirror.reader import read_config
from oci.reference import Repository

DEPLOYMENTS = Path(__file__).parent.parent.parent / "deployments"
ROOT = DEPLOYMENTS.parent


def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOYMENTS / "compose.yaml").read_text())
    return found


SERVICES: dict[str, dict[str, Any]] = compose()["services"]


def test_ports_are_on_loopback_only() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]

    assert ports
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []


@pytest.mark.parametrize("name", [name for name in SERVICES if name != "deploy"])
def test_a_service_is_watched_over(name: str) -> None:
    assert SERVICES[name]["healthcheck"]["test"][0] == "CMD"
    assert SERVICES[name]["restart"] == "unless-stopped"


@pytest.mark.parametrize("name", [name for name in SERVICES if SERVICES[name]["image"] == "transship"])
def test_our_own_containers_may_do_little(name: str) -> None:
    service = SERVICES[name]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]


def test_there_is_what_the_walk_through_promises() -> None:
    assert set(SERVICES) == {"postgres", "server", "deploy", "worker", "receiver", "registry", "s3"}
    assert SERVICES["worker"]["deploy"]["replicas"] == 2


def test_no_secret_stands_in_the_file() -> None:
    text = (DEPLOYMENTS / "compose.yaml").read_text()
    inline = [key for service in SERVICES.values() for key in service.get("environment", {})]

    assert [key for key in inline if re.search(r"PASSWORD$|SECRET|TOKEN$|AUTH_STRING|ACCESS_KEY", key)] == []
    assert "://prefect:" not in text


def test_the_script_makes_every_secret_that_is_asked_for_and_keeps_what_is_there(tmp_path: Path) -> None:
    script = tmp_path / "secrets.sh"
    script.write_bytes((DEPLOYMENTS / "secrets.sh").read_bytes())
    asked = [secret["file"] for secret in compose()["secrets"].values()]
    asked += [file for service in SERVICES.values() for file in service.get("env_file", [])]

    subprocess.run(["sh", str(script)], check=True, capture_output=True)
    made = {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()}
    again = subprocess.run(["sh", str(script)], check=True, capture_output=True, text=True)

    assert [file for file in asked if not (tmp_path / file).is_file() and not (DEPLOYMENTS / file).is_file()] == []
    assert again.stdout == ""
    assert {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()} == made
    assert (tmp_path / "secrets").stat().st_mode & 0o077 == 0
    told = yaml.safe_load(made["registry.yml"])["notifications"]["endpoints"][0]
    assert told["headers"]["Authorization"] == [f"Bearer {made['receiver-token']}"]
    assert told["url"] == f"http://receiver:8765/notifications?registry={mirrored_registry()}"
    assert made["postgres-password"] in made["server.env"]
    assert made["client.env"].strip() in made["server.env"]


def mirrored_registry() -> str:
    """As the mirrors call it, whatever name it was pushed to."""
    store = read_config(str(DEPLOYMENTS / "mirrors.yaml")).mirrors[0].source.store
    assert isinstance(store, Repository)
    return store.registry


def instructions() -> list[list[str]]:
    text = (DEPLOYMENTS / "Dockerfile").read_text().replace("\\\n", " ")
    return [shlex.split(line) for line in text.splitlines() if line and not line.startswith("#")]


def test_the_image_runs_as_nobody_special_by_number() -> None:
    users = [words[1] for words in instructions() if words[0] == "USER"]

    assert users == ["10001:10001"]
    bases = {words[1] for words in instructions() if words[0] == "FROM"}
    assert {base.partition("@")[0] for base in bases} == {"python:3.12-slim-bookworm"}
    assert len(bases) == 1


def test_what_the_image_copies_is_there_and_reaches_the_builder() -> None:
    copies = [words for words in instructions() if words[0] == "COPY" and "--from=build" not in words]
    copied = [name for words in copies for name in words[1:-1]]
    ignore = (DEPLOYMENTS / "Dockerfile.dockerignore").read_text().splitlines()
    allowed = [line.removeprefix("!") for line in ignore if line.startswith("!")]

    assert [name for name in copied if not (ROOT / name).exists()] == []
    assert [name for name in copied if not any(fnmatch.fnmatch(name, pattern) for pattern in allowed)] == []


def test_the_image_is_installed_by_hash_and_names_no_index() -> None:
    text = (DEPLOYMENTS / "Dockerfile").read_text()
    makefile = (ROOT / "Makefile").read_text()

    for line in re.findall(r"pip install .*|pip wheel .*", text.replace("\\\n", " ") + makefile):
        newest = ".venv-next" in line  # of `make test-prefect-next`: versions that no lock has
        assert "--require-hashes -r" in line or "--no-deps" in line or newest, line
    assert "--require-hashes -r /src/build.lock" in text
    assert "--require-hashes -r /src/requirements.lock" in text
    assert not re.search(r"https?://|index-url", text)
    assert "UV_COMPILE_BYTECODE=1" in text
