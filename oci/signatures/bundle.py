"""The forms that signatures are kept in: DSSE envelopes, Sigstore's bundles around an envelope or around the signature
of a message, and envelopes of Notary.

What is read is a stranger's word until a key verifies it: amounts have bounds, and what doesn't parse is no signature.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct

from oci.descriptor import parse_json

DSSE = "application/vnd.dsse.envelope.v1+json"
IN_TOTO = "application/vnd.in-toto+json"
BUNDLE = "application/vnd.dev.sigstore.bundle"
"""How the types of Sigstore bundles begin; a version follows."""

BUNDLE_V03 = f"{BUNDLE}.v0.3+json"
"""What is written (protobuf-specs, sigstore_bundle.proto)."""

PREDICATE_ANNOTATION = "dev.sigstore.bundle.predicateType"
"""The annotation in which cosign says which predicate an attached bundle has."""

RECEIPT_TYPE = "urn:uuid:774e21f3-b0bf-400c-830b-31cdd8331154#transship-receipt-v1"
"""The predicate type of receipts, in their first version (docs/reference/receipts.md). A UUID belongs to no domain (RFC
9562); the fragment is for readers."""

_EARLIER_TYPE = "https://transship.dev/receipt/v1"
"""The same, as it was written at first: in a domain that isn't this project's."""

MOST_SIGNATURES = 200
"""Signatures of one envelope that are looked at."""

_SHA256 = "SHA2_256"


class NoProof(ValueError):
    """Why something isn't a proof."""


class Evidence(Struct, frozen=True, kw_only=True):
    """That a signer has made a proof. `time` is when it was there already, by a log or a timestamp authority that was
    verified. `digests` are what a policy may revoke it by."""

    time: datetime | None = None
    digests: frozenset[str] = frozenset()


class Envelope(Struct, frozen=True, kw_only=True):
    """A DSSE envelope (its envelope.md)."""

    payload_type: str
    payload: bytes
    signatures: tuple[bytes, ...]

    @property
    def message(self) -> bytes:
        return pae(self.payload_type, self.payload)


class NotationEnvelope(Struct, frozen=True, kw_only=True):
    """An envelope of Notary that speaks of the image. `message` are the bytes that are signed; `certificates` are in
    DER form, the signing one first. `timestamp` is a token of RFC 3161 over the signature, empty without one."""

    algorithm: str
    message: bytes
    signature: bytes
    certificates: tuple[bytes, ...]
    expiry: datetime | None = None
    timestamp: bytes = b""


class Proof(Struct, frozen=True, kw_only=True):
    """A signature over `message` that speaks of the image. `where` names it for people. `identity` is the reference
    that was signed for, empty where the kind has none. `predicate_type` is that of an attestation, empty for a
    signature. `bundle` is the whole of a Sigstore bundle, `notation` an envelope of Notary; `annotated` says that its
    certificate stands in annotations."""

    where: str
    message: bytes
    signatures: tuple[bytes, ...]
    identity: str = ""
    predicate_type: str = ""
    predicate: Mapping[str, Any] = msgspec.field(default_factory=dict)
    bundle: bytes = b""
    notation: NotationEnvelope | None = None
    annotated: bool = False


def this_type(predicate_type: str) -> str:
    """Returns a predicate type as it is called now."""
    return RECEIPT_TYPE if predicate_type == _EARLIER_TYPE else predicate_type


def pae(payload_type: str, payload: bytes) -> bytes:
    """Returns what DSSE signs (protocol.md, "pre-authentication encoding")."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def parse_object(data: bytes | str) -> dict[str, Any]:
    """Returns a JSON object, in UTF-8 (RFC 8259). Raises NoProof for anything else; also for a key that stands twice:
    what may mean two things to two readers is no proof."""
    try:
        body = parse_json(data, once=True)
    except ValueError as error:
        raise NoProof(f"it isn't JSON: {error}") from error
    return object_of(body, "document")


def object_of(value: object, name: str) -> dict[str, Any]:
    """Raises NoProof for what is no object."""
    if not isinstance(value, dict):
        raise NoProof(f"its {name} is no object")
    return value


def decode_base64(value: object) -> bytes:
    """Raises NoProof for what is no base64."""
    if not isinstance(value, str):
        raise NoProof("a signature or payload is missing")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise NoProof("a signature or payload isn't base64") from error


def envelope_of(body: Mapping[str, Any]) -> Envelope:
    """Reads the JSON form of an envelope. Raises NoProof."""
    kind, listed = body.get("payloadType"), body.get("signatures")
    if not isinstance(kind, str):
        raise NoProof("the envelope has no type of payload")
    payload = decode_base64(body.get("payload"))
    if not isinstance(listed, list) or not 0 < len(listed) <= MOST_SIGNATURES:
        raise NoProof("the envelope has no signatures, or too many")
    signatures = tuple(decode_base64(object_of(signature, "signature").get("sig")) for signature in listed)
    return Envelope(payload_type=kind, payload=payload, signatures=signatures)


def envelope_in(body: Mapping[str, Any]) -> Envelope:
    """Returns the envelope in a bundle. Raises NoProof where there is none."""
    if "dsseEnvelope" not in body:
        raise NoProof("the bundle has no DSSE envelope")
    return envelope_of(object_of(body["dsseEnvelope"], "dsseEnvelope"))


def render_bundle(envelope: Envelope, hint: str) -> bytes:
    """Returns the JSON of a bundle around an envelope that a key has signed; `hint` says which."""
    body = {
        "payload": _base64(envelope.payload),
        "payloadType": envelope.payload_type,
        "signatures": [{"sig": _base64(signature)} for signature in envelope.signatures],
    }
    return _rendered(hint, "dsseEnvelope", body)


def render_message_signature(sha256: bytes, signature: bytes, hint: str) -> bytes:
    """Returns the JSON of a bundle around the signature of a message that isn't in it."""
    digest = {"algorithm": _SHA256, "digest": _base64(sha256)}
    return _rendered(hint, "messageSignature", {"messageDigest": digest, "signature": _base64(signature)})


def message_signature(body: Mapping[str, Any]) -> tuple[bytes, bytes]:
    """Returns the SHA-256 and the signature of a message in a bundle. Raises NoProof where there is none, or one over
    another digest."""
    if not str(body.get("mediaType", "")).startswith(BUNDLE):
        raise NoProof("it is no Sigstore bundle")
    if "messageSignature" not in body:
        raise NoProof("the bundle has no signature of a message")
    signed = object_of(body["messageSignature"], "messageSignature")
    digest = object_of(signed.get("messageDigest"), "messageDigest")
    sha256 = decode_base64(digest.get("digest"))
    if digest.get("algorithm") != _SHA256 or len(sha256) != 32:
        raise NoProof("it isn't over a SHA-256")
    return sha256, decode_base64(signed.get("signature"))


def _rendered(hint: str, name: str, content: Mapping[str, Any]) -> bytes:
    material = {"publicKey": {"hint": hint}, "tlogEntries": []}
    body = {"mediaType": BUNDLE_V03, "verificationMaterial": material, name: content}
    return json.dumps(body, separators=(",", ":")).encode()


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
