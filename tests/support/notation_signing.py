"""Signatures of Notary in JWS form, made with `cryptography` alone: independent of the code under test."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
from cryptography.hazmat.primitives.serialization import Encoding

from tests.support.content import Content

NOTATION = "application/vnd.cncf.notary.signature"
JWS = "application/jose+json"
PAYLOAD = "application/vnd.cncf.notary.payload.v1+json"
SCHEME = "io.cncf.notary.signingScheme"
EXPIRY = "io.cncf.notary.expiry"
_HASHES: dict[str, Any] = {"256": hashes.SHA256, "384": hashes.SHA384, "512": hashes.SHA512}


def b64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def compact(body: Any) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()


def sign(key: Any, algorithm: str, data: bytes) -> bytes:
    digest = _HASHES[algorithm[2:]]()
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(data, padding.PSS(padding.MGF1(digest), digest.digest_size), digest)
    numbers = utils.decode_dss_signature(key.sign(data, ec.ECDSA(digest)))
    size = (key.curve.key_size + 7) // 8
    return b"".join(number.to_bytes(size) for number in numbers)


def target_of(content: Content) -> dict[str, Any]:
    return {"targetArtifact": content.descriptor()}


def envelope(
    content: Content,
    key: Any,
    *chain: x509.Certificate,
    algorithm: str = "ES256",
    protected: Mapping[str, Any] | None = None,
    header: Mapping[str, Any] | None = None,
    payload: Any = None,
    expiry: datetime | None = None,
    stamp: Any = None,
) -> dict[str, Any]:
    """The envelope of `notation sign`. What is None in `protected` and `header` is taken out; `stamp` makes a response
    of RFC 3161 for the signature."""
    signed: dict[str, Any] = {
        "alg": algorithm,
        "cty": PAYLOAD,
        "crit": [SCHEME, *([EXPIRY] if expiry else [])],
        SCHEME: "notary.x509",
        "io.cncf.notary.signingTime": datetime.now(UTC).isoformat(timespec="seconds"),
        **({EXPIRY: expiry.isoformat(timespec="seconds")} if expiry else {}),
        **(protected or {}),
    }
    signed = {name: value for name, value in signed.items() if value is not None}
    parts = (b64url(compact(signed)), b64url(compact(payload if payload is not None else target_of(content))))
    signature = sign(key, algorithm, ".".join(parts).encode())
    unsigned: dict[str, Any] = {
        "x5c": [base64.b64encode(one.public_bytes(Encoding.DER)).decode() for one in chain],
        "io.cncf.notary.signingAgent": "tests/1",
        **(header or {}),
    }
    if stamp is not None:
        unsigned["io.cncf.notary.timestampSignature"] = base64.b64encode(token_of(stamp(signature))).decode()
    unsigned = {name: value for name, value in unsigned.items() if value is not None}
    return {"payload": parts[1], "protected": parts[0], "header": unsigned, "signature": b64url(signature)}


def token_of(response: bytes) -> bytes:
    """The token in a response of RFC 3161: what follows its status."""
    content = response[2 + (response[1] & 0x7F if response[1] & 0x80 else 0) :]
    return content[2 + content[1] :]
