"""Signatures as cosign makes them with a key, made with `cryptography` alone: independent of the code under test."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from tests.support.content import OCI_MANIFEST, Blob, Content, compact, digest_of, image, push, signature_tag

SIMPLE_SIGNING = "application/vnd.dev.cosign.simplesigning.v1+json"
DSSE = "application/vnd.dsse.envelope.v1+json"
BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
STATEMENT = "https://in-toto.io/Statement/v1"
COSIGN_SIGN = "https://sigstore.dev/cosign/sign/v1"
PROVENANCE = "https://slsa.dev/provenance/v1"


@dataclass(frozen=True, slots=True)
class Signer:
    key: Any

    @classmethod
    def make(cls, kind: str = "p256") -> Signer:
        if kind == "ed25519":
            return cls(ed25519.Ed25519PrivateKey.generate())
        if kind.startswith("rsa"):
            return cls(rsa.generate_private_key(65537, int(kind[3:])))
        curve: Any = {"p256": ec.SECP256R1, "p384": ec.SECP384R1, "p521": ec.SECP521R1}[kind]
        return cls(ec.generate_private_key(curve()))

    def sign(self, data: bytes) -> bytes:
        if isinstance(self.key, ed25519.Ed25519PrivateKey):
            return self.key.sign(data)
        if isinstance(self.key, rsa.RSAPrivateKey):
            return self.key.sign(data, padding.PKCS1v15(), hashes.SHA256())
        signature: bytes = self.key.sign(data, ec.ECDSA(hashes.SHA256()))
        return signature

    def public(self) -> bytes:
        found: bytes = self.key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return found

    def private(self) -> bytes:
        found: bytes = self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return found

    def write(self, path: Path) -> Path:
        path.write_bytes(self.public())
        return path


def payload(digest: str, reference: str, **critical: Any) -> bytes:
    body = {
        "identity": {"docker-reference": reference},
        "image": {"docker-manifest-digest": digest},
        "type": "cosign container image signature",
        **critical,
    }
    return compact({"critical": body, "optional": None})


def layer_of(signer: Signer, data: bytes) -> dict[str, Any]:
    signature = base64.b64encode(signer.sign(data)).decode()
    blob = Blob(SIMPLE_SIGNING, data)
    return blob.descriptor() | {"annotations": {"dev.cosignproject.cosign/signature": signature}}


def signature_manifest(layers: Sequence[tuple[dict[str, Any], bytes]]) -> Content:
    """What stands under a tag of cosign's: a layer for each signature."""
    config = image(1).blobs[-1]
    body = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": config.descriptor(),
        "layers": [descriptor for descriptor, _ in layers],
    }
    blobs = tuple(Blob(descriptor["mediaType"], data) for descriptor, data in layers)
    return Content(OCI_MANIFEST, compact(body), (*blobs, config))


def cosign_sign(url: str, repository: str, content: Content, *signers: Signer, reference: str, **more: Any) -> None:
    """`cosign sign --key`, for each signer."""
    data = payload(more.pop("digest", content.digest), reference, **more)
    signed = signature_manifest([(layer_of(signer, data), data) for signer in signers])
    push(url, repository, signed, signature_tag(content))


def statement(digest: str, predicate_type: str, predicate: Mapping[str, Any] | None = None) -> bytes:
    algorithm, _, encoded = digest.partition(":")
    return compact(
        {
            "_type": STATEMENT,
            "subject": [{"name": "", "digest": {algorithm: encoded}}],
            "predicateType": predicate_type,
            "predicate": dict(predicate or {}),
        }
    )


def pre_authentication(kind: str, data: bytes) -> bytes:
    return b" ".join((b"DSSEv1", b"%d" % len(kind), kind.encode(), b"%d" % len(data), data))


def envelope(signer: Signer, data: bytes, kind: str = "application/vnd.in-toto+json") -> dict[str, Any]:
    return {
        "payload": base64.b64encode(data).decode(),
        "payloadType": kind,
        "signatures": [{"sig": base64.b64encode(signer.sign(pre_authentication(kind, data))).decode()}],
    }


def attest(url: str, repository: str, content: Content, signer: Signer, data: bytes) -> None:
    """`cosign attest --key`, as a layer under the `.att` tag."""
    body = compact(envelope(signer, data))
    attestation = signature_manifest([(Blob(DSSE, body).descriptor(), body)])
    push(url, repository, attestation, signature_tag(content, "att"))


def bundle_sign(
    url: str, repository: str, content: Content, signer: Signer, data: bytes | None = None, **more: Any
) -> Content:
    """`cosign sign --key --new-bundle-format`: a referrer with a Sigstore bundle."""
    data = data if data is not None else statement(content.digest, COSIGN_SIGN)
    body = {
        "mediaType": BUNDLE,
        "verificationMaterial": {"publicKey": {"hint": digest_of(signer.public())}, "tlogEntries": []},
        "dsseEnvelope": envelope(signer, data),
        **more,
    }
    return attach(url, repository, content, Blob(BUNDLE, json.dumps(body).encode()))


def attach(
    url: str, repository: str, content: Content, blob: Blob, artifact_type: str = BUNDLE, **more: Any
) -> Content:
    """A referrer of one layer."""
    empty = Blob("application/vnd.oci.empty.v1+json", b"{}")
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": artifact_type,
        "config": empty.descriptor(),
        "layers": [blob.descriptor()],
        "subject": content.descriptor(),
        **more,
    }
    signed = Content(OCI_MANIFEST, compact(manifest), (blob, empty))
    push(url, repository, signed)
    return signed


SIGNER, STRANGER = Signer.make(), Signer.make()
"""Who signs in tests, and somebody else."""


def written_keys(folder: Path, **signers: Signer) -> Path:
    """The folder, with NAME.pub and NAME.key of each."""
    folder.mkdir(exist_ok=True)
    for name, signer in signers.items():
        signer.write(folder / f"{name}.pub")
        (folder / f"{name}.key").write_bytes(signer.private())
    return folder
