"""Manifests and indexes as bytes, with the media type that the registry says."""

# ruff: noqa: E501 - a case is a line

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from oci.errors import InvalidManifest
from tests.hostile.case import ACCEPTED, Case, given
from tests.support.content import DOCKER_MANIFEST, OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST

DIGEST = "sha256:" + "a" * 64
CONFIG = {"mediaType": OCI_CONFIG, "digest": DIGEST, "size": 2}
LAYER = {"mediaType": OCI_LAYER, "digest": "sha256:" + "b" * 64, "size": 3}
CHILD = {"mediaType": OCI_MANIFEST, "digest": "sha256:" + "c" * 64, "size": 4}

BAD_DIGESTS: tuple[Any, ...] = (
    "", "sha256:", "sha256:" + "A" * 64, "sha256:" + "a" * 63, "sha256:" + "a" * 65, "md5:" + "a" * 32, "../../etc/passwd",
    "sha256:" + "a" * 64 + "\n", "sha256:" + "\uff41" * 64, "sha256:../" + "a" * 61, None, 7, ["x"], {"a": 1}, True,
)  # fmt: skip
BAD_SIZES: tuple[Any, ...] = (-1, 1.5, "3", None, True, 1 << 63, 10**400, [3])
BAD_TYPES: tuple[Any, ...] = ("\ud800", 7, ["a/b"], {"a": 1}, True)
STRANGE_TYPES = (None, "a/b\r\nX-Header: 1", "no type", "")


def manifest(**fields: Any) -> bytes:
    return _body({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": CONFIG, "layers": [LAYER]}, fields)


def index(**fields: Any) -> bytes:
    return _body({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [CHILD]}, fields)


def _body(base: Mapping[str, Any], fields: Mapping[str, Any]) -> bytes:
    return json.dumps({name: value for name, value in {**base, **fields}.items() if value is not ...}).encode()


def cases() -> Iterator[Case[tuple[bytes, str]]]:
    for name, raw, said, expected in (*_documents(), *_fields()):
        yield Case(name, given((raw, said)), expected)


def _documents() -> Iterator[tuple[str, bytes, str, Any]]:
    whole = {
        "nothing": b"",
        "null": b"null",
        "a list": b"[]",
        "a number": b"7",
        "a text": b'"x"',
        "HTML": b"<html></html>",
        "cut": manifest()[:-5],
        "two documents": manifest() * 2,
        "bytes that aren't UTF-8": manifest()[:-1] + b',"x":"\xff\xfe"}',
        "UTF-16": manifest().decode().encode("utf-16"),
        "100,000 levels": b'{"a":' * 100_000,
        "100,000 brackets": b"[" * 100_000,
        "a number of 100,000 digits": b'{"schemaVersion":' + b"9" * 100_000 + b"}",
        "NaN": b'{"schemaVersion":NaN}',
        "beyond the limit": manifest()[:-1] + b" " * (5 << 20) + b"}",
    }
    for name, raw in whole.items():
        yield name, raw, OCI_MANIFEST, InvalidManifest
    yield "a BOM before it", b"\xef\xbb\xbf" + manifest(), OCI_MANIFEST, InvalidManifest
    yield "white space around it", b" \n" + manifest() + b"\n ", OCI_MANIFEST, ACCEPTED
    yield "a key that comes twice", manifest()[:-1] + b',"schemaVersion":2}', OCI_MANIFEST, ACCEPTED
    yield "keys that nobody knows", manifest(extra={"deep": [1, 2]}), OCI_MANIFEST, ACCEPTED
    yield "an index said to be a manifest", index(mediaType=...), OCI_MANIFEST, InvalidManifest
    yield "a manifest said to be an index", manifest(mediaType=...), OCI_INDEX, InvalidManifest
    yield "both in one", manifest(manifests=[CHILD], mediaType=...), OCI_MANIFEST, InvalidManifest
    yield "two media types that disagree", manifest(), DOCKER_MANIFEST, ACCEPTED
    yield (
        "schema 1",
        b'{"schemaVersion":1,"fsLayers":[]}',
        "application/vnd.docker.distribution.manifest.v1+json",
        InvalidManifest,
    )
    yield "no media type anywhere", manifest(mediaType=...), "", ACCEPTED
    yield "text/plain", manifest(), "text/plain", ACCEPTED


def _fields() -> Iterator[tuple[str, bytes, str, Any]]:
    for digest in BAD_DIGESTS:
        yield (
            f"a layer with the digest {str(digest)[:74]!r} ({type(digest).__name__})",
            manifest(layers=[{**LAYER, "digest": digest}]),
            OCI_MANIFEST,
            InvalidManifest,
        )
    for digest in BAD_DIGESTS[:9]:
        yield (
            f"a child with the digest {str(digest)[:74]!r}",
            index(manifests=[{**CHILD, "digest": digest}]),
            OCI_INDEX,
            InvalidManifest,
        )
    for size in BAD_SIZES:
        yield (
            f"a layer with the size {str(size)[:20]} ({type(size).__name__})",
            manifest(layers=[{**LAYER, "size": size}]),
            OCI_MANIFEST,
            InvalidManifest,
        )
    for kind in BAD_TYPES:
        yield (
            f"a layer of the type {kind!r}",
            manifest(layers=[{**LAYER, "mediaType": kind}]),
            OCI_MANIFEST,
            InvalidManifest,
        )
    for kind in STRANGE_TYPES:
        yield f"a layer of the type {kind!r}", manifest(layers=[{**LAYER, "mediaType": kind}]), OCI_MANIFEST, ACCEPTED
    for kind in ("a/b\r\nX-Header: 1", "\ud800", "no type", 7):
        yield f"the media type {kind!r}", manifest(mediaType=kind), "", InvalidManifest
    for name, value in {"layers": {}, "config": [1], "annotations": [1], "subject": "x", "artifactType": 7}.items():
        yield f"{name} is {value!r}", manifest(**{name: value}), OCI_MANIFEST, InvalidManifest
    for name, value in {"manifests": "none", "annotations": {"a": 1}}.items():
        yield f"{name} of an index is {value!r}", index(**{name: value}), OCI_INDEX, InvalidManifest
    yield "a layer that is a text", manifest(layers=["x"]), OCI_MANIFEST, InvalidManifest
    yield "a layer of nothing with another digest", manifest(layers=[{**LAYER, "size": 0}]), OCI_MANIFEST, ACCEPTED
    yield "urls that are a text", manifest(layers=[{**LAYER, "urls": "http://x"}]), OCI_MANIFEST, InvalidManifest
    yield "one layer, 5,000 times", manifest(layers=[LAYER] * 5000), OCI_MANIFEST, ACCEPTED
    yield "50,000 children", index(manifests=[CHILD] * 20_000), OCI_INDEX, InvalidManifest
    yield "a platform that is a text", index(manifests=[{**CHILD, "platform": "linux"}]), OCI_INDEX, InvalidManifest
    yield "no layers", manifest(layers=[]), OCI_MANIFEST, ACCEPTED
    yield "layers are null", manifest(layers=None), OCI_MANIFEST, ACCEPTED
    yield "no config", manifest(config=...), OCI_MANIFEST, ACCEPTED
    yield "an empty object", b"{}", OCI_MANIFEST, ACCEPTED
