"""Configuration files as docker, podman, editors, shells and people write them."""

from __future__ import annotations

import base64
import codecs
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from oci.errors import InvalidInput
from oci.registry.credentials.credential import Credential
from oci.registry.credentials.keychains import default_credentials

SECRET = "hidden-word"


def auth(user: str, password: str = SECRET) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


def found(folder: Path, raw: bytes | Mapping[str, Any], **environ: str) -> Credential:
    """The login for r.example/team/app of a docker config."""
    (folder / "config.json").write_bytes(raw if isinstance(raw, bytes) else json.dumps(raw).encode())
    variables = {"HOME": str(folder / "home"), "DOCKER_CONFIG": str(folder), "XDG_RUNTIME_DIR": str(folder / "run")}
    return default_credentials(environ=variables | environ).find("r.example", "team/app")


ENTRIES: dict[str, dict[str, Any]] = {
    "an empty one behind": {"https://r.example/v1/": auth("bob"), "r.example": {}},
    "an empty one before": {"r.example": {}, "https://r.example/v1/": auth("bob")},
    "an empty one of the namespace": {"r.example/team": {}, "r.example": auth("bob")},
    "null": {"r.example/team/app": None, "r.example": auth("bob")},
    "the host as it is before a URL": {"https://r.example/v1/": auth("eve"), "r.example": auth("bob")},
    "broken ones of others": {"other.example": 5, "third.example": {"auth": "%"}, "r.example": auth("bob")},
    "user and password": {"r.example": {"username": "bob", "password": SECRET}},
    "user beside both": {"r.example": {"username": "bob", **auth("bob")}},
    "blanks": {" r.example ": auth("bob")},
    "a dot at the end": {"r.example.": auth("bob")},
}


@pytest.mark.parametrize("form", ENTRIES)
def test_entries(tmp_path: Path, form: str) -> None:
    login = found(tmp_path, {"auths": ENTRIES[form]})
    assert (login.username, login.password) == ("bob", SECRET)


@pytest.mark.parametrize("name", [None, ""])
def test_a_helper_without_a_name_is_none(tmp_path: Path, name: str | None) -> None:
    body = {"auths": {"r.example": auth("bob")}, "credHelpers": {"r.example": name}, "credsStore": name}
    assert found(tmp_path, body).username == "bob"


@pytest.mark.parametrize("password", ["secre", "a:b:c", "\u00ff\u00bf>>??~~", ""])
@pytest.mark.parametrize("form", ["padding", "no padding", "the alphabet of URLs", "a line break"])
def test_base64_in_every_form(tmp_path: Path, password: str, form: str) -> None:
    text = auth("bob", password)["auth"]
    if form == "no padding":
        text = text.rstrip("=")
    elif form == "a line break":
        text = f"{text[:6]}\n{text[6:]}\n"
    elif form == "the alphabet of URLs":
        text = text.replace("+", "-").replace("/", "_")
    login = found(tmp_path, {"auths": {"r.example": {"auth": text}}})
    assert (login.username, login.password) == ("bob", password)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_files_that_windows_wrote(tmp_path: Path, encoding: str) -> None:
    raw = json.dumps({"auths": {"r.example": auth("bob")}}).encode(encoding)
    assert found(tmp_path, raw).username == "bob"
    with pytest.raises(InvalidInput, match=r"config\.json is not JSON"):
        found(tmp_path, codecs.BOM_UTF16_LE + b"{")


def test_the_variable_goes_before_all_files_and_the_oldest_file_comes_last(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / ".dockercfg").write_text(json.dumps({"https://r.example": auth("oldest")}))
    body = {"auths": {"r.example": auth("docker")}}
    variable = json.dumps({"auths": {"r.example": auth("variable")}})

    assert found(tmp_path, body, DOCKER_AUTH_CONFIG=variable).username == "variable"
    assert found(tmp_path, body, DOCKER_AUTH_CONFIG='{"auths": {}}').username == "docker"
    assert found(tmp_path, {}).username == "oldest"
    with pytest.raises(InvalidInput, match="DOCKER_AUTH_CONFIG is not JSON") as caught:
        found(tmp_path, body, DOCKER_AUTH_CONFIG=SECRET)
    assert SECRET not in str(caught.value)


def test_a_broken_file_matters_where_those_before_it_have_no_login(tmp_path: Path) -> None:
    (tmp_path / "run" / "containers").mkdir(parents=True)
    (tmp_path / "run" / "containers" / "auth.json").write_text("{")

    assert found(tmp_path, {"auths": {"r.example": auth("bob")}}).username == "bob"
    with pytest.raises(InvalidInput, match=r"auth\.json is not JSON"):
        found(tmp_path, {})
