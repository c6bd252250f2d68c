from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flows import monitor
from oci.registry.credentials import Credential, Credentials, Fixed
from oci.relocation.request import RelocationRequest
from oci.relocation.session import Access
from tests.flows.cargo import push_image
from tests.servers.docker_registry import DockerRegistry

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.usefixtures("prefect")
def test_the_access_of_the_command_line_is_used_as_it_is(registry: DockerRegistry) -> None:
    image = push_image(registry, "monitor/shop/web", size=1000, seed=1, tag="2.0")
    request = RelocationRequest(image=f"{registry.host}/monitor/shop/web:2.0", to=f"{registry.host}/monitor/mirror/web")
    bob = Access(credentials=Credentials([Fixed(Credential(username="bob", password="pw", origin="flags"))]))

    report = monitor.run(request, source=bob, destination=Access(credentials=Credentials([])), verify="deep")

    assert report.digest == image.digest
    assert report.bytes.mounted > 1000
    assert report.verified_manifests == 1
    assert registry.repository_tags("monitor/mirror/web")[-1].startswith("sha256-")
    assert "2.0" in registry.repository_tags("monitor/mirror/web")


PROGRAM = """
import sys
from flows import monitor
from oci.registry.credentials import Credentials
from oci.relocation.request import RelocationRequest
from oci.relocation.session import Access

anonymous = Access(credentials=Credentials([]))
report = monitor.run(RelocationRequest(image=sys.argv[1], to=sys.argv[2]), source=anonymous, destination=anonymous)
print(report.images_copied, report.tags)
"""


def test_without_a_server_one_is_started_for_as_long_as_it_takes(registry: DockerRegistry, tmp_path: Path) -> None:
    push_image(registry, "monitor/shop/cron", size=1000, seed=2, tag="3.0")
    plain = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}

    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, f"{registry.host}/monitor/shop/cron:3.0", f"oci:{tmp_path}/layout"],
        env=plain | {"PREFECT_HOME": str(tmp_path / "prefect"), "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )

    assert done.stdout == "1 ['3.0']\n", done.stderr
    assert "Finished in state Completed()" in done.stderr
    assert "Traceback" not in done.stderr
    assert "telemetry" not in done.stderr
