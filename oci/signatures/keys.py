"""Public keys, as `cosign generate-key-pair` and openssl write them (PEM), and the check of one signature."""

from __future__ import annotations

import hashlib
from typing import Any

from msgspec import Struct, field

from oci.errors import InvalidInput

KEY_LIMIT = 64 << 10
"""Bytes of a file with a key: a few hundred in practice."""


class PublicKey(Struct, frozen=True, eq=False):
    """`name` is where it was read from, `fingerprint` the SHA-256 of its DER form, in hex."""

    name: str
    fingerprint: str
    key: Any = field(default=None)

    def verifies(self, message: bytes, signature: bytes) -> bool:
        """Whether the signature is one of this key over the message: ECDSA with the hash of its curve or SHA-256, which
        cosign takes for every curve; RSA with PKCS #1 v1.5 or PSS; Ed25519."""
        from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm  # noqa: PLC0415
        from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding  # noqa: PLC0415
        from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512  # noqa: PLC0415

        attempts: list[tuple[Any, ...]]
        if isinstance(self.key, ed25519.Ed25519PublicKey):
            attempts = [()]
        elif isinstance(self.key, ec.EllipticCurvePublicKey):
            own: Any = {384: SHA384, 521: SHA512}.get(self.key.curve.key_size, SHA256)
            attempts = [(ec.ECDSA(kind()),) for kind in dict.fromkeys((SHA256, own))]
        else:
            pss = padding.PSS(padding.MGF1(SHA256()), padding.PSS.AUTO)
            attempts = [(padding.PKCS1v15(), SHA256()), (pss, SHA256())]
        for arguments in attempts:
            try:
                self.key.verify(signature, message, *arguments)
            except (InvalidSignature, UnsupportedAlgorithm, ValueError):
                continue
            return True
        return False


def read_key(data: bytes, name: str) -> PublicKey:
    """Raises InvalidInput for what is no public key in PEM, for a private one, and for a kind or a size that proves
    nothing any more: RSA below 2048 bits, DSA."""
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415
    from cryptography.hazmat.primitives import serialization as forms  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa  # noqa: PLC0415

    if b"PRIVATE KEY" in data[:KEY_LIMIT]:
        raise InvalidInput(f"{name}: this is a private key", hint="name the public one: cosign.pub")
    try:
        key = forms.load_pem_public_key(data[:KEY_LIMIT])
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InvalidInput(
            f"{name}: no public key in PEM form", hint="`openssl pkey -pubin -in FILE` reads it"
        ) from error
    weak = isinstance(key, rsa.RSAPublicKey) and key.key_size < 2048
    if weak or not isinstance(key, ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey):
        raise InvalidInput(f"{name}: a key of this kind proves nothing", hint="make one of ECDSA, Ed25519 or RSA 2048")
    der = key.public_bytes(forms.Encoding.DER, forms.PublicFormat.SubjectPublicKeyInfo)
    return PublicKey(name, hashlib.sha256(der).hexdigest(), key)


def read_key_file(path: str) -> PublicKey:
    """As `read_key`. Raises InvalidInput also for a file that can't be read."""
    try:
        with open(path, "rb") as file:
            return read_key(file.read(KEY_LIMIT), path)
    except OSError as error:
        raise InvalidInput(f"{path}: {error.strerror}", hint="name the file of a public key") from error
