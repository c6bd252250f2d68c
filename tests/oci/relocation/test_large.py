"""Much at a time: a plan of ten thousand images, and sixty-four copies in one process."""

from __future__ import annotations

import gc
import os
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from oci import library
from tests.servers.docker_registry import DockerRegistry
from tests.servers.registry_data import seed
from tests.storm.walk import Walker
from tests.support.command import PROGRAM
from tests.support.content import image, layer, push
from tests.support.mirroring import many
from tests.support.waiting import until

IMAGES = 10_000
MEMORY = 1 << 30
CPU = 60.0
COPIES = 64


@pytest.mark.slow
def test_a_plan_of_ten_thousand_images_takes_a_gigabyte_and_a_minute_of_cpu_at_most(tmp_path: Path) -> None:
    images = many(IMAGES)
    with DockerRegistry(tmp_path / "source") as source, DockerRegistry(tmp_path / "destination") as destination:
        seed(source, "shop/web", images)
        lock = tmp_path / "images.yml"
        lines = [f"- image: {source.host}/shop/web@{one.digest}" for one in images.values()]
        lock.write_text(
            "\n".join(["apiVersion: imgpkg.carvel.dev/v1alpha1", "kind: ImagesLock", "images:", *lines, ""])
        )
        command = [str(PROGRAM), "copy", "--lock", str(lock), "--to-repo", f"{destination.host}/mirror/web", "--plan"]
        with (tmp_path / "out").open("wb") as out:
            process = subprocess.Popen(
                command, stdout=out, stderr=out, env={"PATH": os.environ["PATH"], "HOME": "/nonexistent"}
            )
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)

    said = (tmp_path / "out").read_text()
    print(f"{used.ru_maxrss >> 10} MiB, {used.ru_utime + used.ru_stime:.1f} s of CPU; {said[-300:]}")
    assert process.returncode == 0, said[-2000:]
    assert f"{IMAGES}" in said.replace(",", "")
    assert used.ru_maxrss << 10 < MEMORY
    assert used.ru_utime + used.ru_stime < CPU


def test_sixty_four_copies_in_one_process_leave_no_thread_and_no_descriptor(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str
) -> None:
    made = [image(900 + number, layers=[layer(900), layer(1000 + number)]) for number in range(COPIES)]
    for number, one in enumerate(made):
        push(registry.url, f"{repository}/from{number}", one, "v1")
    gc.collect()
    before = threading.active_count(), len(os.listdir("/proc/self/fd"))

    with ThreadPoolExecutor(COPIES) as threads:
        results = list(
            threads.map(
                lambda number: library.copy(
                    f"{registry.host}/{repository}/from{number}:v1",
                    f"{other_registry.host}/{repository}/to{number}",
                ),
                range(COPIES),
            )
        )

    assert len(results) == COPIES
    walker = Walker(other_registry.url, {})
    for number, one in enumerate(made):
        assert walker.tags(f"{repository}/to{number}")["v1"] == one.digest
        assert walker.half_made(f"{repository}/to{number}") == []
    walker.http.close()
    until("their threads to end", lambda: threading.active_count() <= before[0])
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= before[1] + 1
