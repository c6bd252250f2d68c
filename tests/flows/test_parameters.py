from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from prefect import Flow
from prefect.exceptions import ParameterTypeError, SignatureMismatchError
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools.validation import ValidationError, validate

from flows import describe, mirror, mirror_check, prune, pull, push, relocate, tags, verify, verify_receipt
from flows.mirror import MirrorCheckParameters, MirrorParameters
from flows.parameters.images import (
    DescribeParameters,
    PullParameters,
    PushParameters,
    TagsParameters,
    VerifyParameters,
    VerifyReceiptParameters,
)
from flows.parameters.relocate import RelocateParameters, ShardParameters, SourceKind
from flows.prune import PruneParameters
from oci.errors import InvalidInput
from oci.options import Options, leaves_of
from oci.registry.http.origin import named_hosts
from oci.registry.options import RegistryOptions
from oci.relocation.driver import Verify
from oci.relocation.request import RelocationRequest
from tasks.fleet.queue import ShardQueue
from tasks.run import _references

SOURCE = "registry.example/shop/bundle:1.4.0"
TARGET = "corp.example/mirror/shop"


def fields(name: str, schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The fields of a form, with those of its groups."""
    for field, body in schema.get("properties", {}).items():
        yield f"{name}.{field}", body
        for group in (body, *body.get("anyOf", [])):
            yield from fields(f"{name}.{field}", group)


FORMS: dict[Flow[..., Any], type[Options]] = {
    relocate: RelocateParameters,
    push: PushParameters,
    prune: PruneParameters,
    pull: PullParameters,
    tags: TagsParameters,
    describe: DescribeParameters,
    mirror: MirrorParameters,
    mirror_check: MirrorCheckParameters,
    verify: VerifyParameters,
    verify_receipt: VerifyReceiptParameters,
}
SCHEMAS = {flow.name: parameter_schema(flow.fn).model_dump() for flow in FORMS}
FIELDS = [field for name, schema in SCHEMAS.items() for field in fields(name, schema)]


@pytest.mark.parametrize(("name", "body"), FIELDS)
def test_every_field_of_the_form_has_a_title_and_says_what_it_is(name: str, body: dict[str, Any]) -> None:
    assert body["title"], name
    assert body["title"][0].isupper(), name
    assert len(body["description"]) > 10, name


@pytest.mark.parametrize(("name", "body"), FIELDS)
def test_every_list_and_number_of_the_form_has_bounds(name: str, body: dict[str, Any]) -> None:
    if body.get("type") == "array" and "enum" not in body.get("items", {}):
        assert "maxItems" in body, name
    if body.get("type") in ("integer", "number"):
        assert {"minimum", "maximum"} <= body.keys(), name


@pytest.mark.parametrize(("flow", "form"), FORMS.items())
def test_the_form_is_flat_and_has_every_declared_option(flow: Flow[..., Any], form: type[Options]) -> None:
    schema = SCHEMAS[flow.name]
    leaves = leaves_of(form)

    assert schema["properties"].keys() == {leaf.name for leaf in leaves}
    assert set(schema.get("required", [])) == {leaf.name for leaf in leaves if leaf.required}
    assert sorted(body["position"] for body in schema["properties"].values()) == list(range(len(leaves)))


@pytest.mark.parametrize("flow", FORMS, ids=lambda flow: str(flow.name))
def test_no_text_of_a_form_has_backquotes_which_the_newer_ui_draws_as_they_are(flow: Flow[..., Any]) -> None:
    shown = SCHEMAS[flow.name]["properties"]
    assert not [name for name, body in shown.items() if "`" in body["description"] + body["title"]]
    assert len({body["title"] for body in shown.values()}) == len(shown), "two fields would have one title"


def test_required_fields_come_first_and_what_is_rarely_changed_last() -> None:
    first = sorted(SCHEMAS["relocate"]["properties"].items(), key=lambda item: item[1]["position"])
    names = [name for name, _ in first]

    assert names[:5] == ["source", "destination", "tags", "verify", "kind"]
    assert {"source_registry", "destination_registry", "fleet", "tarball", "s3_store"} == set(names[-5:])


GROUPS = [(name, body) for name, body in FIELDS if name.count(".") == 1 and "anyOf" in body]


@pytest.mark.parametrize(("name", "body"), GROUPS)
def test_a_group_of_options_is_absent_until_it_is_wanted(name: str, body: dict[str, Any]) -> None:
    group, absent = body["anyOf"]

    assert body["default"] is None, name
    assert absent == {"type": "null"}
    assert group["title"] == body["title"]
    assert "default" not in group, "with one, the newer UI never opens the group"


def test_no_value_for_a_group_is_its_default() -> None:
    given = {"source": SOURCE, "destination": TARGET, "source_registry": None, "tarball": None}

    assert RelocateParameters.read(given) == RelocateParameters(source=SOURCE, destination=TARGET)
    assert relocate.validate_parameters(given)["source_registry"] is None


@pytest.mark.parametrize("flow", FORMS)
def test_logins_and_stores_are_chosen_from_the_blocks_that_there_are(flow: Flow[..., Any]) -> None:
    """Both versions of the UI show a drop-down for a reference to a definition with `block_type_slug`; the server takes
    the id of a block where the definition's title is its name."""
    schema = SCHEMAS[flow.name]
    for name, body in schema["properties"].items():
        if not name.endswith("credentials") and name != "s3_store":
            continue
        _, _, kind = body.get("items", body)["$ref"].rpartition("/")
        definition = schema["definitions"][kind]
        assert definition["title"] == kind
        assert definition["block_type_slug"] in {"registry-credentials", "s3-store"}


def test_a_block_is_taken_by_name_by_type_and_name_and_as_a_drop_down_gives_it() -> None:
    key = "0f9aab11-1111-4222-8333-444444444444"
    reference = {"$ref": {"block_document_id": key}}
    given = {"source": SOURCE, "destination": TARGET, "source_credentials": ["reader", "aws/x", reference]}
    schema = SCHEMAS["relocate"]

    validate(given, schema, raise_on_error=True)
    with pytest.raises(ValidationError):
        validate(given | {"source_credentials": ["No_name"]}, schema, raise_on_error=True)
    parameters = RelocateParameters.read(given | {"s3_store": reference})
    assert (parameters.source_credentials, parameters.s3_store) == (("reader", "aws/x", key), key)


def test_parameters_of_a_form_are_checked_by_the_flow_and_left_as_json_has_them() -> None:
    given = {"source": SOURCE, "destination": TARGET, "tags": ["a"], "tarball": None, "concurrency": 3}
    checked = relocate.validate_parameters(given)

    assert given.items() <= checked.items()
    with pytest.raises(ParameterTypeError, match="tags"):
        relocate.validate_parameters(given | {"tags": ["no spaces"]})
    with pytest.raises(SignatureMismatchError):
        relocate.validate_parameters(given | {"tag": ["a"]})


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=list(SCHEMAS))
def test_no_field_is_made_for_a_secret(schema: dict[str, Any]) -> None:
    text = json.dumps(schema).lower()

    assert '"password"' not in text
    assert "secret_key" not in text
    assert "writeonly" not in text


@pytest.mark.parametrize(
    "request_",
    [
        RelocationRequest(bundle=SOURCE, to=TARGET, tags=("a", "b"), artifacts=("all", "!sbom")),
        RelocationRequest(image=SOURCE, to=TARGET, platforms=("linux/arm64",), repo_based_tags=True),
        RelocationRequest(lock="/etc/images.lock.yml", to="oci:/srv/mirror", include_non_distributable=True),
        RelocationRequest(bundle="oci:/srv/layout:1.0", to=TARGET, shallow=True),
    ],
)
def test_a_request_of_the_command_line_and_the_form_say_the_same(request_: RelocationRequest) -> None:
    parameters = RelocateParameters.of(request_, concurrency=3, verify=Verify.DEEP)

    assert parameters.request() == request_
    assert RelocateParameters.read(json.loads(json.dumps(parameters.to_dict()))) == parameters


def test_the_form_says_how_each_side_is_reached() -> None:
    run = RelocateParameters(
        source=SOURCE,
        destination=TARGET,
        concurrency=3,
        source_credentials=("reader",),
        source_registry=RegistryOptions(ca_files=("/etc/ca.pem",), anonymous=True),
        destination_registry=RegistryOptions(insecure=True, verify_tls=False, retries=0),
    ).run()

    assert run.sides["source"].credentials == ("reader",)
    assert run.sides["source"].anonymous
    assert run.sides["source"].settings.ca_files == ("/etc/ca.pem",)
    assert run.sides["destination"].settings.insecure
    assert not run.sides["destination"].settings.verify_tls
    assert run.sides["destination"].settings.retries == 0
    assert run.sides["source"].settings.concurrency == run.width == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": "https://registry.example/shop:1"}, "leave out http"),
        ({"source": "registry.example/Shop:1"}, "lower case"),
        ({"destination": "corp.example/shop:1.4.0"}, "is not a repository"),
        ({"destination": ""}, "length >= 1"),
        ({"tags": ["no spaces"]}, "'no spaces': expected text such as 1.4.0"),
        ({"platforms": ["linux"]}, "'linux': expected text such as linux/amd64"),
        ({"artifacts": ["sboms"]}, "artifacts"),
        ({"concurrency": 0}, ">= 1"),
        ({"concurrency": 65}, "<= 64"),
        ({"kind": "lock", "source": "/etc/images.lock.yml", "tags": ["a"]}, "names its own tag"),
        ({"source_registry": {"proxy": "http://bob:secret@proxy:3128"}}, "stored in clear"),
        ({"source_credentials": ["Not A Block"]}, "'Not A Block': expected text such as registry-example-reader"),
        ({"tag": ["1.4.0"]}, "unknown option"),
    ],
)
def test_what_makes_no_sense_is_refused_with_a_reason(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message) as caught:
        RelocateParameters.read({"source": SOURCE, "destination": TARGET} | change)

    assert "secret@" not in str(caught.value)


def test_defaults_are_those_of_a_bundle_that_is_not_verified() -> None:
    parameters = RelocateParameters(source=SOURCE, destination=TARGET)

    assert (parameters.kind, parameters.verify) == (SourceKind.BUNDLE, Verify.NONE)


@pytest.mark.parametrize(
    ("form", "values", "message"),
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
        (PullParameters, {"source": "r.example/aa", "folder": ""}, "length >= 1"),
        (TagsParameters, {"image": "r.example/aa", "action": "delete"}, "action"),
        (DescribeParameters, {"bundle": "https://r.example/aa"}, "leave out http"),
    ],
)
def test_forms_for_files_and_tags_refuse_what_makes_no_sense(
    form: type[Options], values: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidInput, match=message) as caught:
        form.read(values)

    assert "secret@" not in str(caught.value)


def test_a_push_excludes_what_the_command_excludes() -> None:
    assert PushParameters(destination="r.example/aa", files=("d",)).request().exclusions == (".git",)


def test_a_form_takes_skopeos_names_of_archives() -> None:
    form = RelocateParameters(source="docker-archive:/srv/web.tar:shop/web:1", destination="oci-archive:/srv/oci.tar:2")

    assert form.kind is SourceKind.ARCHIVE
    assert (form.request().archive, form.request().only, form.request().tags) == (
        ("/srv/web.tar",),
        ("shop/web:1",),
        ("2",),
    )
    assert form.archive == "/srv/oci.tar"
    assert form.export_run().options.format == "oci-layout"
    with pytest.raises(InvalidInput, match="oci-archive:PATH"):
        RelocateParameters(source=SOURCE, destination="docker-archive:/srv/web.tar")


def test_a_helper_names_the_registries_that_the_whole_names() -> None:
    """They get the login of the worker's variables, and may be in a private network."""
    whole = RelocateParameters(source="registry.corp.example/shop:1.4.0", destination="mirror.example/shop")

    sent = ShardParameters.sent(whole, 1, ShardQueue(uuid4(), "work", user="a"))

    assert named_hosts(_references(sent)) == {"registry.corp.example", "mirror.example"}
