"""A Sigstore of the tests' own, made with `cryptography` and openssl alone: certificate authority, certificate log,
transparency log and timestamp authority, with the trusted root that names them. Independent of the code under test and
of the library that it uses."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.support.signing import BUNDLE, Signer, envelope, pre_authentication

ISSUER = "https://token.actions.githubusercontent.com"
SUBJECT = "https://github.com/shop/web/.github/workflows/release.yml@refs/tags/v1.0"
WORKFLOW = x509.UniformResourceIdentifier(SUBJECT)
_SCT_LIST = x509.ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2")
_FULCIO = "1.3.6.1.4.1.57264.1"


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def der(key: Any) -> bytes:
    found: bytes = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return found


def pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def named(text: str) -> x509.Name:
    return x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "tests"), x509.NameAttribute(NameOID.COMMON_NAME, text)]
    )


def usage(*names: str) -> x509.KeyUsage:
    known = (
        "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
        "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
    )  # fmt: skip
    return x509.KeyUsage(**{name: name in names for name in known})


@dataclass
class Authority:
    """A certificate authority with a root of its own."""

    name: str = "root"
    key: Any = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    certificate: x509.Certificate = field(init=False)

    def __post_init__(self) -> None:
        self.certificate = self.certify(self.key, named(self.name), ca=True, lifetime=timedelta(days=3000))

    def certify(
        self,
        key: Any,
        subject: x509.Name,
        *,
        ca: bool = False,
        begins: datetime | None = None,
        lifetime: timedelta = timedelta(days=30),
        purposes: tuple[Any, ...] = (),
        timestamps: bool = False,
        uses: tuple[str, ...] = ("digital_signature",),
        extensions: tuple[tuple[x509.ExtensionType, bool], ...] = (),
        serial: int | None = None,
    ) -> x509.Certificate:
        """A certificate for a key, from the root."""
        begins = begins or datetime.now(UTC) - timedelta(days=1000 if ca else 1)
        builder = (
            x509.CertificateBuilder(
                subject_name=subject,
                issuer_name=named(self.name),
                public_key=key.public_key(),
                serial_number=serial or x509.random_serial_number(),
                not_valid_before=begins,
                not_valid_after=begins + lifetime,
            )
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(usage("key_cert_sign", "crl_sign") if ca else usage(*uses), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
        )
        if purposes:
            builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=timestamps)
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical=critical)
        return builder.sign(self.key, hashes.SHA256())


class TimestampAuthority:
    """Answers with the responses of RFC 3161 that `openssl ts` makes."""

    def __init__(self) -> None:
        self.authority = Authority("timestamps")
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = self.authority.certify(
            self.key,
            named("tsa"),
            purposes=(ExtendedKeyUsageOID.TIME_STAMPING,),
            timestamps=True,
            lifetime=timedelta(days=3000),
        )

    def stamp(self, data: bytes) -> bytes:
        """The response for data, at the time of now, in DER form."""
        with tempfile.TemporaryDirectory() as folder:
            base = Path(folder)
            (base / "data").write_bytes(data)
            (base / "tsa.pem").write_bytes(pem(self.certificate))
            (base / "key.pem").write_bytes(Signer(self.key).private())
            (base / "serial").write_text("01\n")
            (base / "ts.cnf").write_text(
                "[tsa]\nserial = serial\nsigner_digest = sha256\ndefault_policy = 1.2.3.4\ndigests = sha256\n"
                "accuracy = secs:1\ness_cert_id_alg = sha256\n"
            )
            query = ["ts", "-query", "-data", "data", "-sha256", "-cert", "-out", "query"]
            reply = [
                "ts",
                "-reply",
                "-config",
                "ts.cnf",
                "-section",
                "tsa",
                "-queryfile",
                "query",
                "-signer",
                "tsa.pem",
            ]
            reply += ["-inkey", "key.pem", "-out", "reply"]
            for arguments in (query, reply):
                subprocess.run(["openssl", *arguments], cwd=base, check=True, capture_output=True)
            return (base / "reply").read_bytes()


class TransparencyLog:
    """Logs like Rekor in its version 1."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.id = hashlib.sha256(der(self.key)).digest()

    def sign(self, data: bytes) -> bytes:
        return self.key.sign(data, ec.ECDSA(hashes.SHA256()))

    def entry(self, body: bytes, at: datetime, *, kind: str = "dsse", version: str = "0.0.1") -> dict[str, Any]:
        """The second of three leaves."""
        leaf = hashlib.sha256(b"\0" + body).digest()
        left, right = (hashlib.sha256(b"\0" + text).digest() for text in (b"before", b"after"))
        root = hashlib.sha256(b"\1" + hashlib.sha256(b"\1" + left + leaf).digest() + right).digest()
        note = f"log.example - 1\n3\n{b64(root)}\n"
        time = int(at.timestamp())
        promised = {"body": b64(body), "integratedTime": time, "logID": self.id.hex(), "logIndex": 1}
        return {
            "logIndex": "1",
            "logId": {"keyId": b64(self.id)},
            "kindVersion": {"kind": kind, "version": version},
            "integratedTime": str(time),
            "inclusionPromise": {
                "signedEntryTimestamp": b64(
                    self.sign(json.dumps(promised, separators=(",", ":"), sort_keys=True).encode())
                )
            },
            "inclusionProof": {
                "logIndex": "1",
                "rootHash": b64(root),
                "treeSize": "3",
                "hashes": [b64(left), b64(right)],
                "checkpoint": {
                    "envelope": f"{note}\n\N{EM DASH} log.example {b64(self.id[:4] + self.sign(note.encode()))}\n"
                },
            },
            "canonicalizedBody": b64(body),
        }


class Sigstore:
    """All of it. What an attacker could make alone, another instance of this class makes."""

    def __init__(self) -> None:
        self.authority = Authority("fulcio")
        self.certificate_log = TransparencyLog()
        self.log = TransparencyLog()
        self.timestamps = TimestampAuthority()

    def trusted_root(self, path: Path, **parts: Any) -> Path:
        """Writes the trusted root; `parts` replace some of it."""
        begun = {"start": "2020-01-01T00:00:00Z"}

        def log(key: Any) -> dict[str, Any]:
            public = {"rawBytes": b64(der(key)), "keyDetails": "PKIX_ECDSA_P256_SHA_256", "validFor": begun}
            identity = {"keyId": b64(hashlib.sha256(der(key)).digest())}
            return {
                "baseUrl": "https://log.example",
                "hashAlgorithm": "SHA2_256",
                "publicKey": public,
                "logId": identity,
            }

        def authority(*chain: x509.Certificate) -> dict[str, Any]:
            raw = [{"rawBytes": b64(one.public_bytes(serialization.Encoding.DER))} for one in chain]
            subject = {"organization": "tests", "commonName": "tests"}
            return {
                "subject": subject,
                "uri": "https://ca.example",
                "certChain": {"certificates": raw},
                "validFor": begun,
            }

        body = {
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": [log(self.log.key)],
            "certificateAuthorities": [authority(self.authority.certificate)],
            "ctlogs": [log(self.certificate_log.key)],
            "timestampAuthorities": [authority(self.timestamps.certificate, self.timestamps.authority.certificate)],
            **parts,
        }
        path.write_text(json.dumps(body))
        return path

    def issue(
        self, key: Any, *, subject: x509.GeneralName | None, issuer: str, begins: datetime, **more: Any
    ) -> x509.Certificate:
        """A certificate like Fulcio's, with the timestamp of the certificate log in it."""
        minutes = more.pop("lifetime", timedelta(minutes=10))
        logged = more.pop("logged", True)
        extensions: list[tuple[x509.ExtensionType, bool]] = []
        if subject is not None:
            extensions.append((x509.SubjectAlternativeName([subject, *more.pop("subjects", ())]), True))
        if issuer:
            utf8 = b"\x0c" + bytes([len(issuer)]) + issuer.encode()
            extensions.append((_fulcio("8", utf8), False))
            extensions.append((_fulcio("1", more.pop("bare_issuer", issuer).encode()), False))
        common: dict[str, Any] = {
            "begins": begins,
            "lifetime": minutes,
            "purposes": more.pop("purposes", (ExtendedKeyUsageOID.CODE_SIGNING,)),
            "serial": x509.random_serial_number(),
            **more,
        }
        nobody = x509.Name([])
        before = self.authority.certify(key, nobody, extensions=tuple(extensions), **common)
        if not logged:
            return before
        stamp = _certificate_timestamp(self.certificate_log, self.authority, before, begins)
        extensions.append((x509.UnrecognizedExtension(_SCT_LIST, stamp), False))
        return self.authority.certify(key, nobody, extensions=tuple(extensions), **common)

    def bundle(
        self,
        statement: bytes,
        *,
        subject: x509.GeneralName | None = WORKFLOW,
        issuer: str = ISSUER,
        at: datetime | None = None,
        logged_at: datetime | None = None,
        stamped: bool = False,
        promised: bool = True,
        hashed: bool = False,
        kind: str = "application/vnd.in-toto+json",
        **more: Any,
    ) -> dict[str, Any]:
        """The bundle of `cosign sign`: signed at a time, and logged then. With `stamped`, with a timestamp of now; with
        `hashed`, logged as in Rekor's version 2, which promises nothing and knows no time."""
        at = at or datetime.now(UTC) - timedelta(minutes=1)
        signer = Signer.make()
        certificate = self.issue(signer.key, subject=subject, issuer=issuer, begins=at, **more)
        signed = envelope(signer, statement, kind)
        entry = self.log.entry(dsse_entry(signed, certificate), logged_at or at)
        material: dict[str, Any] = {
            "certificate": {"rawBytes": b64(certificate.public_bytes(serialization.Encoding.DER))},
            "tlogEntries": [entry],
        }
        if hashed:
            body = hashed_entry(signed, certificate)
            entry = self.log.entry(body, at, kind="hashedrekord", version="0.0.2")
            del entry["integratedTime"]
            material["tlogEntries"] = [entry]
        if hashed or not promised:
            del entry["inclusionPromise"]
        if stamped:
            response = self.timestamps.stamp(base64.b64decode(signed["signatures"][0]["sig"]))
            material["timestampVerificationData"] = {"rfc3161Timestamps": [{"signedTimestamp": b64(response)}]}
        return {"mediaType": BUNDLE, "verificationMaterial": material, "dsseEnvelope": signed}


def dsse_entry(signed: Mapping[str, Any], certificate: x509.Certificate) -> bytes:
    """The entry of the kind dsse 0.0.1 for an envelope."""
    payload = base64.b64decode(signed["payload"])
    whole = hashlib.sha256(json.dumps(signed).encode()).hexdigest()
    body = {
        "apiVersion": "0.0.1",
        "kind": "dsse",
        "spec": {
            "envelopeHash": {"algorithm": "sha256", "value": whole},
            "payloadHash": {"algorithm": "sha256", "value": hashlib.sha256(payload).hexdigest()},
            "signatures": [
                {"signature": one["sig"], "verifier": b64(pem(certificate))} for one in signed["signatures"]
            ],
        },
    }
    return json.dumps(body, separators=(",", ":"), sort_keys=True).encode()


def hashed_entry(signed: Mapping[str, Any], certificate: x509.Certificate) -> bytes:
    """The entry of the kind hashedrekord 0.0.2 for an envelope (rekor-tiles, "hashedrekord")."""
    raw = b64(certificate.public_bytes(serialization.Encoding.DER))
    message = pre_authentication(signed["payloadType"], base64.b64decode(signed["payload"]))
    record = {
        "data": {"algorithm": "SHA2_256", "digest": b64(hashlib.sha256(message).digest())},
        "signature": {
            "content": signed["signatures"][0]["sig"],
            "verifier": {"keyDetails": "PKIX_ECDSA_P256_SHA_256", "x509Certificate": {"rawBytes": raw}},
        },
    }
    body = {"apiVersion": "0.0.2", "kind": "hashedrekord", "spec": {"hashedRekordV002": record}}
    return json.dumps(body, separators=(",", ":"), sort_keys=True).encode()


def _fulcio(number: str, value: bytes) -> x509.UnrecognizedExtension:
    return x509.UnrecognizedExtension(x509.ObjectIdentifier(f"{_FULCIO}.{number}"), value)


def _certificate_timestamp(log: TransparencyLog, authority: Authority, before: x509.Certificate, at: datetime) -> bytes:
    """The list of one signed certificate timestamp (RFC 6962, 3.2 and 3.3), as an OCTET STRING."""
    tbs = before.tbs_certificate_bytes
    time = int(at.timestamp() * 1000).to_bytes(8)
    issuer = hashlib.sha256(der(authority.key)).digest()
    signed = b"\0\0" + time + b"\0\1" + issuer + len(tbs).to_bytes(3) + tbs + b"\0\0"
    signature = log.sign(signed)
    one = b"\0" + log.id + time + b"\0\0" + b"\4\3" + len(signature).to_bytes(2) + signature
    listed = len(one).to_bytes(2) + one
    data = len(listed).to_bytes(2) + listed
    return b"\x04" + (bytes([len(data)]) if len(data) < 128 else b"\x81" + bytes([len(data)])) + data
