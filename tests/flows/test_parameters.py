from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from prefect import Flow
from prefect.utilities.callables import parameter_schema
from pydantic import BaseModel, ValidationError

from flows import describe, mirror, mirror_check, prune, pull, push, relocate, tags, verify
from flows.parameters import (
    Artifact,
    DescribeParameters,
    MirrorCheckParameters,
    MirrorParameters,
    PruneParameters,
    PullParameters,
    PushParameters,
    RegistryOptions,
    RelocateParameters,
    SourceKind,
    TagsParameters,
    Verify,
    VerifyParameters,
)
from oci.relocation.request import RelocationRequest

SOURCE = "registry.example/shop/bundle:1.4.0"
TARGET = "corp.example/mirror/shop"


def fields(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, model in [("", schema), *schema.get("$defs", {}).items()]:
        for field, body in model.get("properties", {}).items():
            yield f"{name}.{field}", body
            for inner in (body, body.get("items"), body.get("additionalProperties"), *body.get("anyOf", ())):
                if isinstance(inner, dict) and "properties" in inner:
                    yield from fields({"properties": inner["properties"]})


MODELS: dict[Flow[Any, Any], type[BaseModel]] = {
    relocate: RelocateParameters,
    push: PushParameters,
    prune: PruneParameters,
    pull: PullParameters,
    tags: TagsParameters,
    describe: DescribeParameters,
    mirror: MirrorParameters,
    mirror_check: MirrorCheckParameters,
    verify: VerifyParameters,
}
FIELDS = [field for model in MODELS.values() for field in fields(model.model_json_schema())]


@pytest.mark.parametrize(("name", "body"), FIELDS)
def test_every_field_of_the_form_has_a_title_and_says_what_it_is(name: str, body: dict[str, Any]) -> None:
    assert body["title"], name
    assert len(body["description"]) > 10, name


@pytest.mark.parametrize(("name", "body"), FIELDS)
def test_every_list_and_number_of_the_form_has_bounds(name: str, body: dict[str, Any]) -> None:
    if body.get("type") == "array":
        assert "maxItems" in body, name
    if body.get("type") in ("integer", "number"):
        assert {"minimum", "maximum"} <= body.keys(), name


@pytest.mark.parametrize(("flow", "model"), MODELS.items())
def test_the_schema_that_the_server_keeps_has_all_of_it(flow: Flow[Any, Any], model: type[BaseModel]) -> None:
    schema = parameter_schema(flow.fn).model_dump()

    assert schema["required"] == ["parameters"]
    assert schema["definitions"][model.__name__]["properties"].keys() == model.model_fields.keys()


@pytest.mark.parametrize("model", MODELS.values())
def test_no_field_is_made_for_a_secret(model: type[BaseModel]) -> None:
    text = json.dumps(model.model_json_schema()).lower()

    assert "password" not in text
    assert "writeonly" not in text


@pytest.mark.parametrize(
    "request_",
    [
        RelocationRequest(bundle=SOURCE, to=TARGET, tags=("a", "b"), artifacts=frozenset(Artifact)),
        RelocationRequest(image=SOURCE, to=TARGET, platforms=("linux/arm64",), repo_based_tags=True),
        RelocationRequest(lock="/etc/images.lock.yml", to="oci:/srv/mirror", include_non_distributable=True),
        RelocationRequest(bundle="oci:/srv/layout:1.0", to=TARGET, shallow=True),
    ],
)
def test_a_request_of_the_command_line_and_the_form_say_the_same(request_: RelocationRequest) -> None:
    parameters = RelocateParameters.of(request_, concurrency=3, verify=Verify.DEEP)

    assert parameters.request() == request_
    assert RelocateParameters.model_validate_json(parameters.model_dump_json()) == parameters


def test_the_form_says_how_each_side_is_reached() -> None:
    order = RelocateParameters(
        source=SOURCE,
        destination=TARGET,
        concurrency=3,
        source_credentials=["reader"],
        source_registry=RegistryOptions(ca_files=["/etc/ca.pem"], anonymous=True),
        destination_registry=RegistryOptions(insecure=True, verify_tls=False, retries=0),
    ).order()

    assert order.source.credentials == ("reader",)
    assert order.source.anonymous
    assert order.source.settings.ca_files == ("/etc/ca.pem",)
    assert order.destination.settings.insecure
    assert not order.destination.settings.verify_tls
    assert order.destination.settings.retries == 0
    assert order.source.settings.concurrency == order.concurrency == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": "https://registry.example/shop:1"}, "leave out http"),
        ({"source": "registry.example/Shop:1"}, "lower case"),
        ({"destination": "corp.example/shop:1.4.0"}, "is not a repository"),
        ({"destination": ""}, "at least 1 character"),
        ({"tags": ["no spaces"]}, "match pattern"),
        ({"platforms": ["linux"]}, "match pattern"),
        ({"artifacts": ["sbom"]}, "'cosign' or 'referrers'"),
        ({"concurrency": 0}, "greater than or equal to 1"),
        ({"concurrency": 65}, "less than or equal to 64"),
        ({"kind": "lock", "source": "/etc/images.lock.yml", "tags": ["a"]}, "names its own tag"),
        ({"source_registry": {"proxy": "http://bob:secret@proxy:3128"}}, "stored in clear"),
        ({"source_credentials": ["Not A Block"]}, "match pattern"),
        ({"tag": ["1.4.0"]}, "Extra inputs"),
    ],
)
def test_what_makes_no_sense_is_refused_with_a_reason(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message) as caught:
        RelocateParameters.model_validate({"source": SOURCE, "destination": TARGET} | change)

    assert "secret@" not in str(caught.value)


def test_defaults_are_those_of_a_bundle_that_is_not_verified() -> None:
    parameters = RelocateParameters(source=SOURCE, destination=TARGET)

    assert (parameters.kind, parameters.verify) == (SourceKind.BUNDLE, Verify.NONE)
    assert {artifact.value for artifact in Artifact} == {"cosign", "referrers"}


@pytest.mark.parametrize(
    ("model", "values", "message"),
    [
        (PushParameters, {"destination": f"r.example/aa@sha256:{'1' * 64}", "files": ["d"]}, "digest reference"),
        (PushParameters, {"destination": "http://bob:secret@r.example/aa", "files": ["d"]}, "leave out http"),
        (
            PushParameters,
            {"destination": "r.example/aa", "files": ["d"], "labels": {"dev.carvel.imgpkg.bundle": ""}},
            "is reserved",
        ),
        (
            PushParameters,
            {"destination": "r.example/aa", "files": ["d"], "bundle": False, "lock_output": "/l.yml"},
            "only a bundle has a lock",
        ),
        (PushParameters, {"destination": "oci:/srv/l:1", "files": ["d"], "lock_output": "/l.yml"}, "registries only"),
        (PullParameters, {"source": "r.example/Aa", "folder": "/srv/x"}, "lower case"),
        (PullParameters, {"kind": "image", "source": "r.example/aa", "folder": "/x", "recursive": True}, "use -b"),
        (PullParameters, {"source": "r.example/aa", "folder": ""}, "at least 1 character"),
        (TagsParameters, {"image": "r.example/aa", "action": "delete"}, "'list' or 'resolve'"),
        (DescribeParameters, {"bundle": "https://r.example/aa"}, "leave out http"),
    ],
)
def test_forms_for_files_and_tags_refuse_what_makes_no_sense(
    model: type[BaseModel], values: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError, match=message) as caught:
        model.model_validate(values)

    assert "secret@" not in str(caught.value)


def test_a_push_excludes_what_the_command_excludes() -> None:
    assert PushParameters(destination="r.example/aa", files=["d"]).request().exclusions == (".git",)
