"""Keys, as `cosign generate-key-pair` and openssl write them (PEM): public ones check a signature, private ones make
it, and the bundle of Sigstore around it (protobuf-specs, sigstore_bundle.proto)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field

from oci.descriptor import parse_json
from oci.errors import InvalidInput, NotSigned
from oci.output import read_named
from oci.signatures.proofs import (
    BUNDLE,
    BUNDLE_V03,
    Envelope,
    Evidence,
    NoProof,
    Proof,
    decode_base64,
    object_of,
    parse_object,
)

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

KEY_LIMIT = 64 << 10
"""Bytes of a file with a key: a few hundred in practice."""

PASSWORD_VARIABLE = "COSIGN_PASSWORD"  # noqa: S105 - the variable's name, which is cosign's
"""The environment variable with the password of an encrypted private key."""

_COSIGN_KEYS = (b"BEGIN ENCRYPTED SIGSTORE PRIVATE KEY", b"BEGIN ENCRYPTED COSIGN PRIVATE KEY")
_SHA256 = "SHA2_256"
_SCRYPT_MEMORY = 256 << 20
"""Bytes that deriving a key from a password may take: cosign's parameters ask for 64 MiB."""

_HOW_TO_SIGN = "ask for a signed archive: `copy --to-tar ... --sign KEY`"
_HOW_TO_MAKE = "make one: `cosign generate-key-pair`, or `openssl ecparam -genkey -name prime256v1 -noout`"


class PublicKey(Struct, frozen=True, eq=False):
    """`name` is where it was read from, `fingerprint` the SHA-256 of its DER form, in hex."""

    name: str
    fingerprint: str
    key: Any = field(default=None)

    @property
    def hint(self) -> str:
        """Returns what a Sigstore bundle calls the key by, as cosign does: the fingerprint in base64."""
        return base64.b64encode(bytes.fromhex(self.fingerprint)).decode()

    def verifies(self, message: bytes, signature: bytes, *, is_digest: bool = False) -> bool:
        """Whether the signature is one of this key over the message: ECDSA with the hash of its curve or SHA-256, which
        cosign takes for every curve; RSA with PKCS #1 v1.5 or PSS; Ed25519. With `is_digest`, only the message's
        SHA-256 is known; Ed25519 signs no digest: nothing is its then."""
        from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm  # noqa: PLC0415

        for scheme in _schemes(self.key, is_digest=is_digest):
            try:
                self.key.verify(signature, message, *scheme)
            except (InvalidSignature, UnsupportedAlgorithm, ValueError):
                continue
            return True
        return False

    def evidence(self, proof: Proof) -> Evidence:
        """Verifies that the key has made a proof, or raises NoProof. An envelope of Notary says when it expires and who
        may read it: its certificates alone prove it."""
        if proof.notation is not None or not any(self.verifies(proof.message, item) for item in proof.signatures):
            raise NoProof("the key hasn't signed it")
        return Evidence(digests=frozenset({f"sha256:{self.fingerprint}"}))


class PrivateKey(Struct, frozen=True, eq=False):
    """A private key with its public half."""

    public: PublicKey
    key: Any = field(default=None)

    def check_signs_digests(self) -> None:
        """Raises InvalidInput for an Ed25519 key: that kind hashes the message itself, twice."""
        from cryptography.hazmat.primitives.asymmetric import ed25519  # noqa: PLC0415

        if isinstance(self.key, ed25519.Ed25519PrivateKey):
            raise InvalidInput(
                f"{self.public.name}: an Ed25519 key signs no SHA-256, and an archive is signed by it",
                hint=f"take an ECDSA or RSA key for archives; {_HOW_TO_MAKE}",
            )

    def sign(self, message: bytes, *, is_digest: bool = False) -> bytes:
        """Signs with SHA-256 (RSA: PKCS #1 v1.5) or, with a key of that kind, Ed25519. The same message gives the same
        signature (RFC 6979), so that what is signed can be made again byte for byte. With `is_digest`, only the
        message's SHA-256 is known; raises InvalidInput for Ed25519 then."""
        from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415
        from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding  # noqa: PLC0415
        from cryptography.hazmat.primitives.asymmetric.utils import Prehashed  # noqa: PLC0415
        from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415

        if is_digest:
            self.check_signs_digests()
        kind: Any = Prehashed(SHA256()) if is_digest else SHA256()
        signature: bytes
        if isinstance(self.key, ed25519.Ed25519PrivateKey):
            signature = self.key.sign(message)
        elif isinstance(self.key, ec.EllipticCurvePrivateKey):
            try:
                signature = self.key.sign(message, ec.ECDSA(kind, deterministic_signing=True))
            except UnsupportedAlgorithm:  # an OpenSSL before 3.2
                signature = self.key.sign(message, ec.ECDSA(kind))
        else:
            signature = self.key.sign(message, padding.PKCS1v15(), kind)
        return signature


def read_key(data: bytes, name: str) -> PublicKey:
    """Raises InvalidInput for what is no public key in PEM, for a private one, and for a kind or a size that proves
    nothing any more: RSA below 2048 bits, DSA."""
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import load_pem_public_key  # noqa: PLC0415

    if b"PRIVATE KEY" in data[:KEY_LIMIT]:
        raise InvalidInput(f"{name}: this is a private key", hint="name the public one: cosign.pub")
    try:
        key = load_pem_public_key(data[:KEY_LIMIT])
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InvalidInput(
            f"{name}: no public key in PEM form", hint="`openssl pkey -pubin -in FILE` reads it"
        ) from error
    return _public(key, name)


def certificate_digests(certificate: Certificate) -> frozenset[str]:
    """What a policy may revoke a certificate by: the SHA-256 of its DER form, and that of its public key."""
    from cryptography.hazmat.primitives import serialization as forms  # noqa: PLC0415

    key = certificate.public_key().public_bytes(forms.Encoding.DER, forms.PublicFormat.SubjectPublicKeyInfo)
    whole = certificate.public_bytes(forms.Encoding.DER)
    return frozenset(f"sha256:{hashlib.sha256(data).hexdigest()}" for data in (whole, key))


def read_key_file(path: str) -> PublicKey:
    """As `read_key`. Raises InvalidInput also for a file that can't be read."""
    data = read_named(path, "reading the key", limit=KEY_LIMIT, hint="name the file of a public key")
    return read_key(data, path)


def read_signing_key(data: bytes, name: str, password: str | None = None) -> PrivateKey:
    """Reads a private key in PEM: PKCS #8 and openssl's older forms, plain or encrypted, and cosign's. Raises
    InvalidInput for anything else, for a password that is missing or wrong, and for a key of which nobody takes
    signatures."""
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import load_der_private_key, load_pem_private_key  # noqa: PLC0415

    data = data[:KEY_LIMIT]
    if b"PRIVATE KEY" not in data:
        raise InvalidInput(f"{name}: no private key in PEM form", hint=_HOW_TO_MAKE)
    secret = password.encode() if password is not None else None
    of_cosign = any(mark in data for mark in _COSIGN_KEYS)
    try:
        if of_cosign:
            key: Any = load_der_private_key(_opened(data, name, secret), None)
        else:
            encrypted = b"ENCRYPTED" in data
            if encrypted and not secret:
                raise _no_password(name)
            key = load_pem_private_key(data, secret if encrypted else None)
    except TypeError as error:
        raise _no_password(name) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        if not of_cosign and b"ENCRYPTED" in data:
            raise _wrong_password(name) from error
        raise InvalidInput(f"{name}: this private key can't be read", hint=_HOW_TO_MAKE) from error
    return PrivateKey(_public(key.public_key(), name), key)


def read_signing_key_file(path: str, password: str | None = None) -> PrivateKey:
    """As `read_signing_key`; the password comes from the environment where none is given."""
    if password is None:
        password = os.environ.get(PASSWORD_VARIABLE)
    data = read_named(path, "reading the key", limit=KEY_LIMIT, hint="name the file of a private key")
    return read_signing_key(data, path, password)


def render_bundle(envelope: Envelope, hint: str) -> bytes:
    """Returns the JSON of a bundle around an envelope that a key has signed; `hint` says which."""
    body = {
        "payload": _base64(envelope.payload),
        "payloadType": envelope.payload_type,
        "signatures": [{"sig": _base64(signature)} for signature in envelope.signatures],
    }
    return _bundle(hint, "dsseEnvelope", body)


def signature_of(sha256: str, key: PrivateKey) -> bytes:
    """Returns the bundle for a file with this SHA-256, in hex, as `cosign sign-blob --key` writes it. Raises
    InvalidInput for an Ed25519 key."""
    data = bytes.fromhex(sha256)
    digest = {"algorithm": _SHA256, "digest": _base64(data)}
    signature = _base64(key.sign(data, is_digest=True))
    return _bundle(key.public.hint, "messageSignature", {"messageDigest": digest, "signature": signature})


def signed_sha256(data: bytes, key: PublicKey, location: str) -> str:
    """Returns the SHA-256, in hex, of which such a bundle says that the key has signed it. Raises NotSigned where it
    hasn't; `location` is the file's."""
    operation, hint = "proving who signed it", f"name the key of its signer, or {_HOW_TO_SIGN}"
    try:
        sha256, signature = _message_signature(parse_object(data))
    except NoProof as error:
        message = f"the signature beside it can't be used: {error}"
        raise NotSigned(message, store=location, operation=operation, hint=_HOW_TO_SIGN) from error
    if not key.verifies(sha256, signature, is_digest=True):
        message = f"the signature beside it isn't one of {key.name}"
        raise NotSigned(message, store=location, operation=operation, hint=hint)
    return sha256.hex()


def _message_signature(body: Mapping[str, Any]) -> tuple[bytes, bytes]:
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


def _bundle(hint: str, name: str, content: Mapping[str, Any]) -> bytes:
    material = {"publicKey": {"hint": hint}, "tlogEntries": []}
    body = {"mediaType": BUNDLE_V03, "verificationMaterial": material, name: content}
    return json.dumps(body, separators=(",", ":")).encode()


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _public(key: Any, name: str) -> PublicKey:
    from cryptography.hazmat.primitives import serialization as forms  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa  # noqa: PLC0415

    weak = isinstance(key, rsa.RSAPublicKey) and key.key_size < 2048
    if weak or not isinstance(key, ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey):
        raise InvalidInput(f"{name}: a key of this kind proves nothing", hint="make one of ECDSA, Ed25519 or RSA 2048")
    der = key.public_bytes(forms.Encoding.DER, forms.PublicFormat.SubjectPublicKeyInfo)
    return PublicKey(name, hashlib.sha256(der).hexdigest(), key)


def _schemes(key: Any, *, is_digest: bool) -> Iterator[tuple[Any, ...]]:
    """Yields what follows the signature and the data in a call of `verify`, for each way that a key may have signed."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.utils import Prehashed  # noqa: PLC0415
    from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512  # noqa: PLC0415

    kind: Any = Prehashed(SHA256()) if is_digest else SHA256()
    if isinstance(key, ed25519.Ed25519PublicKey):
        yield from () if is_digest else ((),)
    elif isinstance(key, ec.EllipticCurvePublicKey):
        yield (ec.ECDSA(kind),)
        curve_hash: Any = {384: SHA384, 521: SHA512}.get(key.curve.key_size)
        if curve_hash is not None and not is_digest:
            yield (ec.ECDSA(curve_hash()),)
    else:
        yield (padding.PKCS1v15(), kind)
        yield (padding.PSS(padding.MGF1(SHA256()), padding.PSS.AUTO), kind)


def _opened(pem: bytes, name: str, password: bytes | None) -> bytes:
    """Returns the PKCS #8 form of a key that cosign has encrypted: scrypt, and the secret box of NaCl (sigstore,
    pkg/cryptoutils; theupdateframework/go-tuf, encrypted). Raises ValueError for another form."""
    try:
        from nacl.exceptions import CryptoError  # noqa: PLC0415 - an extra
        from nacl.secret import SecretBox  # noqa: PLC0415
    except ImportError as error:
        raise InvalidInput(
            f"{name}: keys that cosign has encrypted need PyNaCl, which isn't installed",
            hint="install transship[cosign], or name a key in a form of openssl's",
        ) from error
    if not password:
        raise _no_password(name)
    try:
        lines = [line for line in pem.decode().splitlines() if line and ":" not in line and not line.startswith("-")]
        body = parse_json(base64.b64decode("".join(lines)))
        kdf, cipher = body["kdf"], body["cipher"]
        if kdf["name"] != "scrypt" or cipher["name"] != "nacl/secretbox":
            raise ValueError("unknown names")
        cost = {name: int(kdf["params"][key]) for name, key in (("n", "N"), ("r", "r"), ("p", "p"))}
        salt, nonce, sealed = (base64.b64decode(text) for text in (kdf["salt"], cipher["nonce"], body["ciphertext"]))
        derived = hashlib.scrypt(password, salt=salt, dklen=32, maxmem=_SCRYPT_MEMORY, **cost)
        return bytes(SecretBox(derived).decrypt(sealed, nonce))
    except CryptoError as error:
        raise _wrong_password(name) from error
    except (KeyError, TypeError, AttributeError, RecursionError, binascii.Error) as error:
        raise ValueError("not cosign's form of a key") from error


def _no_password(name: str) -> InvalidInput:
    return InvalidInput(f"{name}: the key is encrypted", hint=f"put its password into {PASSWORD_VARIABLE}")


def _wrong_password(name: str) -> InvalidInput:
    return InvalidInput(
        f"{name}: the password is wrong, or the file is damaged",
        hint=f"put the password of this key into {PASSWORD_VARIABLE}",
    )
