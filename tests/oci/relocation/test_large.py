"""Much at a time: a plan of ten thousand images, and sixty-four copies in one process."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from oci import library
from tests.benchmarks.measure import LAUNCHER
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
        report = tmp_path / "report"
        done = subprocess.run(
            [sys.executable, "-I", "-S", str(LAUNCHER), str(report), *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={"PATH": os.environ["PATH"], "HOME": "/nonexistent"},
            check=True,
        )

    code, _, cpu, memory = (float(figure) for figure in report.read_text().split())
    print(f"{int(memory) >> 20} MiB, {cpu:.1f} s of CPU; {done.stdout[-300:]}")
    assert code == 0, done.stdout[-2000:]
    assert f"{IMAGES}" in done.stdout.replace(",", "")
    assert memory < MEMORY
    assert cpu < CPU


@pytest.mark.slow
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
