"""Each parser by name: an honest document or two, and how it is called."""

# ruff: noqa: E501 - a line is a document

from __future__ import annotations

import base64
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

from cryptography.hazmat.primitives.asymmetric import ec

from oci.archive import docker_archive, index_json, manifest_json
from oci.archive.index import TransshipJson
from oci.archive.open import ByteReader, Stretch
from oci.bundle.image import is_bundle_config
from oci.bundle.lockfile import BundleLock, ImageLocations, ImagesLock
from oci.bundle.tagnames import NameRule
from oci.descriptor import Descriptor, Platform, json_object, parse_json
from oci.digest import Digest, digest_of, parse_digest
from oci.errors import TransshipError
from oci.export.s3_writer import _stored
from oci.files.decompress import decompressed
from oci.files.tar import Members
from oci.layout.index import described
from oci.manifest import artifact_manifest, parse_manifest
from oci.mirror.comparison import WorkItem
from oci.mirror.reader import parse_config
from oci.mirror.results import read_only
from oci.mirror.run_state import VERSION, DigestCache, _moment
from oci.prune.plan import PrunePlan
from oci.prune.policy import Keep
from oci.prune.survey import NOTE_TYPE, read_note
from oci.receipts.receipt import Place, ReceivedImage, RelocationReceipt, Tool, _read_statement
from oci.reference import parse_any, parse_store, parse_tag
from oci.registry.credentials.credential import parse_challenges
from oci.registry.credentials.keychains import _expiry
from oci.registry.credentials.tokens import read_token
from oci.registry.endpoints import BASE, GET_TAGS
from oci.registry.http import http1
from oci.registry.http.answer import Answer
from oci.registry.http.body import Headers, WireError
from oci.registry.http.errors import _explained, remaining_pulls, without_login
from oci.registry.http.origin import normal_host, split_url
from oci.registry.http.pace import retry_after
from oci.registry.http.transport import Transport
from oci.registry.manifests import _names, next_page
from oci.relocation.plan import Plan
from oci.signatures.inspect import read_config
from oci.signatures.keyless import CertificateIdentity, KeylessSigner, TrustedRoot, read_trusted_root
from oci.signatures.keys import read_key, signed_sha256
from oci.signatures.notation import NotationSigner
from oci.signatures.policy_file import _read
from oci.signatures.proofs import BUNDLE_V03, IN_TOTO, JWS, Envelope, NoProof, _proof
from oci.units import parse_duration, parse_size
from tests.hostile import archives, layers, locks, manifests, mirrors
from tests.support.content import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, Blob, image
from tests.support.deciding import public_good_bundle
from tests.support.notation_signing import envelope
from tests.support.plans import plan_of
from tests.support.sealing import blob_bundle
from tests.support.signing import Signer
from tests.support.sigstore_authority import Authority, named

NOW = datetime(2026, 11, 29, tzinfo=UTC)
PIECE = 4096


class Parser(NamedTuple):
    """`own` are the errors that it may raise beside ours, which its only caller turns into ours."""

    parse: Callable[[bytes], object]
    honest: Sequence[bytes]
    own: tuple[type[Exception], ...] = ()


def _docker(data: bytes, config: bytes) -> None:
    members = {"c.json": config, "l": layers.GOOD}

    def member(name: str) -> Stretch | None:
        found = members.get(name, b"")
        reader = SimpleNamespace(read=lambda offset, length: iter([found[offset : offset + length]]))
        return Stretch(cast(ByteReader, reader), 0, len(found)) if name in members else None

    docker_archive.parse(data, member)


def _written_as_docker(data: bytes) -> None:
    layer = Blob(OCI_LAYER, layers.PACKED)
    config = Blob(OCI_CONFIG, data)
    body = {"schemaVersion": 2, "config": config.descriptor(), "layers": [layer.descriptor()]}
    docker_archive._config_of(parse_manifest(json.dumps(body).encode(), OCI_MANIFEST), lambda _blob: iter([data]))


def _grace(data: bytes) -> None:
    note: Any = SimpleNamespace(
        name="registry.example/ab",
        get_manifest=lambda _tag: artifact_manifest(NOTE_TYPE, "application/json", data),
        read_blob=lambda _blob: iter([data]),
    )
    read_note(note)


def _facts(data: bytes) -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        cache = DigestCache(file.name)
    cache.age("registry.example/ab", Digest(locks.DIGEST), NOW)
    cache.attached_due("key", timedelta(1), NOW)
    cache.blob_locations()


def _tags(data: bytes) -> None:
    transport = SimpleNamespace(side="source", registry="a.example")
    transport.error = partial(Transport.error, cast(Transport, transport))
    _names(Answer(200, Headers(), data, ""), cast(Transport, transport), "ab", GET_TAGS)


def _text(parse: Callable[[str], object]) -> Callable[[bytes], object]:
    return lambda data: parse(data.decode("latin-1"))


def _members(data: bytes) -> None:
    pieces = iter([data[at : at + PIECE] for at in range(0, len(data), PIECE)])
    members = Members(pieces)
    for _ in members:
        for _ in members.data():
            pass


def _all(data: bytes) -> None:
    for _ in decompressed(iter([data])):
        pass


LOCK = f"{locks.HEAD}images:\n- image: registry.example/ab@{locks.DIGEST}\n  annotations: {{a: b}}\n".encode()
BUNDLE = f"{locks.BUNDLE}bundle:\n  image: registry.example/ab@{locks.DIGEST}\n  tag: '1.0'\n".encode()
LOCATIONS = f"apiVersion: imgpkg.carvel.dev/v1alpha1\nkind: ImageLocations\nimages:\n- image: registry.example/ab@{locks.DIGEST}\n  isBundle: false\n".encode()
PRUNE = PrunePlan(destination="registry.example/ab", keep=Keep(tags=("v1",)), grace=timedelta(0), made=NOW)
MANIFEST = manifests.manifest()
INDEX = json.dumps(
    {
        "schemaVersion": 2,
        "manifests": [
            {
                **manifests.CHILD,
                "digest": digest_of(MANIFEST),
                "size": len(MANIFEST),
                "platform": {"os": "linux", "architecture": "arm", "variant": "v7", "os.features": ["x"]},
            }
        ],
    }
).encode()

SIGNER = Signer.make()
KEY = read_key(SIGNER.public(), "cosign.pub")
RECEIPT = RelocationReceipt(
    tool=Tool(version="0.2.0"),
    source=Place(kind="image", name="registry.example/ab:v1", digest=locks.DIGEST),
    destination=Place(kind="repository", name="registry.example/cd"),
    images=(ReceivedImage(digest=locks.DIGEST, source="registry.example/ab:v1", role="root", tags=("v1",)),),
    tags={"v1": locks.DIGEST},
).render()


def _statement(data: bytes) -> None:
    _read_statement(Envelope(payload_type=IN_TOTO, payload=data, signatures=(b"",)), "shop.receipt.json")


# What a policy asks of signatures that strangers have attached.
ATTACHED = Descriptor(
    media_type=OCI_MANIFEST,
    digest=Digest("sha256:c9709ce6fd5b67b59b4a28758cf14d3f411803c4b89b6068b1f1a8e4ee94c8ef"),
    size=7,
)
IDENTITY = CertificateIdentity(issuer_matches=".*", subject_matches=".*")
NOTARY_ROOT = Authority("notary")


def _keyless(data: bytes) -> None:
    layer = Descriptor(media_type=BUNDLE_V03, digest=ATTACHED.digest, size=len(data))
    KeylessSigner(IDENTITY, _public_root()).evidence(_proof("bundle", layer, data, ATTACHED))


@cache
def _public_root() -> TrustedRoot:
    return read_trusted_root("")


def _notation(data: bytes, subject: tuple[tuple[str, str], ...] = ()) -> None:
    layer = Descriptor(media_type=JWS, digest=ATTACHED.digest, size=len(data))
    proof = _proof("notation", layer, data, ATTACHED)
    NotationSigner(name="", fingerprint="", anchors=(NOTARY_ROOT.certificate,), subject=subject).evidence(proof)


@cache
def _notary_envelope() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    chain = (NOTARY_ROOT.certify(key, named("shop")), NOTARY_ROOT.certificate)
    target = {"mediaType": ATTACHED.media_type, "digest": ATTACHED.digest, "size": ATTACHED.size}
    return json.dumps(envelope(image(1), key, *chain, payload={"targetArtifact": target})).encode()


DIFF_ID = digest_of(layers.GOOD)
CONFIG = json.dumps({"os": "linux", "config": {"Labels": {"a": "b"}}, "rootfs": {"diff_ids": [DIFF_ID]}}).encode()
DOCKER = b'[{"Config":"c.json","RepoTags":["web:1.0"],"Layers":["l"]}]'
ONE_LAYER = parse_manifest(manifests.manifest())
FACTS = {
    "version": VERSION,
    "facts": {
        "looked registry.example/ab": NOW.isoformat(),
        f"seen registry.example/ab@{locks.DIGEST}": NOW.isoformat(),
        "attached key": NOW.isoformat(),
        f"blob registry.example {locks.DIGEST}": "ab/cd",
    },
}
WORK = {
    "mirror": "m",
    "kind": "tags",
    "names": ["a:1"],
    "source": "registry.example/ab:1",
    "targets": [{"destination": "registry.example/cd", "tags": ["v1"]}],
}


def _certificate(data: bytes) -> None:
    """Of an envelope whose signature its key verifies: what a stranger may do with any certificate of their own."""
    body = json.loads(_notary_envelope())
    body["header"]["x5c"][0] = base64.b64encode(data).decode()
    _notation(json.dumps(body).encode(), (("CN", "shop"),))


CERTIFICATE = base64.b64decode(json.loads(_notary_envelope())["header"]["x5c"][0])
PARSERS: Mapping[str, Parser] = {
    "certificates of Notary": Parser(_certificate, (CERTIFICATE,), (NoProof,)),
    "docker archives": Parser(lambda data: _docker(data, CONFIG), (DOCKER,)),
    "configs in docker archives": Parser(lambda data: _docker(DOCKER, data), (CONFIG,)),
    "configs to be written for docker": Parser(_written_as_docker, (CONFIG,)),
    "configs that bundles have": Parser(is_bundle_config, (CONFIG,)),
    "configs that are shown": Parser(read_config, (CONFIG,)),
    "configs in archives that are written": Parser(ONE_LAYER.diff_ids, (CONFIG,)),
    "index.json of a layout": Parser(lambda data: json_object(data, "index.json"), (INDEX,)),
    "creation times": Parser(_text(_moment), (b"2026-11-29T10:00:00Z",)),
    "facts of earlier runs": Parser(_facts, (json.dumps(FACTS).encode(),)),
    "notes of grace periods": Parser(_grace, (json.dumps({"since": {locks.DIGEST: NOW.isoformat()}}).encode(),)),
    "items of work": Parser(lambda data: WorkItem.from_dict(parse_json(data)), (json.dumps(WORK).encode(),), (ValueError,)),
    "reports to run again": Parser(_text(lambda text: read_only(text, "x")), (b'{"only": ["a", "b"]}', b'{"mirrors": [{"only": ["a"]}]}')),
    "rules for names": Parser(_text(NameRule.parse), (b"*/web={name}-{tag}",)),
    "lists of tags": Parser(_tags, (b'{"name":"ab","tags":["v1"]}',)),
    "tokens": Parser(read_token, (b'{"token":"abc","expires_in":60}',), (ValueError,)),
    "tokens of Azure": Parser(_text(_expiry), (b"a.eyJleHAiOjE3MDAwMDAwMDB9.b",)),
    "bodies that show a login": Parser(lambda data: without_login(data, "Basic YTpwYXNzd29yZA=="), (b"you sent password",)),
    "parts that a store lists": Parser(_text(lambda text: _stored({"ChecksumCRC32": text, "ETag": text})), (b"AAAAAA==",)),
    "public keys": Parser(lambda data: read_key(data, "k"), (SIGNER.public(),)),
    "keyless bundles": Parser(_keyless, (public_good_bundle("pypi_attestation_models-0.0.4a2.tar.gz.sigstore"),), (NoProof,)),
    "envelopes of Notary": Parser(_notation, (_notary_envelope(),), (NoProof,)),
    "policies": Parser(lambda data: _read.__wrapped__("p.yaml", data, 0), (b'version: 1\ndefault: reject\nrules: [{to: "*", accept: true, minimum_age: 7d}]\n',)),
    "policy.json": Parser(lambda data: _read.__wrapped__("p.json", data, 0), (b'{"default":[{"type":"reject"}],"transports":{"docker":{"a.example":[{"type":"insecureAcceptAnything"}]}}}',)),
    "receipts": Parser(_statement, (RECEIPT,)),
    "signatures of archives": Parser(lambda data: signed_sha256(data, KEY, "shop.tar"), (blob_bundle(SIGNER, b"data"),)),
    "references": Parser(_text(parse_any), (b"registry.example:5000/shop/web:1.0", f"ab@{locks.DIGEST}".encode(), b"docker://ab")),
    "stores": Parser(_text(parse_store), (b"registry.example/ab", b"oci:/srv/x", b"archive:a.tar|b.tar", b"archive:s3://bucket/key")),
    "tags": Parser(_text(parse_tag), (b"v1.0_x-y",)),
    "digests": Parser(_text(parse_digest), (locks.DIGEST.encode(),)),
    "platforms": Parser(_text(Platform.parse), (b"linux/arm/v7",)),
    "hosts": Parser(_text(normal_host), (b"registry.example", b"127.0.0.1")),
    "URLs and Locations": Parser(_text(split_url), (b"https://registry.example:5000/v2/a/blobs/uploads/1?x=y#z", b"http://[::1]:80/x")),
    "sizes": Parser(_text(parse_size), (b"4GiB", b"1.5 MB"), (ValueError,)),
    "durations": Parser(_text(parse_duration), (b"7d", b"1h30m"), (ValueError,)),
    "images locks": Parser(lambda data: ImagesLock.from_yaml(data, "x"), (LOCK,)),
    "bundle locks": Parser(lambda data: BundleLock.from_yaml(data, "x"), (BUNDLE,)),
    "locations": Parser(lambda data: ImageLocations.from_yaml(data, "x"), (LOCATIONS,)),
    "mirrors.yaml": Parser(lambda data: parse_config(data, "x", {}), (mirrors.document("tags: [{semver: ['^1'], latest: 3, allow: ['a+']}]").encode(),)),
    "manifests of other kinds": Parser(lambda data: described(digest_of(data), "", data), (b'{"schemaVersion":1,"mediaType":"application/vnd.oci.artifact.manifest.v1+json"}',)),
    "manifests": Parser(parse_manifest, (manifests.manifest(), manifests.index())),
    "challenges": Parser(_text(parse_challenges), (b'Bearer realm="https://x/token",service="y",scope="a:b:pull", Basic realm=z', b"Negotiate abc==")),
    "Link": Parser(_text(lambda text: next_page(Answer(200, Headers(link=text), b"", ""), BASE)), (b'</v2/a/tags/list?n=1&last=x>; rel="next"; title="a,b"',)),
    "Retry-After": Parser(_text(lambda text: retry_after({"retry-after": text}, NOW)), (b"120", b"1.5, 3", b"Wed, 21 Oct 2026 07:28:00 GMT")),
    "quotas": Parser(_text(lambda text: remaining_pulls({"ratelimit-remaining": text})), (b"76;w=21600",)),
    "headers": Parser(_text(http1._parse), (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nX: y\r\n folded",), (WireError,)),
    "errors": Parser(lambda data: _explained(data, "text/html"), (b'{"errors":[{"code":"DENIED","message":"no"}]}', b"<html><script>x</script>no</html>")),
    "plans": Parser(_text(Plan.from_json), (plan_of((100, 2000)).to_json().encode(),)),
    "plans of a prune": Parser(_text(PrunePlan.from_json), (PRUNE.to_json().encode(),)),
    "manifest.json": Parser(lambda data: manifest_json.parse([data]), (json.dumps([archives.element()]).encode(),)),
    "index.json": Parser(lambda data: index_json.parse(data, lambda _digest, _size: MANIFEST), (INDEX,)),
    "transship.json": Parser(lambda data: TransshipJson.from_json(data, "x"), (b'{"version":1,"volume":1,"volumes":2,"whole":"' + b"0" * 64 + b'"}',)),
    "tar": Parser(_members, (layers.GOOD, layers.pax(b"12 path=abc\n"))),
    "gzip and zstd": Parser(_all, (layers.PACKED, layers.ZSTD)),
}  # fmt: skip

OURS = TransshipError
