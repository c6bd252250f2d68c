"""Where Prefect's server is, as a person sets it: in the environment or in a profile."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from flows.cli.output import ExitCode
from tests.support.command import PROGRAM, transship

MONITORED = "copy -i oci:{folder}/from:v1 --to-repo oci:{folder}/to --monitor"
UNUSABLE = ("nonsense", "127.0.0.1:4200/api", "http://127.0.0.1:99999/api", "http:///api", "ftp://127.0.0.1/api")


def words(line: str, folder: Path) -> list[str]:
    (folder / "mirrors.yaml").write_text("version: 1\n")
    return line.format(folder=folder).split()


@pytest.mark.parametrize("line", [MONITORED, "mirror deploy -f {folder}/mirrors.yaml", "receiver"])
@pytest.mark.parametrize("address", UNUSABLE)
def test_what_is_no_address_is_wrong_usage(line: str, address: str, tmp_path: Path) -> None:
    places = {"PREFECT_API_URL": address, "PREFECT_HOME": str(tmp_path)}

    done = transship(*words(line, tmp_path), environ=places)

    assert done.code == ExitCode.USAGE, done.err
    assert "PREFECT_API_URL is no URL" in done.err
    assert "http://127.0.0.1:4200/api" in done.err


def test_an_address_in_a_profile_is_judged_too_and_no_login_is_shown(tmp_path: Path) -> None:
    (tmp_path / "profiles.toml").write_text(
        'active = "mine"\n[profiles.mine]\nPREFECT_API_URL = "https://bob:secret@corp.example:port/api"\n'
    )

    done = transship(*words(MONITORED, tmp_path), program=PROGRAM, environ={"PREFECT_HOME": str(tmp_path)})

    assert done.code == ExitCode.USAGE, done.err
    assert "https://corp.example:port/api" in done.err
    assert "secret" not in done.err


def test_a_setting_of_prefect_that_can_not_be_used_is_wrong_usage(tmp_path: Path) -> None:
    places = {"PREFECT_API_REQUEST_TIMEOUT": "soon", "PREFECT_HOME": str(tmp_path)}

    done = transship(*words(MONITORED, tmp_path), program=PROGRAM, environ=places)

    assert done.code == ExitCode.USAGE, done.err
    assert "request_timeout" in done.err


def test_a_server_for_one_copy_has_its_time_although_the_address_was_looked_at_first(tmp_path: Path) -> None:
    """Prefect reads its settings when it is imported."""
    code = f"""
from flows.cli import main
main({words(MONITORED, tmp_path)})
from prefect.settings import get_current_settings
print(get_current_settings().server.ephemeral.startup_timeout_seconds)
"""
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PREFECT_API_URL": "nonsense"}

    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False, timeout=120
    )

    assert done.stdout == "180\n", done.stderr
