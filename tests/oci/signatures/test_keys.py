"""Private keys: which are read, and that what they sign holds for other programs."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from oci.errors import InvalidInput
from oci.signatures.keys import PASSWORD_VARIABLE, read_key, read_signing_key, read_signing_key_file
from tests.support.cosign_key import cosign_key
from tests.support.signing import Signer

PASSWORD = "correct horse"
MESSAGE = b"a message"
KINDS = ("p256", "p384", "p521", "rsa2048")


def encrypted(signer: Signer) -> bytes:
    found: bytes = signer.key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(PASSWORD.encode()),
    )
    return found


def openssl_accepts(public: bytes, signature: bytes, folder: Path) -> bool:
    for name, data in (("key.pub", public), ("signature", signature), ("message", MESSAGE)):
        (folder / name).write_bytes(data)
    command = ["openssl", "dgst", "-sha256", "-verify", "key.pub", "-signature", "signature", "message"]
    return subprocess.run(command, cwd=folder, capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("kind", KINDS)
def test_openssl_accepts_what_a_key_signs_and_of_a_digest_too(kind: str, tmp_path: Path) -> None:
    signer = Signer.make(kind)
    key = read_signing_key(signer.private(), "cosign.key")

    assert openssl_accepts(signer.public(), key.sign(MESSAGE), tmp_path)
    assert openssl_accepts(signer.public(), key.sign(hashlib.sha256(MESSAGE).digest(), is_digest=True), tmp_path)
    assert not openssl_accepts(Signer.make(kind).public(), key.sign(MESSAGE), tmp_path)
    assert key.sign(MESSAGE) == key.sign(MESSAGE)


@pytest.mark.parametrize("kind", [*KINDS, "ed25519"])
def test_the_public_half_holds_for_what_was_signed_elsewhere(kind: str) -> None:
    signer = Signer.make(kind)
    key = read_key(signer.public(), "cosign.pub")
    signature = signer.sign(MESSAGE)
    digest = hashlib.sha256(MESSAGE).digest()

    assert key.verifies(MESSAGE, signature)
    assert not key.verifies(MESSAGE + b".", signature)
    assert key.verifies(digest, signature, is_digest=True) == (kind != "ed25519")
    assert not key.verifies(hashlib.sha256(b"another").digest(), signature, is_digest=True)
    assert read_signing_key(signer.private(), "cosign.key").public.hint == key.hint


def test_ed25519_signs_messages_and_no_digests() -> None:
    signer = Signer.make("ed25519")
    key = read_signing_key(signer.private(), "cosign.key")

    assert key.public.verifies(MESSAGE, key.sign(MESSAGE))
    with pytest.raises(InvalidInput):
        key.sign(hashlib.sha256(MESSAGE).digest(), is_digest=True)


@pytest.mark.parametrize("form", ["cosign", "older cosign", "openssl"])
def test_an_encrypted_key_needs_its_password(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    signer = Signer.make()
    path = tmp_path / "cosign.key"
    kind = "SIGSTORE" if form == "cosign" else "COSIGN"
    path.write_bytes(encrypted(signer) if form == "openssl" else cosign_key(signer, PASSWORD, kind))
    monkeypatch.delenv(PASSWORD_VARIABLE, raising=False)

    for password in (None, "", "wrong"):
        with pytest.raises(InvalidInput) as refused:
            read_signing_key_file(str(path), password)
        assert PASSWORD_VARIABLE in refused.value.hint
        assert str(path) in refused.value.message

    monkeypatch.setenv(PASSWORD_VARIABLE, PASSWORD)
    key = read_signing_key_file(str(path))
    assert read_key(signer.public(), "cosign.pub").verifies(MESSAGE, key.sign(MESSAGE))
    assert PASSWORD not in repr(key)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        Signer.make().public(),
        Signer.make().private()[:100],
        cosign_key(Signer.make(), PASSWORD)[:200],
        b"-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\ne30=\n-----END ENCRYPTED SIGSTORE PRIVATE KEY-----\n",
        b"-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\nW10=\n-----END ENCRYPTED SIGSTORE PRIVATE KEY-----\n",
        cosign_key(Signer.make(), PASSWORD).replace(b"eyJ", b"AAA", 1),
        Signer.make("rsa1024").private(),
    ],
    ids=["empty", "word", "public", "cut", "cut-cosign", "no-fields", "a-list", "damaged", "short-rsa"],
)
def test_what_is_no_key_that_counts_is_refused_with_the_way_to_make_one(data: bytes) -> None:
    with pytest.raises(InvalidInput) as refused:
        read_signing_key(data, "cosign.key", PASSWORD)

    assert refused.value.hint


def test_a_key_that_asks_for_too_much_memory_is_refused() -> None:
    greedy = cosign_key(Signer.make(), PASSWORD)
    text = b"".join(greedy.splitlines()[1:-1])
    import base64

    body = base64.b64decode(text).replace(b'"N":1024', b'"N":1073741824')
    pem = b"\n".join((greedy.splitlines()[0], base64.b64encode(body), greedy.splitlines()[-1]))
    with pytest.raises(InvalidInput):
        read_signing_key(pem, "cosign.key", PASSWORD)
