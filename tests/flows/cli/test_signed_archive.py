"""Archives that are signed: who may import what, from disk and from an object store, whole and in volumes."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from oci.signatures.keys import PASSWORD_VARIABLE
from tests.servers.seaweedfs import SeaweedFS
from tests.servers.strict_registry import StrictRegistry
from tests.support.command import Done, transship
from tests.support.content import image, noise
from tests.support.cosign_key import cosign_key
from tests.support.sealing import SUFFIX, blob_bundle, openssl_verifies
from tests.support.signing import SIGNER, STRANGER, Signer, envelope, statement

LAYER = noise(9001, 300_000)
CONTENT = image(901, layers=(LAYER, noise(9002, 200_000)))


@pytest.fixture
def archive(origin: StrictRegistry, keys: Path, tmp_path: Path) -> Path:
    """Signed."""
    path = tmp_path / "web.tar"
    done = export(origin, str(path), "--sign", str(keys / "own.key"))
    assert done.code == 0, done.err
    return path


def export(origin: StrictRegistry, to: str, *more: str, **environ: str) -> Done:
    return transship("copy", "-i", f"{origin.host}/shop/web:1.0", "--to-tar", to, *more, environ=environ)


def import_(destination: StrictRegistry, keys: Path, *archives: str, key: str = "own.pub", **environ: str) -> Done:
    named = [word for path in archives for word in ("--tar", path)]
    to = f"{destination.host}/mirror/web"
    return transship("copy", *named, "--to-repo", to, "--require-signature", str(keys / key), environ=environ)


def named(destination: StrictRegistry) -> list[str]:
    """Tags that people gave, of those that were pushed."""
    puts = (seen.path for seen in destination.requests() if seen.method == "PUT" and "/manifests/" in seen.path)
    return [path.rpartition("/")[2] for path in puts if "sha256" not in path]


def test_the_signature_is_one_that_openssl_and_cosign_verify(archive: Path, keys: Path, tmp_path: Path) -> None:
    """cosign's own check, `cosign verify-blob --key --bundle`, is of these fields (protobuf-specs, sigstore_bundle)."""
    data = archive.read_bytes()
    bundle = json.loads(Path(f"{archive}{SUFFIX}").read_bytes())

    signed = bundle["messageSignature"]
    assert bundle["mediaType"] == "application/vnd.dev.sigstore.bundle.v0.3+json"
    assert signed["messageDigest"]["algorithm"] == "SHA2_256"
    assert base64.b64decode(signed["messageDigest"]["digest"]) == hashlib.sha256(data).digest()
    assert openssl_verifies(keys / "own.pub", base64.b64decode(signed["signature"]), data, tmp_path)
    assert not openssl_verifies(keys / "strange.pub", base64.b64decode(signed["signature"]), data, tmp_path)
    assert bundle["verificationMaterial"]["publicKey"]["hint"]


def test_a_signed_archive_is_imported_and_verified(
    archive: Path, destination: StrictRegistry, keys: Path, tmp_path: Path
) -> None:
    done = import_(destination, keys, str(archive))
    verified = transship("archive", "verify", str(archive), "--key", str(keys / "own.pub"), "--json")
    by_another = transship("archive", "verify", str(archive), "--key", str(keys / "strange.pub"))

    assert (done.code, verified.code, by_another.code) == (0, 0, 1)
    assert named(destination) == ["1.0"]
    assert json.loads(verified.out)["Result"]["signed_by"] == str(keys / "own.pub")
    assert [path.name for path in tmp_path.glob("*.partial*")] == []


@pytest.mark.parametrize("kind", ["p256", "p384", "rsa2048"])
def test_a_signature_made_elsewhere_counts(
    origin: StrictRegistry, destination: StrictRegistry, keys: Path, tmp_path: Path, kind: str
) -> None:
    signer, path = Signer.make(kind), tmp_path / "web.tar"
    signer.write(keys / "elsewhere.pub")
    assert export(origin, str(path)).code == 0
    Path(f"{path}{SUFFIX}").write_bytes(blob_bundle(signer, path.read_bytes()))

    assert import_(destination, keys, str(path), key="elsewhere.pub").code == 0
    assert import_(destination, keys, str(path)).code == 1


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def in_a_blob(path: Path) -> None:
    flip(path, path.read_bytes().index(LAYER.data[1000:1100]))


def in_the_padding(path: Path) -> None:
    """A byte that no digest of a blob covers."""
    flip(path, path.stat().st_size - 1)


def in_the_description(path: Path) -> None:
    at = path.read_bytes().index(b"1.0")
    data = bytearray(path.read_bytes())
    data[at : at + 3] = b"9.9"
    path.write_bytes(data)


def at_the_end(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-512])


def longer(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0" * 512)


@pytest.mark.parametrize("change", [in_a_blob, in_the_padding, in_the_description, at_the_end, longer])
def test_an_archive_that_was_changed_gets_no_name(
    archive: Path, destination: StrictRegistry, keys: Path, change: Callable[[Path], None]
) -> None:
    change(archive)

    done = import_(destination, keys, str(archive))

    assert done.code in (1, 3)
    assert "Hint:" in done.err
    assert named(destination) == []
    verified = transship("archive", "verify", str(archive), "--key", str(keys / "own.pub"))
    assert verified.code == 1


BAD = {
    "missing": None,
    "empty": b"",
    "not JSON": b"nonsense",
    "a list": b"[]",
    "of a stranger": blob_bundle(STRANGER, b"whatever"),
    "of another file": blob_bundle(SIGNER, b"another file"),
    "no bundle": b'{"messageSignature": {}}',
    "an envelope": json.dumps(
        {
            "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
            "dsseEnvelope": envelope(SIGNER, statement(CONTENT.digest, "https://slsa.dev/provenance/v1")),
        }
    ).encode(),
    "another algorithm": blob_bundle(
        SIGNER,
        b"data",
        messageSignature={"messageDigest": {"algorithm": "SHA2_512", "digest": "AAAA"}, "signature": "AAAA"},
    ),
    "a key twice": b'{"mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json", "mediaType": "twice"}',
    "too long": b" " * (1 << 20) + b"{}",
}


@pytest.mark.parametrize("name", BAD)
def test_a_signature_that_does_not_hold_ends_it_with_a_next_step(
    archive: Path, destination: StrictRegistry, keys: Path, name: str
) -> None:
    beside, content = Path(f"{archive}{SUFFIX}"), BAD[name]
    beside.unlink() if content is None else beside.write_bytes(content)

    done = import_(destination, keys, str(archive))

    assert done.code == 1, done.err
    assert "Hint:" in done.err
    assert str(archive) in done.err
    assert named(destination) == []
    if name != "of another file":
        assert not [seen for seen in destination.requests() if seen.method in ("POST", "PUT", "PATCH")]


def test_each_volume_is_signed_and_none_can_be_exchanged(
    origin: StrictRegistry, destination: StrictRegistry, keys: Path, tmp_path: Path
) -> None:
    sign = ("--sign", str(keys / "own.key"), "--max-size", "400KiB")
    assert export(origin, str(tmp_path / "web.tar"), *sign).code == 0
    volumes = sorted(tmp_path.glob("web.vol*.tar"))
    assert len(volumes) > 1
    assert [path.name for path in sorted(tmp_path.glob(f"*{SUFFIX}"))] == [f"{path.name}{SUFFIX}" for path in volumes]

    assert import_(destination, keys, *map(str, volumes)).code == 0
    first, second = (Path(f"{path}{SUFFIX}") for path in volumes[:2])
    kept = second.read_bytes()
    shutil.copy(first, second)
    assert import_(destination, keys, *map(str, volumes)).code == 1
    second.write_bytes(kept)
    flip(volumes[1], volumes[1].stat().st_size - 1)
    assert import_(destination, keys, *map(str, volumes)).code == 1
    assert named(destination) == ["1.0"]


@pytest.mark.parametrize("password", ["right", "wrong", None])
def test_a_key_of_cosign_signs_with_its_password(
    origin: StrictRegistry, keys: Path, tmp_path: Path, password: str | None
) -> None:
    (keys / "cosign.key").write_bytes(cosign_key(SIGNER, "right"))
    environ = {PASSWORD_VARIABLE: password} if password else {}

    done = export(origin, str(tmp_path / "web.tar"), "--sign", str(keys / "cosign.key"), **environ)

    assert (tmp_path / f"web.tar{SUFFIX}").exists() == (password == "right")
    if password == "right":
        verified = transship("archive", "verify", str(tmp_path / "web.tar"), "--key", str(keys / "own.pub"))
        assert (done.code, verified.code) == (0, 0)
    else:
        assert done.code == 2
        assert PASSWORD_VARIABLE in done.err
        assert not (tmp_path / "web.tar").exists()


def test_an_archive_signed_twice_is_the_same_byte_for_byte(archive: Path, origin: StrictRegistry, keys: Path) -> None:
    before = archive.read_bytes(), Path(f"{archive}{SUFFIX}").read_bytes()
    assert export(origin, str(archive), "--sign", str(keys / "own.key")).code == 0

    assert (archive.read_bytes(), Path(f"{archive}{SUFFIX}").read_bytes()) == before


def test_a_key_that_cannot_sign_an_archive_is_refused_before_any_work(
    origin: StrictRegistry, keys: Path, tmp_path: Path
) -> None:
    (keys / "ed.key").write_bytes(Signer.make("ed25519").private())
    before = len(origin.requests())
    to = ("--to-repo", f"{origin.host}/copy")
    for more in (("--sign", str(keys / "ed.key")), ("--sign", str(keys / "own.pub")), ("--sign", "/no/such.key")):
        assert export(origin, str(tmp_path / "web.tar"), *more).code == 2
    nothing = transship("copy", "-i", f"{origin.host}/shop/web:1.0", *to, "--sign", str(keys / "own.key"))
    image_asked = transship(
        "copy", "-i", f"{origin.host}/shop/web:1.0", *to, "--require-signature", str(keys / "own.pub")
    )

    assert (nothing.code, image_asked.code) == (2, 2)
    assert len(origin.requests()) == before


def test_an_object_is_signed_and_asked_for_its_signature(
    object_store: SeaweedFS,
    origin: StrictRegistry,
    destination: StrictRegistry,
    keys: Path,
    s3_location: str,
    tmp_path: Path,
) -> None:
    store = object_store.environment
    assert export(origin, s3_location, "--sign", str(keys / "own.key"), **store).code == 0
    data, beside = object_store.get(s3_location), object_store.get(f"{s3_location}{SUFFIX}")
    signature = json.loads(beside)["messageSignature"]["signature"]
    assert openssl_verifies(keys / "own.pub", base64.b64decode(signature), data, tmp_path)

    assert import_(destination, keys, s3_location, **store).code == 0
    assert named(destination) == ["1.0"]
    object_store.put(s3_location, data[:-1] + b"\1")
    changed = import_(destination, keys, s3_location, **store)
    object_store.put(f"{s3_location}{SUFFIX}", blob_bundle(STRANGER, data))
    strange = import_(destination, keys, s3_location, **store)

    assert (changed.code, strange.code) == (1, 1)
    assert named(destination) == ["1.0"]
