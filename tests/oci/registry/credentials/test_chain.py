"""Where credentials are looked for, in which order, and that their secrets stay secret."""

from __future__ import annotations

import base64
import json
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from oci.errors import InvalidInput, TransshipError, Unauthorized
from oci.registry.credentials.config_files import HelperProgram
from oci.registry.credentials.credential import ANONYMOUS, Credential, Credentials, Fixed
from oci.registry.credentials.keychains import (
    Keychain,
    RegistrySets,
    amazon_login,
    azure_login,
    default_credentials,
    google_login,
)
from tests.servers.http_server import LoopbackServer, QuietHandler

SECRET = "hidden-word"
Environ = dict[str, str]


def found(environ: Environ, registry: str, repository: str = "a/b", **more: Any) -> Credential:
    return default_credentials(environ=environ, **more).find(registry, repository)


@pytest.fixture
def home(tmp_path: Path) -> Callable[[Mapping[str, Any]], Environ]:
    """An environment whose docker config has the given content."""

    def make(config: Mapping[str, Any]) -> Environ:
        folder = tmp_path / ".docker"
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text(json.dumps(config))
        return {"HOME": str(tmp_path), "PATH": str(tmp_path)}

    return make


def auth(user: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{SECRET}".encode()).decode()}


def sets(**variables: str) -> Environ:
    return {f"IMGPKG_REGISTRY_{name}": value for name, value in variables.items()}


def test_nothing_anywhere_is_anonymous(tmp_path: Path) -> None:
    assert found({"HOME": str(tmp_path)}, "registry.example") is ANONYMOUS


def test_the_order_of_places(home: Callable[[Mapping[str, Any]], Environ]) -> None:
    """The sets, then keychains, then the one identity of flags and environment, then the docker config; but before all
    of them an identity of this side alone."""
    environ = home({"auths": {"ghcr.io": auth("config"), "other.example": auth("config")}})
    assert found(environ, "ghcr.io").username == "config"
    environ |= {"IMGPKG_USERNAME": "general", "IMGPKG_PASSWORD": SECRET}
    assert found(environ, "ghcr.io").username == "general"
    environ |= {"IMGPKG_ACTIVE_KEYCHAINS": "github", "GITHUB_TOKEN": SECRET, "GITHUB_ACTOR": "actor"}
    assert found(environ, "ghcr.io").username == "actor"
    assert found(environ, "other.example").username == "general"
    assert found(environ, "other.example", flags={"username": "flag"}).username == "flag"
    environ |= sets(HOSTNAME="ghcr.io", USERNAME="set", PASSWORD=SECRET)
    assert found(environ, "ghcr.io", flags={"username": "flag"}).username == "set"
    assert found(environ, "ghcr.io", explicit=Credential("side", SECRET)).username == "side"


def test_a_flag_is_filled_up_from_its_variable(home: Callable[[Mapping[str, Any]], Environ]) -> None:
    environ = home({}) | {"IMGPKG_USERNAME": "bob", "IMGPKG_PASSWORD": SECRET, "TRANSSHIP_SOURCE_TOKEN": "t"}

    credential = found(environ, "r.example", side="source", flags={"username": "alice"})

    assert (credential.username, credential.password) == ("alice", SECRET)
    assert credential.identity == "user alice (--registry-username)"


def test_anonymous_leaves_out_the_docker_config_and_nothing_else(
    home: Callable[[Mapping[str, Any]], Environ],
) -> None:
    environ = home({"auths": {"r.example": auth("config")}})
    assert found(environ, "r.example", anonymous=True) is ANONYMOUS

    assert found(environ | {"IMGPKG_USERNAME": "bob"}, "r.example", anonymous=True).username == "bob"
    assert found(environ | sets(HOSTNAME="r.example", USERNAME="set"), "r.example", anonymous=True).username == "set"


def test_each_side_may_have_its_own(home: Callable[[Mapping[str, Any]], Environ]) -> None:
    environ = home({}) | {
        "TRANSSHIP_SOURCE_USERNAME": "reader",
        "TRANSSHIP_DESTINATION_USERNAME": "writer",
        "IMGPKG_USERNAME": "both",
    }

    assert found(environ, "r.example", side="source").username == "reader"
    assert found(environ, "r.example", side="destination").username == "writer"
    assert found(environ, "r.example").username == "both"


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"IMGPKG_TOKEN": SECRET}, "token (IMGPKG_TOKEN)"),
        ({"IMGPKG_USERNAME": "bob", "IMGPKG_TOKEN": SECRET}, "user bob (IMGPKG_USERNAME)"),
        ({"IMGPKG_ANON": "true"}, "anonymous"),
        ({"IMGPKG_ANON": "TRUE"}, "user config (docker config)"),
    ],
)
def test_the_identity_in_words(home: Callable[[Mapping[str, Any]], Environ], environ: Environ, expected: str) -> None:
    credential = found(home({"auths": {"r.example": auth("config")}}) | environ, "r.example")

    assert credential.identity == expected
    assert SECRET not in repr(credential) + str(credential)


@pytest.mark.parametrize(
    ("pattern", "registry", "repository", "matches"),
    [
        ("r.example", "r.example", "a/b", True),
        ("https://r.example/v2/", "r.example", "a/b", True),
        ("*.corp.example", "x.corp.example", "a/b", True),
        ("*.corp.example", "x.y.corp.example", "a/b", False),
        ("r.example", "r.example:5000", "a/b", False),
        ("r.example:5000", "r.example:5000", "a/b", True),
        ("r.example/app", "r.example", "app/x", True),
        ("r.example/app", "r.example", "application", False),
        ("docker.io", "index.docker.io", "library/nginx", True),
        ("index.docker.io", "index.docker.io", "library/nginx", True),
    ],
)
def test_which_registries_a_set_is_for(pattern: str, registry: str, repository: str, matches: bool) -> None:
    source = RegistrySets(sets(HOSTNAME_0=pattern, USERNAME_0="u", PASSWORD_0=SECRET), lambda text: None)

    assert (source.find(registry, repository) is not None) is matches


def test_the_longer_path_of_a_host_comes_first_and_an_empty_set_ends_the_search() -> None:
    environ = sets(HOSTNAME_0="r.example", USERNAME_0="host", HOSTNAME_1="r.example/app", HOSTNAME_2="x.example")
    source = RegistrySets(environ | sets(USERNAME_1="app"), lambda text: None)

    assert (source.find("r.example", "app/x") or ANONYMOUS).username == "app"
    assert (source.find("r.example", "other") or ANONYMOUS).username == "host"
    assert source.find("x.example", "other") is ANONYMOUS


def test_an_unknown_variable_warns_and_harms_nothing() -> None:
    warned: list[str] = []
    source = RegistrySets(sets(HOST="x", HOSTNAME="r.example", USERNAME="u", AZURE_CR_CONFIG="y"), warned.append)

    assert source.find("r.example", "a/b") is not None
    assert len(warned) == 1
    assert "IMGPKG_REGISTRY_HOST is ignored" in warned[0]


@pytest.mark.parametrize(
    ("key", "registry", "repository", "matches"),
    [
        ("r.example", "r.example", "a/b", True),
        ("https://r.example", "r.example", "a/b", True),
        ("r.example/a", "r.example", "a/b", True),
        ("r.example/a/b", "r.example", "a/b", True),
        ("r.example/a/b", "r.example", "a/c", False),
        ("https://index.docker.io/v1/", "index.docker.io", "library/nginx", True),
        ("docker.io", "index.docker.io", "library/nginx", True),
    ],
)
def test_keys_of_the_docker_config(
    home: Callable[[Mapping[str, Any]], Environ], key: str, registry: str, repository: str, matches: bool
) -> None:
    credential = found(home({"auths": {key: auth("bob")}}), registry, repository)

    assert (credential.username == "bob") is matches
    assert not matches or credential.password == SECRET


def test_tokens_in_the_docker_config(home: Callable[[Mapping[str, Any]], Environ]) -> None:
    environ = home({"auths": {"a.example": {"identitytoken": SECRET}, "b.example": {"registrytoken": SECRET}}})

    assert found(environ, "a.example").identity_token == SECRET
    assert found(environ, "b.example").registry_token == SECRET


def test_podmans_file_is_read_where_docker_has_none(tmp_path: Path) -> None:
    (tmp_path / "containers").mkdir()
    (tmp_path / "containers" / "auth.json").write_text(json.dumps({"auths": {"r.example/team": auth("podman")}}))
    environ = {"HOME": str(tmp_path / "nobody"), "XDG_RUNTIME_DIR": str(tmp_path)}

    assert found(environ, "r.example", "team/app").username == "podman"
    assert found(environ, "r.example", "other/app") is ANONYMOUS


@pytest.mark.parametrize(
    "text",
    ["{", "[]", '{"auths": [1]}', '{"auths": {"r.example": 3}}', '{"auths": {"r.example": {"auth": "\\u00e9"}}}'],
)
def test_a_broken_docker_config_is_named_without_its_secrets(tmp_path: Path, text: str) -> None:
    (tmp_path / ".docker").mkdir()
    (tmp_path / ".docker" / "config.json").write_text(text.replace("3", f'"{SECRET}"'))

    with pytest.raises(InvalidInput, match=r"config\.json") as caught:
        found({"HOME": str(tmp_path)}, "r.example")
    assert SECRET not in str(caught.value)


def helper(folder: Path, name: str, script: str) -> None:
    path = folder / f"docker-credential-{name}"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_helpers_of_one_host_and_of_all(home: Callable[[Mapping[str, Any]], Environ], tmp_path: Path) -> None:
    environ = home({"credHelpers": {"a.example": "one"}, "credsStore": "all"}) | {"PATH": f"{tmp_path}:/bin:/usr/bin"}
    helper(tmp_path, "one", f'read host; echo "{{\\"Username\\":\\"one-$host\\",\\"Secret\\":\\"{SECRET}\\"}}"')
    helper(tmp_path, "all", f'echo "{{\\"Username\\":\\"<token>\\",\\"Secret\\":\\"{SECRET}\\"}}"')

    assert found(environ, "a.example").username == "one-a.example"
    assert found(environ, "b.example").identity_token == SECRET
    assert found(environ, "b.example").identity == "token (docker-credential-all)"


def test_a_helper_that_has_nothing_and_one_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oci.registry.credentials.config_files.HELPER_DELAY", 0.0)
    environ = {"PATH": f"{tmp_path}:/bin:/usr/bin"}
    helper(tmp_path, "none", "echo credentials not found in native keychain; exit 1")
    helper(tmp_path, "bad", f"echo {SECRET} >&2; echo x >> {tmp_path}/calls; exit 1")
    helper(tmp_path, "odd", "echo no json")

    assert HelperProgram("none", environ).get("r.example") is None
    with pytest.raises(Unauthorized, match="docker-credential-bad failed 5 times") as caught:
        HelperProgram("bad", environ).get("r.example")
    assert (tmp_path / "calls").read_text() == "x\n" * 5
    assert SECRET not in str(caught.value)
    with pytest.raises(Unauthorized, match="no JSON object"):
        HelperProgram("odd", environ).get("r.example")
    for name in ("missing", "../evil"):
        with pytest.raises(InvalidInput):
            HelperProgram(name, environ).get("r.example")


def test_keychains_are_chosen_by_name_or_all() -> None:
    with pytest.raises(
        InvalidInput, match=r"Unable to load keychain for aws, available keychains \[aks, ecr, gke, github\]"
    ):
        found({"IMGPKG_ACTIVE_KEYCHAINS": "github,aws", "HOME": "/nonexistent"}, "ghcr.io")
    environ = {"IMGPKG_ENABLE_IAAS_AUTH": "true", "GITHUB_TOKEN": SECRET, "HOME": "/nonexistent"}
    assert found(environ, "ghcr.io").username == "unset"
    assert found(environ | {"IMGPKG_ENABLE_IAAS_AUTH": "yes"}, "ghcr.io") is ANONYMOUS


class _Aws(QuietHandler):
    def do_POST(self) -> None:
        owner: Any = self.server.owner  # type: ignore[attr-defined]
        owner.targets.append(self.headers.get("X-Amz-Target", ""))
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        token = base64.b64encode(f"AWS:{SECRET}".encode()).decode()
        entry = {"authorizationToken": token, "expiresAt": 4102444800}
        public = "Spencer" in owner.targets[-1]
        body = {"authorizationData": entry if public else [entry]}
        self.answer(owner.status, json.dumps(body if owner.status == 200 else {}).encode())


class Aws(LoopbackServer):
    handler = _Aws

    def __init__(self) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.status = 200


def test_ecr_tokens_come_from_aws_and_are_kept_until_they_expire(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_CA_BUNDLE", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    with Aws() as aws:
        for name, value in (
            ("AWS_ENDPOINT_URL", aws.url),
            ("AWS_ACCESS_KEY_ID", "key"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
        ):
            monkeypatch.setenv(name, value)
        credentials = Credentials([Keychain("ecr", amazon_login, {"AWS_ENDPOINT_URL": aws.url})])
        registry = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
        for host in (registry, registry, "public.ecr.aws"):
            one = credentials.find(host, "a/b")
            assert (one.username, one.password, one.identity) == ("AWS", SECRET, "user AWS (AWS)")
        assert len(aws.targets) == 2
        assert credentials.find("registry.example", "a/b") is ANONYMOUS

        aws.status = 400
        with pytest.raises(Unauthorized, match="AWS gave no token"):
            amazon_login(registry)


def test_an_expired_credential_is_looked_for_again() -> None:
    class Counting:
        calls = 0

        def find(self, registry: str, repository: str) -> Credential:
            del registry, repository
            self.calls += 1
            return Credential("u", "p", expires_at=1.0)

    source = Counting()
    credentials = Credentials([source, Fixed(ANONYMOUS)])
    credentials.find("r.example", "a/b")
    credentials.find("r.example", "a/b")

    assert source.calls == 2


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ('{"credential": {"access_token": "t-1", "token_expiry": "2099-01-01T00:00:00Z"}}', "t-1"),
        ("You do not currently have an active account selected.", ""),
    ],
)
def test_gcloud_is_asked_where_there_are_no_application_default_credentials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, expected: str
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "google.auth", None)
    program = tmp_path / "gcloud"
    program.write_text(f'#!/bin/sh\n[ "$1 $2" = "config config-helper" ] && echo \'{answer}\'\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    if not expected:
        with pytest.raises(TransshipError, match="pip install"):
            google_login("eu.gcr.io")
        return
    found = google_login("eu.gcr.io")
    assert (found.username, found.password, found.origin) == ("_token", expected, "gcloud")
    assert found.expires_at > 4_000_000_000


@pytest.mark.parametrize(
    ("name", "login", "host", "extra"),
    [("gke", google_login, "eu.gcr.io", "google"), ("aks", azure_login, "x.azurecr.io", "azure")],
)
def test_an_extra_that_is_missing_says_how_to_get_it(
    name: str, login: Callable[[str], Credential], host: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("google.auth", "azure.identity", "azure.core.exceptions"):
        monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(TransshipError, match=rf"pip install 'transship\[{extra}\]'"):
        Keychain(name, login, {}).find(host, "a/b")
    assert Keychain(name, login, {}).find("registry.example", "a/b") is None
