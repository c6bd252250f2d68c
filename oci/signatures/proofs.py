"""What is attached to an image and may prove something: signatures of cosign, Sigstore bundles, attestations.

All of it is a stranger's word until a key verifies it. Amounts have bounds, and what doesn't parse is a problem that
the decision names, never a signature.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from oci.bundle import tagnames
from oci.descriptor import Descriptor
from oci.digest import Digest
from oci.errors import NotFound
from oci.signatures.bundle import (
    BUNDLE,
    DSSE,
    IN_TOTO,
    Envelope,
    NoProof,
    Proof,
    decode_base64,
    envelope_in,
    envelope_of,
    object_of,
    parse_object,
    this_type,
)
from oci.signatures.notation import COSE, JWS, NOTARY, read_envelope
from oci.store import Source

SIMPLE_SIGNING = "application/vnd.dev.cosign.simplesigning.v1+json"
SIGNATURE_TYPE = "cosign container image signature"
SIGNATURE = "dev.cosignproject.cosign/signature"
CERTIFICATE = "dev.sigstore.cosign/certificate"
"""The annotation in which cosign kept certificates before it wrote bundles."""

STATEMENTS = frozenset({"https://in-toto.io/Statement/v0.1", "https://in-toto.io/Statement/v1"})
SIGN_PREDICATE = "https://sigstore.dev/cosign/sign/v1"
"""The predicate of a bundle that is a signature and attests nothing else."""

PAYLOAD_LIMIT = 1 << 20
ENVELOPE_LIMIT = 32 << 20
"""Bytes of a signature's payload and of an envelope: SBOMs in attestations have megabytes."""

MOST = 200
"""Signatures of one image that are looked at."""


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
        envelope = read_envelope(layer.media_type, data, image)
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
