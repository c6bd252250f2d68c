"""Every verb with docker-registry behind a proxy that ends TLS, sets cookies and throttles."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.servers.certificates import make_certificates
from tests.servers.docker_registry import DockerRegistry
from tests.servers.front import Front
from tests.support.command import Done, transship
from tests.support.content import image, layer, push

PER_SECOND = 30.0


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    folder = tmp_path_factory.mktemp("front")
    made = make_certificates(folder / "certificates")
    with DockerRegistry(folder / "registry") as registry, Front(registry.host, made, per_second=PER_SECOND) as one:
        yield one


@pytest.fixture(scope="module")
def flags(front: Front, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    authority = next(tmp_path_factory.getbasetemp().glob("front*/certificates/ca.pem"))
    return ("--registry-ca-cert-path", str(authority))


def succeeded(done: Done) -> Done:
    assert done.code == 0, done.err
    return done


def test_push_copy_mirror_pull_export_and_looking_at_it(front: Front, flags: tuple[str, ...], tmp_path: Path) -> None:
    for number in range(6):
        layers = [layer(8200 + number * 3 + one, 60_000) for one in range(3)]
        push(f"http://{front.target}", f"apps/app{number}", image(8250 + number, layers=layers), "v1")
    folder = tmp_path / "config"
    (folder / ".imgpkg").mkdir(parents=True)
    (folder / "app.yml").write_text("kind: App\n")
    digests = [
        httpx.head(
            f"http://{front.target}/v2/apps/app{number}/manifests/v1",
            headers={"Accept": "application/vnd.oci.image.manifest.v1+json"},
        ).headers["docker-content-digest"]
        for number in range(6)
    ]
    listed = [f"- image: {front.host}/apps/app{number}@{digest}" for number, digest in enumerate(digests)]
    lock = "\n".join(["apiVersion: imgpkg.carvel.dev/v1alpha1", "kind: ImagesLock", "images:", *listed])
    (folder / ".imgpkg" / "images.yml").write_text(lock)

    bundle = f"{front.host}/set/bundle:1.0"
    succeeded(transship("push", "-b", bundle, "-f", str(folder), *flags))
    succeeded(transship("copy", "-b", bundle, "--to-repo", f"{front.host}/copied/set", "--verify", "deep", *flags))

    mirrors = tmp_path / "mirrors.yaml"
    mirrors.write_text(
        json.dumps(
            {
                "version": 1,
                "mirrors": [
                    {
                        "name": "app0",
                        "source": {"repository": f"{front.host}/apps/app0"},
                        "destinations": [{"repository": f"{front.host}/mirrored/app0"}],
                        "tags": [{"allow": ["v1"]}],
                    }
                ],
            }
        )
    )
    succeeded(transship("mirror", "run", "-f", str(mirrors), *flags))

    pulled = tmp_path / "pulled"
    succeeded(transship("pull", "-b", f"{front.host}/copied/set:1.0", "-o", str(pulled), *flags))
    assert (pulled / "app.yml").read_text() == "kind: App\n"

    archive = tmp_path / "set.tar"
    succeeded(transship("copy", "-b", f"{front.host}/copied/set:1.0", "--to-tar", str(archive), *flags))
    succeeded(transship("copy", "--tar", str(archive), "--to-repo", f"{front.host}/imported/set", *flags))

    copied = f"{front.host}/copied/set"
    succeeded(transship("verify", f"{copied}:1.0", "--deep", *flags))
    succeeded(transship("mirror", "check", "-f", str(mirrors), *flags))
    assert "1.0" in succeeded(transship("tag", "list", "-i", copied, *flags)).out
    assert digests[0] in succeeded(transship("describe", "-b", f"{copied}:1.0", *flags)).out
    assert digests[0] in succeeded(transship("inspect", f"{front.host}/apps/app0:v1", *flags)).out

    assert front.cookies == 0
    assert front.limited < front.passed
    for repository in ("copied/set", "imported/set"):
        tags = httpx.get(f"http://{front.target}/v2/{repository}/tags/list").json()["tags"]
        assert "1.0" in tags
        for digest in digests:
            answer = httpx.get(
                f"http://{front.target}/v2/{repository}/manifests/{digest}",
                headers={"Accept": "application/vnd.oci.image.manifest.v1+json"},
            )
            assert answer.status_code == 200
            for blob in answer.json()["layers"]:
                assert httpx.head(f"http://{front.target}/v2/{repository}/blobs/{blob['digest']}").status_code == 200
