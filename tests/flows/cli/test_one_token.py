"""Every command at a registry whose token service ends older tokens whenever it gives another."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from oci.registry.profiles import ENDS_OLDER
from tests.servers import profile_registry
from tests.servers.profile_registry import Profile, ProfileRegistry
from tests.servers.strict_registry import StrictRegistry
from tests.support.command import transship
from tests.support.content import digest_of, image, index, layer, noise, push

COUNT = 4
"""Repositories, and mirrors."""
MISSED = 40
"""Requests that a command sends with a token that has ended, at the most."""


@pytest.mark.parametrize("mixes", [True, False], ids=["", "no mixed scopes"])
@pytest.mark.parametrize("kind", ["identity", "repository", "scope"])
def test_every_command(tmp_path: Path, kind: str, mixes: bool) -> None:
    """Both sides are there, in many repositories at once."""
    profile = Profile(name="", ends_older=kind, no_mixed_scopes=not mixes)
    with ProfileRegistry(profile) as server, StrictRegistry() as filled:
        host, server.store = server.host, filled.store
        roots = [
            index([image(10 * number + one, layers=(noise(one, 400_000), layer(one, 50_000))) for one in range(4)])
            for number in range(COUNT)
        ]
        listed = [push(filled.url, f"lib/app{number}", root, "v1") for number, root in enumerate(roots)]
        folder = tmp_path / "config"
        (folder / ".imgpkg").mkdir(parents=True)
        (folder / "large").write_bytes(noise(99, 1_500_000).data)
        (folder / ".imgpkg" / "images.yml").write_text(
            "apiVersion: imgpkg.carvel.dev/v1alpha1\nkind: ImagesLock\nimages:\n"
            + "".join(f"- image: {reference.replace(filled.host, host)}\n" for reference in listed)
        )
        (tmp_path / "mirrors.yaml").write_text(
            f"version: 1\nregistries: {{'{host}': {{retries: 0}}}}\nmirrors:\n"
            + "".join(
                f"  - {{name: app{number}, source: {{repository: {host}/lib/app{number}}}, tags: [{{allow: [v1]}}], "
                f"destinations: [{{repository: {host}/mirrored/app{number}}}]}}\n"
                for number in range(COUNT)
            )
        )
        login = base64.b64encode(f"{profile_registry.USER}:{profile_registry.PASSWORD}".encode()).decode()
        (tmp_path / "config.json").write_text(json.dumps({"auths": {host: {"auth": login}}}))
        tar = str(tmp_path / "bundle.tar")
        told = 0
        for command in (
            ["push", "-b", f"{host}/bundle:v1", "-f", str(folder)],
            ["copy", "-b", f"{host}/bundle:v1", "--to-repo", f"{host}/copied"],
            ["copy", "-b", f"{host}/bundle:v1", "--to-repo", f"{host}/chunks", "--registry-chunk-size", "300000"],
            ["copy", "-b", f"{host}/copied:v1", "--to-tar", tar],
            ["copy", "--tar", tar, "--to-repo", f"{host}/imported"],
            ["pull", "-b", f"{host}/imported:v1", "-o", str(tmp_path / "pulled")],
            ["mirror", "run", "-f", str(tmp_path / "mirrors.yaml")],
        ):
            seen = len(server.seen)
            retries = [] if command[0] == "mirror" else ["--registry-retry-count", "0"]
            done = transship(*command, *retries, "--json", environ={"DOCKER_CONFIG": str(tmp_path)})
            assert done.code == 0, (command, done.err)
            missed = [request for request in server.seen[seen:] if request.status == 401]
            assert not mixes or len(missed) <= MISSED, command
            told += ENDS_OLDER in done.out + done.err
        assert told or not mixes
        assert all(root.digest in server.store.repositories["imported"].manifests for root in roots)
        for number, root in enumerate(roots):
            mirrored = server.store.repositories[f"mirrored/app{number}"]
            assert mirrored.tags["v1"] == root.digest
            assert all(digest_of(blob.data) in mirrored.blobs for one in root.children for blob in one.blobs)
        assert (tmp_path / "pulled" / "large").read_bytes() == noise(99, 1_500_000).data
