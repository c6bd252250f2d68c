"""Keyless signatures: who is let in by a certificate, and what of an attacker's making isn't. The authority, the logs
and the timestamps are the tests' own; the bundles of `public_good` are the world's."""

from __future__ import annotations

import base64
import builtins
import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import ExtendedKeyUsageOID

from oci.archive.entry import IMGPKG, OCI_LAYOUT
from oci.archive.options import ExportOptions
from oci.errors import InvalidInput, NotTrusted
from oci.signatures import proofs
from oci.signatures.artifacts import ALL
from oci.signatures.keyless import OLD_FORM, CertificateIdentity, KeylessSigner, TrustedRoot, read_trusted_root
from oci.signatures.policy_file import read_policy
from oci.signatures.proofs import Evidence, NoProof, Proof, envelope_in, parse_object
from tests.servers.strict_registry import StrictRegistry
from tests.support.archiving import archived, imported
from tests.support.content import Blob, Content, image, push, signature_tag
from tests.support.deciding import decided, public_good_bundle, written
from tests.support.signing import (
    BUNDLE,
    COSIGN_SIGN,
    PROVENANCE,
    Signer,
    attach,
    bundle_sign,
    cosign_sign,
    layer_of,
    payload,
    signature_manifest,
    statement,
)
from tests.support.sigstore_authority import (
    ISSUER,
    SUBJECT,
    WORKFLOW,
    Authority,
    Sigstore,
    TimestampAuthority,
    TransparencyLog,
    b64,
    dsse_entry,
)

CONTENT, OLDER = image(801), image(802)
SIGNED = statement(CONTENT.digest, COSIGN_SIGN)
OF_OLDER = statement(OLDER.digest, COSIGN_SIGN)
IDENTITY = {"issuer": ISSUER, "subject": SUBJECT}
DAY = timedelta(days=1)
ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def sigstore() -> Sigstore:
    return Sigstore()


@pytest.fixture
def folder(sigstore: Sigstore, tmp_path: Path) -> Path:
    sigstore.trusted_root(tmp_path / "trusted_root.json")
    return tmp_path


def policy(folder: Path, *identities: dict[str, str], **more: Any) -> str:
    top = {name: more.pop(name) for name in ("revoked",) if name in more}
    rule = {"to": "*", "keyless": list(identities) or [IDENTITY], **more}
    return written(folder, rule, trusted_root="trusted_root.json", **top)


def web(origin: StrictRegistry) -> str:
    return f"{origin.host}/shop/web:1.0"


def attached(origin: StrictRegistry, body: dict[str, Any] | bytes, content: Content = CONTENT) -> None:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    attach(origin.url, "shop/web", content, Blob(BUNDLE, data))


# Who is let in.


@pytest.mark.parametrize(
    ("identity", "accepted"),
    [
        (IDENTITY, True),
        ({"issuer": ISSUER, "subject_matches": r"https://github\.com/shop/web/.*@refs/tags/v.*"}, True),
        ({"issuer_matches": r"https://[a-z.]+", "subject": SUBJECT}, True),
        ({"issuer": ISSUER, "subject": SUBJECT.removesuffix(".0")}, False),
        ({"issuer": ISSUER, "subject": SUBJECT.upper()}, False),
        ({"issuer": ISSUER, "subject": SUBJECT.replace("shop/web", "evil/web")}, False),
        ({"issuer": f"{ISSUER}.evil.example", "subject": SUBJECT}, False),
        ({"issuer": ISSUER, "subject_matches": r"https://github\.com/shop"}, False),
        ({"issuer": ISSUER, "subject_matches": r"github\.com/shop/web/.*"}, False),
        ({"issuer_matches": r"https://", "subject": SUBJECT}, False),
    ],
)
def test_issuer_and_subject_are_asked_for_whole(
    origin: StrictRegistry, folder: Path, sigstore: Sigstore, identity: dict[str, str], accepted: bool
) -> None:
    attached(origin, sigstore.bundle(SIGNED))

    assert decided(policy(folder, identity), web(origin)).accepted is accepted


@pytest.mark.parametrize(
    ("name", "subject"),
    [
        (x509.RFC822Name("release@shop.example"), "release@shop.example"),
        (x509.OtherName(x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.7"), b"\x0c\x07release"), "release"),
    ],
)
def test_a_subject_may_be_an_address_or_a_user(
    origin: StrictRegistry, folder: Path, sigstore: Sigstore, name: x509.GeneralName, subject: str
) -> None:
    attached(origin, sigstore.bundle(SIGNED, subject=name))

    assert decided(policy(folder, {"issuer": ISSUER, "subject": subject}), web(origin)).accepted
    assert not decided(policy(folder, {"issuer": ISSUER, "subject": f"{subject}x"}), web(origin)).accepted


def test_a_timestamp_stands_in_for_the_time_of_the_log(
    origin: StrictRegistry, folder: Path, sigstore: Sigstore
) -> None:
    attached(origin, sigstore.bundle(SIGNED, stamped=True, promised=False))

    assert decided(policy(folder), web(origin)).accepted


def test_the_second_version_of_the_log_is_read(origin: StrictRegistry, folder: Path, sigstore: Sigstore) -> None:
    """It logs hashes, and a timestamp authority says when."""
    attached(origin, sigstore.bundle(SIGNED, hashed=True, stamped=True))

    assert decided(policy(folder), web(origin)).accepted


def test_a_certificate_that_is_over_counts_when_the_log_saw_it_in_time(
    origin: StrictRegistry, folder: Path, sigstore: Sigstore
) -> None:
    attached(origin, sigstore.bundle(SIGNED, at=datetime.now(UTC) - 400 * DAY))

    assert decided(policy(folder), web(origin)).accepted


def test_need_counts_keys_and_identities_together(origin: StrictRegistry, folder: Path, sigstore: Sigstore) -> None:
    release = Signer.make()
    release.write(folder / "release.pub")
    both = policy(folder, keys=["release.pub"], need="all")
    attached(origin, sigstore.bundle(SIGNED))
    assert not decided(both, web(origin)).accepted
    assert decided(policy(folder, keys=["release.pub"], need="any"), web(origin)).accepted

    bundle_sign(origin.url, "shop/web", CONTENT, release)

    assert decided(policy(folder, keys=["release.pub"], need="all"), web(origin)).accepted


@pytest.mark.parametrize(
    ("subject", "predicate_type", "builder", "accepted"),
    [
        (WORKFLOW, PROVENANCE, "ours", True),
        (WORKFLOW, PROVENANCE, "theirs", False),
        (WORKFLOW, "https://spdx.dev/Document", "ours", False),
        (x509.UniformResourceIdentifier("https://github.com/evil/web"), PROVENANCE, "ours", False),
    ],
)
def test_an_attestation_may_be_keyless(
    origin: StrictRegistry,
    folder: Path,
    sigstore: Sigstore,
    subject: x509.GeneralName,
    predicate_type: str,
    builder: str,
    accepted: bool,
) -> None:
    attached(origin, sigstore.bundle(statement(CONTENT.digest, predicate_type, {"builder": builder}), subject=subject))
    where = [{"field": "builder", "equals": "ours"}]
    rule = {"to": "*", "attestations": [{"type": PROVENANCE, "keyless": [IDENTITY], "where": where}]}

    asked = written(folder, rule, trusted_root="trusted_root.json")

    assert decided(asked, web(origin)).accepted is accepted


def test_an_attestation_takes_the_identities_of_its_rule(
    origin: StrictRegistry, folder: Path, sigstore: Sigstore
) -> None:
    asked = policy(folder, attestations=[{"type": PROVENANCE}])
    attached(origin, sigstore.bundle(SIGNED))
    assert not decided(asked, web(origin)).accepted

    attached(origin, sigstore.bundle(statement(CONTENT.digest, PROVENANCE)))

    assert decided(policy(folder, attestations=[{"type": PROVENANCE}]), web(origin)).accepted


@pytest.mark.parametrize("form", [IMGPKG, OCI_LAYOUT])
def test_beyond_an_air_gap_the_archive_and_the_root_are_enough(
    origin: StrictRegistry, folder: Path, sigstore: Sigstore, form: str
) -> None:
    attached(origin, sigstore.bundle(SIGNED))
    archived(folder / "with.tar", image=web(origin), artifacts=ALL, options=ExportOptions(format=form))
    archived(folder / "without.tar", image=web(origin), options=ExportOptions(format=form))
    asked = policy(folder)
    with StrictRegistry() as destination:
        with pytest.raises(NotTrusted):
            imported(f"{destination.host}/mirror/web", folder / "without.tar", policy=asked)
        assert not [seen for seen in destination.requests() if seen.method in ("POST", "PUT", "PATCH")]

        found = imported(f"{destination.host}/mirror/web", folder / "with.tar", policy=asked)

        assert found.plan.root == CONTENT.digest


# Who isn't. Each case begins with a bundle that is accepted.


Case = Callable[[Sigstore], dict[str, Any] | bytes]


def changed(body: dict[str, Any], *path: str | int, to: Any) -> dict[str, Any]:
    """A deep copy with another value at the path; None takes it out."""
    copy: dict[str, Any] = json.loads(json.dumps(body))
    place: Any = copy
    for part in path[:-1]:
        place = place[part]
    if to is None:
        del place[path[-1]]
    else:
        place[path[-1]] = to
    return copy


MATERIAL = "verificationMaterial"
ENTRY = (MATERIAL, "tlogEntries", 0)
PROOF = (*ENTRY, "inclusionProof")


def made(*path: str | int, to: Any, **more: Any) -> Case:
    """What stands at the path of a good bundle is replaced; a function gets what was there."""

    def case(sigstore: Sigstore) -> dict[str, Any]:
        body: Any = sigstore.bundle(SIGNED, **more)
        value = body
        if callable(to):
            for part in path:
                value = value[part]
            return changed(body, *path, to=to(value))
        return changed(body, *path, to=to)

    return case


def issued(**more: Any) -> Case:
    return lambda sigstore: sigstore.bundle(SIGNED, **more)


def flipped(text: str) -> str:
    """Another byte near the end of a base64 text."""
    data = bytearray(base64.b64decode(text))
    data[-3] ^= 1
    return b64(bytes(data))


def by_another(**parts: Callable[[], Any]) -> Case:
    """Made by an instance of which only these parts aren't the trusted ones."""

    def case(sigstore: Sigstore) -> dict[str, Any]:
        other = Sigstore()
        for name in ("authority", "certificate_log", "log", "timestamps"):
            setattr(other, name, parts[name]() if name in parts else getattr(sigstore, name))
        more: dict[str, Any] = {"stamped": True, "promised": False} if "timestamps" in parts else {}
        return other.bundle(SIGNED, **more)

    return case


def log_with_the_name_of(sigstore: Sigstore) -> dict[str, Any]:
    other = Sigstore()
    other.authority, other.certificate_log = sigstore.authority, sigstore.certificate_log
    other.log.id = sigstore.log.id
    return other.bundle(SIGNED)


def with_entry_of_another(sigstore: Sigstore) -> dict[str, Any]:
    return changed(sigstore.bundle(SIGNED), *ENTRY, to=sigstore.bundle(SIGNED)[MATERIAL]["tlogEntries"][0])


def hash_of_another(sigstore: Sigstore) -> dict[str, Any]:
    other = sigstore.bundle(SIGNED, hashed=True, stamped=True)[MATERIAL]["tlogEntries"][0]
    return changed(sigstore.bundle(SIGNED, hashed=True, stamped=True), *ENTRY, to=other)


def with_certificate_of_another(sigstore: Sigstore) -> dict[str, Any]:
    """The thief has a certificate of his own, and shows that of the shop."""
    thief = sigstore.bundle(SIGNED, subject=x509.UniformResourceIdentifier("https://github.com/evil/web"))
    return changed(thief, MATERIAL, "certificate", to=sigstore.bundle(SIGNED)[MATERIAL]["certificate"])


def resigned_by_a_thief(sigstore: Sigstore) -> dict[str, Any]:
    """Certificate, log entry and all of the shop; the payload is the thief's, as is the signature."""
    good = sigstore.bundle(OF_OLDER)
    thief = sigstore.bundle(SIGNED, subject=x509.UniformResourceIdentifier("https://github.com/evil/web"))
    return changed(good, "dsseEnvelope", to=thief["dsseEnvelope"])


def with_timestamp_of_another(sigstore: Sigstore) -> dict[str, Any]:
    stamps = sigstore.bundle(SIGNED, stamped=True, promised=False)[MATERIAL]["timestampVerificationData"]
    return changed(sigstore.bundle(SIGNED, promised=False), MATERIAL, "timestampVerificationData", to=stamps)


def logged_as(kind: str, version: str) -> Case:
    def case(sigstore: Sigstore) -> dict[str, Any]:
        body = sigstore.bundle(SIGNED)
        certificate = x509.load_der_x509_certificate(base64.b64decode(body[MATERIAL]["certificate"]["rawBytes"]))
        entry = dsse_entry(body["dsseEnvelope"], certificate)
        logged = sigstore.log.entry(entry, datetime.now(UTC), kind=kind, version=version)
        return changed(body, *ENTRY, to=logged)

    return case


def chain_that_begins_with_an_authority(sigstore: Sigstore) -> dict[str, Any]:
    body = changed(sigstore.bundle(SIGNED), "mediaType", to="application/vnd.dev.sigstore.bundle+json;version=0.2")
    leaf = body[MATERIAL].pop("certificate")
    root = {"rawBytes": b64(sigstore.authority.certificate.public_bytes(serialization.Encoding.DER))}
    return changed(body, MATERIAL, "x509CertificateChain", to={"certificates": [root, leaf]})


def twice(sigstore: Sigstore) -> bytes:
    """Two readers may see two identities."""
    text = json.dumps(sigstore.bundle(SIGNED))
    evil = json.dumps(sigstore.bundle(SIGNED, subject=x509.UniformResourceIdentifier("https://github.com/evil/web")))
    return f'{text[:-1]}, "{MATERIAL}": {json.dumps(json.loads(evil)[MATERIAL])}}}'.encode()


HOSTILE: dict[str, Case] = {
    "another subject": issued(subject=x509.UniformResourceIdentifier("https://github.com/evil/web")),
    "another issuer": issued(issuer="https://evil.example"),
    "the issuer stands twice and differs": issued(bare_issuer="https://evil.example"),
    "two subjects": issued(subjects=(x509.UniformResourceIdentifier("https://github.com/evil/web"),)),
    "no subject": issued(subject=None),
    "no issuer": issued(issuer=""),
    "the subject is a host": issued(subject=x509.DNSName("github.com")),
    "a user's name isn't text": issued(
        subject=x509.OtherName(x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.7"), b"\x05\x00")
    ),
    "logged after the certificate was over": issued(
        at=datetime.now(UTC) - DAY, logged_at=datetime.now(UTC) - DAY + timedelta(minutes=11)
    ),
    "logged before the certificate": issued(logged_at=datetime.now(UTC) - DAY),
    "expired, and no time of a log": issued(at=datetime.now(UTC) - DAY, promised=False),
    "no time at all": issued(promised=False),
    "expired when it was stamped": issued(at=datetime.now(UTC) - DAY, promised=False, stamped=True),
    "the time of the log is tampered with": made(*ENTRY, "integratedTime", to=lambda time: str(int(time) + 1)),
    "the promise of the log is tampered with": made(*ENTRY, "inclusionPromise", "signedEntryTimestamp", to=flipped),
    "stamped by another authority": by_another(timestamps=TimestampAuthority),
    "a timestamp of another signature": with_timestamp_of_another,
    "a timestamp that is no timestamp": made(
        MATERIAL, "timestampVerificationData", "rfc3161Timestamps", 0, "signedTimestamp", to=b64(b"x"), stamped=True
    ),
    "a hundred timestamps": made(
        MATERIAL, "timestampVerificationData", "rfc3161Timestamps", to=lambda stamps: stamps * 100, stamped=True
    ),
    "another log": by_another(log=TransparencyLog),
    "another log with the name of the trusted": log_with_the_name_of,
    "another log of certificates": by_another(certificate_log=TransparencyLog),
    "another authority with the same name": by_another(authority=lambda: Authority("fulcio")),
    "the certificate was never logged": issued(logged=False),
    "the certificate isn't for code": issued(purposes=(ExtendedKeyUsageOID.EMAIL_PROTECTION,)),
    "the certificate has no purpose": issued(purposes=()),
    "the certificate isn't for signatures": issued(uses=("key_agreement",)),
    "the certificate is that of an authority": issued(ca=True),
    "the certificate is no certificate": made(MATERIAL, "certificate", "rawBytes", to=b64(b"0" * 300)),
    "the certificate is another's": with_certificate_of_another,
    "there is no certificate": made(MATERIAL, "certificate", to=None),
    "an authority stands where the certificate should": chain_that_begins_with_an_authority,
    "a key stands where the certificate should": made(MATERIAL, "certificate", to={"publicKey": {"hint": "x"}}),
    "the payload is tampered with": made(
        "dsseEnvelope", "payload", to=b64(SIGNED.replace(b'"name":""', b'"name":"x"'))
    ),
    "the payload is of the thief's making": resigned_by_a_thief,
    "the signature is tampered with": made("dsseEnvelope", "signatures", 0, "sig", to=flipped),
    "there are two signatures": made("dsseEnvelope", "signatures", to=lambda listed: listed * 2),
    "the type of the payload is another": made("dsseEnvelope", "payloadType", to="application/json"),
    "signed as another type of payload": issued(kind="application/json"),
    "it is a signature of another digest": lambda sigstore: sigstore.bundle(OF_OLDER),
    "the log has another signature": with_entry_of_another,
    "the log has the hash of another": hash_of_another,
    "the log has a hash and nobody says when": issued(hashed=True),
    "the log has another kind": logged_as("intoto", "0.0.2"),
    "the log has a hash": logged_as("hashedrekord", "0.0.1"),
    "the log has another version": logged_as("dsse", "9.0.0"),
    "there is no entry of the log": made(MATERIAL, "tlogEntries", to=[]),
    "there are two entries of the log": made(MATERIAL, "tlogEntries", to=lambda listed: listed * 2),
    "there is no proof of inclusion": made(*PROOF, to=None),
    "the proof has other hashes": made(*PROOF, "hashes", 0, to=flipped),
    "the proof has no hashes": made(*PROOF, "hashes", to=[]),
    "the proof has ten thousand hashes": made(*PROOF, "hashes", to=lambda listed: listed * 5000),
    "the proof is of another place": made(*PROOF, "logIndex", to="0"),
    "the proof is of a place beyond the tree": made(*PROOF, "logIndex", to="7"),
    "the proof has another root": made(*PROOF, "rootHash", to=flipped),
    "there is no checkpoint": made(*PROOF, "checkpoint", to=None),
    "the checkpoint is of another tree": made(
        *PROOF, "checkpoint", "envelope", to=lambda text: text.replace("\n3\n", "\n4\n")
    ),
    "the checkpoint is unsigned": made(
        *PROOF, "checkpoint", "envelope", to=lambda text: text.partition("\n\n")[0] + "\n\n"
    ),
    "the checkpoint is a long text": made(*PROOF, "checkpoint", "envelope", to="\N{EM DASH} " * 100_000),
    "the entry has another body": made(*ENTRY, "canonicalizedBody", to=flipped),
    "the number of the entry is no number": made(*ENTRY, "logIndex", to="x"),
    "the version of the bundle isn't known": made("mediaType", to="application/vnd.dev.sigstore.bundle.v9+json"),
    "it is deeply nested": lambda _: b'{"verificationMaterial":' * 50_000,
    "it says two things at once": twice,
    "it is a list": lambda _: b"[]",
    "it is empty": lambda _: b"{}",
    "it is no JSON": lambda _: b"\xff\xfe{",
    "it is big": lambda sigstore: json.dumps(sigstore.bundle(SIGNED)).encode() + b" " * (33 << 20),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_an_attacker_can_make_proves_nothing(
    origin: StrictRegistry, folder: Path, sigstore: Sigstore, name: str
) -> None:
    attached(origin, HOSTILE[name](sigstore))
    refused = decided(policy(folder), web(origin))
    assert not refused.accepted
    assert refused.reason

    attached(origin, sigstore.bundle(SIGNED))

    assert decided(policy(folder), web(origin)).accepted


def test_a_signature_of_an_older_tag_is_none_of_the_newer(
    origin: StrictRegistry, folder: Path, sigstore: Sigstore
) -> None:
    """Replayed: the older image is really signed, and its bundle is attached to the newer."""
    push(origin.url, "shop/web", OLDER, "0.9")
    older = sigstore.bundle(OF_OLDER)
    attached(origin, older, OLDER)
    attached(origin, older)

    assert decided(policy(folder), f"{origin.host}/shop/web:0.9").accepted
    assert not decided(policy(folder), web(origin)).accepted


def test_a_key_proves_no_identity_and_an_identity_no_key(
    origin: StrictRegistry, folder: Path, sigstore: Sigstore
) -> None:
    release = Signer.make()
    release.write(folder / "release.pub")
    bundle_sign(origin.url, "shop/web", CONTENT, release)
    cosign_sign(origin.url, "shop/web", CONTENT, release, reference=f"{origin.host}/shop/web")
    assert not decided(policy(folder), web(origin)).accepted
    assert decided(written(folder, {"to": "*", "keys": ["release.pub"]}), web(origin)).accepted
    with StrictRegistry() as other:
        push(other.url, "shop/web", CONTENT, "1.0")
        attached(other, sigstore.bundle(SIGNED))

        assert not decided(written(folder, {"to": "*", "keys": ["release.pub"]}), web(other)).accepted


def test_certificates_in_annotations_are_refused_with_the_reason(
    origin: StrictRegistry, folder: Path, sigstore: Sigstore
) -> None:
    """What cosign wrote before it wrote bundles has the log's promise, and no proof of inclusion."""
    signer = Signer.make()
    certificate = sigstore.issue(signer.key, subject=WORKFLOW, issuer=ISSUER, begins=datetime.now(UTC))
    data = payload(CONTENT.digest, f"{origin.host}/shop/web")
    descriptor = layer_of(signer, data)
    entry = sigstore.log.entry(data, datetime.now(UTC))
    promise = {"SignedEntryTimestamp": entry["inclusionPromise"]["signedEntryTimestamp"], "Payload": {}}
    descriptor["annotations"] |= {
        proofs.CERTIFICATE: certificate.public_bytes(serialization.Encoding.PEM).decode(),
        "dev.sigstore.cosign/bundle": json.dumps(promise),
    }
    push(origin.url, "shop/web", signature_manifest([(descriptor, data)]), signature_tag(CONTENT))

    refused = decided(policy(folder), web(origin))

    assert not refused.accepted
    assert any(OLD_FORM in step for step in refused.steps)


@pytest.mark.parametrize("kind", ["image", "certificate", "key"])
def test_what_a_policy_revokes_is_refused_whoever_signed(
    origin: StrictRegistry, folder: Path, sigstore: Sigstore, kind: str
) -> None:
    body = sigstore.bundle(SIGNED)
    attached(origin, body)
    raw = base64.b64decode(body[MATERIAL]["certificate"]["rawBytes"])
    public = x509.load_der_x509_certificate(raw).public_key()
    spki = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    digests = {"image": CONTENT.digest, "certificate": sha256(raw), "key": sha256(spki)}
    assert decided(policy(folder, revoked=[sha256(b"another")]), web(origin)).accepted

    assert not decided(policy(folder, revoked=[digests[kind]]), web(origin)).accepted


def sha256(data: bytes) -> str:
    digest = hashes.Hash(hashes.SHA256())
    digest.update(data)
    return f"sha256:{digest.finalize().hex()}"


# How old.


@pytest.mark.parametrize(
    ("days", "stamped", "minimum", "accepted"),
    [
        (8, False, "7d", True),
        (6, False, "7d", False),
        (0, True, "1ms", True),
        (0, True, "1h", False),
    ],
)
def test_a_minimum_age_is_proven_by_a_verified_time(
    origin: StrictRegistry,
    folder: Path,
    sigstore: Sigstore,
    days: int,
    stamped: bool,
    minimum: str,
    accepted: bool,
) -> None:
    at = datetime.now(UTC) - days * DAY - timedelta(minutes=1)
    attached(origin, sigstore.bundle(SIGNED, at=at, stamped=stamped, promised=not stamped))

    assert decided(policy(folder, minimum_age=minimum), web(origin)).accepted is accepted


def test_a_time_that_no_signer_of_the_rule_has_proven_does_not_count(
    origin: StrictRegistry, folder: Path, sigstore: Sigstore
) -> None:
    release = Signer.make()
    release.write(folder / "release.pub")
    bundle_sign(origin.url, "shop/web", CONTENT, release)
    evil = x509.UniformResourceIdentifier("https://github.com/evil/web")
    attached(origin, sigstore.bundle(SIGNED, subject=evil, at=datetime.now(UTC) - 30 * DAY))
    keys = {"keys": ["release.pub"], "need": "any"}

    assert decided(policy(folder, **keys), web(origin)).accepted
    assert not decided(policy(folder, minimum_age="7d", **keys), web(origin)).accepted


# The root.


def test_the_freshness_of_the_root_is_told(origin: StrictRegistry, folder: Path, sigstore: Sigstore) -> None:
    over = {"start": "2020-01-01T00:00:00Z", "end": "2021-01-01T00:00:00Z"}
    fresh = read_trusted_root(str(folder / "trusted_root.json"))
    assert (fresh.newest, fresh.over) == (datetime(2020, 1, 1, tzinfo=UTC), ())
    body = json.loads((folder / "trusted_root.json").read_text())
    body["tlogs"][0]["publicKey"]["validFor"] = over
    (folder / "trusted_root.json").write_text(json.dumps(body))
    stale = read_trusted_root(str(folder / "trusted_root.json"))

    assert stale.over == ("transparency log",)
    decision = decided(policy(folder), web(origin))
    assert any(stale.freshness(datetime.now(UTC)) in step for step in decision.steps)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"mediaType": "application/json"}', '{"tlogs": 1}'])
def test_what_is_no_root_is_a_mistake_of_the_policy(folder: Path, text: str) -> None:
    (folder / "trusted_root.json").write_text(text)

    with pytest.raises(InvalidInput, match=r"trusted_root\.json"):
        read_policy(policy(folder))


def test_a_missing_root_is_a_mistake_of_the_policy(folder: Path) -> None:
    (folder / "trusted_root.json").unlink()

    with pytest.raises(InvalidInput, match=r"trusted_root\.json"):
        read_policy(policy(folder))


def test_without_the_library_the_error_names_the_extra(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def absent(name: str, *more: Any, **named: Any) -> Any:
        if name.partition(".")[0] == "sigstore":
            raise ImportError(name)
        return real(name, *more, **named)

    monkeypatch.setattr(builtins, "__import__", absent)

    with pytest.raises(InvalidInput) as caught:
        read_policy(policy(folder))

    assert "transship[sigstore]" in caught.value.hint


def test_the_library_is_imported_by_no_policy_that_does_not_ask_for_it(tmp_path: Path) -> None:
    Signer.make().write(tmp_path / "release.pub")
    path = written(tmp_path, {"to": "*", "keys": ["release.pub"]})
    code = "import sys; from oci.signatures.policy_file import read_policy; read_policy(sys.argv[1])"
    code += "; print([name for name in sys.modules if name.startswith(('sigstore', 'rfc3161'))])"

    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_a_copy_without_a_policy_imports_nothing_of_it(origin: StrictRegistry, tmp_path: Path) -> None:
    """Though it takes along what is attached."""
    code = (
        "import sys; from tests.support.relocating import copied; copied(*sys.argv[2:], image=sys.argv[1],"
        " artifacts=('all',)); print(*sys.modules)"
    )
    command = [sys.executable, "-c", code, web(origin), f"oci:{tmp_path}/layout"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)

    rooms = {name for name in done.stdout.split() if name.startswith("oci.signatures.")}
    assert rooms == {"oci.signatures.artifacts", "oci.signatures.attached"}
    assert not {"sigstore", "cryptography", "re2"} & set(done.stdout.split())


@pytest.mark.parametrize(
    "keyless",
    [
        "{issuer: a}",
        "{subject: a}",
        "{issuer: a, issuer_matches: a, subject: b}",
        "{issuer: a, subject: b, subject_matches: b}",
        "{issuer: a, subject_matches: '('}",
        "{issuer: a, subject: b, more: c}",
        "a",
    ],
)
def test_an_identity_with_a_mistake_is_refused(folder: Path, keyless: str) -> None:
    path = folder / "policy.yaml"
    rule = f"{{to: '*', keyless: [{keyless}]}}"
    path.write_text(f"version: 1\ndefault: reject\ntrusted_root: trusted_root.json\nrules: [{rule}]\n")

    with pytest.raises(InvalidInput, match=r"policy\.yaml"):
        read_policy(str(path))


# The public instance.

PUBLIC = "pypi_attestation_models-0.0.4a2.tar.gz.sigstore"
STAGING = "staging-rfc8785-0.1.2-py3-none-any.whl.sigstore"
PUBLISHER = "https://github.com/trailofbits/pypi-attestation-models/.github/workflows/release.yml@refs/tags/v0.0.4a2"


@pytest.fixture(scope="module")
def public_root() -> TrustedRoot:
    return read_trusted_root("")


def evidence(data: bytes, root: TrustedRoot, **identity: str) -> Evidence:
    identity = identity or {"issuer": ISSUER, "subject": PUBLISHER}
    envelope = envelope_in(parse_object(data))
    proof = Proof(where="file", message=envelope.message, signatures=envelope.signatures, bundle=data)
    return KeylessSigner(CertificateIdentity(**identity), root).evidence(proof)


def test_a_bundle_of_the_public_instance_is_verified_with_the_root_that_the_library_brings(
    public_root: TrustedRoot,
) -> None:
    found = evidence(public_good_bundle(PUBLIC), public_root)

    assert found.time == datetime(2024, 6, 10, 19, 47, 25, tzinfo=UTC)
    assert len(found.digests) == 2
    assert not public_root.over


@pytest.mark.parametrize(
    "path",
    [
        ("dsseEnvelope", "payload"),
        ("dsseEnvelope", "signatures", 0, "sig"),
        (*ENTRY, "canonicalizedBody"),
        (*ENTRY, "inclusionPromise", "signedEntryTimestamp"),
        (*PROOF, "rootHash"),
        (*PROOF, "hashes", 0),
        (MATERIAL, "certificate", "rawBytes"),
    ],
)
def test_a_bundle_of_the_public_instance_that_is_tampered_with_is_not(
    public_root: TrustedRoot, path: tuple[str | int, ...]
) -> None:
    body: Any = json.loads(public_good_bundle(PUBLIC))
    value = body
    for part in path:
        value = value[part]
    data = json.dumps(changed(body, *path, to=flipped(value))).encode()

    with pytest.raises(NoProof):
        evidence(data, public_root)


def test_another_instance_and_another_identity_are_not_trusted(public_root: TrustedRoot, folder: Path) -> None:
    with pytest.raises(NoProof):
        evidence(public_good_bundle(PUBLIC), public_root, issuer=ISSUER, subject=SUBJECT)
    with pytest.raises(NoProof):
        evidence(public_good_bundle(PUBLIC), read_trusted_root(str(folder / "trusted_root.json")))
    author = {"issuer": "https://github.com/login/oauth", "subject": "william@yossarian.net"}
    with pytest.raises(NoProof):
        evidence(public_good_bundle(STAGING), public_root, **author)
