"""Signatures of files as `cosign sign-blob --key --bundle` writes them, and the proof of ours, by openssl and by hand:
independent of the code under test."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

from tests.support.content import compact
from tests.support.signing import BUNDLE, Signer

SUFFIX = ".sigstore.json"


def blob_bundle(signer: Signer, data: bytes, **more: Any) -> bytes:
    digest = base64.b64encode(hashlib.sha256(data).digest()).decode()
    body = {
        "mediaType": BUNDLE,
        "verificationMaterial": {"publicKey": {"hint": "somebody"}},
        "messageSignature": {
            "messageDigest": {"algorithm": "SHA2_256", "digest": digest},
            "signature": base64.b64encode(signer.sign(data)).decode(),
        },
        **more,
    }
    return compact(body)


def openssl_verifies(public: Path, signature: bytes, data: bytes, folder: Path) -> bool:
    (folder / "signature.bin").write_bytes(signature)
    (folder / "data.bin").write_bytes(data)
    command = ["openssl", "dgst", "-sha256", "-verify", str(public), "-signature", "signature.bin", "data.bin"]
    return subprocess.run(command, cwd=folder, capture_output=True, check=False).returncode == 0


def signed_statement(bundle: bytes, public: Path, folder: Path) -> dict[str, Any]:
    """The in-toto statement in a bundle, whose signature openssl has verified over a hand-made DSSE message."""
    envelope = json.loads(bundle)["dsseEnvelope"]
    payload, kind = base64.b64decode(envelope["payload"]), envelope["payloadType"].encode()
    message = b" ".join((b"DSSEv1", b"%d" % len(kind), kind, b"%d" % len(payload), payload))
    [signature] = envelope["signatures"]
    assert openssl_verifies(public, base64.b64decode(signature["sig"]), message, folder)
    found: dict[str, Any] = json.loads(payload)
    return found
