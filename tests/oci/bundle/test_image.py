from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oci.bundle.image import BUNDLE_LABEL, is_bundle_config, single_layer_image
from oci.descriptor import OCI_CONFIG, OCI_LAYER_GZIP, OCI_MANIFEST
from oci.digest import digest_of, parse_digest
from oci.errors import InvalidInput, InvalidManifest
from tests.support.imgpkg_vectors import PUSHED

LAYER = digest_of(b"layer")
DIFF_ID = digest_of(b"tar")


@pytest.mark.parametrize("name", PUSHED)
def test_scenario_1_config_and_manifest_are_those_imgpkg_pushes(name: str) -> None:
    pushed = PUSHED[name]
    labels = {BUNDLE_LABEL: "true"} if name == "V3" else {}

    manifest, config, descriptor = single_layer_image(
        digest_of(pushed.layer), len(pushed.layer), parse_digest(pushed.diff_id), labels
    )

    assert config == pushed.config
    assert manifest.raw == pushed.manifest
    assert (descriptor.digest, descriptor.size) == (digest_of(config), len(config))
    assert manifest.config == descriptor


def test_labels_are_sorted_and_escaped_as_go_does() -> None:
    labels = {"team": "<shop> & \u2028co\u2029", BUNDLE_LABEL: "true", "Z": "caf\u00e9 \U0001f600\n\t\x01\x7f"}

    _, config, _ = single_layer_image(LAYER, 5, DIFF_ID, labels)

    assert config.decode().endswith(
        '"config":{"Labels":{"Z":"caf\u00e9 \U0001f600\\n\\t\\u0001\x7f","dev.carvel.imgpkg.bundle":"true",'
        '"team":"\\u003cshop\\u003e \\u0026 \\u2028co\\u2029"}}}'
    )


def test_oci_types_are_an_option() -> None:
    manifest, _, config = single_layer_image(LAYER, 5, DIFF_ID, {}, oci_types=True)

    assert (manifest.media_type, config.media_type) == (OCI_MANIFEST, OCI_CONFIG)
    assert [layer.media_type for layer in manifest.layers] == [OCI_LAYER_GZIP]


def test_a_label_that_is_not_unicode_is_refused() -> None:
    with pytest.raises(InvalidInput) as caught:
        single_layer_image(LAYER, 5, DIFF_ID, {"a": "\udce9"})

    assert str(caught.value) == "a label holds something that isn't Unicode"


@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"])), st.text(st.characters(exclude_categories=["Cs"]))
    )
)
def test_labels_come_back_and_the_key_alone_makes_a_bundle(labels: dict[str, str]) -> None:
    _, config, _ = single_layer_image(LAYER, 5, DIFF_ID, labels)

    assert json.loads(config)["config"].get("Labels", {}) == labels
    assert is_bundle_config(config) == (BUNDLE_LABEL in labels)


@pytest.mark.parametrize("value", ["true", "false", "", None])
def test_scenario_16_the_label_marks_a_bundle_whatever_its_value(value: str | None) -> None:
    assert is_bundle_config(json.dumps({"config": {"Labels": {BUNDLE_LABEL: value}}}).encode())


@pytest.mark.parametrize("config", ["{}", '{"config":null}', '{"config":{}}', '{"config":{"Labels":null}}'])
def test_a_config_without_the_label_is_no_bundle(config: str) -> None:
    assert not is_bundle_config(config.encode())


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (b"", "the image config is not JSON"),
        (b"PK\x03\x04", "the image config is not JSON"),
        (b"\xff\xfe", "the image config is not JSON"),
        (b"[" * 100_000, "the image config is not JSON"),
        (b"[]", "config: expected an object"),
        (b'{"config":[1]}', "config.config: expected an object"),
        (b'{"config":{"Labels":"x"}}', "config.config.Labels: expected an object"),
    ],
    ids=range(7),
)
def test_what_is_no_config_is_refused(config: bytes, message: str) -> None:
    with pytest.raises(InvalidManifest) as caught:
        is_bundle_config(config)

    assert str(caught.value) == message
