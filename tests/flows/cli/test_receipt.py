"""Receipts: what they say, who signed them, where they are attached, and what `receipt verify` finds later."""

from __future__ import annotations

import base64
import hashlib
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from oci.errors import InvalidDocument, InvalidInput, NotSigned
from oci.manifest import CREATED
from oci.receipts.check import CHANGED_FILE, DAMAGED, LOST_FILE, LOST_IMAGE, LOST_TAG, REPLACED_TAG, find_receipt
from oci.receipts.receipt import Place, RelocationReceipt, Tool, read_receipt
from oci.receipts.record import Recorder
from oci.relocation.request import ReceiptOptions, RelocationRequest
from oci.signatures.keys import PASSWORD_VARIABLE, read_key_file
from oci.signatures.proofs import RECEIPT_TYPE
from tests.servers.docker_registry import DockerRegistry
from tests.servers.seaweedfs import SeaweedFS
from tests.servers.strict_registry import StrictRegistry
from tests.support.command import Done, transship
from tests.support.content import OCI_INDEX, OCI_MANIFEST, Blob, artifact, image, push
from tests.support.cosign_key import cosign_key
from tests.support.mirroring import session_of
from tests.support.sealing import signed_statement
from tests.support.shop import Shop, push_shop
from tests.support.signing import BUNDLE, SIGNER, Signer, attach, cosign_sign, envelope, statement

CONTENT = image(911)
EARLIER = "https://transship.dev/receipt/v1"
_ACCEPT = {"Accept": f"{OCI_MANIFEST}, {OCI_INDEX}"}


def copied(reference: str, to: str, keys: Path, receipt: Path, *more: str, **environ: str) -> Done:
    sign = ("--sign", str(keys / "own.key"))
    done = transship("copy", "-i", reference, "--to-repo", to, "--receipt", str(receipt), *sign, *more, environ=environ)
    assert done.code == 0, done.err
    return done


def checked(receipt: str, keys: Path, *more: str, key: str = "own.pub", **environ: str) -> tuple[int, dict[str, Any]]:
    done = transship("receipt", "verify", receipt, "--key", str(keys / key), "--json", *more, environ=environ)
    return done.code, json.loads(done.out)


def differences(document: dict[str, Any]) -> list[str]:
    return [one["kind"] for one in document["Result"]["differences"]]


def test_a_receipt_says_what_is_where_now_and_how_it_came_there(
    origin: StrictRegistry, destination: StrictRegistry, keys: Path, tmp_path: Path
) -> None:
    cosign_sign(origin.url, "shop/web", CONTENT, SIGNER, reference=f"{origin.host}/shop/web")
    (tmp_path / "policy.yaml").write_text(
        f'version: 1\ndefault: reject\nrules: [{{to: "*", keys: [{keys}/own.pub]}}]\n'
    )
    to, receipt = f"{destination.host}/mirror/web", tmp_path / "web.receipt.json"
    policy = ("--policy", str(tmp_path / "policy.yaml"))
    copied(f"{origin.host}/shop/web:1.0", to, keys, receipt, *policy, "--artifacts", "cosign", "--verify", "deep")

    found = signed_statement(receipt.read_bytes(), keys / "own.pub", tmp_path)

    digests = {f"{to}@sha256:{one['digest']['sha256']}": one["name"] for one in found["subject"]}
    assert all(name == reference for reference, name in digests.items())
    assert found["predicateType"] == RECEIPT_TYPE
    said = found["predicate"]
    assert f"{to}@{CONTENT.digest}" in digests
    assert said["source"] == {
        "kind": "image",
        "name": f"{origin.host}/shop/web:1.0",
        "digest": CONTENT.digest,
        "locations": [],
    }
    assert said["destination"]["name"] == to
    assert said["tags"]["1.0"] == CONTENT.digest
    assert {one["role"]: one["status"] for one in said["images"]} == {"root": "done", "signature": "done"}
    assert [one["accepted"] for one in said["policy"]["decisions"]] == [True]
    assert said["verification"]["mode"] == "deep"
    assert said["verification"]["bytes_hashed"] > 0
    assert said["parameters"]["artifacts"] == ["cosign"]
    assert (said["counts"]["copied"], said["counts"]["present"]) == (2, 0)
    assert said["run"]["id"]
    assert said["run"]["started"] <= said["run"]["finished"]


def test_a_receipt_without_a_key_is_a_bare_statement_that_proves_nothing(
    origin: StrictRegistry, destination: StrictRegistry, keys: Path, tmp_path: Path
) -> None:
    receipt = tmp_path / "web.receipt.json"
    to = ("--to-repo", f"{destination.host}/mirror/web")
    assert transship("copy", "-i", f"{origin.host}/shop/web:1.0", *to, "--receipt", str(receipt)).code == 0

    assert json.loads(receipt.read_bytes())["predicateType"] == RECEIPT_TYPE
    code, document = checked(str(receipt), keys)
    assert (code, document["Error"]["Kind"]) == (1, "NotSigned")
    assert transship("receipt", "verify", str(receipt)).code == 2


def delete(destination: StrictRegistry, path: str) -> None:
    assert httpx.delete(f"{destination.url}/v2/mirror/web/{path}").status_code in (200, 202)


def move_the_tag(destination: StrictRegistry) -> None:
    push(destination.url, "mirror/web", image(912), "1.0")


def lose_the_image(destination: StrictRegistry) -> None:
    delete(destination, f"manifests/{CONTENT.digest}")


def lose_the_tag(destination: StrictRegistry) -> None:
    delete(destination, "manifests/1.0")


def lose_a_blob(destination: StrictRegistry) -> None:
    delete(destination, f"blobs/{CONTENT.blobs[0].descriptor()['digest']}")


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda destination: None, []),
        (move_the_tag, [REPLACED_TAG]),
        (lose_the_tag, [LOST_TAG]),
        (lose_the_image, [LOST_IMAGE, LOST_TAG]),
        (lose_a_blob, [DAMAGED]),
    ],
)
@pytest.mark.parametrize("deep", [False, True])
def test_what_differs_at_the_destination_is_named(
    origin: StrictRegistry,
    destination: StrictRegistry,
    keys: Path,
    tmp_path: Path,
    change: Callable[[StrictRegistry], None],
    what: list[str],
    deep: bool,
) -> None:
    receipt = tmp_path / "web.receipt.json"
    copied(f"{origin.host}/shop/web:1.0", f"{destination.host}/mirror/web", keys, receipt)
    change(destination)

    code, document = checked(str(receipt), keys, *(["--deep"] if deep else []))

    assert differences(document) == what
    assert code == (4 if what else 0)
    if what == [REPLACED_TAG]:
        [one] = document["Result"]["differences"]
        assert (one["subject"], one["expected"]) == (f"{destination.host}/mirror/web:1.0", CONTENT.digest)
        assert one["actual"] == image(912).digest


def test_a_receipt_that_is_another_keys_or_was_changed_is_not_believed(
    origin: StrictRegistry, destination: StrictRegistry, keys: Path, tmp_path: Path
) -> None:
    receipt = tmp_path / "web.receipt.json"
    copied(f"{origin.host}/shop/web:1.0", f"{destination.host}/mirror/web", keys, receipt)
    good = json.loads(receipt.read_bytes())
    payload = base64.b64decode(good["dsseEnvelope"]["payload"])
    changed = base64.b64encode(payload.replace(b'"1.0"', b'"2.0"')).decode()

    assert checked(str(receipt), keys, key="strange.pub")[0] == 1
    forged = {**good, "dsseEnvelope": {**good["dsseEnvelope"], "payload": changed}}
    cut = receipt.read_bytes()[:-40]
    other_statement = {**good, "dsseEnvelope": envelope(SIGNER, statement(CONTENT.digest, "https://example/other"))}
    other_type = {**good, "dsseEnvelope": envelope(SIGNER, payload, "text/plain")}
    other_subject = payload.replace(b'"sha256":"' + CONTENT.hex.encode(), b'"sha256":"' + b"0" * 64)
    unlike = {**good, "dsseEnvelope": envelope(SIGNER, other_subject)}
    for body in (forged, other_statement, other_type, unlike, {}, cut):
        receipt.write_bytes(body if isinstance(body, bytes) else json.dumps(body).encode())
        code, document = checked(str(receipt), keys)
        assert code == 1, body
        assert document["Error"]["Hint"]
    assert transship("receipt", "verify", str(tmp_path / "none.json"), "--key", str(keys / "own.pub")).code == 2
    assert checked(str(receipt), keys, key="none.pub")[0] == 2


def test_a_receipt_signed_elsewhere_is_believed_all_the_same(
    origin: StrictRegistry, destination: StrictRegistry, keys: Path, tmp_path: Path
) -> None:
    receipt = tmp_path / "web.receipt.json"
    to = ("--to-repo", f"{destination.host}/mirror/web")
    assert transship("copy", "-i", f"{origin.host}/shop/web:1.0", *to, "--receipt", str(receipt)).code == 0
    for signer in (Signer.make("ed25519"), Signer.make("rsa2048"), Signer.make("p384")):
        body = {"mediaType": BUNDLE, "dsseEnvelope": envelope(signer, receipt.read_bytes())}
        (tmp_path / "signed.json").write_text(json.dumps(body))
        signer.write(keys / "elsewhere.pub")

        assert checked(str(tmp_path / "signed.json"), keys, key="elsewhere.pub")[0] == 0


def attached(url: str, repository: str, digest: str, *, api: bool) -> list[dict[str, Any]]:
    with httpx.Client(base_url=f"{url}/v2/{repository}", headers=_ACCEPT) as http:
        listed = http.get(f"/referrers/{digest}" if api else f"/manifests/{digest.replace(':', '-')}").json()
        return [http.get(f"/manifests/{one['digest']}").json() for one in listed["manifests"]]


@pytest.mark.parametrize("api", [True, False])
def test_a_receipt_is_attached_to_the_root_beside_what_is_there(
    origin: StrictRegistry,
    destination: StrictRegistry,
    registry: DockerRegistry,
    repository: str,
    keys: Path,
    tmp_path: Path,
    api: bool,
) -> None:
    """The fallback tag is merged: what another client has attached stays listed."""
    url, host = (destination.url, destination.host) if api else (registry.url, registry.host)
    to, receipt = f"{host}/{repository}", tmp_path / "web.receipt.json"
    push(origin.url, "shop/web", artifact(913, artifact_type="application/spdx+json", subject=CONTENT))
    reference = f"{origin.host}/shop/web:1.0"
    for _ in range(2):
        copied(reference, to, keys, receipt, "--attach-receipt", "--artifacts", "referrers")

    found = attached(url, repository, CONTENT.digest, api=api)

    assert sorted(one["artifactType"] for one in found) == ["application/spdx+json", BUNDLE, BUNDLE]
    bundles = [one for one in found if one["artifactType"] == BUNDLE]
    assert {one["subject"]["digest"] for one in bundles} == {CONTENT.digest}
    assert {one["annotations"]["dev.sigstore.bundle.predicateType"] for one in bundles} == {RECEIPT_TYPE}
    layer = bundles[-1]["layers"][0]["digest"]
    data = httpx.get(f"{url}/v2/{repository}/blobs/{layer}").content
    said = signed_statement(data, keys / "own.pub", tmp_path)
    assert said["predicate"]["tags"]["1.0"] == CONTENT.digest

    code, document = checked(f"{to}:1.0", keys)
    assert (code, differences(document)) == (0, [])
    assert checked(f"{to}:1.0", keys, key="strange.pub")[0] == 1
    assert checked(f"{origin.host}/shop/web:1.0", keys)[0] == 1
    where = [{"field": "tool.name", "equals": "transship"}]
    attestation = {"type": RECEIPT_TYPE, "keys": [str(keys / "own.pub")], "where": where}
    rules = [{"to": "*", "attestations": [attestation]}]
    (tmp_path / "policy.yaml").write_text(json.dumps({"version": 1, "default": "reject", "rules": rules}))
    policy = ("--policy", str(tmp_path / "policy.yaml"))
    assert transship("policy", "check", f"{to}:1.0", *policy).code == 0
    assert transship("policy", "check", reference, *policy).code == 3


def test_what_cannot_be_attached_is_said_before_a_byte_moves(
    origin: StrictRegistry, destination: StrictRegistry, keys: Path, tmp_path: Path
) -> None:
    lock = tmp_path / "images.yml"
    named = f"{origin.host}/shop/web@{CONTENT.digest}"
    lock.write_text(f"apiVersion: imgpkg.carvel.dev/v1alpha1\nkind: ImagesLock\nimages: [{{image: {named}}}]\n")
    to, sign = ("--to-repo", f"{destination.host}/mirror/web"), ("--sign", str(keys / "own.key"))
    unsigned = transship("copy", "-i", named, *to, "--attach-receipt")
    no_root = transship("copy", "--lock", str(lock), *to, "--attach-receipt", *sign)
    archive = transship("copy", "-i", named, "--to-tar", str(tmp_path / "x.tar"), "--attach-receipt", *sign)
    docker = transship("copy", "-i", named, "--to-repo", f"docker-archive:{tmp_path}/x.tar", "--attach-receipt", *sign)

    assert (unsigned.code, no_root.code, archive.code, docker.code) == (2, 2, 2, 2)
    assert not [seen for seen in destination.requests() if seen.method in ("POST", "PUT")]
    assert not (tmp_path / "x.tar").exists()


def exported(shop: Shop, archive: str, keys: Path, receipt: Path, *more: str, **environ: str) -> None:
    sign = ("--receipt", str(receipt), "--sign", str(keys / "own.key"))
    done = transship("copy", "-b", shop.reference, "--to-tar", archive, *sign, *more, environ=environ)
    assert done.code == 0, done.err


def test_an_archive_has_a_statement_inside_and_a_receipt_beside(
    registry: DockerRegistry, keys: Path, tmp_path: Path
) -> None:
    shop = push_shop(registry.url, "receipts/shop", seed=95)
    archive, receipt = tmp_path / "shop.tar", tmp_path / "shop.receipt.json"
    exported(shop, str(archive), keys, receipt, "--verify", "deep")
    first = archive.read_bytes()
    exported(shop, str(archive), keys, receipt, "--verify", "deep")
    assert archive.read_bytes() == first

    with tarfile.open(archive) as tar:
        member = tar.extractfile("transship.json")
        assert member is not None
        inside = json.loads(member.read())["receipt"]
    beside = signed_statement(receipt.read_bytes(), keys / "own.pub", tmp_path)
    images = {one["digest"]["sha256"] for one in inside["subject"]}
    assert {one.hex for one in (shop.bundle, *shop.listed)} <= images
    assert inside["predicate"]["run"] is None
    assert images <= {one["digest"]["sha256"] for one in beside["subject"]}
    assert list(beside["predicate"]["files"]) == ["shop.tar"]
    assert beside["predicate"]["verification"]["mode"] == "deep"
    assert checked(str(receipt), keys)[0] == 0

    moved = tmp_path / "elsewhere.tar"
    archive.rename(moved)
    assert differences(checked(str(receipt), keys)[1]) == [LOST_FILE]
    assert checked(str(receipt), keys, "--at", str(moved), "--deep")[0] == 0
    data = bytearray(first)
    data[first.index(shop.web.blobs[0].data) + 5] ^= 1
    moved.write_bytes(data)
    code, document = checked(str(receipt), keys, "--at", str(moved))
    assert code == 4
    assert differences(document) == [CHANGED_FILE, DAMAGED]
    moved.write_bytes(first[:-1024])
    assert CHANGED_FILE in differences(checked(str(receipt), keys, "--at", str(moved))[1])


def test_volumes_in_an_object_store_are_received_one_by_one(
    registry: DockerRegistry, object_store: SeaweedFS, s3_location: str, keys: Path, tmp_path: Path
) -> None:
    shop, receipt = push_shop(registry.url, "receipts/shop", seed=95), tmp_path / "shop.receipt.json"
    environ = object_store.environment
    exported(shop, s3_location, keys, receipt, "--max-size", "40KiB", **environ)
    files = signed_statement(receipt.read_bytes(), keys / "own.pub", tmp_path)["predicate"]["files"]
    folder = s3_location.rpartition("/")[0]

    assert len(files) > 1
    assert checked(str(receipt), keys, **environ)[0] == 0
    last = f"{folder}/{list(files)[-1]}"
    object_store.put(last, object_store.get(last)[:-1] + b"\1")
    code, document = checked(str(receipt), keys, **environ)
    assert code == 4
    assert [one["subject"] for one in document["Result"]["differences"] if one["kind"] == CHANGED_FILE] == [
        list(files)[-1]
    ]
    back = [word for name in files for word in ("--tar", f"{folder}/{name}")]
    to = ("--to-repo", f"oci:{tmp_path}/back", "--require-signature", str(keys / "own.pub"))
    assert transship("copy", *back, *to, environ=environ).code == 1


def test_an_import_has_a_receipt_of_its_own(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str, keys: Path, tmp_path: Path
) -> None:
    shop = push_shop(registry.url, "receipts/shop", seed=95)
    archive, receipt = tmp_path / "shop.tar", tmp_path / "import.receipt.json"
    exported(shop, str(archive), keys, tmp_path / "export.receipt.json")
    (keys / "cosign.key").write_bytes(cosign_key(SIGNER, "secret"))
    to = ("--to-repo", f"{other_registry.host}/{repository}", "--require-signature", str(keys / "own.pub"))
    sign = ("--sign", str(keys / "cosign.key"), "--receipt", str(receipt), "--attach-receipt")
    done = transship("copy", "--tar", str(archive), *to, *sign, environ={PASSWORD_VARIABLE: "secret"})

    assert done.code == 0, done.err
    said = signed_statement(receipt.read_bytes(), keys / "own.pub", tmp_path)["predicate"]
    assert (said["source"]["kind"], said["source"]["digest"]) == ("archive", shop.bundle.digest)
    assert said["parameters"]["require_signature"] == str(keys / "own.pub")
    assert checked(str(receipt), keys, "--deep")[0] == 0
    assert checked(f"{other_registry.host}/{repository}:1.4.0", keys)[0] == 0


def test_a_copy_that_failed_leaves_no_receipt(origin: StrictRegistry, keys: Path, tmp_path: Path) -> None:
    receipt = tmp_path / "web.receipt.json"
    blob = CONTENT.blobs[0].descriptor()["digest"]
    assert httpx.delete(f"{origin.url}/v2/shop/web/blobs/{blob}").status_code == 202
    sign = ("--receipt", str(receipt), "--sign", str(keys / "own.key"))
    done = transship("copy", "-i", f"{origin.host}/shop/web:1.0", "--to-repo", f"oci:{tmp_path}/back", *sign)

    assert done.code in (1, 3)
    assert not receipt.exists()


@pytest.mark.parametrize("transport", ["docker-archive", "oci-archive"])
def test_an_archive_for_other_tools_is_signed_and_has_a_receipt(
    origin: StrictRegistry, destination: StrictRegistry, keys: Path, tmp_path: Path, transport: str
) -> None:
    archive, receipt = tmp_path / "web.tar", tmp_path / "web.receipt.json"
    copied(f"{origin.host}/shop/web:1.0", f"{transport}:{archive}", keys, receipt, "--sha256sums")

    said = signed_statement(receipt.read_bytes(), keys / "own.pub", tmp_path)
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    assert said["predicate"]["files"] == {"web.tar": digest}
    assert (tmp_path / "web.tar.SHA256SUMS").read_text() == f"{digest}  web.tar\n"
    assert said["predicate"]["destination"]["kind"] == ("archive" if transport == "oci-archive" else transport)
    assert checked(str(receipt), keys)[0] == 0
    to = ("--to-repo", f"{destination.host}/mirror/web", "--require-signature", str(keys / "own.pub"))
    assert transship("copy", "--tar", str(archive), *to).code == 0
    archive.write_bytes(archive.read_bytes()[:-1] + b"x")
    code, document = checked(str(receipt), keys)
    assert (code, differences(document)[0]) == (4, CHANGED_FILE)
    assert LOST_IMAGE not in differences(document)
    archive.unlink()
    assert differences(checked(str(receipt), keys)[1]) == [LOST_FILE]


def test_a_receipt_of_the_earlier_type_is_believed_and_found_where_it_is_attached(
    origin: StrictRegistry, destination: StrictRegistry, keys: Path, tmp_path: Path
) -> None:
    to, receipt = f"{destination.host}/mirror/web", tmp_path / "web.receipt.json"
    copied(f"{origin.host}/shop/web:1.0", to, keys, receipt)
    said = signed_statement(receipt.read_bytes(), keys / "own.pub", tmp_path)
    data = json.dumps({**said, "predicateType": EARLIER}).encode()
    body = json.dumps({"mediaType": BUNDLE, "dsseEnvelope": envelope(SIGNER, data)}).encode()
    receipt.write_bytes(body)
    annotations = {"dev.sigstore.bundle.predicateType": EARLIER}
    attach(destination.url, "mirror/web", CONTENT, Blob(BUNDLE, body), annotations=annotations)

    assert checked(str(receipt), keys)[0] == 0
    assert checked(f"{to}:1.0", keys)[0] == 0
    for kind in (EARLIER, RECEIPT_TYPE):
        rules = [{"to": "*", "attestations": [{"type": kind, "keys": [str(keys / "own.pub")]}]}]
        (tmp_path / "policy.yaml").write_text(json.dumps({"version": 1, "default": "reject", "rules": rules}))
        assert transship("policy", "check", f"{to}:1.0", "--policy", str(tmp_path / "policy.yaml")).code == 0
    other = json.dumps({**said, "predicateType": f"{EARLIER}0"}).encode()
    receipt.write_bytes(json.dumps({"mediaType": BUNDLE, "dsseEnvelope": envelope(SIGNER, other)}).encode())
    assert checked(str(receipt), keys)[0] == 1


@pytest.mark.parametrize(
    "change",
    [
        {"destination": {"kind": "nowhere", "name": "registry.corp.example/mirror/web"}},
        {"destination": {"kind": "archive"}},
        {"destination": {"kind": "repository", "name": "registry.corp.example/../admin"}},
        {"destination": {"kind": "repository", "name": "http://user:secret@registry.corp.example/web"}},
        {"destination": {"kind": 7, "name": ""}},
        {"tags": {"../../admin/manifests/latest": CONTENT.digest}},
        {"tags": {"1.0": "sha256:none"}},
        {"images": [], "tags": {}},
        {"images": {"digest": CONTENT.digest}},
    ],
)
def test_a_signed_receipt_that_says_what_no_copy_does_is_none(
    keys: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    predicate = {
        "tool": {},
        "source": {"kind": "image"},
        "destination": {"kind": "repository", "name": "127.0.0.1:1/mirror/web"},
        "images": [{"digest": CONTENT.digest, "source": "registry.example/web:1.0", "role": "root"}],
    }
    said = statement(CONTENT.digest, RECEIPT_TYPE, predicate | change)
    receipt = tmp_path / "web.receipt.json"
    receipt.write_bytes(json.dumps({"mediaType": BUNDLE, "dsseEnvelope": envelope(SIGNER, said)}).encode())

    with pytest.raises(InvalidDocument) as refused:
        read_receipt(receipt.read_bytes(), [read_key_file(str(keys / "own.pub"))], "web.receipt.json")

    assert "web.receipt.json: this is no receipt" in refused.value.message


@pytest.mark.parametrize(
    "form", [lambda good: good.decode().encode("utf-16"), lambda good: b"\xef\xbb\xbf" + good, lambda _: b"[" * 200_000]
)
def test_a_receipt_in_another_encoding_is_none(keys: Path, form: Callable[[bytes], bytes]) -> None:
    said = statement(CONTENT.digest, RECEIPT_TYPE, {})
    good = json.dumps({"mediaType": BUNDLE, "dsseEnvelope": envelope(SIGNER, said)}).encode()

    with pytest.raises(NotSigned, match="it isn't JSON"):
        read_receipt(form(good), [read_key_file(str(keys / "own.pub"))], "web.receipt.json")


def test_a_receipt_that_never_ends_is_read_up_to_its_limit(keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oci.receipts.receipt.RECEIPT_LIMIT", 1000)

    with pytest.raises(NotSigned, match="more than 1000 bytes"):
        read_receipt(b" " * 1001, [read_key_file(str(keys / "own.pub"))], "web.receipt.json")


def test_what_strangers_attach_hides_no_receipt_and_is_not_read_for_ever(
    origin: StrictRegistry, destination: StrictRegistry, keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    to = f"{destination.host}/mirror/web"
    copied(f"{origin.host}/shop/web:1.0", to, keys, tmp_path / "web.receipt.json", "--attach-receipt")
    for number, data in enumerate((b"no bundle", (tmp_path / "web.receipt.json").read_bytes()[:-9])):
        annotations = {"dev.sigstore.bundle.predicateType": RECEIPT_TYPE, CREATED: f"9999-01-0{number + 1}T00:00:00Z"}
        attach(destination.url, "mirror/web", CONTENT, Blob(BUNDLE, data), annotations=annotations)
    own = [read_key_file(str(keys / "own.pub"))]

    with session_of() as session:
        assert find_receipt(session, f"{to}:1.0", own).tags == {"1.0": CONTENT.digest}
    monkeypatch.setattr("oci.receipts.check.MOST", 2)
    with session_of() as session, pytest.raises(NotSigned):
        find_receipt(session, f"{to}:1.0", own)


@pytest.mark.parametrize("place", ["oci:{}/l\udcff", "archive:{}/a%FF.tar"])
def test_a_place_that_no_receipt_can_name_is_refused_before_the_copy(tmp_path: Path, place: str) -> None:
    place = place.format(tmp_path)
    with pytest.raises(InvalidInput, match="isn't UTF-8"):
        Recorder(ReceiptOptions(receipt=str(tmp_path / "r.json")), RelocationRequest(lock="shop.lock.yml", to=place))
    lock, layout = Place(kind="lock", name="l\udcff"), Place(kind="layout")
    named = RelocationReceipt(tool=Tool(), source=lock, destination=layout, images=())
    with pytest.raises(InvalidInput, match="isn't UTF-8"):
        named.render()

    assert not list(tmp_path.iterdir())
