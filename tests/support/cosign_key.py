"""A private key as `cosign generate-key-pair` writes it, made of scrypt and NaCl alone: independent of the code under
test."""

from __future__ import annotations

import base64
import hashlib
import os

from cryptography.hazmat.primitives import serialization
from nacl.secret import SecretBox

from tests.support.content import compact
from tests.support.signing import Signer

COST = {"N": 1 << 10, "r": 8, "p": 1}
"""cosign takes N = 65536; less is enough to be read, and takes less time."""


def cosign_key(signer: Signer, password: str, kind: str = "SIGSTORE") -> bytes:
    der = signer.key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    salt, nonce = os.urandom(32), os.urandom(24)
    derived = hashlib.scrypt(password.encode(), salt=salt, n=COST["N"], r=COST["r"], p=COST["p"], dklen=32)
    body = compact(
        {
            "kdf": {"name": "scrypt", "params": COST, "salt": base64.b64encode(salt).decode()},
            "cipher": {"name": "nacl/secretbox", "nonce": base64.b64encode(nonce).decode()},
            "ciphertext": base64.b64encode(SecretBox(derived).encrypt(der, nonce).ciphertext).decode(),
        }
    )
    text = base64.b64encode(body).decode()
    lines = "\n".join(text[at : at + 64] for at in range(0, len(text), 64))
    return (
        f"-----BEGIN ENCRYPTED {kind} PRIVATE KEY-----\n{lines}\n-----END ENCRYPTED {kind} PRIVATE KEY-----\n".encode()
    )
