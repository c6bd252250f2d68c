from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flows.cli.copy import run_as_flow
from flows.parameters.relocate import TarballOptions
from oci.archive.options import ExportOptions
from oci.registry.credentials.credential import Credential, Credentials, Fixed
from oci.relocation.driver import Verify
from oci.relocation.request import RelocationRequest
from oci.relocation.session import Access
from tests.flows.cargo import push_image
from tests.servers.docker_registry import DockerRegistry
from tests.servers.seaweedfs import SeaweedFS

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.usefixtures("prefect")
def test_the_access_of_the_command_line_is_used_as_it_is(registry: DockerRegistry) -> None:
    image = push_image(registry, "monitor/shop/web", size=1000, seed=1, tag="2.0")
    request = RelocationRequest(image=f"{registry.host}/monitor/shop/web:2.0", to=f"{registry.host}/monitor/mirror/web")
    bob = Access(credentials=Credentials([Fixed(Credential(username="bob", password="pw", origin="flags"))]))

    report = run_as_flow(request, source=bob, destination=Access(credentials=Credentials([])), verify=Verify.DEEP)

    assert report.digest == image.digest
    assert report.bytes.mounted > 1000
    assert report.verified_manifests == 1
    assert registry.repository_tags("monitor/mirror/web")[-1].startswith("sha256-")
    assert "2.0" in registry.repository_tags("monitor/mirror/web")


@pytest.mark.usefixtures("prefect")
def test_an_archive_in_an_object_store_is_written_and_read_with_the_settings_of_the_command_line(
    registry: DockerRegistry, object_store: SeaweedFS, s3_location: str
) -> None:
    push_image(registry, "monitor/shop/packed", size=1000, seed=3, tag="4.0")
    source = f"{registry.host}/monitor/shop/packed:4.0"
    access = Access(credentials=Credentials([]), s3=object_store.settings)
    out = RelocationRequest(image=source, to=f"archive:{s3_location}")
    back = RelocationRequest(archive=(s3_location,), to=f"{registry.host}/monitor/mirror/packed")

    options = ExportOptions(format="oci-layout", part_size=8 << 20)
    run_as_flow(out, source=access, destination=access, verify=Verify.DEEP, tarball=options)
    report = run_as_flow(back, source=access, destination=access)

    assert report.images_copied == 1
    assert "4.0" in registry.repository_tags("monitor/mirror/packed")
    assert object_store.get(s3_location).startswith(b"oci-layout\0")


def test_sizes_of_the_command_are_sizes_of_the_form() -> None:
    options = TarballOptions(export=ExportOptions(max_size=20_000), resume=False)

    assert options.to_dict() == {"max_size": "20000", "resume": False}
    assert TarballOptions.read(options.to_dict()) == options


PROGRAM = """
import sys
from flows.cli.copy import run_as_flow
from oci.registry.credentials.credential import Credentials
from oci.relocation.request import RelocationRequest
from oci.relocation.driver import Verify
from oci.relocation.session import Access

anonymous = Access(credentials=Credentials([]))
report = run_as_flow(RelocationRequest(image=sys.argv[1], to=sys.argv[2]), source=anonymous, destination=anonymous)
print(report.images_copied, report.tags)
"""


@pytest.mark.slow
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
