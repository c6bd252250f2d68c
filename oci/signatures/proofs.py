"""What is attached to an image and may prove something: signatures of cosign, Sigstore bundles, attestations.

All of it is a stranger's word until a key verifies it. Amounts have bounds, and what doesn't parse is a problem that
the decision names, never a signature.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Mapping
from typing import Any

from msgspec import Struct, field

from oci.bundle import tagnames
from oci.descriptor import Descriptor
from oci.digest import Digest
from oci.errors import NotFound
from oci.signatures.keys import PublicKey
from oci.store import Source

SIMPLE_SIGNING = "application/vnd.dev.cosign.simplesigning.v1+json"
SIGNATURE_TYPE = "cosign container image signature"
SIGNATURE = "dev.cosignproject.cosign/signature"
DSSE = "application/vnd.dsse.envelope.v1+json"
IN_TOTO = "application/vnd.in-toto+json"
BUNDLE = "application/vnd.dev.sigstore.bundle"
"""How the types of Sigstore bundles begin; a version follows."""

STATEMENTS = frozenset({"https://in-toto.io/Statement/v0.1", "https://in-toto.io/Statement/v1"})
SIGN_PREDICATE = "https://sigstore.dev/cosign/sign/v1"
"""The predicate of a bundle that is a signature and attests nothing else."""

PAYLOAD_LIMIT = 1 << 20
ENVELOPE_LIMIT = 32 << 20
"""Bytes of a signature's payload and of an envelope: SBOMs in attestations have megabytes."""

MOST = 200
"""Signatures of one image that are looked at."""


class Proof(Struct, frozen=True, kw_only=True):
    """A signature over `message` that speaks of the image. `where` names it for people. `identity` is the reference
    that was signed for, empty where the kind has none. `predicate_type` is that of an attestation, empty for a
    signature."""

    where: str
    message: bytes
    signatures: tuple[bytes, ...]
    identity: str = ""
    predicate_type: str = ""
    predicate: Mapping[str, Any] = field(default_factory=dict)

    def signed_by(self, key: PublicKey) -> bool:
        return any(key.verifies(self.message, signature) for signature in self.signatures)


class Proofs(Struct, frozen=True):
    """`found` speak of the image; `problems` say what was there and is no proof of anything."""

    found: tuple[Proof, ...] = ()
    problems: tuple[str, ...] = ()


class NoProof(ValueError):
    """Why something isn't a proof."""


def read_proofs(source: Source, image: Descriptor, *, attestations: bool) -> Proofs:
    """Reads all that is attached to an image. Raises what the store raises, but for what isn't there: a signature that
    can't be read isn't one that is missing."""
    found: list[Proof] = []
    problems: list[str] = []
    for where, layer in _layers(source, image, attestations=attestations):
        if len(found) + len(problems) >= MOST:
            problems.append(f"more than {MOST} signatures are attached, and the others weren't looked at")
            break
        limit = PAYLOAD_LIMIT if layer.media_type == SIMPLE_SIGNING else ENVELOPE_LIMIT
        try:
            if layer.size > limit:
                raise NoProof(f"it has {layer.size} bytes, and {limit} are the limit")  # noqa: TRY301 - told below
            data = b"".join(source.read_blob(layer))
            found.append(_proof(where, layer, data, image.digest))
        except (NoProof, NotFound) as error:
            problems.append(f"{where}: {error}")
    return Proofs(tuple(found), tuple(problems))


def _layers(source: Source, image: Descriptor, *, attestations: bool) -> Iterator[tuple[str, Descriptor]]:
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
        if not referrer.artifact_type.startswith(BUNDLE):
            continue
        try:
            manifest = source.get_manifest(referrer.digest)
        except NotFound:
            continue
        if manifest.subject is None or manifest.subject.digest != image.digest:
            continue
        for layer in manifest.layers:
            if layer.media_type.startswith(BUNDLE):
                yield f"bundle {referrer.digest[:19]}", layer


def _proof(where: str, layer: Descriptor, data: bytes, image: Digest) -> Proof:
    if layer.media_type == SIMPLE_SIGNING:
        return _simple(where, data, _base64(layer.annotations.get(SIGNATURE)), image)
    body = _json(data)
    if layer.media_type == DSSE:
        return _envelope(where, body, image)
    if "dsseEnvelope" in body:
        return _envelope(where, _object(body["dsseEnvelope"], "dsseEnvelope"), image)
    raise NoProof("the bundle has no DSSE envelope")


def _simple(where: str, payload: bytes, signature: bytes, image: Digest) -> Proof:
    """Of cosign's SIGNATURE_SPEC; strict, as containers/image is: nothing critical may be unknown."""
    critical = _object(_json(payload).get("critical"), "critical")
    if set(critical) != {"identity", "image", "type"} or critical["type"] != SIGNATURE_TYPE:
        raise NoProof("what it says under `critical` isn't that of a signature of cosign")
    signed = _object(critical["image"], "image").get("docker-manifest-digest")
    if signed != image:
        raise NoProof(f"it is a signature of {str(signed)[:80]}")
    identity = _object(critical["identity"], "identity").get("docker-reference")
    if not isinstance(identity, str):
        raise NoProof("it names no docker-reference")
    return Proof(where=where, message=payload, signatures=(signature,), identity=identity)


def _envelope(where: str, envelope: Mapping[str, Any], image: Digest) -> Proof:
    """DSSE (its protocol.md) with an in-toto statement whose subjects name the image."""
    kind, payload = envelope.get("payloadType"), _base64(envelope.get("payload"))
    if kind != IN_TOTO:
        raise NoProof(f"the envelope holds {str(kind)[:80]!r}")
    listed = envelope.get("signatures")
    if not isinstance(listed, list) or not 0 < len(listed) <= MOST:
        raise NoProof("the envelope has no signatures, or too many")
    statement = _json(payload)
    if statement.get("_type") not in STATEMENTS:
        raise NoProof("the envelope holds no in-toto statement")
    algorithm, _, encoded = image.partition(":")
    subjects = statement.get("subject")
    digests = [one.get("digest") for one in subjects if isinstance(one, dict)] if isinstance(subjects, list) else []
    if not any(isinstance(one, dict) and one.get(algorithm) == encoded for one in digests):
        raise NoProof("its statement is about another image")
    predicate_type = statement.get("predicateType")
    if not isinstance(predicate_type, str):
        raise NoProof("its statement has no predicateType")
    predicate = statement.get("predicate")
    return Proof(
        where=where,
        message=b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(payload), payload),
        signatures=tuple(_base64(_object(one, "signature").get("sig")) for one in listed),
        predicate_type="" if predicate_type == SIGN_PREDICATE else predicate_type,
        predicate=predicate if isinstance(predicate, dict) else {},
    )


def _json(data: bytes) -> Mapping[str, Any]:
    """A key that stands twice may mean two things to two readers: it is refused."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        body = dict(pairs)
        if len(body) != len(pairs):
            raise NoProof("a key stands twice in it")
        return body

    try:
        body = json.loads(data, object_pairs_hook=once)
    except NoProof:
        raise
    except (ValueError, RecursionError) as error:
        raise NoProof("it isn't JSON") from error
    return _object(body, "document")


def _object(value: object, name: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise NoProof(f"its {name} is no object")
    return value


def _base64(value: object) -> bytes:
    if not isinstance(value, str):
        raise NoProof("a signature or payload is missing")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise NoProof("a signature or payload isn't base64") from error
