"""The chart: what it makes of its values, that commands and files in it are right, and what Helm itself makes of it."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml

from flows.cli.app import root
from oci.mirror.config import MirrorsConfig
from tests.support.helm_chart import Chart, merged

FOLDER = Path(__file__).parents[2] / "deployments" / "helm"
MIRRORS = {
    "version": 1,
    "mirrors": [
        {
            "name": "web",
            "source": {"repository": "registry.example/shop/web"},
            "destinations": [{"repository": "registry.corp.example/mirror/web"}],
            "tags": [{"semver": ["*"], "latest": 3}],
        }
    ],
}
EKS = {"eks.amazonaws.com/role-arn": "arn:aws:iam::123456789012:role/mirror"}
EVERYTHING: dict[str, Any] = {
    "mirrors": MIRRORS,
    "image": {"digest": "sha256:" + "1" * 64, "pullSecrets": [{"name": "pull"}]},
    "mirrorsMay": "insecure",
    "dockerConfigSecret": "logins",
    "env": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
    "serviceAccount": {"annotations": EKS},
    "keychains": "ecr",
    "watch": {"serviceMonitor": True},
    "state": {"size": "1Gi", "storageClass": "fast"},
    "podLabels": {"azure.workload.identity/use": "true"},
    "podAnnotations": {"a": "b"},
    "nodeSelector": {"disk": "ssd"},
    "tolerations": [{"key": "k", "operator": "Exists"}],
}


def rendered(**values: Any) -> dict[str, dict[str, Any]]:
    return {body["kind"]: body for body in Chart(FOLDER, values).objects()}


def pod_of(objects: dict[str, dict[str, Any]]) -> dict[str, Any]:
    if "CronJob" in objects:
        pod: dict[str, Any] = objects["CronJob"]["spec"]["jobTemplate"]["spec"]["template"]
        return pod
    return dict(objects["Deployment"]["spec"]["template"])


@pytest.mark.parametrize("mode", ["watch", "cron"])
def test_the_pod_runs_a_command_that_there_is_with_the_file_of_mirrors(mode: str) -> None:
    objects = rendered(mode=mode, mirrors=MIRRORS)

    (container,) = pod_of(objects)["spec"]["containers"]
    program, *words = container["args"]
    assert program == "transship"
    context = root.make_context("transship", words, resilient_parsing=True)
    _, group, words = root.resolve_command(context, list(words))
    assert group is not None
    _, command, flags = group.resolve_command(context, words)  # type: ignore[attr-defined]
    assert command is not None
    parsed = command.make_context("run", list(flags))
    folder = next(mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] == "mirrors")
    (file,) = objects["ConfigMap"]["data"].items()
    assert parsed.params["path"] == f"{folder}/{file[0]}"
    assert MirrorsConfig.make(yaml.safe_load(file[1])).mirrors[0].name == "web"


@pytest.mark.parametrize("mode", ["watch", "cron"])
@pytest.mark.parametrize("values", [{"mirrors": MIRRORS}, EVERYTHING], ids=["plain", "everything"])
def test_every_volume_is_mounted_and_nothing_runs_with_rights(mode: str, values: dict[str, Any]) -> None:
    objects = rendered(mode=mode, **values)
    pod = pod_of(objects)
    (container,) = pod["spec"]["containers"]

    assert {mount["name"] for mount in container["volumeMounts"]} == {one["name"] for one in pod["spec"]["volumes"]}
    assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert pod["spec"]["automountServiceAccountToken"] is False
    assert pod["spec"]["serviceAccountName"] == objects["ServiceAccount"]["metadata"]["name"]
    claims = [
        one["persistentVolumeClaim"]["claimName"] for one in pod["spec"]["volumes"] if "persistentVolumeClaim" in one
    ]
    assert claims == [objects[kind]["metadata"]["name"] for kind in objects if kind == "PersistentVolumeClaim"]


def test_identities_of_clouds_and_secrets_reach_the_pod() -> None:
    objects = rendered(**EVERYTHING)
    (container,) = pod_of(objects)["spec"]["containers"]
    environment = {variable["name"]: variable["value"] for variable in container["env"]}

    assert objects["ServiceAccount"]["metadata"]["annotations"] == EKS
    assert pod_of(objects)["metadata"]["labels"]["azure.workload.identity/use"] == "true"
    assert container["image"].endswith("@sha256:" + "1" * 64)
    assert environment["IMGPKG_ACTIVE_KEYCHAINS"] == "ecr"
    assert environment["TRANSSHIP_MIRRORS_MAY"] == "insecure"
    assert environment["HTTPS_PROXY"] == "http://proxy:3128"
    assert (
        objects["ServiceMonitor"]["spec"]["selector"]["matchLabels"].items()
        <= pod_of(objects)["metadata"]["labels"].items()
    )


def test_the_health_of_watch_is_asked_where_it_listens() -> None:
    objects = rendered(mirrors=MIRRORS)
    (container,) = pod_of(objects)["spec"]["containers"]
    (port,) = container["ports"]

    assert f"--port={port['containerPort']}" in container["args"]
    for probe in ("livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["port"] == port["name"]
    assert objects["Service"]["spec"]["ports"][0]["targetPort"] == port["name"]
    changed = rendered(mirrors=merged(MIRRORS, {"mirrors": []}))
    notes = [pod_of(one)["metadata"]["annotations"] for one in (objects, changed)]
    assert notes[0] != notes[1]


def test_a_cron_job_has_no_service_and_never_runs_twice() -> None:
    objects = rendered(mode="cron", mirrors=MIRRORS)

    assert set(objects) == {"ConfigMap", "ServiceAccount", "CronJob"}
    assert objects["CronJob"]["spec"]["concurrencyPolicy"] == "Forbid"


def test_the_schema_knows_every_value() -> None:
    """What Helm would refuse: a value that the schema hasn't, or one that the defaults haven't."""
    schema = json.loads((FOLDER / "values.schema.json").read_text())
    values = yaml.safe_load((FOLDER / "values.yaml").read_text())

    def compare(part: dict[str, Any], there: dict[str, Any]) -> None:
        properties = part.get("properties", {})
        if part.get("additionalProperties") is False:
            assert set(properties) - {"global"} == set(there)
        for name, below in properties.items():
            if isinstance(there.get(name), dict):
                compare(below, there[name])
            if "enum" in below:
                assert there[name] in below["enum"]
            if "pattern" in below:
                assert re.search(below["pattern"], there[name])

    compare(schema, values)


@pytest.mark.parametrize("values", [{"mirrors": MIRRORS}, EVERYTHING], ids=["plain", "everything"])
def test_the_schema_takes_what_is_right(values: dict[str, Any]) -> None:
    defaults = yaml.safe_load((FOLDER / "values.yaml").read_text())
    jsonschema.validate(merged(defaults, values), json.loads((FOLDER / "values.schema.json").read_text()))


@pytest.mark.parametrize(
    "wrong",
    [
        {"mode": "sometimes"},
        {"imagge": {}},
        {"image": {"digest": "sha256:12"}},
        {"image": {"repository": ""}},
        {"mirrors": {"version": 1}},
        {"watch": {"interval": "often"}},
        {"cron": {"backoffLimit": -1}},
        {"serviceAccount": {"annotations": {"a": 1}}},
        {"serviceAccount": {"name": "a\nb: c"}},
        {"podLabels": {"app.kubernetes.io/name": "other"}},
        {"podAnnotations": {"transship.dev/mirrors": "0"}},
        {"env": [{"name": "TRANSSHIP_MIRRORS_MAY", "value": "proxy"}]},
    ],
    ids=json.dumps,
)
def test_the_schema_refuses_what_is_wrong(wrong: dict[str, Any]) -> None:
    defaults = yaml.safe_load((FOLDER / "values.yaml").read_text())
    values = merged(merged(defaults, {"mirrors": MIRRORS}), wrong)
    if "mirrors" in wrong:
        values["mirrors"] = wrong["mirrors"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(values, json.loads((FOLDER / "values.schema.json").read_text()))


HOSTILE = (
    "x\nhostNetwork: true",
    'x"\nprivileged: true\n#',
    "x: {a: b}",
    "{{ .Release.Name }}",
    "- x",
    "*x",
    "'",
    "x #y",
    "!!x y",
)


def texts_of(schema: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The values that are texts."""
    for name, below in schema.get("properties", {}).items():
        if below.get("type") == "string":
            yield (*path, name)
        elif below.get("type") == "object":
            yield from texts_of(below, (*path, name))
            if below.get("additionalProperties") == {"type": "string"}:
                yield (*path, name, "any")


def keys_of(value: Any) -> Counter[str]:
    below = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    own = Counter(list(value)) if isinstance(value, dict) else Counter[str]()
    return sum(map(keys_of, below), own)


@pytest.mark.parametrize("mode", ["watch", "cron"])
def test_no_value_writes_more_than_its_own_text(mode: str) -> None:
    """Who may set the name of a secret doesn't set whether the pod has the host's network."""
    schema = json.loads((FOLDER / "values.schema.json").read_text())
    defaults = yaml.safe_load((FOLDER / "values.yaml").read_text())
    paths = list(texts_of(schema))
    assert ("podLabels", "any") in paths
    assert len(paths) > 10
    for path, text in itertools.product(paths, HOSTILE):
        given: dict[str, Any] = {path[-1]: text}
        honest: dict[str, Any] = {path[-1]: "x"}
        for name in reversed(path[:-1]):
            given, honest = {name: given}, {name: honest}
        values = merged(merged(EVERYTHING, {"mode": mode}), given)
        if path == ("image", "tag"):
            values = merged(values, {"image": {"digest": ""}})
        try:
            jsonschema.validate(merged(defaults, values), schema)
        except jsonschema.ValidationError:
            continue
        expected = merged(values, honest)
        assert keys_of(list(rendered(**values).values())) == keys_of(list(rendered(**expected).values())), (path, text)


def test_the_values_in_the_readme_are_values() -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", (FOLDER / "README.md").read_text(), re.DOTALL)
    values = yaml.safe_load(block)

    assert set(values) <= set(yaml.safe_load((FOLDER / "values.yaml").read_text()))
    assert MirrorsConfig.make(values["mirrors"]).mirrors
    assert rendered(**values)["Deployment"]


@pytest.mark.optional
@pytest.mark.parametrize("mode", ["watch", "cron"])
def test_helm_itself_says_the_same(mode: str) -> None:
    """With Helm 4, as the package helm-python-sdk has it: `make test-optional` installs it."""
    import helm_python

    values = merged(EVERYTHING, {"mode": mode})
    linted = helm_python.lint(str(FOLDER), values, strict=True)
    texts = helm_python.Chart.load(str(FOLDER)).render(values, name="mirrors")

    assert linted["errors"] == []
    assert [one["error"] for one in linted["messages"]] == ["icon is recommended"]
    ours = Chart(FOLDER, values).objects()
    theirs = [body for text in texts.values() for body in yaml.safe_load_all(text) if body and "kind" in body]
    key = lambda body: (body["kind"], body["metadata"]["name"])  # noqa: E731
    assert sorted(ours, key=key) == sorted(theirs, key=key)
