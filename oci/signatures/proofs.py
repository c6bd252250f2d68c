"""What is attached to an image and may prove something: signatures of cosign, Sigstore's bundles around an envelope,
attestations, envelopes of Notary; and the forms that these are kept in.

All of it is a stranger's word until a key verifies it. Amounts have bounds, and what doesn't parse is a problem that
the decision names, never a signature. Specs: DSSE's envelope.md and protocol.md; notaryproject/specifications,
"signature-specification" and "signature-envelope-jws".
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct

from oci.bundle import tagnames
from oci.descriptor import Descriptor, parse_json
from oci.digest import Digest
from oci.errors import NotFound
from oci.store import Source

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

SIMPLE_SIGNING = "application/vnd.dev.cosign.simplesigning.v1+json"
SIGNATURE_TYPE = "cosign container image signature"
SIGNATURE = "dev.cosignproject.cosign/signature"
CERTIFICATE = "dev.sigstore.cosign/certificate"
"""The annotation in which cosign kept certificates before it wrote bundles."""

STATEMENT = "https://in-toto.io/Statement/v1"
STATEMENTS = frozenset({"https://in-toto.io/Statement/v0.1", STATEMENT})
SIGN_PREDICATE = "https://sigstore.dev/cosign/sign/v1"
"""The predicate of a bundle that is a signature and attests nothing else."""

PAYLOAD_LIMIT = 1 << 20
ENVELOPE_LIMIT = 32 << 20
"""Bytes of a signature's payload and of an envelope: SBOMs in attestations have megabytes."""

MOST = 200
"""Signatures of one image that are looked at."""

NOTARY = "application/vnd.cncf.notary.signature"
"""The artifact type of Notary's signatures."""

JWS = "application/jose+json"
COSE = "application/cose"
PAYLOAD = "application/vnd.cncf.notary.payload.v1+json"

# Headers of envelopes of Notary.
_SCHEME = "io.cncf.notary.signingScheme"
_TIME = "io.cncf.notary.signingTime"
_EXPIRY = "io.cncf.notary.expiry"
_TIMESTAMP = "io.cncf.notary.timestampSignature"
_PROTECTED = frozenset({"alg", "cty", "crit", _SCHEME, _TIME, _EXPIRY})
_X509 = "notary.x509"

ALGORITHMS = {"PS256": 2048, "PS384": 3072, "PS512": 4096, "ES256": 256, "ES384": 384, "ES512": 521}
"""With the size of the key that each stands for, in bits ("Algorithm Selection")."""

MOST_CERTIFICATES = 10
"""Certificates of one chain: three or four in practice."""


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


class Proofs(Struct, frozen=True):
    """`candidates` speak of the image; `problems` say what was there and is no proof of anything."""

    candidates: tuple[Proof, ...] = ()
    problems: tuple[str, ...] = ()


def read_proofs(source: Source, image: Descriptor, *, attestations: bool, notation: bool = False) -> Proofs:
    """Reads what is attached to an image, attestations and signatures of Notary where they are asked for. Raises what
    the store raises, but for what isn't there: a signature that can't be read isn't one that is missing."""
    candidates: list[Proof] = []
    problems: list[str] = []
    for where, layer in _layers(source, image, attestations=attestations, notation=notation):
        if len(candidates) + len(problems) >= MOST:
            problems.append(f"more than {MOST} signatures are attached, and the others weren't looked at")
            break
        limit = PAYLOAD_LIMIT if layer.media_type == SIMPLE_SIGNING else ENVELOPE_LIMIT
        try:
            if layer.size > limit:
                raise NoProof(f"it has {layer.size} bytes, and {limit} are the limit")  # noqa: TRY301 - told below
            data = b"".join(source.read_blob(layer))
            candidates.append(_proof(where, layer, data, image))
        except (NoProof, NotFound) as error:
            problems.append(f"{where}: {error}")
    return Proofs(tuple(candidates), tuple(problems))


def _layers(
    source: Source, image: Descriptor, *, attestations: bool, notation: bool
) -> Iterator[tuple[str, Descriptor]]:
    """Every layer that is a signature or an envelope, with a name of the place where it was."""
    signature, attestation, _ = tagnames.cosign(image.digest)
    for tag in (signature, attestation) if attestations else (signature,):
        shown = source.head_manifest(tag)
        if shown is None:
            continue
        manifest = source.get_manifest(shown.digest)
        for number, layer in enumerate(manifest.layers):
            if layer.media_type in (SIMPLE_SIGNING, DSSE):
                yield f"{tag}[{number}]", layer
    for referrer in source.referrers(image.digest):
        notary = referrer.artifact_type == NOTARY
        if not (notary and notation) and not referrer.artifact_type.startswith(BUNDLE):
            continue
        try:
            manifest = source.get_manifest(referrer.digest)
        except NotFound:
            continue
        if manifest.subject is None or manifest.subject.digest != image.digest:
            continue
        for layer in manifest.layers:
            if layer.media_type in (JWS, COSE) if notary else layer.media_type.startswith(BUNDLE):
                yield f"{'notation' if notary else 'bundle'} {referrer.digest[:19]}", layer


def _proof(where: str, layer: Descriptor, data: bytes, image: Descriptor) -> Proof:
    annotated = CERTIFICATE in layer.annotations
    if layer.media_type in (JWS, COSE):
        envelope = notary_envelope(layer.media_type, data, image)
        return Proof(where=where, message=envelope.message, signatures=(envelope.signature,), notation=envelope)
    if layer.media_type == DSSE:
        return _attested(where, envelope_of(parse_object(data)), image.digest, annotated=annotated)
    if layer.media_type != SIMPLE_SIGNING:
        return _attested(where, envelope_in(parse_object(data)), image.digest, bundle=data)
    # Of cosign's SIGNATURE_SPEC; strict, as containers/image is: nothing critical may be unknown.
    signature = decode_base64(layer.annotations.get(SIGNATURE))
    critical = object_of(parse_object(data).get("critical"), "critical")
    if set(critical) != {"identity", "image", "type"} or critical["type"] != SIGNATURE_TYPE:
        raise NoProof("what it says under `critical` isn't that of a signature of cosign")
    signed = object_of(critical["image"], "image").get("docker-manifest-digest")
    if signed != image.digest:
        raise NoProof(f"it is a signature of {str(signed)[:80]}")
    identity = object_of(critical["identity"], "identity").get("docker-reference")
    if not isinstance(identity, str):
        raise NoProof("it names no docker-reference")
    return Proof(where=where, message=data, signatures=(signature,), identity=identity, annotated=annotated)


def _attested(where: str, envelope: Envelope, image: Digest, *, bundle: bytes = b"", annotated: bool = False) -> Proof:
    """An in-toto statement whose subjects name the image."""
    if envelope.payload_type != IN_TOTO:
        raise NoProof(f"the envelope holds {envelope.payload_type[:80]!r}")
    statement = parse_object(envelope.payload)
    kind = statement.get("_type")
    if not isinstance(kind, str) or kind not in STATEMENTS:
        raise NoProof("the envelope holds no in-toto statement")
    algorithm, _, encoded = image.partition(":")
    subjects = statement.get("subject")
    digests = [item.get("digest") for item in subjects if isinstance(item, dict)] if isinstance(subjects, list) else []
    if not any(isinstance(item, dict) and item.get(algorithm) == encoded for item in digests):
        raise NoProof("its statement is about another image")
    predicate_type = statement.get("predicateType")
    if not isinstance(predicate_type, str):
        raise NoProof("its statement has no predicateType")
    predicate = statement.get("predicate")
    return Proof(
        where=where,
        message=envelope.message,
        signatures=envelope.signatures,
        predicate_type="" if predicate_type == SIGN_PREDICATE else this_type(predicate_type),
        predicate=predicate if isinstance(predicate, dict) else {},
        bundle=bundle,
        annotated=annotated,
    )


def notary_envelope(media_type: str, data: bytes, image: Descriptor) -> NotationEnvelope:
    """Reads an envelope of Notary, whose word isn't verified by that. Raises NoProof for what can't be read, for what
    says that it must be understood and isn't, and for what speaks of another image."""
    if media_type == COSE:
        raise NoProof("it is a COSE envelope, and only JWS is read here")
    body = parse_object(data)
    protected = parse_object(_base64url(body.get("protected")))
    header = object_of(body.get("header"), "header")
    payload = _base64url(body.get("payload"))
    expiry = _check_header(protected)
    target = object_of(parse_object(payload).get("targetArtifact"), "targetArtifact")
    subject = (image.digest, image.size, image.media_type)
    if (target.get("digest"), target.get("size"), target.get("mediaType")) != subject:
        raise NoProof(f"it is a signature of {str(target.get('digest'))[:80]}")
    listed = header.get("x5c")
    if not isinstance(listed, list) or not 0 < len(listed) <= MOST_CERTIFICATES:
        raise NoProof("it has no certificates, or too many")
    return NotationEnvelope(
        algorithm=protected["alg"],
        message=f"{body['protected']}.{body['payload']}".encode(),
        signature=_base64url(body.get("signature")),
        certificates=tuple(map(decode_base64, listed)),
        expiry=expiry,
        timestamp=decode_base64(header[_TIMESTAMP]) if _TIMESTAMP in header else b"",
    )


def _check_header(protected: Mapping[str, Any]) -> datetime | None:
    """Checks the protected header and returns when the signature expires. What is critical must be known; the scheme
    must be critical, and the expiry where there is one ("signature-envelope-jws", "Protected Headers")."""
    critical = protected.get("crit")
    if not isinstance(critical, list) or not all(isinstance(header, str) for header in critical):
        raise NoProof("it doesn't say which of its headers are critical")
    needed = {_SCHEME} | ({_EXPIRY} if _EXPIRY in protected else set())
    unknown = {*critical, *(name for name in protected if name.startswith("io.cncf.notary."))} - _PROTECTED
    if unknown:
        raise NoProof(f"its header {min(unknown)[:100]} isn't understood here")
    if missing := needed - set(critical):
        raise NoProof(f"its header {min(missing)} isn't critical")
    if absent := set(critical) - set(protected):
        raise NoProof(f"its header {min(absent)[:100]} is missing")
    algorithm = protected.get("alg")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise NoProof(f"its algorithm is {str(algorithm)[:40]!r}")
    if protected.get("cty") != PAYLOAD:
        raise NoProof(f"it holds {str(protected.get('cty'))[:80]!r}")
    if protected[_SCHEME] != _X509:
        raise NoProof(f"its signing scheme is {str(protected[_SCHEME])[:80]!r}, and only {_X509} is verified here")
    _time_of(protected.get(_TIME))
    return _time_of(protected[_EXPIRY]) if _EXPIRY in protected else None


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


def _time_of(value: object) -> datetime:
    try:
        time = datetime.fromisoformat(str(value))
    except ValueError as error:
        raise NoProof("a time in it can't be read") from error
    if time.tzinfo is None:
        raise NoProof("a time in it has no zone")
    return time


def _base64url(value: object) -> bytes:
    """Without padding (RFC 7515, 2)."""
    if not isinstance(value, str) or not value.isascii() or set(value) & set("+/="):
        raise NoProof("a part of it isn't base64url")
    try:
        return base64.b64decode(value + "=" * (-len(value) % 4), altchars=b"-_", validate=True)
    except ValueError as error:
        raise NoProof("a part of it isn't base64url") from error
