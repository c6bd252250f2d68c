"""Signatures of Notary: which certificates let an image in, and what of an attacker's making doesn't."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from oci.archive.entry import IMGPKG, OCI_LAYOUT
from oci.archive.options import ExportOptions
from oci.errors import InvalidInput, NotTrusted
from oci.signatures import notation
from oci.signatures.artifacts import ALL
from oci.signatures.keys import certificate_digests
from oci.signatures.policy_file import read_policy
from tests.servers.strict_registry import StrictRegistry
from tests.support.archiving import archived, imported
from tests.support.content import Blob, image, push
from tests.support.deciding import decided, written
from tests.support.notation_signing import EXPIRY, JWS, NOTATION, SCHEME, b64url, compact, envelope, target_of
from tests.support.signing import Signer, attach
from tests.support.sigstore_authority import Authority, TimestampAuthority, named, pem

CONTENT, OLDER = image(901), image(902)
DAY = timedelta(days=1)
CODE = (ExtendedKeyUsageOID.CODE_SIGNING,)


def subject(organization: str = "shop", name: str = "release 1") -> x509.Name:
    parts = ((NameOID.COUNTRY_NAME, "US"), (NameOID.ORGANIZATION_NAME, organization), (NameOID.COMMON_NAME, name))
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in parts])


class Notary:
    """An authority with a certificate of the shop's."""

    def __init__(self) -> None:
        self.authority = Authority("notary")
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.leaf = self.issue(self.key)
        self.timestamps = TimestampAuthority()

    def issue(self, key: Any, who: x509.Name | None = None, **more: Any) -> x509.Certificate:
        return self.authority.certify(key, who or subject(), **{"purposes": CODE, **more})

    def sign(self, **more: Any) -> dict[str, Any]:
        return envelope(CONTENT, self.key, self.leaf, self.authority.certificate, **more)

    def sign_with(self, *, key: Any = None, who: x509.Name | None = None, **more: Any) -> dict[str, Any]:
        """By another certificate of the authority."""
        key = key or self.key
        return envelope(CONTENT, key, self.issue(key, who, **more), self.authority.certificate)


@pytest.fixture(scope="module")
def notary() -> Notary:
    return Notary()


@pytest.fixture
def folder(notary: Notary, tmp_path: Path) -> Path:
    (tmp_path / "root.pem").write_bytes(pem(notary.authority.certificate))
    (tmp_path / "tsa.pem").write_bytes(pem(notary.timestamps.authority.certificate))
    return tmp_path


def policy(folder: Path, who: str = "C=US, O=shop, CN=release*", **more: Any) -> str:
    top = {name: more.pop(name) for name in ("revoked",) if name in more}
    rule: dict[str, Any] = {name: more.pop(name) for name in ("minimum_age", "keys", "need") if name in more}
    rule |= {"to": "*", "notation": [{"certificates": ["root.pem"], "subject": who, **more}]}
    return written(folder, rule, **top)


def web(origin: StrictRegistry) -> str:
    return f"{origin.host}/shop/web:1.0"


def attached(origin: StrictRegistry, body: dict[str, Any] | bytes, kind: str = JWS) -> None:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    attach(origin.url, "shop/web", CONTENT, Blob(kind, data), NOTATION)


def keys() -> dict[str, Any]:
    return {
        "ES256": ec.generate_private_key(ec.SECP256R1()),
        "ES384": ec.generate_private_key(ec.SECP384R1()),
        "ES512": ec.generate_private_key(ec.SECP521R1()),
        "PS256": rsa.generate_private_key(65537, 2048),
        "PS384": rsa.generate_private_key(65537, 3072),
    }


# Who is let in.


def test_each_algorithm_is_verified_with_a_key_of_its_size(
    origin: StrictRegistry, folder: Path, notary: Notary
) -> None:
    made = keys()
    asked = policy(folder)
    for algorithm, key in made.items():
        with StrictRegistry() as server:
            push(server.url, "shop/web", CONTENT, "1.0")
            chain = (notary.issue(key), notary.authority.certificate)
            attached(server, envelope(CONTENT, key, *chain, algorithm=algorithm))
            assert decided(asked, web(server)).accepted, algorithm
    attached(origin, envelope(CONTENT, made["PS384"], notary.issue(made["PS384"]), algorithm="PS256"))
    attached(origin, envelope(CONTENT, made["ES384"], notary.issue(made["ES384"]), algorithm="ES256"))

    assert not decided(asked, web(origin)).accepted


@pytest.mark.parametrize(
    ("pattern", "accepted"),
    [
        ("*", True),
        ("O=shop", True),
        ("C=US, O=shop, CN=release 1", True),
        ("CN=release*, O=sh?p", True),
        ("O=evil", False),
        ("O=sho", False),
        ("CN=release", False),
        ("OU=*", False),
        ("O=shop, CN=other", False),
    ],
)
def test_each_attribute_of_the_subject_is_asked_for(
    origin: StrictRegistry, folder: Path, notary: Notary, pattern: str, accepted: bool
) -> None:
    attached(origin, notary.sign())

    assert decided(policy(folder, pattern), web(origin)).accepted is accepted


def test_certificates_between_are_followed(origin: StrictRegistry, folder: Path, notary: Notary) -> None:
    between = Authority("between")
    middle = notary.authority.certify(between.key, named("between"), ca=True, lifetime=3000 * DAY)
    key = ec.generate_private_key(ec.SECP256R1())
    leaf = between.certify(key, subject(), purposes=CODE)
    asked = policy(folder)
    attached(origin, envelope(CONTENT, key, leaf))
    assert not decided(asked, web(origin)).accepted

    attached(origin, envelope(CONTENT, key, leaf, middle, notary.authority.certificate))

    assert decided(policy(folder), web(origin)).accepted


def test_a_certificate_that_has_signed_itself_is_trusted_by_name(origin: StrictRegistry, folder: Path) -> None:
    """As `notation cert generate-test` makes it."""
    key = ec.generate_private_key(ec.SECP256R1())
    authority = Authority("self", key)
    leaf = authority.certify(key, named("self"), purposes=CODE)
    (folder / "root.pem").write_bytes(pem(leaf))
    other = Authority("self")
    attached(origin, envelope(CONTENT, other.key, other.certify(other.key, named("self"), purposes=CODE)))
    assert not decided(policy(folder, "*"), web(origin)).accepted

    attached(origin, envelope(CONTENT, key, leaf))

    assert decided(policy(folder, "*"), web(origin)).accepted


class NextMonth(datetime):
    @classmethod
    def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
        return datetime.now(tz) + 30 * DAY


def test_a_timestamp_keeps_a_certificate_that_is_over(
    origin: StrictRegistry, folder: Path, notary: Notary, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Signed and stamped today, looked at next month, when the certificate is over."""
    ends_tomorrow = notary.issue(notary.key, lifetime=2 * DAY)
    chain = (ends_tomorrow, notary.authority.certificate)
    attached(origin, envelope(CONTENT, notary.key, *chain))
    assert decided(policy(folder), web(origin)).accepted
    monkeypatch.setattr(notation, "datetime", NextMonth)
    assert not decided(policy(folder, timestamps=["tsa.pem"]), web(origin)).accepted

    attached(origin, envelope(CONTENT, notary.key, *chain, stamp=notary.timestamps.stamp))

    assert decided(policy(folder, timestamps=["tsa.pem"]), web(origin)).accepted
    assert not decided(policy(folder), web(origin)).accepted


def test_a_timestamp_does_not_help_a_certificate_that_was_over(
    origin: StrictRegistry, folder: Path, notary: Notary
) -> None:
    over = notary.issue(notary.key, begins=datetime.now(UTC) - 10 * DAY, lifetime=9 * DAY)
    attached(origin, envelope(CONTENT, notary.key, over, notary.authority.certificate, stamp=notary.timestamps.stamp))

    assert not decided(policy(folder, timestamps=["tsa.pem"]), web(origin)).accepted


@pytest.mark.parametrize(
    ("stores", "minimum", "accepted"), [(["tsa.pem"], "1ms", True), (["tsa.pem"], "1h", False), ([], "1ms", False)]
)
def test_a_timestamp_proves_a_minimum_age(
    origin: StrictRegistry, folder: Path, notary: Notary, stores: list[str], minimum: str, accepted: bool
) -> None:
    attached(origin, notary.sign(stamp=notary.timestamps.stamp))

    assert decided(policy(folder, timestamps=stores, minimum_age=minimum), web(origin)).accepted is accepted


def test_need_counts_keys_and_trust_stores_together(origin: StrictRegistry, folder: Path, notary: Notary) -> None:
    Signer.make().write(folder / "release.pub")
    attached(origin, notary.sign())

    assert decided(policy(folder, keys=["release.pub"]), web(origin)).accepted
    assert not decided(policy(folder, keys=["release.pub"], need="all"), web(origin)).accepted


@pytest.mark.parametrize("form", [IMGPKG, OCI_LAYOUT])
def test_beyond_an_air_gap_the_archive_and_the_trust_store_are_enough(
    origin: StrictRegistry, folder: Path, notary: Notary, form: str
) -> None:
    attached(origin, notary.sign())
    archived(folder / "with.tar", image=web(origin), artifacts=ALL, options=ExportOptions(format=form))
    archived(folder / "without.tar", image=web(origin), options=ExportOptions(format=form))
    with StrictRegistry() as destination:
        with pytest.raises(NotTrusted):
            imported(f"{destination.host}/mirror/web", folder / "without.tar", policy=policy(folder))

        found = imported(f"{destination.host}/mirror/web", folder / "with.tar", policy=policy(folder))

        assert found.plan.root == CONTENT.digest


# Who isn't. Each case begins or ends with an envelope that is accepted.


Case = Callable[[Notary], dict[str, Any] | bytes]


def signed(**more: Any) -> Case:
    return lambda notary: notary.sign(**more)


def certified(**more: Any) -> Case:
    return lambda notary: notary.sign_with(**more)


def flipped(text: str) -> str:
    """Another byte near the end of a base64url text."""
    data = bytearray(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    data[-3] ^= 1
    return b64url(bytes(data))


def by_a_stranger(notary: Notary) -> dict[str, Any]:
    other = Notary()
    return other.sign()


def by_a_thief_of_the_chain(notary: Notary) -> dict[str, Any]:
    """With the shop's certificates, and another key."""
    thief = ec.generate_private_key(ec.SECP256R1())
    return envelope(CONTENT, thief, notary.leaf, notary.authority.certificate)


def by_an_authority_of_its_own(notary: Notary) -> dict[str, Any]:
    """A certificate for signing code has issued another."""
    fake = Authority("fake", notary.key)
    thief = ec.generate_private_key(ec.SECP256R1())
    issuer = notary.issue(notary.key, named("fake"))
    return envelope(CONTENT, thief, fake.certify(thief, subject(), purposes=CODE), issuer, notary.authority.certificate)


def in_der_form(notary: Notary) -> dict[str, Any]:
    body = notary.sign()
    der = notary.key.sign(f"{body['protected']}.{body['payload']}".encode(), ec.ECDSA(SHA256()))
    return body | {"signature": b64url(der)}


HOSTILE: dict[str, Case] = {
    "another authority with the same name": by_a_stranger,
    "the certificates are another's": by_a_thief_of_the_chain,
    "the issuer is no authority": by_an_authority_of_its_own,
    "another organization": certified(who=subject("evil")),
    "another name": certified(who=subject(name="nightly")),
    "the certificate is over": certified(begins=datetime.now(UTC) - 10 * DAY, lifetime=9 * DAY),
    "the certificate isn't valid yet": certified(begins=datetime.now(UTC) + DAY),
    "the certificate isn't for code": certified(purposes=(ExtendedKeyUsageOID.SERVER_AUTH,)),
    "the certificate is for servers, too": certified(purposes=(*CODE, ExtendedKeyUsageOID.SERVER_AUTH)),
    "the certificate is for anything": certified(purposes=(*CODE, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE)),
    "the certificate isn't for signatures": certified(uses=("key_agreement",)),
    "the certificate is that of an authority": certified(ca=True),
    "the certificate has a critical extension that isn't known": certified(
        extensions=((x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4.5"), b"\x05\x00"), True),)
    ),
    "the key is too small": lambda notary: envelope(
        CONTENT, small := rsa.generate_private_key(65537, 1024), notary.issue(small), algorithm="PS256"
    ),
    "it has expired": signed(expiry=datetime.now(UTC) - timedelta(seconds=1)),
    "its expiry isn't critical": signed(expiry=datetime.now(UTC) + DAY, protected={"crit": [SCHEME]}),
    "its expiry is no time": signed(protected={"crit": [SCHEME, EXPIRY], EXPIRY: "tomorrow"}),
    "its expiry has no zone": signed(protected={"crit": [SCHEME, EXPIRY], EXPIRY: "2999-01-01T00:00:00"}),
    "a critical header isn't known": signed(protected={"crit": [SCHEME, "com.example.new"], "com.example.new": 1}),
    "a critical header is missing": signed(protected={"crit": [SCHEME, EXPIRY]}),
    "a header of Notary's isn't known": signed(protected={"io.cncf.notary.verificationPlugin": "x"}),
    "nothing is critical": signed(protected={"crit": None}),
    "what is critical is no list": signed(protected={"crit": SCHEME}),
    "the scheme isn't critical": signed(protected={"crit": []}),
    "there is no scheme": signed(protected={SCHEME: None}),
    "the scheme is another": signed(protected={SCHEME: "notary.x509.signingAuthority"}),
    "there is no time": signed(protected={"io.cncf.notary.signingTime": None}),
    "the algorithm is none": signed(protected={"alg": "none"}),
    "the algorithm is one of shared keys": signed(protected={"alg": "HS256"}),
    "the algorithm is a list": signed(protected={"alg": ["ES256"]}),
    "the payload's type is another": signed(protected={"cty": "application/json"}),
    "the payload is of another digest": signed(payload=target_of(OLDER)),
    "the payload has another size": signed(payload={"targetArtifact": CONTENT.descriptor(size=1)}),
    "the payload has another type": signed(payload={"targetArtifact": CONTENT.descriptor(mediaType="text/plain")}),
    "the payload has no target": signed(payload={}),
    "the payload is a list": signed(payload=[]),
    "the payload is replaced": lambda notary: {
        **envelope(OLDER, notary.key, notary.leaf, notary.authority.certificate),
        "payload": b64url(compact(target_of(CONTENT))),
    },
    "the header is replaced": lambda notary: {
        **notary.sign(expiry=datetime.now(UTC) - DAY),
        "protected": notary.sign()["protected"],
    },
    "the signature is tampered with": lambda notary: notary.sign() | {"signature": flipped(notary.sign()["signature"])},
    "the signature is empty": lambda notary: notary.sign() | {"signature": ""},
    "the signature is zero": lambda notary: notary.sign() | {"signature": b64url(bytes(64))},
    "the signature is long": lambda notary: notary.sign() | {"signature": b64url(bytes(100_000))},
    "the signature is in DER form": in_der_form,
    "the signature isn't base64url": lambda notary: notary.sign() | {"signature": "+/=="},
    "there are no certificates": signed(header={"x5c": None}),
    "the list of certificates is empty": signed(header={"x5c": []}),
    "there are a thousand certificates": lambda notary: notary.sign(
        header={"x5c": [base64.b64encode(notary.leaf.public_bytes(Encoding.DER)).decode()] * 1000}
    ),
    "a certificate is none": signed(header={"x5c": ["AAAA"]}),
    "the header is a list": lambda notary: notary.sign() | {"header": []},
    "it is deeply nested": lambda _: b'{"payload":' * 50_000,
    "a key stands twice": lambda notary: json.dumps(notary.sign())[:-1].encode() + b', "payload": ""}',
    "it is a list": lambda _: b"[]",
    "it is no JSON": lambda _: b"\xff",
    "it is big": lambda notary: json.dumps(notary.sign()).encode() + b" " * (33 << 20),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_an_attacker_can_make_proves_nothing(
    origin: StrictRegistry, folder: Path, notary: Notary, name: str
) -> None:
    attached(origin, HOSTILE[name](notary))
    refused = decided(policy(folder), web(origin))
    assert not refused.accepted
    assert refused.reason

    attached(origin, notary.sign(expiry=datetime.now(UTC) + DAY))

    assert decided(policy(folder), web(origin)).accepted


def test_an_envelope_in_cose_form_is_refused_by_name(origin: StrictRegistry, folder: Path, notary: Notary) -> None:
    attached(origin, b"\xd2\x84", "application/cose")

    refused = decided(policy(folder), web(origin))

    assert not refused.accepted
    assert any("COSE" in step for step in refused.steps)


def test_a_timestamp_of_another_authority_or_signature_does_not_count(
    origin: StrictRegistry, folder: Path, notary: Notary
) -> None:
    asked = policy(folder, timestamps=["tsa.pem"])
    attached(origin, notary.sign(stamp=TimestampAuthority().stamp))
    attached(origin, notary.sign(stamp=lambda _: notary.timestamps.stamp(b"another")))
    attached(origin, notary.sign(header={"io.cncf.notary.timestampSignature": "AAAA"}))
    assert not decided(asked, web(origin)).accepted

    attached(origin, notary.sign(stamp=notary.timestamps.stamp))

    assert decided(policy(folder, timestamps=["tsa.pem"]), web(origin)).accepted


def test_a_key_of_the_policy_does_not_stand_in_for_a_certificate(
    origin: StrictRegistry, folder: Path, notary: Notary
) -> None:
    """An envelope says when it expires; a bare key wouldn't ask."""
    key = rsa.generate_private_key(65537, 2048)
    Signer(key).write(folder / "release.pub")
    body = envelope(CONTENT, key, notary.issue(key, subject("evil")), algorithm="PS256")
    attached(origin, body)

    assert not decided(policy(folder, keys=["release.pub"]), web(origin)).accepted


@pytest.mark.parametrize("kind", ["leaf", "authority"])
def test_certificates_that_a_policy_revokes_are_refused(
    origin: StrictRegistry, folder: Path, notary: Notary, kind: str
) -> None:
    attached(origin, notary.sign())
    certificate = notary.leaf if kind == "leaf" else notary.authority.certificate
    assert decided(policy(folder), web(origin)).accepted

    for digest in certificate_digests(certificate):
        assert not decided(policy(folder, revoked=[digest]), web(origin)).accepted


@pytest.mark.parametrize(
    "store",
    [
        "{certificates: [root.pem]}",
        "{subject: '*'}",
        "{certificates: [], subject: '*'}",
        "{certificates: [absent.pem], subject: '*'}",
        "{certificates: [policy.yaml], subject: '*'}",
        "{certificates: [root.pem], subject: 'shop'}",
        "{certificates: [root.pem], subject: 'o=shop'}",
        "{certificates: [root.pem], subject: 'O='}",
        "{certificates: [root.pem], subject: 'X=1'}",
        "{certificates: [root.pem], subject: '*', timestamps: [absent.pem]}",
        "{certificates: [root.pem], subject: '*', more: 1}",
    ],
)
def test_a_trust_store_with_a_mistake_is_refused(folder: Path, store: str) -> None:
    path = folder / "policy.yaml"
    path.write_text(f"version: 1\ndefault: reject\nrules: [{{to: '*', notation: [{store}]}}]\n")

    with pytest.raises(InvalidInput, match=r"policy\.yaml"):
        read_policy(str(path))


@pytest.mark.parametrize(
    "rule",
    [
        "{to: '*', notation: [{certificates: [root.pem], subject: '*'}], accept: true}",
        "{to: '*', notation: [{certificates: [root.pem], subject: '*'}], attestations: [{type: x}]}",
        "{to: '*', reject: true, minimum_age: 7d}",
        "{to: '*', accept: true, minimum_age: soon}",
        "{to: '*', minimum_age: 7d}",
    ],
)
def test_a_rule_with_a_mistake_is_refused(folder: Path, rule: str) -> None:
    path = folder / "policy.yaml"
    path.write_text(f"version: 1\ndefault: reject\nrules: [{rule}]\n")

    with pytest.raises(InvalidInput, match=r"policy\.yaml"):
        read_policy(str(path))
