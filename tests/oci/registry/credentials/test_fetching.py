"""How often a login is fetched, when it is renewed, and which registries it is for."""

from __future__ import annotations

import base64
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from oci.errors import CancelToken
from oci.meter import Meter
from oci.registry.credentials.config_files import ConfigFiles
from oci.registry.credentials.credential import ANONYMOUS, Credential, Credentials, Fixed
from oci.registry.credentials.keychains import COVERS, Keychain, _expiry, default_credentials
from oci.registry.endpoints import Scope
from oci.registry.http.origin import canonical_host, split_pattern
from oci.registry.options import RegistryOptions
from oci.registry.repository import Registries

SECRET = "hidden-word"
HOST = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"


class SlowCloud:
    """A cloud that counts how often it is asked."""

    def __init__(self) -> None:
        self.calls = 0
        self._lock = threading.Lock()

    def login(self, registry: str) -> Credential | None:
        del registry
        with self._lock:
            self.calls += 1
            number = self.calls
        time.sleep(0.05)
        return Credential("AWS", f"password-{number}")


def auth(user: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{SECRET}".encode()).decode()}


def helper(folder: Path, name: str) -> None:
    """A helper whose password is the number of times it was started."""
    path = folder / f"docker-credential-{name}"
    count = folder / "count"
    path.write_text(
        f"#!/bin/sh\nread host\necho x >> {count}\nn=$(wc -l < {count})\n"
        'echo "{\\"Username\\":\\"bob\\",\\"Secret\\":\\"s$n\\"}"\n'
    )
    path.chmod(0o755)


def test_one_fetch_serves_all_repositories_threads_and_both_sides(tmp_path: Path) -> None:
    cloud = SlowCloud()
    sides = [Credentials([Keychain("ecr", cloud.login, {"HOME": str(tmp_path)})]) for _ in range(2)]
    with ThreadPoolExecutor(50) as threads:
        logins = list(threads.map(lambda n: sides[n % 2].find(HOST, f"team/app{n}"), range(100)))

    assert cloud.calls == 1
    assert {login.password for login in logins} == {"password-1"}


def test_a_helper_is_started_once_for_a_registry(tmp_path: Path) -> None:
    helper(tmp_path, "some")
    (tmp_path / "config.json").write_text(json.dumps({"credsStore": "some"}))
    environ = {"HOME": str(tmp_path), "DOCKER_CONFIG": str(tmp_path), "PATH": f"{tmp_path}:/bin:/usr/bin"}
    credentials = default_credentials(environ=environ)
    with ThreadPoolExecutor(8) as threads:
        logins = list(threads.map(lambda n: credentials.find("r.example", f"team/app{n}"), range(40)))

    assert {login.password for login in logins} == {"s1"}
    assert 0 < logins[0].expires_at - time.time() <= 1800


def test_a_refused_login_is_renewed_once_for_all_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cloud = SlowCloud()
    credentials = Credentials([Keychain("ecr", cloud.login, {"HOME": str(tmp_path)})])
    refused = credentials.find(HOST, "a/b")
    with ThreadPoolExecutor(50) as threads:
        logins = list(threads.map(lambda _: credentials.renew(HOST, "a/b", refused), range(50)))
    assert {login.password for login in logins} == {"password-2"}

    # A registry that refuses the new login as well causes no further fetch, until half a minute has gone.
    assert credentials.renew(HOST, "a/b", logins[0]).password == "password-2"
    monkeypatch.setattr("oci.registry.credentials.credential.RENEWAL_PAUSE", 0.0)
    assert credentials.renew(HOST, "a/b", logins[0]).password == "password-3"
    assert cloud.calls == 3


def test_a_login_that_cannot_change_is_not_renewed() -> None:
    credentials = Credentials([Fixed(Credential("bob", SECRET))])

    assert credentials.renew("r.example", "a/b", Credential("bob", SECRET)).password == SECRET


def test_a_refused_login_of_a_file_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oci.registry.credentials.config_files.RENEWAL_PAUSE", 0.0)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"auths": {"r.example": auth("before")}}))
    credentials = Credentials([ConfigFiles({"HOME": str(tmp_path), "DOCKER_CONFIG": str(tmp_path)})])
    refused = credentials.find("r.example", "a/b")
    path.write_text(json.dumps({"auths": {"r.example": auth("after")}}))

    assert credentials.find("r.example", "a/b").username == "before"
    assert credentials.renew("r.example", "a/b", refused).username == "after"


def test_the_first_file_with_an_entry_decides(tmp_path: Path) -> None:
    places = {
        "docker/config.json": {"auths": {"a.example": auth("docker"), "empty.example": {}}},
        "named.json": {"auths": {"a.example": auth("named"), "b.example": auth("named")}},
        "run/containers/auth.json": {"auths": {"b.example": auth("run"), "c.example": auth("run")}},
        ".config/containers/auth.json": {"auths": {"c.example": auth("home"), "empty.example": auth("home")}},
    }
    for name, body in places.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(json.dumps(body))
    credentials = default_credentials(
        environ={
            "HOME": str(tmp_path),
            "DOCKER_CONFIG": str(tmp_path / "docker"),
            "REGISTRY_AUTH_FILE": str(tmp_path / "named.json"),
            "XDG_RUNTIME_DIR": str(tmp_path / "run"),
        }
    )

    users = [credentials.find(f"{name}.example", "x/y").username for name in ("a", "b", "c", "empty")]
    assert users == ["docker", "named", "run", "home"]


@pytest.mark.parametrize(
    "key", ["r.example", "R.Example", "https://r.example", "https://r.example/v2/", "r.example:443", "r.example/team"]
)
def test_keys_of_helpers_have_every_form(tmp_path: Path, key: str) -> None:
    helper(tmp_path, "some")
    (tmp_path / "config.json").write_text(json.dumps({"credHelpers": {key: "some"}}))
    environ = {"HOME": str(tmp_path), "DOCKER_CONFIG": str(tmp_path), "PATH": f"{tmp_path}:/bin:/usr/bin"}

    assert default_credentials(environ=environ).find("r.example", "team/app").username == "bob"


def test_the_login_of_flags_goes_to_the_registries_that_were_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"auths": {"listed.example": auth("file")}}))
    environ = {
        "HOME": str(tmp_path),
        "DOCKER_CONFIG": str(tmp_path),
        "IMGPKG_USERNAME": "variable",
        "IMGPKG_PASSWORD": SECRET,
        "IMGPKG_REGISTRY_HOSTNAME_0": "set.example",
        "IMGPKG_REGISTRY_USERNAME_0": "set",
    }
    hosts = {"Named.example:443"}
    for options, user in (
        ({}, "variable"),
        ({"flags": {"username": "flag"}}, "flag"),
        ({"explicit": Credential("side", SECRET)}, "side"),
    ):
        credentials = default_credentials(environ=environ, hosts=hosts, **options)
        assert credentials.find("named.example", "a/b").username == user
        assert credentials.find("listed.example", "a/b").username == "file"
        assert credentials.find("set.example", "a/b").username == "set"
        assert credentials.find("stranger.example", "a/b") is ANONYMOUS


@pytest.mark.parametrize(
    ("host", "is_ecr"),
    [
        ("123456789012.dkr.ecr.eu-west-1.amazonaws.com", True),
        ("123456789012.dkr.ecr-fips.us-gov-west-1.amazonaws.com", True),
        ("123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn", True),
        ("123456789012.dkr-ecr.eu-west-1.on.aws", True),
        ("123456789012.dkr-ecr-fips.us-east-1.on.aws", True),
        ("123456789012.dkr-ecr.cn-north-1.on.amazonwebservices.com.cn", True),
        ("123456789012.dkr.ecr.eusc-de-east-1.amazonaws.eu", True),
        ("123456789012.dkr.ecr.us-iso-east-1.c2s.ic.gov", True),
        ("123456789012.dkr.ecr.us-isob-east-1.sc2s.sgov.gov", True),
        ("public.ecr.aws", True),
        ("123456789012.dkr.ecr.eu-west-1.amazonaws.com.evil.example", False),
        ("dkr.ecr.eu-west-1.amazonaws.com", False),
    ],
)
def test_hosts_of_ecr(host: str, is_ecr: bool) -> None:
    assert COVERS["ecr"](host) is is_ecr


def test_one_form_of_hosts() -> None:
    assert canonical_host("Registry.Example.:443") == "registry.example"
    assert canonical_host("registry.example:5000") == "registry.example:5000"
    assert canonical_host("b\u00fccher.example") == "xn--bcher-kva.example"
    assert {canonical_host(name) for name in ("docker.io", "registry-1.docker.io:443", "Index.Docker.io")} == {
        "index.docker.io"
    }
    assert split_pattern("https://R.example:443/v2/team/") == ("r.example", "team")
    assert split_pattern("[::1]:5000/team") == ("[::1]:5000", "team")


def test_the_expiry_of_azures_refresh_token_is_its_own() -> None:
    claims = base64.urlsafe_b64encode(json.dumps({"exp": 4102444800}).encode()).decode().rstrip("=")

    assert _expiry(f"x.{claims}.y") == 4102444800
    for token in ("opaque", "x.%%%.y", f"x.{base64.urlsafe_b64encode(b'[]').decode()}.y"):
        assert 3 * 3600 - 60 <= _expiry(token) - time.time() <= 3 * 3600


def test_settings_choose_the_aws_login_of_a_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def amazon_login(registry: str, profile: str, role: str) -> Credential:
        asked.append(registry)
        return Credential(f"{profile}/{role}", SECRET)

    monkeypatch.setattr("oci.registry.credentials.keychains.amazon_login", amazon_login)
    other = HOST.replace("eu-west-1", "us-east-1")
    roles = {HOST: "arn:aws:iam::123456789012:role/a", other: "arn:aws:iam::123456789012:role/b"}
    with Registries(
        side="source",
        settings=lambda host: RegistryOptions(aws_profile="builds", aws_role=roles.get(host, "arn:x")),
        credentials=Credentials([Fixed(Credential("general", SECRET))]),
        meter=Meter(),
        cancel=CancelToken(),
    ) as registries:
        for host, user in ((HOST, f"builds/{roles[HOST]}"), (other, f"builds/{roles[other]}"), ("ghcr.io", "general")):
            login = registries.transport(host).login
            for repository in ("a", "b"):
                login.refused(401, {"www-authenticate": "Basic realm=x"}, (Scope(repository, "pull"),), "", again=False)
                sent = login.authorization((Scope(repository, "pull"),))
                assert base64.b64decode(sent.removeprefix("Basic ")).decode() == f"{user}:{SECRET}"
    assert len(asked) == 2
