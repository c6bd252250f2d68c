"""The manifests, and the template of the jobs that runs are."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.prefect_server import PrefectServer, shared_server

KUBERNETES = Path(__file__).parent.parent.parent / "deployments" / "kubernetes"
TEMPLATE: dict[str, Any] = json.loads((KUBERNETES / "job-template.json").read_text())


def manifests() -> list[dict[str, Any]]:
    kustomization = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())
    return [
        manifest
        for name in kustomization["resources"]
        for manifest in yaml.safe_load_all((KUBERNETES / name).read_text())
    ]


DEPLOYMENTS = {one["metadata"]["name"]: one["spec"]["template"] for one in manifests() if one["kind"] == "Deployment"}
JOB = TEMPLATE["job_configuration"]["job_manifest"]["spec"]["template"]
PODS = DEPLOYMENTS | {"job": JOB}


def test_every_manifest_of_the_folder_is_applied() -> None:
    resources = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())["resources"]

    assert {path.name for path in KUBERNETES.glob("*.yaml")} == {*resources, "kustomization.yaml"}


@pytest.mark.parametrize("name", PODS)
def test_a_pod_may_do_little(name: str) -> None:
    spec = PODS[name]["spec"]

    assert spec["securityContext"]["runAsNonRoot"] is True
    for container in spec["containers"]:
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["requests"]["memory"]
        assert container["resources"]["limits"]["memory"]


@pytest.mark.parametrize("name", PODS)
def test_what_a_pod_mounts_is_a_volume_of_it(name: str) -> None:
    spec = PODS[name]["spec"]
    mounted = {mount["name"] for container in spec["containers"] for mount in container["volumeMounts"]}

    assert mounted == {volume["name"] for volume in spec["volumes"]}


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_a_deployment_selects_its_own_pods_and_is_probed(name: str) -> None:
    [deployment] = [one for one in manifests() if one["kind"] == "Deployment" and one["metadata"]["name"] == name]
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    labels = deployment["spec"]["template"]["metadata"]["labels"]

    assert deployment["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert container["livenessProbe"]["httpGet"]["port"] in {port["name"] for port in container["ports"]}


def test_services_and_roles_point_at_what_is_there() -> None:
    by_kind: dict[str, list[dict[str, Any]]] = {}
    for manifest in manifests():
        by_kind.setdefault(manifest["kind"], []).append(manifest)
    accounts = {one["metadata"]["name"] for one in by_kind["ServiceAccount"]}
    labels = [template["metadata"]["labels"].items() for template in DEPLOYMENTS.values()]

    for service in by_kind["Service"]:
        assert any(service["spec"]["selector"].items() <= one for one in labels)
    [binding] = by_kind["RoleBinding"]
    assert binding["roleRef"]["name"] == by_kind["Role"][0]["metadata"]["name"]
    assert {subject["name"] for subject in binding["subjects"]} <= accounts
    assert TEMPLATE["variables"]["properties"]["service_account_name"]["default"] in accounts
    assert "PersistentVolumeClaim" not in by_kind, "jobs share no folder: whoever could write to it could run code"


def test_only_what_needs_it_reaches_the_server_and_the_receiver() -> None:
    policies = {one["metadata"]["name"]: one["spec"] for one in manifests() if one["kind"] == "NetworkPolicy"}
    parts = {name: template["metadata"]["labels"].items() for name, template in DEPLOYMENTS.items()}

    assert policies["default-deny"]["podSelector"] == {}
    assert "ingress" not in policies["default-deny"]
    for name in ("prefect", "receiver"):
        assert policies[name]["podSelector"]["matchLabels"].items() <= parts[name]
        [rule] = policies[name]["ingress"]
        assert rule["ports"]


def test_no_secret_stands_in_a_manifest() -> None:
    assert "Secret" not in {manifest["kind"] for manifest in manifests()}
    environment = [
        variable["name"]
        for template in DEPLOYMENTS.values()
        for container in template["spec"]["containers"]
        for variable in container["env"]
    ]
    assert [name for name in environment if re.search("PASSWORD|SECRET|TOKEN|AUTH", name)] == []


def test_every_variable_of_the_job_template_explains_itself_and_is_used() -> None:
    used = set(re.findall(r"{{ (\w+) }}", json.dumps(TEMPLATE["job_configuration"])))
    variables = TEMPLATE["variables"]["properties"]

    assert used == set(variables)
    assert [name for name, variable in variables.items() if not variable["description"]] == []


@pytest.mark.slow
def test_prefect_takes_the_job_template(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> None:
    server: PrefectServer = shared_server(request, tmp_path_factory)
    template = str(KUBERNETES / "job-template.json")

    server.cli("work-pool", "create", "--type", "kubernetes", "--base-job-template", template, "in-a-cluster")

    shown = server.cli("work-pool", "inspect", "in-a-cluster", "--output", "json")
    assert json.loads(shown)["base_job_template"] == TEMPLATE
