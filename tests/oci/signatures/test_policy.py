"""What a policy lets in and what it refuses: each line of its grammar with an image that passes and some that don't."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from securesystemslib.dsse import Envelope
from securesystemslib.signer import CryptoSigner  # type: ignore[attr-defined]

from oci.archive.entry import IMGPKG, OCI_LAYOUT
from oci.archive.options import ExportOptions
from oci.errors import Denied, Incomplete, InvalidInput, NotTrusted
from oci.reference import parse_any, parse_store
from oci.relocation.request import RelocationRequest
from oci.signatures import proofs
from oci.signatures.artifacts import ALL
from oci.signatures.policy import Identity
from oci.signatures.policy_file import read_policy
from tests.faults.proxy import Fault, FaultProxy
from tests.servers.strict_registry import StrictRegistry
from tests.support.archiving import archived, imported
from tests.support.content import Blob, Content, compact, image, push, signature_tag
from tests.support.deciding import decided, written
from tests.support.relocating import copied, session
from tests.support.signing import (
    BUNDLE,
    COSIGN_SIGN,
    PROVENANCE,
    STATEMENT,
    STRANGER,
    Signer,
    attach,
    attest,
    bundle_sign,
    cosign_sign,
    envelope,
    layer_of,
    payload,
    signature_manifest,
    statement,
    written_keys,
)

CONTENT = image(701)
OTHER = image(702)
RELEASE, SECURITY = Signer.make(), Signer.make()


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    return written_keys(tmp_path, release=RELEASE, security=SECURITY)


def containers(folder: Path, **body: Any) -> str:
    path = folder / "policy.json"
    path.write_text(json.dumps({"default": [{"type": "reject"}], **body}))
    return str(path)


def rule(**more: Any) -> dict[str, Any]:
    return {"to": "registry.corp.example/*", "keys": ["release.pub"], **more}


def web(origin: StrictRegistry) -> str:
    return f"{origin.host}/shop/web:1.0"


def signed(origin: StrictRegistry, *signers: Signer, **more: Any) -> None:
    more.setdefault("reference", f"{origin.host}/shop/web")
    cosign_sign(origin.url, "shop/web", CONTENT, *signers, **more)


@pytest.mark.parametrize("kind", ["p256", "p384", "p521", "ed25519", "rsa2048"])
@pytest.mark.parametrize("form", ["signature", "bundle"])
def test_a_signature_of_the_key_lets_an_image_in_and_no_other(
    origin: StrictRegistry, tmp_path: Path, kind: str, form: str
) -> None:
    signer = Signer.make(kind)
    signer.write(tmp_path / "release.pub")
    policy = written(tmp_path, rule())
    assert not decided(policy, web(origin)).accepted
    if form == "signature":
        signed(origin, signer)
    else:
        bundle_sign(origin.url, "shop/web", CONTENT, signer)

    assert decided(policy, web(origin)).accepted
    STRANGER.write(tmp_path / "release.pub")
    other = tmp_path / "other"
    other.mkdir()
    STRANGER.write(other / "release.pub")
    assert not decided(written(other, rule()), web(origin)).accepted


@pytest.mark.parametrize(
    ("need", "signers", "accepted"),
    [
        ("any", [RELEASE], True),
        ("any", [SECURITY], True),
        ("any", [STRANGER, SECURITY], True),
        ("any", [STRANGER], False),
        ("all", [RELEASE, SECURITY], True),
        ("all", [RELEASE], False),
        ("all", [RELEASE, RELEASE], False),
    ],
)
def test_of_several_keys_any_or_all_must_have_signed(
    origin: StrictRegistry, keys: Path, need: str, signers: list[Signer], accepted: bool
) -> None:
    signed(origin, *signers)
    policy = written(keys, rule(keys=["release.pub", "security.pub"], need=need))

    assert decided(policy, web(origin)).accepted is accepted


def test_a_key_that_is_named_twice_counts_once(origin: StrictRegistry, keys: Path) -> None:
    (keys / "again.pub").write_bytes((keys / "release.pub").read_bytes())
    signed(origin, RELEASE)

    assert decided(written(keys, rule(keys=["release.pub", "again.pub"], need="all")), web(origin)).accepted
    with_security = written(keys, rule(keys=["release.pub", "again.pub", "security.pub"], need="all"))
    with session():
        assert not decided(with_security, web(origin)).accepted


def layers(*made: tuple[dict[str, Any], bytes]) -> Content:
    return signature_manifest(made)


def simple(data: bytes, signer: Signer = RELEASE) -> Content:
    return layers((layer_of(signer, data), data))


def unsigned(data: bytes) -> Content:
    return layers((Blob(proofs.SIMPLE_SIGNING, data).descriptor(), data))


def tampered(data: bytes, other: bytes) -> Content:
    """The signature of other data."""
    descriptor = Blob(proofs.SIMPLE_SIGNING, data).descriptor()
    return layers((descriptor | {"annotations": layer_of(RELEASE, other)["annotations"]}, data))


def annotated(data: bytes, text: str) -> Content:
    return layers((Blob(proofs.SIMPLE_SIGNING, data).descriptor() | {"annotations": {proofs.SIGNATURE: text}}, data))


GOOD = payload(CONTENT.digest, "{host}/shop/web")
HOSTILE: dict[str, Callable[[bytes], Content]] = {
    "the payload is tampered with": lambda good: tampered(good, payload(OTHER.digest, "x/shop/web")),
    "there is no signature": unsigned,
    "the signature is not base64": lambda good: annotated(good, "!!!"),
    "the signature is empty": lambda good: annotated(good, ""),
    "the signature is a long text": lambda good: annotated(good, base64.b64encode(b"x" * 100_000).decode()),
    "it is of another digest": lambda good: simple(good.replace(CONTENT.hex.encode(), OTHER.hex.encode())),
    "it is of a shortened digest": lambda good: simple(good.replace(CONTENT.hex.encode(), CONTENT.hex[:32].encode())),
    "it is for another repository": lambda good: simple(good.replace(b"/shop/web", b"/shop/other")),
    "it is for another registry": lambda good: simple(payload(CONTENT.digest, "evil.example/shop/web")),
    "its type is another": lambda good: simple(good.replace(b"cosign container", b"atomic container")),
    "it has more that is critical": lambda _: simple(payload(CONTENT.digest, "x/shop/web", expires="now")),
    "its digest stands twice": lambda good: simple(
        good.replace(b'"image":{', b'"image":{"docker-manifest-digest":"%s",' % OTHER.digest.encode())
    ),
    "it is no JSON": lambda _: simple(b"{"),
    "it is a list": lambda _: simple(b"[]"),
    "it is deeply nested": lambda _: simple(b"[" * 200_000),
    "it is big": lambda good: simple(good[:-1] + b',"x":"' + b"x" * (2 << 20) + b'"}'),
    "the image is a number": lambda good: simple(good.replace(b'"image":{', b'"image":1,"was":{')),
    "a stranger signed it": lambda good: simple(good, STRANGER),
    "an image stands under the tag": lambda _: image(77),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_signature_of_the_image_proves_nothing(origin: StrictRegistry, keys: Path, name: str) -> None:
    good = GOOD.replace(b"{host}", origin.host.encode())
    push(origin.url, "shop/web", simple(good), signature_tag(CONTENT))
    policy = written(keys, rule())
    assert decided(policy, web(origin)).accepted

    push(origin.url, "shop/web", HOSTILE[name](good), signature_tag(CONTENT))

    refused = decided(policy, web(origin))
    assert not refused.accepted
    assert refused.reason
    assert refused.error().hint


def dsse(data: bytes, signer: Signer = RELEASE, **more: Any) -> dict[str, Any]:
    return {"dsseEnvelope": envelope(signer, data) | more}


GOOD_STATEMENT = statement(CONTENT.digest, COSIGN_SIGN)
HOSTILE_BUNDLES: dict[str, dict[str, Any]] = {
    "a stranger signed it": dsse(GOOD_STATEMENT, STRANGER),
    "it is about another image": dsse(statement(OTHER.digest, COSIGN_SIGN)),
    "the payload is tampered with": dsse(
        GOOD_STATEMENT, payload=base64.b64encode(GOOD_STATEMENT.replace(b'"name":""', b'"name":"x"')).decode()
    ),
    "the payload type is another": dsse(GOOD_STATEMENT, payloadType="text/plain"),
    "it has no signature": dsse(GOOD_STATEMENT, signatures=[]),
    "its signature is a number": dsse(GOOD_STATEMENT, signatures=[{"sig": 1}]),
    "it has a thousand signatures": dsse(GOOD_STATEMENT, signatures=[{"sig": "AAAA"}] * 1000),
    "it is a message signature": {"dsseEnvelope": None},
    "the type of the statement is a list": dsse(GOOD_STATEMENT.replace(f'"{STATEMENT}"'.encode(), b'["x"]')),
    "it is no statement": dsse(compact({"subject": [{"digest": {"sha256": CONTENT.hex}}]})),
    "its subjects are a text": dsse(GOOD_STATEMENT.replace(b'"subject":[', b'"subject":"x","was":[')),
    "it is an attestation": dsse(statement(CONTENT.digest, PROVENANCE)),
    "its statement names two subjects under one key": dsse(
        GOOD_STATEMENT.replace(b'"subject":', b'"subject":[],"subject":')
    ),
}


@pytest.mark.parametrize("name", HOSTILE_BUNDLES)
def test_what_is_no_bundle_of_the_image_proves_nothing(origin: StrictRegistry, keys: Path, name: str) -> None:
    bundle_sign(origin.url, "shop/web", CONTENT, RELEASE, **HOSTILE_BUNDLES[name])

    assert not decided(written(keys, rule()), web(origin)).accepted


def test_a_bundle_of_another_subject_is_not_looked_at(origin: StrictRegistry, keys: Path) -> None:
    push(origin.url, "shop/web", OTHER, "2.0")
    bundle_sign(origin.url, "shop/web", OTHER, RELEASE, statement(CONTENT.digest, COSIGN_SIGN))

    assert not decided(written(keys, rule()), web(origin)).accepted
    assert not decided(written(keys, rule()), f"{origin.host}/shop/web:2.0").accepted


def test_a_signature_of_an_older_image_does_not_prove_the_newer(origin: StrictRegistry, keys: Path) -> None:
    signed(origin, RELEASE)
    push(origin.url, "shop/web", OTHER, "1.0")
    replayed = simple(payload(CONTENT.digest, f"{origin.host}/shop/web"))
    push(origin.url, "shop/web", replayed, signature_tag(OTHER))

    assert not decided(written(keys, rule()), web(origin)).accepted


@pytest.mark.parametrize(
    ("signed_as", "reference", "accepted"),
    [
        (["publisher.example/*"], "publisher.example/shop/web", True),
        (["publisher.example/*", "other.example/*"], "other.example/web", True),
        (["publisher.example/shop/web"], "publisher.example/shop/web", True),
        (["publisher.example/*"], "evil.example/shop/web", False),
        (["publisher.example/shop/web"], "publisher.example/shop/web/other", False),
        (["*"], "whatever", True),
    ],
)
def test_a_signature_counts_for_the_references_that_the_rule_names(
    origin: StrictRegistry, keys: Path, signed_as: list[str], reference: str, accepted: bool
) -> None:
    signed(origin, RELEASE, reference=reference)

    assert decided(written(keys, rule(signed_as=signed_as)), web(origin)).accepted is accepted


@pytest.mark.parametrize(
    ("rules", "default", "accepted"),
    [
        ([], "accept", True),
        ([], "reject", False),
        ([{"to": "*", "accept": True}], "reject", True),
        ([{"to": "*", "reject": True}], "accept", False),
        ([{"to": "other.example/*", "reject": True}], "accept", True),
        ([{"to": "*/mirror/*", "accept": True}, {"to": "*", "reject": True}], "reject", True),
        ([{"to": "*", "reject": True}, {"to": "*/mirror/*", "accept": True}], "accept", False),
    ],
)
def test_the_first_rule_for_the_destination_counts_or_the_default(
    origin: StrictRegistry, keys: Path, rules: list[dict[str, Any]], default: str, accepted: bool
) -> None:
    policy = written(keys, *rules, default=default)

    assert decided(policy, web(origin)).accepted is accepted
    assert not decided(policy, web(origin), signed=True).accepted


def test_a_revoked_digest_is_refused_whoever_signed_it(origin: StrictRegistry, keys: Path) -> None:
    signed(origin, RELEASE)

    assert decided(written(keys, rule(), revoked=[OTHER.digest]), web(origin)).accepted
    assert not decided(written(keys, rule(), revoked=[CONTENT.digest]), web(origin)).accepted


PREDICATE = {"buildDefinition": {"buildType": "https://b.example/v1"}, "level": 3, "items": [{"id": "a"}], "ok": True}


@pytest.mark.parametrize(
    ("where", "accepted"),
    [
        ([], True),
        ([{"field": "buildDefinition.buildType", "equals": "https://b.example/v1"}], True),
        ([{"field": "buildDefinition.buildType", "equals": "https://c.example/v1"}], False),
        ([{"field": "level", "in": [2, 3]}], True),
        ([{"field": "level", "in": [1, 2]}], False),
        ([{"field": "level", "equals": "3"}], False),
        ([{"field": "ok", "equals": True}], True),
        ([{"field": "ok", "equals": 1}], False),
        ([{"field": "items.0.id", "equals": "a"}], True),
        ([{"field": "items.1.id", "equals": "a"}], False),
        ([{"field": "buildDefinition.buildType", "matches": r"https://b\.example/.*"}], True),
        ([{"field": "buildDefinition.buildType", "matches": r"b\.example"}], False),
        ([{"field": "nowhere", "matches": ".*"}], False),
        ([{"field": "level", "equals": 3}, {"field": "nowhere", "equals": 1}], False),
    ],
)
@pytest.mark.parametrize("form", ["tag", "bundle"])
def test_an_attestation_must_say_what_the_rule_asks(
    origin: StrictRegistry, keys: Path, form: str, where: list[dict[str, Any]], accepted: bool
) -> None:
    said = statement(CONTENT.digest, PROVENANCE, PREDICATE)
    if form == "tag":
        attest(origin.url, "shop/web", CONTENT, SECURITY, said)
    else:
        bundle_sign(origin.url, "shop/web", CONTENT, SECURITY, said)
    asked = {"type": PROVENANCE, "keys": ["security.pub"], "where": where}
    policy = written(keys, {"to": "*", "attestations": [asked]})

    assert decided(policy, web(origin)).accepted is accepted


@pytest.mark.parametrize(
    ("predicate_type", "digest", "signer"),
    [
        ("https://spdx.dev/Document", CONTENT.digest, SECURITY),
        (PROVENANCE, OTHER.digest, SECURITY),
        (PROVENANCE, CONTENT.digest, STRANGER),
    ],
)
def test_another_attestation_is_not_the_one_that_is_asked_for(
    origin: StrictRegistry, keys: Path, predicate_type: str, digest: str, signer: Signer
) -> None:
    attest(origin.url, "shop/web", CONTENT, signer, statement(digest, predicate_type, PREDICATE))
    policy = written(keys, {"to": "*", "keys": ["security.pub"], "attestations": [{"type": PROVENANCE}]})
    signed(origin, SECURITY)

    assert not decided(policy, web(origin)).accepted


def test_an_envelope_of_another_library_is_verified(origin: StrictRegistry, keys: Path) -> None:
    """securesystemslib's, that of TUF and in-toto."""
    signer = CryptoSigner.generate_ecdsa()
    (keys / "release.pub").write_text(signer.public_key.keyval["public"])
    made = Envelope(payload=GOOD_STATEMENT, payload_type="application/vnd.in-toto+json", signatures={})
    made.sign(signer)
    attach(origin.url, "shop/web", CONTENT, Blob(BUNDLE, compact({"dsseEnvelope": made.to_dict()})))

    assert decided(written(keys, rule()), web(origin)).accepted
    RELEASE.write(keys / "other.pub")
    assert not decided(written(keys, rule(keys=["other.pub"])), web(origin)).accepted


# policy.json of containers.


def sigstore(keys: Path, **more: Any) -> list[dict[str, Any]]:
    return [{"type": "sigstoreSigned", "keyPath": str(keys / "release.pub"), **more}]


IDENTITIES = [
    ({"type": "matchRepository"}, "{host}/shop/web", True),
    ({"type": "matchRepository"}, "{host}/shop/web:9", True),
    ({"type": "matchRepository"}, "{host}/shop/other", False),
    ({"type": "matchExact"}, "{host}/shop/web:1.0", True),
    ({"type": "matchExact"}, "{host}/shop/web:2.0", False),
    ({"type": "matchExact"}, "{host}/shop/web", False),
    (None, "{host}/shop/web:1.0", True),
    (None, "{host}/shop/web", False),
    ({"type": "exactRepository", "dockerRepository": "pub.example/a/b"}, "pub.example/a/b:1", True),
    ({"type": "exactRepository", "dockerRepository": "pub.example/a/b"}, "pub.example/a/c", False),
    ({"type": "exactReference", "dockerReference": "pub.example/a/b:1"}, "pub.example/a/b:1", True),
    ({"type": "exactReference", "dockerReference": "pub.example/a/b:1"}, "pub.example/a/b:2", False),
    ({"type": "remapIdentity", "prefix": "{host}", "signedPrefix": "pub.example"}, "pub.example/shop/web:1.0", True),
    ({"type": "remapIdentity", "prefix": "{host}", "signedPrefix": "pub.example"}, "{host}/shop/web:1.0", False),
]


@pytest.mark.parametrize(("identity", "reference", "accepted"), IDENTITIES)
def test_policy_json_knows_for_which_reference_a_signature_counts(
    origin: StrictRegistry, keys: Path, identity: dict[str, str] | None, reference: str, accepted: bool
) -> None:
    signed(origin, RELEASE, reference=reference.format(host=origin.host))
    more = (
        {"signedIdentity": {key: text.format(host=origin.host) for key, text in identity.items()}} if identity else {}
    )
    policy = containers(keys, transports={"docker": {origin.host: sigstore(keys, **more)}})

    assert decided(policy, web(origin)).accepted is accepted


def test_policy_json_asks_an_image_by_digest_for_its_repository_alone(origin: StrictRegistry, keys: Path) -> None:
    signed(origin, RELEASE, reference=f"{origin.host}/shop/web:9.9")
    policy = containers(keys, transports={"docker": {origin.host: sigstore(keys)}})

    assert decided(policy, f"{origin.host}/shop/web@{CONTENT.digest}").accepted
    assert not decided(policy, web(origin)).accepted


def test_a_bundle_names_no_reference_and_does_not_count_for_policy_json(origin: StrictRegistry, keys: Path) -> None:
    bundle_sign(origin.url, "shop/web", CONTENT, RELEASE)

    assert decided(written(keys, rule()), web(origin)).accepted
    assert not decided(containers(keys, default=sigstore(keys)), web(origin)).accepted


@pytest.mark.parametrize(
    ("scopes", "accepted"),
    [
        ({"": "accept"}, True),
        ({}, False),
        ({"{host}": "accept"}, True),
        ({"{host}/shop": "accept"}, True),
        ({"{host}/shop/web": "accept"}, True),
        ({"{host}/shop/web:1.0": "accept"}, True),
        ({"{host}/shop/web:2.0": "accept"}, False),
        ({"{host}/shop/we": "accept"}, False),
        ({"{host}": "accept", "{host}/shop/web": "reject"}, False),
        ({"{host}": "reject", "{host}/shop/web": "accept"}, True),
        ({"*.0.0.1:{port}": "accept"}, True),
        ({"*.example": "accept"}, False),
    ],
)
def test_the_narrowest_scope_of_policy_json_counts(
    origin: StrictRegistry, keys: Path, scopes: dict[str, str], accepted: bool
) -> None:
    kinds = {"accept": [{"type": "insecureAcceptAnything"}], "reject": [{"type": "reject"}]}
    port = origin.host.rpartition(":")[2]
    docker = {name.format(host=origin.host, port=port): kinds[kind] for name, kind in scopes.items()}

    assert decided(containers(keys, transports={"docker": docker}), web(origin)).accepted is accepted


@pytest.mark.parametrize(
    "asked",
    [
        {"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/x"},
        {"type": "sigstoreSigned", "fulcio": {"caPath": "/x", "oidcIssuer": "i", "subjectEmail": "e"}},
        {"type": "sigstoreSigned", "keyPath": "release.pub", "rekorPublicKeyPath": "/x"},
    ],
)
def test_what_policy_json_asks_for_and_cannot_be_checked_here_is_refused(
    origin: StrictRegistry, keys: Path, asked: dict[str, Any]
) -> None:
    signed(origin, RELEASE)
    refused = decided(containers(keys, default=[asked]), web(origin))

    assert not refused.accepted
    assert "here" in refused.reason


def test_policy_json_takes_keys_as_data_and_all_requirements_together(origin: StrictRegistry, keys: Path) -> None:
    data = base64.b64encode(SECURITY.public()).decode()
    repository = {"signedIdentity": {"type": "matchRepository"}}
    both = [*sigstore(keys, **repository), {"type": "sigstoreSigned", "keyData": data, **repository}]
    signed(origin, RELEASE)
    assert not decided(containers(keys, default=both), web(origin)).accepted
    signed(origin, RELEASE, SECURITY)
    again = keys / "again"
    again.mkdir()
    assert decided(containers(again, default=both), web(origin)).accepted


def with_condition(condition: str) -> str:
    rule_ = f"{{to: '*', keys: [release.pub], attestations: [{{type: x, where: [{condition}]}}]}}"
    return f"version: 1\ndefault: reject\nrules: [{rule_}]\n"


BOMB = ("revoked: [&l0 [x, x]", *(f", &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 12)), "]\n")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "version: 2\ndefault: reject\n",
        "version: 1\n",
        "version: 1\ndefault: maybe\n",
        "version: 1\ndefault: reject\nrule: []\n",
        "version: 1\ndefault: reject\nrules: [{to: '*'}]\n",
        "version: 1\ndefault: reject\nrules: [{to: '*', accept: true, reject: true}]\n",
        "version: 1\ndefault: reject\nrules: [{to: '*', accept: true, keys: [release.pub]}]\n",
        "version: 1\ndefault: reject\nrules: [{to: '*', keys: [absent.pub]}]\n",
        "version: 1\ndefault: reject\nrules: [{to: '*', keys: [private.pem]}]\n",
        "version: 1\ndefault: reject\nrules: [{to: '*', keys: [weak.pub]}]\n",
        "version: 1\ndefault: reject\nrules: [{to: '*', keys: [policy.yaml]}]\n",
        "version: 1\ndefault: reject\nrules: [{to: '*', attestations: [{type: x}]}]\n",
        "version: 1\ndefault: reject\nrules: [{to: '*', keys: [release.pub], need: most}]\n",
        with_condition("{}"),
        with_condition("{field: a}"),
        with_condition("{field: a, equals: 1, in: [1]}"),
        with_condition("{field: a, matches: '('}"),
        "version: 1\ndefault: reject\nrevoked: [latest]\n",
        "version: 1\ndefault: reject\ndefault: accept\n",
        "version: 1\ndefault: reject\nrules: [{to: 'a/**', to: '**', keys: [release.pub]}]\n",
        with_condition("{field: a, equals: {b: 1, b: 2}}"),
        f"version: 1\ndefault: reject\n{''.join(BOMB)}",
        "{",
    ],
)
def test_a_policy_with_a_mistake_is_refused_as_a_whole(keys: Path, text: str) -> None:
    (keys / "private.pem").write_bytes(RELEASE.private())
    Signer.make("rsa1024").write(keys / "weak.pub")
    path = keys / "policy.yaml"
    path.write_text(text)

    with pytest.raises(InvalidInput, match=r"policy\.yaml"):
        read_policy(str(path))


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"default": []},
        {"default": [{"type": "perhaps"}]},
        {"default": [{"type": "reject"}], "more": 1},
        {"default": [{"type": "sigstoreSigned"}]},
        {"default": [{"type": "sigstoreSigned", "keyPath": "/nowhere"}]},
        {"default": [{"type": "sigstoreSigned", "keyData": "AAAA"}]},
        {"default": [{"type": "sigstoreSigned", "keyData": "AAAA", "keyPath": "x"}]},
        {"default": [{"type": "sigstoreSigned", "keyPath": "{key}", "new": 1}]},
        {"default": [{"type": "sigstoreSigned", "keyPath": "{key}", "signedIdentity": {"type": "x"}}]},
        {"default": "reject"},
        [],
    ],
)
def test_a_policy_json_with_a_mistake_is_refused_as_a_whole(keys: Path, body: Any) -> None:
    path = keys / "policy.json"
    path.write_text(json.dumps(body).replace("{key}", str(keys / "release.pub")))

    with pytest.raises(InvalidInput, match=r"policy\.json"):
        read_policy(str(path))


# Where it stands.


def test_a_refused_image_is_not_copied_and_no_byte_of_it_is_read(origin: StrictRegistry, keys: Path) -> None:
    policy = written(keys, {"to": "*", "keys": ["release.pub"]})
    with StrictRegistry() as destination:
        before = len(origin.requests())
        with pytest.raises(NotTrusted) as caught:
            copied(f"{destination.host}/mirror/web", image=web(origin), policy=policy)

        assert "policy check" in caught.value.hint
        assert not [seen for seen in origin.requests()[before:] if "/blobs/" in seen.path]
        assert not [seen for seen in destination.requests() if seen.method in ("POST", "PUT", "PATCH")]
        signed(origin, RELEASE)
        assert copied(f"{destination.host}/mirror/web", image=web(origin), policy=policy).published.tags == ("1.0",)


def test_of_a_lock_the_others_go_on(origin: StrictRegistry, keys: Path) -> None:
    signed(origin, RELEASE)
    bad = push(origin.url, "shop/web", OTHER)
    good = f"{origin.host}/shop/web@{CONTENT.digest}"
    lock = keys / "images.yml"
    lines = ["apiVersion: imgpkg.carvel.dev/v1alpha1", "kind: ImagesLock", "images:"]
    lock.write_text("\n".join([*lines, f"- image: {good}", f"- image: {bad}", ""]))
    policy = written(keys, {"to": "*", "keys": ["release.pub"]})
    with StrictRegistry() as destination:
        with pytest.raises(Incomplete) as caught:
            copied(f"{destination.host}/mirror/web", lock=str(lock), policy=policy)

        [refused] = caught.value.failures
        assert isinstance(refused, NotTrusted)
        base = f"{destination.url}/v2/mirror/web/manifests"
        assert httpx.head(f"{base}/{CONTENT.digest}").status_code == 200
        assert httpx.head(f"{base}/{OTHER.digest}").status_code == 404


@pytest.mark.parametrize("form", [IMGPKG, OCI_LAYOUT])
@pytest.mark.parametrize("kind", ["signature", "bundle"])
def test_beyond_an_air_gap_the_archive_has_the_proofs(origin: StrictRegistry, keys: Path, form: str, kind: str) -> None:
    if kind == "signature":
        signed(origin, RELEASE)
    else:
        bundle_sign(origin.url, "shop/web", CONTENT, RELEASE)
    with_proofs, without = keys / "with.tar", keys / "without.tar"
    archived(with_proofs, image=web(origin), artifacts=ALL, options=ExportOptions(format=form))
    archived(without, image=web(origin), options=ExportOptions(format=form))
    policy = written(keys, {"to": "*/mirror/*", "keys": ["release.pub"], "signed_as": [f"{origin.host}/shop/*"]})
    with StrictRegistry() as destination:
        with pytest.raises(NotTrusted):
            imported(f"{destination.host}/mirror/web", without, policy=policy)
        assert not [seen for seen in destination.requests() if seen.method in ("POST", "PUT", "PATCH")]

        assert imported(f"{destination.host}/mirror/web", with_proofs, policy=policy).plan.root == CONTENT.digest


def test_an_archive_does_not_say_itself_where_it_came_from(origin: StrictRegistry, keys: Path) -> None:
    """Without `signed_as` a signature counts for the repository that an image comes from, and an archive has none."""
    signed(origin, RELEASE)
    archived(keys / "a.tar", image=web(origin), artifacts=ALL)
    policy = written(keys, {"to": "*", "keys": ["release.pub"]})
    with StrictRegistry() as destination, pytest.raises(NotTrusted, match="signed_as"):
        imported(f"{destination.host}/mirror/web", keys / "a.tar", policy=policy)


def test_signatures_cannot_be_required_without_saying_whose() -> None:
    with pytest.raises(InvalidInput) as caught:
        RelocationRequest(image="registry.example/shop/web:1.0", to="oci:/tmp/x", require_signatures=True)

    assert "default: reject" in caught.value.hint


def test_proofs_that_cannot_be_read_are_no_missing_proofs(keys: Path) -> None:
    with StrictRegistry() as origin:
        push(origin.url, "shop/web", CONTENT, "1.0")
        signed(origin, RELEASE)
        policy = written(keys, {"to": "*", "keys": ["release.pub"]})
        denied = Fault(path=signature_tag(CONTENT), status=403)
        with FaultProxy(int(origin.host.rpartition(":")[2]), denied) as proxy, StrictRegistry() as destination:
            to, image_ = f"{destination.host}/mirror/web", f"{proxy.host}/shop/web:1.0"
            with pytest.raises(Denied):
                copied(to, image=image_, policy=policy)


@pytest.mark.parametrize(
    "pattern",
    [
        "Registry.Corp.Example/mirror/web",
        "REGISTRY.corp.example/*",
        "registry.Corp.*/mirror/*",
        "*.Corp.Example/mirror/web",
    ],
)
def test_a_rule_counts_in_whatever_capitals_its_host_is_written(
    origin: StrictRegistry, keys: Path, pattern: str
) -> None:
    """Passed over, it would leave the image to the default."""
    policy = written(keys, {"to": pattern, "reject": True}, default="accept")

    assert not decided(policy, web(origin)).accepted


ACCEPTED, REJECTED = [{"type": "insecureAcceptAnything"}], [{"type": "reject"}]
HUB_IMAGE = parse_any("docker.io/library/nginx:1.0")


@pytest.mark.parametrize(
    ("scopes", "accepted"),
    [
        ({"docker.io": ACCEPTED}, True),
        ({"docker.io/library": ACCEPTED, "docker.io": REJECTED}, True),
        ({"docker.io/library/nginx": ACCEPTED, "index.docker.io/library": REJECTED}, True),
        ({"docker.io/library/nginx:1.0": ACCEPTED, "docker.io/library/nginx": REJECTED}, True),
        ({"docker.io/library/nginx:1.0": REJECTED, "": ACCEPTED}, False),
        ({"docker.io": REJECTED, "": ACCEPTED}, False),
        ({"index.docker.io": REJECTED, "": ACCEPTED}, False),
    ],
)
def test_policy_json_knows_docker_hub_by_the_name_that_people_give_it(
    keys: Path, scopes: dict[str, Any], accepted: bool
) -> None:
    policy = read_policy(containers(keys, transports={"docker": scopes}))

    assert policy.verdict(HUB_IMAGE, parse_store("registry.corp.example/mirror/web")).accept is accepted


@pytest.mark.parametrize("pattern", ["docker.io/library/*", "index.docker.io/library/nginx", "Docker.IO/library/nginx"])
@pytest.mark.parametrize("signed", ["index.docker.io/library/nginx", "docker.io/library/nginx"])
def test_a_signature_for_docker_hub_counts_by_either_name(pattern: str, signed: str) -> None:
    assert not Identity(kind="patterns", patterns=(pattern,)).fits(signed, None)
    assert not Identity(kind="remapIdentity", prefix="docker.io", signed_prefix="docker.io").fits(
        f"{signed}:1.0", HUB_IMAGE
    )
