"""Keyless signatures: a certificate that lived for minutes and names who asked for it, and a transparency log that saw
what was signed. Verified without a network by the library `sigstore`, against a trusted root.

What the library demands is demanded here: a certificate that chains to the root and stands in a certificate log, a
proof of inclusion with a signed checkpoint, and a time from the log or a timestamp authority at which the certificate
was valid.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from oci.descriptor import parse_json
from oci.errors import InvalidInput
from oci.output import read_named
from oci.signatures.keys import certificate_digests
from oci.signatures.proofs import Evidence, NoProof, Proof, pae

if TYPE_CHECKING:
    from cryptography.x509 import Certificate
    from sigstore.models import Bundle
    from sigstore.verify import Verifier

ROOT_LIMIT = 4 << 20
EXTRA = "pip install 'transship[sigstore]'"

OLD_FORM = (
    "its certificate stands in annotations, with a promise of the log and no proof of inclusion, and that can't be "
    "verified offline; a bundle, as cosign 3 attaches it, has both"
)
"""Why what cosign wrote by default before its version 3 proves no identity (SIGNATURE_SPEC, "dev.sigstore.cosign")."""

# Extensions of Fulcio's certificates (its docs/oid-info.md): the issuer as bare text, and as a DER UTF8String; and
# names of users that are neither an e-mail address nor a URI.
_ISSUER = "1.3.6.1.4.1.57264.1.1"
_ISSUER_V2 = "1.3.6.1.4.1.57264.1.8"
_OTHER_NAME = "1.3.6.1.4.1.57264.1.7"

_PUBLIC_GOOD = "https%3A%2F%2Ftuf-repo-cdn.sigstore.dev"
_PARTS = {
    "certificateAuthorities": "certificate authority",
    "tlogs": "transparency log",
    "ctlogs": "certificate log",
    "timestampAuthorities": "timestamp authority",
}


class CertificateIdentity(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who a certificate of Fulcio must have been issued to: the issuer of the identity and its subject, each exactly or
    as a regular expression (RE2) for the whole text. It is a VerificationPolicy of the library."""

    issuer: str = ""
    issuer_matches: str = ""
    subject: str = ""
    subject_matches: str = ""

    def __post_init__(self) -> None:
        for name in ("issuer", "subject"):
            exact, pattern = getattr(self, name), getattr(self, f"{name}_matches")
            if bool(exact) == bool(pattern):
                raise ValueError(f"keyless: give one of {name} and {name}_matches")
            if pattern:
                expression(pattern)

    def verify(self, cert: Certificate) -> None:
        """Raises NoProof for a certificate that was issued to somebody else."""
        issuer, subject = _issued_to(cert)
        pairs = ((self.issuer, self.issuer_matches, issuer), (self.subject, self.subject_matches, subject))
        if not all(text == exact if exact else expression(pattern).fullmatch(text) for exact, pattern, text in pairs):
            raise NoProof(f"its certificate is that of {subject[:300]} of {issuer[:300]}")

    def __str__(self) -> str:
        return f"{self.subject or self.subject_matches} of {self.issuer or self.issuer_matches}"


class TrustedRoot(Struct, frozen=True, eq=False, kw_only=True):
    """A trusted root that was read. `newest` is when its newest key or certificate began to be valid; `over` are the
    kinds of services that it knows no valid one of any more."""

    name: str
    verifier: Verifier
    newest: datetime
    over: tuple[str, ...] = ()

    def freshness(self, now: datetime) -> str:
        text = f"trusted root: {self.name}, its newest key is {(now - self.newest).days} days old"
        return (
            f"{text}; it has no valid {' and no valid '.join(self.over)} any more: get a newer" if self.over else text
        )


class KeylessSigner(Struct, frozen=True, eq=False):
    """Proves by a certificate that was issued to an identity."""

    identity: CertificateIdentity
    root: TrustedRoot

    @property
    def name(self) -> str:
        return str(self.identity)

    fingerprint = name

    def evidence(self, proof: Proof) -> Evidence:
        """Verifies that the signer has made a proof, or raises NoProof."""
        if proof.annotated:
            raise NoProof(OLD_FORM)
        if not proof.bundle:
            raise NoProof("it has no certificate")
        from sigstore.models import Bundle  # noqa: PLC0415 - only for keyless signatures, and from an extra

        try:
            bundle = Bundle.from_json(proof.bundle)
            kind, payload = self.root.verifier.verify_dsse(bundle, self.identity)
            time = _verified_time(bundle)
        except NoProof:
            raise
        except Exception as error:  # the library's errors, and whatever its parsers raise for hostile bytes
            raise NoProof(" ".join(str(error).split())[:300] or type(error).__name__) from error
        if pae(kind, payload) != proof.message:
            raise NoProof("what the certificate has signed isn't what was read")
        return Evidence(time=time, digests=certificate_digests(bundle.signing_certificate))


@lru_cache(maxsize=256)
def expression(pattern: str) -> Any:
    """Returns an RE2 expression, for what a policy asks of a stranger's text. Raises ValueError."""
    import re2  # noqa: PLC0415 - only for conditions that have an expression

    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        raise ValueError(f"{pattern!r} is no regular expression") from error


def read_trusted_root(path: str) -> TrustedRoot:
    """Reads a trusted root from a file (trusted_root.json); without a path, that of Sigstore's public instance, which
    the library brings. Raises InvalidInput, also when the library isn't installed."""
    try:
        from sigstore import __version__  # noqa: PLC0415 - only for keyless signatures, and from an extra
        from sigstore.models import TrustedRoot as Root  # noqa: PLC0415
        from sigstore.verify import Verifier  # noqa: PLC0415
    except ImportError as error:
        raise InvalidInput(
            "a policy with `keyless` needs the extra sigstore, which isn't installed", hint=EXTRA
        ) from error
    name = path or f"that of sigstore {__version__} for the public instance"
    if not path:
        # ClientTrustConfig.production(offline=True) would copy it into the home folder, and take what is there.
        from importlib.resources import files  # noqa: PLC0415

        path = str(files("sigstore._store").joinpath(_PUBLIC_GOOD, "trusted_root.json"))
    data = read_named(path, "reading the trusted root", limit=ROOT_LIMIT, hint="name a trusted_root.json")
    try:
        newest, over = _validity(parse_json(data), datetime.now(UTC))
        return TrustedRoot(name=name, verifier=Verifier(trusted_root=Root.from_file(path)), newest=newest, over=over)
    except Exception as error:
        raise InvalidInput(
            f"{path}: it is no trusted root: {' '.join(str(error).split())[:300]}",
            hint="`cosign trusted-root create` and `gh attestation trusted-root` write it",
        ) from error


def _issued_to(certificate: Certificate) -> tuple[str, str]:
    """The issuer and the subject of an identity. Raises NoProof for a certificate that names several, or none."""
    from cryptography import x509  # noqa: PLC0415
    from cryptography.hazmat import asn1  # noqa: PLC0415

    values = {
        extension.oid.dotted_string: extension.value.value
        for extension in certificate.extensions
        if isinstance(extension.value, x509.UnrecognizedExtension)
    }
    issuers = {asn1.decode_der(str, values[_ISSUER_V2])} if _ISSUER_V2 in values else set()
    issuers |= {values[_ISSUER].decode()} if _ISSUER in values else set()
    names = list(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    if len(issuers) != 1 or len(names) != 1:
        raise NoProof("its certificate doesn't name one issuer and one subject")
    [issuer], [name] = issuers, names
    if isinstance(name, x509.OtherName) and name.type_id.dotted_string == _OTHER_NAME:
        return issuer, asn1.decode_der(str, name.value)
    if not isinstance(name, x509.RFC822Name | x509.UniformResourceIdentifier):
        raise NoProof("its certificate names a subject of another kind than a URI, an e-mail address or a user")
    return issuer, name.value


def _verified_time(bundle: Bundle) -> datetime | None:
    """The time that was verified with a bundle: the log's where it promised inclusion, or that of the only timestamp.
    Of several timestamps the library may have verified some."""
    material = parse_json(bundle.to_json())["verificationMaterial"]
    [entry] = material["tlogEntries"]
    if entry.get("inclusionPromise") and entry.get("integratedTime"):
        return datetime.fromtimestamp(int(entry["integratedTime"]), UTC)
    stamps = bundle.verification_material.timestamp_verification_data
    times = [response.tst_info.gen_time for response in stamps.rfc3161_timestamps] if stamps else []
    return times[0] if len(times) == 1 else None


def _validity(body: Any, now: datetime) -> tuple[datetime, tuple[str, ...]]:
    begun: list[datetime] = []
    over = []
    for part, name in _PARTS.items():
        periods = [
            service.get("validFor") or service.get("publicKey", {}).get("validFor", {})
            for service in body.get(part, [])
        ]
        begun += [datetime.fromisoformat(period["start"]) for period in periods if "start" in period]
        ends = [datetime.fromisoformat(period["end"]) if "end" in period else None for period in periods]
        if ends and all(end is not None and end < now for end in ends):
            over.append(name)
    return max(begun), tuple(over)
