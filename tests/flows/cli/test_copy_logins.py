"""`transship copy` between registries that want to know who we are, each side with credentials of its own."""

from __future__ import annotations

import base64
import json
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.servers import profile_registry
from tests.servers.certificates import Certificates, make_certificates
from tests.servers.docker_registry import DockerRegistry
from tests.servers.htpasswd import PASSWORD, USER, write_htpasswd
from tests.servers.profile_registry import Profile, ProfileRegistry
from tests.servers.strict_registry import Features, StrictRegistry
from tests.servers.token_service import TokenService
from tests.support.command import PROGRAM, transship
from tests.support.content import bundle, image, index, layer, noise, push
from tests.support.signing import Signer


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def basic(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[DockerRegistry]:
    """TLS with an authority of our own, and a password."""
    folder = tmp_path_factory.mktemp("basic")
    with DockerRegistry(
        folder,
        certificate=certificates.certificate,
        key=certificates.key,
        htpasswd=write_htpasswd(folder / "htpasswd"),
    ) as server:
        yield server


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    folder = tmp_path_factory.mktemp("tokens")
    with TokenService(folder / "service") as service, DockerRegistry(folder / "r", token=service.auth) as server:
        yield server


@pytest.fixture(scope="module")
def source(basic: DockerRegistry, certificates: Certificates) -> str:
    with httpx.Client(
        base_url=basic.url, auth=(USER, PASSWORD), verify=ssl.create_default_context(cafile=str(certificates.ca))
    ) as client:
        references = [
            push(basic.url, "team/web", image(1), client=client),
            push(basic.url, "team/tools", index([image(2), image(3)]), client=client),
        ]
        push(basic.url, "team/bundle", bundle(references), "v1", client=client)
    return f"{basic.host}/team/bundle:v1"


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("inspect {reference}", "Kind: bundle"),
        ("policy check {reference} --policy {folder}/policy.json", "accepted"),
        ("receipt verify {reference} --key {folder}/key.pub", "no receipt is attached"),
        ("describe -b {reference}", "Bundle SHA"),
        ("verify {reference}", "2 problems"),  # what it lists has repositories of its own
        ("tag list -i {repository}", "v1"),
    ],
)
def test_every_command_logs_in_to_the_registry_that_it_is_given(
    source: str, certificates: Certificates, tmp_path: Path, command: str, said: str
) -> None:
    login = ("--registry-username", USER, "--registry-password", PASSWORD)
    ca = ("--registry-ca-cert-path", str(certificates.ca))
    (tmp_path / "policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    (tmp_path / "key.pub").write_bytes(Signer.make().public())

    words = command.format(reference=source, repository=source.rpartition(":")[0], folder=tmp_path).split()
    done = transship(*words, *login, *ca)

    assert said in done.out + done.err


def test_a_bundle_from_behind_a_password_to_behind_a_token_service_and_back(
    source: str, basic: DockerRegistry, tokens: DockerRegistry, certificates: Certificates, tmp_path: Path
) -> None:
    ca = ("--registry-ca-cert-path", str(certificates.ca))
    there = transship(
        "copy", "-b", source, "--to-repo", f"{tokens.host}/mirror/team", *ca, "--json", "--verify", "deep",
        "--source-username", USER, "--source-password", PASSWORD,
        "--destination-username", "writer", "--destination-password", "secret",
    )  # fmt: skip
    assert there.code == 0, there.err
    assert f"copy | source {basic.host}: user {USER} (--source-username)" in there.out
    assert f"copy | destination {tokens.host}: user writer (--destination-username)" in there.out

    environ = {
        "TRANSSHIP_SOURCE_USERNAME": "reader",
        "TRANSSHIP_SOURCE_PASSWORD": "secret",
        "TRANSSHIP_DESTINATION_USERNAME": USER,
        "TRANSSHIP_DESTINATION_PASSWORD": PASSWORD,
    }
    back = transship("copy", "-b", f"{tokens.host}/mirror/team:v1", "--to-repo", f"{basic.host}/back/team", *ca,
                     environ=environ)  # fmt: skip
    assert back.code == 0, back.err


def test_two_identities_at_one_registry(source: str, tokens: DockerRegistry, certificates: Certificates) -> None:
    ca = ("--registry-ca-cert-path", str(certificates.ca))
    first = ("--source-username", USER, "--source-password", PASSWORD)
    writer = ("--destination-username", "writer", "--destination-password", "secret")
    reader = ("--source-username", "reader", "--source-password", "secret")
    assert transship("copy", "-b", source, "--to-repo", f"{tokens.host}/one/team", *ca, *first, *writer).code == 0

    done = transship(
        "copy", "-b", f"{tokens.host}/one/team:v1", "--to-repo", f"{tokens.host}/two/team", *reader, *writer
    )

    assert done.code == 0, done.err
    assert " 0 B sent," not in done.err  # the locations image is new
    swapped = transship(
        "copy", "-b", f"{tokens.host}/one/team:v1", "--to-repo", f"{tokens.host}/three/team",
        "--source-username", "writer", "--source-password", "secret",
        "--destination-username", "reader", "--destination-password", "secret",
    )  # fmt: skip
    assert swapped.code == 1
    assert f"destination {tokens.host}" in swapped.err


def test_what_the_destination_has_is_read_there_with_its_own_login() -> None:
    with StrictRegistry() as source, StrictRegistry(Features(user=f"{USER}:{PASSWORD}")) as destination:
        push(source.url, "team/web", image(4), "v1")
        login = ("--destination-username", USER, "--destination-password", PASSWORD)
        for tag in ("one", "two"):
            done = transship(
                "copy", "-i", f"{source.host}/team/web:v1", "--to-repo", f"{destination.host}/mirror/web",
                "--to-tag", tag, *login,
            )  # fmt: skip
            assert done.code == 0, done.err
        tags = destination.store.repositories["mirror/web"].tags

    assert tags["one"] == tags["two"] == image(4).digest


def test_a_wrong_password_names_the_side_and_no_secret(
    source: str, basic: DockerRegistry, certificates: Certificates
) -> None:
    done = transship(
        "copy", "-b", source, "--to-repo", "oci:/nonexistent/x", "--registry-ca-cert-path", str(certificates.ca),
        "--registry-username", USER, "--registry-password", "wrong-one",
    )  # fmt: skip

    assert done.code == 1
    assert f"source {basic.host}" in done.err
    assert f"asked as user {USER} (--registry-username): check that password" in done.err
    assert "wrong-one" not in done.err


def test_a_password_from_standard_input(source: str, certificates: Certificates) -> None:
    command = [
        str(PROGRAM), "tag", "resolve", "-i", source, "--registry-username", USER, "--registry-password-stdin",
        "--registry-ca-cert-path", str(certificates.ca),
    ]  # fmt: skip

    right = subprocess.run(command, input=f"{PASSWORD}\n", capture_output=True, text=True, check=False)
    wrong = subprocess.run(command, input="wrong\n", capture_output=True, text=True, check=False)
    nothing = subprocess.run(command, input="", capture_output=True, text=True, check=False)
    nobody = subprocess.run(
        [*command[:5], "--registry-password-stdin"], input="x", capture_output=True, text=True, check=False
    )

    assert right.returncode == 0, right.stderr
    assert "@sha256:" in right.stdout
    assert wrong.returncode == 1
    assert "has no password" in nothing.stderr
    assert "--registry-username" in nobody.stderr


def test_logins_are_tried_before_a_run(
    source: str, basic: DockerRegistry, tokens: DockerRegistry, certificates: Certificates, tmp_path: Path
) -> None:
    web, new = f"{basic.host}/team/web", f"{tokens.host}/never/there"
    ca = ("--registry-ca-cert-path", str(certificates.ca))
    environ = {
        "IMGPKG_REGISTRY_HOSTNAME_0": basic.host,
        "IMGPKG_REGISTRY_USERNAME_0": USER,
        "IMGPKG_REGISTRY_PASSWORD_0": PASSWORD,
        "IMGPKG_REGISTRY_HOSTNAME_1": tokens.host,
        "IMGPKG_REGISTRY_USERNAME_1": "reader",
        "IMGPKG_REGISTRY_PASSWORD_1": "secret",
    }
    mirrors = tmp_path / "mirrors.yaml"
    mirrors.write_text(
        json.dumps(
            {
                "version": 1,
                "mirrors": [
                    {
                        "name": "web",
                        "source": {"repository": web},
                        "destinations": [{"repository": new}],
                        "tags": [{"allow": ["1"]}],
                    }
                ],
            }
        )
    )

    def tried(*arguments: str) -> tuple[int, list[list[str]]]:
        done = transship("auth", "check", *arguments, *ca, "--json", environ=environ)
        rows = json.loads(done.out)["Tables"][0]["Rows"]
        return done.code, [[row["repository"], row["right"], row["login"].split(" (")[0]] for row in rows]

    assert tried(web) == (0, [[web, "pull", f"user {USER}"]])
    assert tried(str(mirrors)) == (3, [[web, "pull", f"user {USER}"], [new, "push", "user reader"]])
    assert tried(new, "--push")[0] == 3  # a reader may look, and not push
    environ["IMGPKG_REGISTRY_USERNAME_1"] = "writer"
    assert tried(str(mirrors))[0] == 0
    environ["IMGPKG_REGISTRY_PASSWORD_0"] = environ["IMGPKG_REGISTRY_PASSWORD_1"] = "wrong"
    assert tried(str(mirrors))[0] == 1
    assert tokens.repository_tags("never/there") == []


def test_a_registry_that_only_a_lock_names_gets_no_login_of_the_command_line(
    source: str, basic: DockerRegistry, certificates: Certificates, tmp_path: Path
) -> None:
    """The stranger asks for Basic, as `basic` does; its log has no login. By name, it gets one."""
    with StrictRegistry(Features(user=f"{USER}:{PASSWORD}")) as stranger:
        digest = f"sha256:{'0' * 64}"
        lock = tmp_path / "images.yml"
        lock.write_text(
            "apiVersion: imgpkg.carvel.dev/v1alpha1\nkind: ImagesLock\nimages:\n"
            f"- image: {stranger.host}/any/app@{digest}\n"
        )
        command = ("copy", "--lock", str(lock), "--to-repo", f"{basic.host}/from/lock")
        ca = (
            "--registry-ca-cert-path", str(certificates.ca),
            "--destination-username", USER, "--destination-password", PASSWORD,
        )  # fmt: skip
        logins: tuple[tuple[tuple[str, ...], dict[str, str]], ...] = (
            (("--registry-username", USER, "--registry-password", PASSWORD), {}),
            (("--source-username", USER, "--source-password", PASSWORD), {}),
            ((), {"IMGPKG_USERNAME": USER, "IMGPKG_PASSWORD": PASSWORD}),
            ((), {"TRANSSHIP_SOURCE_USERNAME": USER, "TRANSSHIP_SOURCE_PASSWORD": PASSWORD}),
            (("--registry-token", "secret"), {}),
        )
        for flags, environ in logins:
            done = transship(*command, *ca, *flags, environ=environ)
            assert done.code != 0
            assert {seen.status for seen in stranger.requests()} == {401}

        by_name = {
            "IMGPKG_REGISTRY_HOSTNAME_0": stranger.host,
            "IMGPKG_REGISTRY_USERNAME_0": USER,
            "IMGPKG_REGISTRY_PASSWORD_0": PASSWORD,
        }
        transship(*command, *ca, environ=by_name)
        assert 404 in {seen.status for seen in stranger.requests()}


def test_every_command_at_a_token_service_whose_tokens_are_good_for_one_request(tmp_path: Path) -> None:
    """Each costs as many tokens as its requests, and those with which that was found out."""
    with ProfileRegistry(Profile(name="once", token_uses=1)) as once, StrictRegistry() as plain:
        root = index([image(number, layers=(noise(1, 1_500_000), layer(number, 100_000))) for number in range(6)])
        listed = push(plain.url, "lib/app", root, "v1")
        folder = tmp_path / "config"
        (folder / ".imgpkg").mkdir(parents=True)
        (folder / "large").write_bytes(noise(2, 1_500_000).data)
        images = f"apiVersion: imgpkg.carvel.dev/v1alpha1\nkind: ImagesLock\nimages:\n- image: {listed}\n"
        (folder / ".imgpkg" / "images.yml").write_text(images)
        (tmp_path / "mirrors.yaml").write_text(
            f"version: 1\nregistries: {{'{once.host}': {{retries: 0}}}}\nmirrors:\n"
            f"  - {{name: app, source: {{repository: {once.host}/bundle}}, tags: [{{allow: [v1]}}], "
            f"destinations: [{{repository: {once.host}/mirrored}}]}}\n"
        )
        login = base64.b64encode(f"{profile_registry.USER}:{profile_registry.PASSWORD}".encode()).decode()
        (tmp_path / "config.json").write_text(json.dumps({"auths": {once.host: {"auth": login}}}))
        tar, chunks = str(tmp_path / "bundle.tar"), ["--registry-chunk-size", "300000"]
        for command in (
            ["push", "-b", f"{once.host}/bundle:v1", "-f", str(folder)],
            ["copy", "-b", f"{once.host}/bundle:v1", "--to-repo", f"{once.host}/copied"],
            ["copy", "-b", f"{once.host}/bundle:v1", "--to-repo", f"{once.host}/chunks", *chunks],
            ["copy", "-b", f"{once.host}/copied:v1", "--to-tar", tar],
            ["copy", "--tar", tar, "--to-repo", f"{once.host}/imported"],
            ["pull", "-b", f"{once.host}/imported:v1", "-o", str(tmp_path / "pulled")],
            ["mirror", "run", "-f", str(tmp_path / "mirrors.yaml")],
        ):
            tokens, seen = len(once.tokens), len(once.seen)
            retries = [] if command[0] == "mirror" else ["--registry-retry-count", "0"]
            done = transship(*command, *retries, environ={"DOCKER_CONFIG": str(tmp_path)})
            assert done.code == 0, (command, done.err)
            statuses = [request.status for request in once.seen[seen:] if not request.path.startswith("/token")]
            accepted = sum(status != 401 for status in statuses)
            assert len(once.tokens) - tokens <= accepted + 50
            assert len(statuses) - accepted <= 50
        assert root.digest in once.store.repositories["imported"].manifests
        assert "v1" in once.store.repositories["mirrored"].tags
        assert (tmp_path / "pulled" / "large").read_bytes() == noise(2, 1_500_000).data
