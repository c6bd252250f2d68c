"""The numbers that `transship copy` and `transship mirror run` leave for Prometheus."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.servers.docker_registry import DockerRegistry
from tests.support.command import transship
from tests.support.content import image, push


def numbers(path: Path) -> dict[str, float]:
    """By name and outcome, of a run that had one destination."""
    return {
        f"{sample.name} {sample.labels.get('outcome', '')}".strip(): sample.value
        for family in text_string_to_metric_families(path.read_text())
        for sample in family.samples
    }


@pytest.fixture
def source(registry: DockerRegistry, repository: str) -> str:
    return push(registry.url, repository, image(71), "v1")


def test_a_copy_leaves_its_numbers_in_a_file(source: str, tmp_path: Path) -> None:
    metrics = tmp_path / "copy.prom"

    done = transship("copy", "-i", source, "--to-repo", f"oci:{tmp_path}/there", "--metrics-file", str(metrics))

    assert done.code == 0, done.err
    found = numbers(metrics)
    assert found["transship_run_success"] == 1
    assert found["transship_run_images copied"] == 1
    assert found["transship_run_bytes written"] > 0


def test_an_archive_that_is_written_leaves_its_numbers_too(source: str, tmp_path: Path) -> None:
    archive, metrics = tmp_path / "one.tar", tmp_path / "copy.prom"

    done = transship("copy", "-i", source, "--to-tar", str(archive), "--metrics-file", str(metrics))

    assert done.code == 0, done.err
    found = numbers(metrics)
    assert found["transship_run_success"] == 1
    assert found["transship_run_images copied"] == 1
    assert found["transship_run_bytes read"] > 0
    assert f'{{destination="{archive}"}}' in metrics.read_text()


def test_a_copy_that_failed_tells_so_in_the_file_that_the_environment_names(
    registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    metrics = tmp_path / "copy.prom"

    done = transship(
        "copy", "-i", f"{registry.host}/{repository}:none", "--to-repo", f"oci:{tmp_path}/there",
        environ={"TRANSSHIP_METRICS_FILE": str(metrics), "TRANSSHIP_PUSHGATEWAY": "http://127.0.0.1:1"},
    )  # fmt: skip

    assert done.code == 1
    assert "Warning: metrics could not be pushed to TRANSSHIP_PUSHGATEWAY: [Errno 111] Connection refused" in done.err
    assert numbers(metrics)["transship_run_success"] == 0


def test_mirrors_leave_their_numbers_side_by_side(registry: DockerRegistry, repository: str, tmp_path: Path) -> None:
    push(registry.url, repository, image(72), "v1")
    mirrors = [
        {
            "name": name,
            "source": {"repository": f"{registry.host}/{source}"},
            "destinations": [{"repository": f"{registry.host}/mirrored/{repository}/{name}"}],
        }
        for name, source in (("there", repository), ("gone", f"{repository}/gone"))
    ]
    (tmp_path / "mirrors.yaml").write_text(json.dumps({"version": 1, "mirrors": mirrors}))
    metrics = tmp_path / "mirrors.prom"

    done = transship("mirror", "run", "-f", str(tmp_path / "mirrors.yaml"), "--metrics-file", str(metrics))

    assert done.code == 3, done.err
    lines = metrics.read_text().splitlines()
    assert 'transship_run_success{mirror="there"} 1.0' in lines
    assert 'transship_run_images{mirror="there",outcome="copied"} 1.0' in lines
    assert 'transship_run_success{mirror="gone"} 0.0' in lines
    assert numbers(metrics)


def test_a_plan_tells_nothing(source: str, tmp_path: Path) -> None:
    metrics = tmp_path / "copy.prom"

    done = transship("copy", "-i", source, "--to-repo", f"oci:{tmp_path}/x", "--plan", "--metrics-file", str(metrics))

    assert done.code == 0, done.err
    assert not metrics.exists()
