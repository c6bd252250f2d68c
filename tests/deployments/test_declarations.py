"""prefect.yaml, the environment files, the example mirrors and the lock of the image."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path
from typing import Any

import prefect.server
import pytest
import yaml
from prefect import Flow, settings

from oci.mirror.reader import read_config
from tests.support.prefect_server import profile

DEPLOYMENTS = Path(__file__).parent.parent.parent / "deployments"


def declared() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load((DEPLOYMENTS / "prefect.yaml").read_text())["deployments"]
    return found


@pytest.mark.parametrize("deployment", declared(), ids=lambda deployment: str(deployment["name"]))
def test_a_deployment_is_of_a_flow_that_a_worker_can_import(deployment: dict[str, Any]) -> None:
    module, _, name = deployment["entrypoint"].rpartition(".")

    assert isinstance(getattr(importlib.import_module(module), name), Flow)
    assert deployment["pull"] == []  # nothing but the installed package is needed
    assert deployment["enforce_parameter_schema"] is True


@pytest.mark.parametrize("deployment", declared(), ids=lambda deployment: str(deployment["name"]))
def test_a_deployment_is_found_by_the_automations_that_watch_over_its_runs(deployment: dict[str, Any]) -> None:
    assert "transship" in deployment["tags"]
    assert deployment["work_pool"]["job_variables"]["env"]["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] == "30"


def test_the_template_of_docker_jobs_is_prefects_with_the_image_and_without_privileges() -> None:
    views = Path(prefect.server.__file__).parent / "api" / "collections_data" / "views"
    catalogue = json.loads((views / "aggregate-worker-metadata.json").read_text())
    default = catalogue["prefect-docker"]["docker"]["default_base_job_configuration"]
    template = json.loads((DEPLOYMENTS / "docker-job-template.json").read_text())
    job, variables = template["job_configuration"], template["variables"]["properties"]

    assert default["job_configuration"].keys() - job.keys() == {"registry_credentials"}
    assert job["privileged"] is False
    assert {text.strip("{} ") for text in job.values() if isinstance(text, str)} == variables.keys()
    assert (variables["image"]["default"], variables["auto_remove"]["default"]) == ("transship", True)


@pytest.mark.parametrize("name", ["server.env", "worker.env"])
def test_every_setting_is_one_that_prefect_knows(name: str) -> None:
    assert [key for key in profile(name) if key.startswith("PREFECT_") and not hasattr(settings, key)] == []


@pytest.mark.parametrize("name", ["mirrors.yaml", "examples/mirrors.yaml"])
def test_the_example_mirrors_are_valid(name: str) -> None:
    assert read_config(str(DEPLOYMENTS / name)).mirrors


def test_the_example_mirrors_show_each_kind_of_source_destination_and_schedule() -> None:
    mirrors = read_config(str(DEPLOYMENTS / "examples" / "mirrors.yaml")).mirrors

    assert {key for mirror in mirrors for key in mirror.source.to_dict()} == {"repository", "bundle", "lock"}
    assert {key for mirror in mirrors for to in mirror.destinations for key in to.to_dict()} == {
        "repository",
        "archive",
    }
    schedules = [mirror.schedule for mirror in mirrors if mirror.schedule]
    assert {"cron", "interval", "rrule"} < {key for schedule in schedules for key in schedule.to_dict()}


def pinned(lock: Path) -> set[str]:
    return set(re.findall(r"^[a-z0-9][^ ;]*==[^ ;\\]+", lock.read_text(), re.MULTILINE))


def test_the_image_gets_the_versions_that_are_tested_and_no_tools_of_development() -> None:
    image, tested = pinned(DEPLOYMENTS / "requirements.lock"), pinned(DEPLOYMENTS.parent / "requirements.lock")

    assert image < tested
    assert not [name for name in image if name.startswith(("pytest", "mypy", "ruff", "seaweedfs"))]
    assert "://" not in (DEPLOYMENTS / "requirements.lock").read_text()
