"""Credential helpers that hang, fail, or print something else than a login."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from oci.errors import TransshipError
from oci.registry.credentials import config_files
from oci.registry.credentials.credential import ANONYMOUS, Credential
from oci.registry.credentials.keychains import default_credentials

LOGIN = '{"ServerURL":"r.example","Username":"bob","Secret":"hidden-word"}'
BAD = {
    "hangs": ("sleep 60", "gave no answer within 1 s"),
    "hangs with a child": ("sleep 60 & sleep 60", "gave no answer within 1 s"),
    "hangs without its outputs": ("exec >&- 2>&-; sleep 60", "doesn't end"),
    "prints without end": ("cat /dev/zero", "writes without end"),
    "complains without end": ("cat /dev/zero >&2", "writes without end"),
    "prints junk": ("echo junk", "no JSON object"),
    "prints a list": ("echo '[]'", "no JSON object"),
    "fails": ("exit 1", "failed 5 times: exit code 1"),
    "is killed": ("kill -9 $$", "failed 5 times: exit code -9"),
}
GOOD = {
    "has an agent": (f"sleep 60 & echo '{LOGIN}'", "bob"),
    "reads nothing": (f"exec <&-; echo '{LOGIN}'", "bob"),
    "warns": (f"echo a new version is out >&2; echo '{LOGIN}'", "bob"),
    "has nothing": ("echo credentials not found in native keychain; exit 1", ""),
    "has an empty login": ("echo '{}'", ""),
    "has null": ("""echo '{"Username":null,"Secret":null}'""", ""),
}


def logins(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> list[Credential | str]:
    """Those of 12 repositories of a registry for 4 threads, or the errors; each start of the helper leaves a mark."""
    monkeypatch.setattr(config_files, "HELPER_TIMEOUT", 1.0)
    monkeypatch.setattr(config_files, "HELPER_DELAY", 0.0)
    program = folder / "docker-credential-some"
    program.write_text(f"#!/bin/sh\necho x >> {folder}/starts\n{script}\n")
    program.chmod(0o755)
    (folder / "config.json").write_text(json.dumps({"credsStore": "some"}))
    environ = {"HOME": str(folder), "DOCKER_CONFIG": str(folder), "PATH": f"{folder}:/bin:/usr/bin"}
    credentials = default_credentials(environ=environ)

    def one(number: int) -> Credential | str:
        try:
            return credentials.find("r.example", f"team/app{number}")
        except TransshipError as error:
            return str(error)

    with ThreadPoolExecutor(4) as threads:
        return list(threads.map(one, range(12)))


@pytest.mark.parametrize("manner", BAD)
def test_a_helper_that_fails_does_so_once_for_all(tmp_path: Path, manner: str, monkeypatch: pytest.MonkeyPatch) -> None:
    script, why = BAD[manner]
    given = logins(tmp_path, script, monkeypatch)

    assert all(isinstance(one, str) and why in one for one in given)
    assert len(set(map(str, given))) == 1
    assert (tmp_path / "starts").read_text() == "x\n" * (5 if "5 times" in why else 1)


@pytest.mark.parametrize("manner", GOOD)
def test_a_helper_that_answers_in_its_own_way(tmp_path: Path, manner: str, monkeypatch: pytest.MonkeyPatch) -> None:
    script, user = GOOD[manner]
    given = logins(tmp_path, script, monkeypatch)

    assert [one.username if isinstance(one, Credential) else one for one in given] == [user] * 12
    assert user or given == [ANONYMOUS] * 12
    assert (tmp_path / "starts").read_text() == "x\n"


def test_a_helper_that_failed_is_started_again_after_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oci.registry.credentials.credential.RENEWAL_PAUSE", 0.0)
    given = logins(tmp_path, "echo junk", monkeypatch)

    assert all(isinstance(one, str) for one in given)
    assert len((tmp_path / "starts").read_text()) == 12 * len("x\n")
