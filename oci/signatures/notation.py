"""Proof by a signature of Notary (notation), whose chain of X.509 certificates has to lead to a trust store.

Spec: notaryproject/specifications, "signature-specification" and "trust-store-trust-policy".
Certificates are verified without a network: whom no list of the policy revokes isn't revoked.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from oci.errors import InvalidInput
from oci.output import read_named
from oci.signatures.keys import certificate_digests
from oci.signatures.proofs import ALGORITHMS, MOST_CERTIFICATES, Evidence, NoProof, NotationEnvelope, Proof

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

_ATTRIBUTES = ("C", "ST", "L", "STREET", "O", "OU", "CN", "DC", "UID")
"""What a subject is made of (RFC 4514, 3)."""

FILE_LIMIT = 1 << 20


class NotationSigner(Struct, frozen=True, eq=False, kw_only=True):
    """Proves by a certificate that leads to one of `anchors` and has the `subject`."""

    name: str
    fingerprint: str
    anchors: tuple[Certificate, ...]
    subject: tuple[tuple[str, str], ...]
    timestamps: tuple[Certificate, ...] = ()

    def evidence(self, proof: Proof) -> Evidence:
        from cryptography import x509  # noqa: PLC0415 - only for signatures of Notary

        envelope, now, time = proof.notation, datetime.now(UTC), None
        if envelope is None:
            raise NoProof("it is no signature of Notary")
        try:
            chain = [x509.load_der_x509_certificate(data) for data in envelope.certificates]
            _verify_signature(envelope, chain[0])
            if envelope.expiry is not None and envelope.expiry <= now:
                raise NoProof(f"it has expired on {envelope.expiry:%Y-%m-%d}")  # noqa: TRY301 - as all other damage
            _check_usage(chain[0])
            for key, pattern in self.subject:
                named = (part for part in chain[0].subject if part.rfc4514_attribute_name == key)
                if any(fnmatchcase(str(part.value), pattern) for part in named):
                    continue
                raise NoProof(f"its certificate is that of {chain[0].subject.rfc4514_string()[:300]}")  # noqa: TRY301
            if envelope.timestamp and self.timestamps:
                time = _timestamped(envelope, self.timestamps)
            return Evidence(time=time, digests=_verify_chain(chain, self.anchors, time or now))
        except NoProof:
            raise
        except Exception as error:  # parts of it are parsed when they are asked for, and raise what they like
            raise NoProof(f"a certificate in it can't be read: {' '.join(str(error).split())[:200]}") from error


def read_trust_store(paths: Sequence[str], subject: str, timestamps: Sequence[str]) -> NotationSigner:
    """Reads certificates in PEM form and the attributes of a subject. Raises InvalidInput."""
    anchors = tuple(certificate for path in paths for certificate in _certificates(path))
    digests = " ".join(sorted(_revocable(anchors)))
    return NotationSigner(
        name=f"{subject} by {', '.join(paths)}",
        fingerprint=f"{subject} {digests}",
        anchors=anchors,
        subject=_attributes(subject),
        timestamps=tuple(certificate for path in timestamps for certificate in _certificates(path)),
    )


def _verify_signature(envelope: NotationEnvelope, certificate: Certificate) -> None:
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm  # noqa: PLC0415
    from cryptography.hazmat.primitives import hashes  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils  # noqa: PLC0415

    kind, size = envelope.algorithm[:2], ALGORITHMS[envelope.algorithm]
    digest = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}[envelope.algorithm[2:]]
    signature, half = envelope.signature, (size + 7) // 8
    try:
        key = certificate.public_key()
    except (UnsupportedAlgorithm, ValueError) as error:
        raise NoProof("the key of its certificate can't be read") from error
    try:
        if isinstance(key, rsa.RSAPublicKey) and (kind, key.key_size) == ("PS", size):
            pss = padding.PSS(padding.MGF1(digest), digest.digest_size)
            return key.verify(signature, envelope.message, pss, digest)
        if isinstance(key, ec.EllipticCurvePublicKey) and (kind, key.key_size, len(signature)) == (
            "ES",
            size,
            2 * half,
        ):
            pair = utils.encode_dss_signature(int.from_bytes(signature[:half]), int.from_bytes(signature[half:]))
            return key.verify(pair, envelope.message, ec.ECDSA(digest))
    except (InvalidSignature, ValueError) as error:
        raise NoProof("its certificate's key hasn't signed it") from error
    raise NoProof(f"the key of its certificate isn't one for {envelope.algorithm}")


def _check_usage(certificate: Certificate) -> None:
    """Checks what the certificate is for ("Certificate Requirements")."""
    from cryptography import x509  # noqa: PLC0415
    from cryptography.x509.oid import ExtendedKeyUsageOID  # noqa: PLC0415

    try:
        extensions = {extension.oid: extension for extension in certificate.extensions}
    except (ValueError, x509.DuplicateExtension) as error:
        raise NoProof("the extensions of its certificate can't be read") from error
    usage = extensions.get(x509.KeyUsage.oid)
    if usage is None or not usage.critical or not usage.value.digital_signature or usage.value.key_cert_sign:
        raise NoProof("its certificate isn't one for signatures")
    basic = extensions.get(x509.BasicConstraints.oid)
    if basic is not None and basic.value.ca:
        raise NoProof("its certificate is that of an authority")
    extended = extensions.get(x509.ExtendedKeyUsage.oid)
    if extended is not None:
        code = ExtendedKeyUsageOID
        unfit = {code.SERVER_AUTH, code.EMAIL_PROTECTION, code.TIME_STAMPING, code.ANY_EXTENDED_KEY_USAGE}
        if code.CODE_SIGNING not in extended.value or unfit & set(extended.value):
            raise NoProof("its certificate isn't one for signing code")


def _verify_chain(chain: Sequence[Certificate], anchors: Sequence[Certificate], at: datetime) -> frozenset[str]:
    """Verifies that the certificates lead to an anchor, and were valid `at` a time. Returns what each of them may be
    revoked by."""
    from cryptography import x509  # noqa: PLC0415
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415
    from cryptography.x509 import verification  # noqa: PLC0415

    leaf = chain[0]
    if len(chain) == 1 and leaf in anchors:  # it has signed itself, as `notation cert generate-test` makes
        try:
            leaf.verify_directly_issued_by(leaf)
        except (InvalidSignature, ValueError, TypeError) as error:
            raise NoProof("its certificate isn't signed by itself") from error
        if not leaf.not_valid_before_utc <= at <= leaf.not_valid_after_utc:
            raise NoProof(f"its certificate wasn't valid on {at:%Y-%m-%d}")
        return _revocable(chain)

    def authority(_policy: Any, _certificate: Any, basic: x509.BasicConstraints) -> None:
        if not basic.ca:
            raise ValueError("no authority")

    def issues(_policy: Any, _certificate: Any, usage: x509.KeyUsage) -> None:
        if not usage.key_cert_sign:
            raise ValueError("no certificates may be signed with it")

    every, must = verification.Criticality.AGNOSTIC, verification.Criticality.CRITICAL
    of_authorities = (
        verification.ExtensionPolicy.permit_all()
        .require_present(x509.BasicConstraints, must, authority)
        .require_present(x509.KeyUsage, every, issues)
    )
    builder = verification.PolicyBuilder().store(verification.Store(list(anchors))).time(at)
    builder = builder.max_chain_depth(MOST_CERTIFICATES).extension_policies(
        ca_policy=of_authorities, ee_policy=verification.ExtensionPolicy.permit_all()
    )
    try:
        verified = builder.build_client_verifier().verify(leaf, list(chain[1:])).chain
    except (verification.VerificationError, ValueError) as error:
        raise NoProof(f"its certificates lead to none of the trust store: {str(error)[:200]}") from error
    return _revocable(verified)


def _timestamped(envelope: NotationEnvelope, authorities: Sequence[Certificate]) -> datetime:
    """The time of a timestamp over the signature that leads to one of the authorities."""
    try:
        from rfc3161_client import VerifierBuilder, decode_timestamp_response  # noqa: PLC0415 - from an extra
    except ImportError as error:
        raise NoProof("its timestamp needs the extra sigstore: pip install 'transship[sigstore]'") from error
    # The token as the response that it came in (RFC 3161, 2.4.2): a sequence of the status 0 and the token.
    content = b"\x30\x03\x02\x01\x00" + envelope.timestamp
    size = len(content).to_bytes((len(content).bit_length() + 7) // 8)
    head = b"\x30" + (size if len(content) < 128 else bytes([0x80 | len(size)]) + size)
    try:
        response = decode_timestamp_response(head + content)
        VerifierBuilder(roots=list(authorities)).build().verify_message(response, envelope.signature)
        time: datetime = response.tst_info.gen_time
    except Exception as error:  # the library's errors, and whatever its parsers raise for hostile bytes
        raise NoProof(f"its timestamp isn't one of a trusted authority: {str(error)[:200]}") from error
    return time


def _certificates(path: str) -> list[Certificate]:
    from cryptography import x509  # noqa: PLC0415

    data = read_named(path, "reading certificates", limit=FILE_LIMIT, hint="name a file of certificates in PEM form")
    try:
        return x509.load_pem_x509_certificates(data)
    except ValueError as error:
        raise InvalidInput(f"{path}: no certificates in PEM form", hint="`openssl x509 -in FILE` reads them") from error


def _attributes(subject: str) -> tuple[tuple[str, str], ...]:
    """The attributes of a pattern; `*` alone asks for none. Commas in values have a backslash before them."""
    if subject.strip() == "*":
        return ()
    attributes = tuple(
        (key.strip(), value.strip().replace("\0", ","))
        for key, _, value in (part.partition("=") for part in subject.replace("\\,", "\0").split(","))
    )
    unknown = next((key for key, value in attributes if key not in _ATTRIBUTES or not value), None)
    if unknown is not None:
        raise InvalidInput(
            f"notation: {subject!r} is no list of {', '.join(_ATTRIBUTES)}: write C=US, O=corp, CN=release*, or *"
        )
    return attributes


def _revocable(chain: Sequence[Certificate]) -> frozenset[str]:
    return frozenset[str]().union(*map(certificate_digests, chain))
