"""Archives: both forms, each with one thing wrong."""

# ruff: noqa: E501 - a case is a line

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from oci.errors import IntegrityError, InvalidManifest, NotFound, TransshipError
from tests.hostile.case import ACCEPTED, Case
from tests.support.content import Content, digest_of, image, layer, tar_of
from tests.support.imgpkg_tarball import image as imgpkg_image

IMAGE = image(1, layers=(layer(2),))
LAYER = IMAGE.blobs[0]
OUT = "../../../admin/prod/manifests/latest"
DIGEST = "sha256:" + "a" * 64

CHANGES: Sequence[tuple[str, Any]] = (
    ("Tag", OUT), ("Tag", "a b"), ("Tag", "a\x1b[2J"), ("Tag", 7), ("Refs", "x"), ("Refs.0", "registry.example/../ab@" + DIGEST), ("Refs.0", 7),
    ("OrigRef", "https://x/y"), ("OrigRef", {}), ("Layers", {}), ("Layers", "x"), ("Layers.0", "x"), ("Layers.0.Digest", OUT),
    ("Layers.0.MediaType", 7), ("Layers.0.DiffID", "x"), ("Config", None), ("Config", []),
    ("Config.Raw", "{}"), ("Config.Raw", 7), ("Manifest", None), ("Manifest", "x"), ("Manifest.Digest", DIGEST), ("Manifest.Digest", 7), ("Manifest.Raw", "{}"),
    ("Manifest.Raw", ""), ("Manifest.Raw", "[" * 100_000), ("Manifest.Raw", None), ("Manifest.MediaType", "a/b\r\nX: 1"), ("Manifest.MediaType", 7),
)  # fmt: skip

UNUSED: Sequence[tuple[str, Any]] = (
    ("Refs", []), ("Refs", None), ("Layers", []), ("Layers.0.Digest", DIGEST), ("Layers.0.Digest", None), ("Layers.0.Size", -1), ("Layers.0.Size", "9"), ("Layers.0.Size", 1 << 52),
    ("Config.Digest", DIGEST), ("Labels", [1]), ("Labels", "x"),
)  # fmt: skip
"""The manifest's own bytes, which are hashed, say the same, and are believed."""


def element(key: str = "", value: Any = None) -> dict[str, Any]:
    made = imgpkg_image(IMAGE, "registry.example/shop", tag="1.0")
    if key:
        at: Any = made["Image"]
        *parents, last = key.split(".")
        for part in parents:
            at = at[int(part) if part.isdigit() else part]
        at[int(last) if last.isdigit() else last] = value
    return made


def imgpkg(key: str = "", value: Any = None) -> bytes:
    return written(element(key, value))


def written(made: Any) -> bytes:
    return tar_of(
        {
            "manifest.json": json.dumps([made]).encode(),
            f"{LAYER.descriptor()['digest'].replace(':', '-')}.tar.gz": LAYER.data,
        }
    )


def described(text: bytes) -> bytes:
    """An archive with any text as its manifest.json."""
    return tar_of({"manifest.json": text})


def layout(
    content: Content = IMAGE, *, without: str = "", replaced: Mapping[str, bytes] | None = None, **entry: Any
) -> bytes:
    listed = {"mediaType": content.media_type, "digest": content.digest, "size": len(content.raw), **entry}
    parts = {
        "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
        "index.json": json.dumps({"schemaVersion": 2, "manifests": [listed]}).encode(),
    }
    parts |= {
        f"blobs/sha256/{digest_of(data)[7:]}": data for data in (content.raw, *(blob.data for blob in content.blobs))
    }
    parts |= replaced or {}
    return tar_of({name: data for name, data in parts.items() if not without or without not in name})


def _links() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        info = tarfile.TarInfo("manifest.json")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(info)
    return stream.getvalue()


LISTED = f"blobs/sha256/{LAYER.descriptor()['digest'][7:]}"
MANIFEST = f"blobs/sha256/{IMAGE.hex}"
WHOLE: Mapping[str, tuple[Callable[[], bytes], type[TransshipError] | None]] = {
    "nothing": (lambda: b"", InvalidManifest),
    "a description twice": (lambda: tar_of({"manifest.json": json.dumps([element("Tag", "other")]).encode()}, behind=imgpkg()), InvalidManifest),
    "a description under another spelling": (lambda: tar_of({"./manifest.json": json.dumps([element("Tag", "other")]).encode()}, behind=imgpkg()), InvalidManifest),
    "a layer twice": (lambda: tar_of({f"{LAYER.descriptor()['digest'].replace(':', '-')}.tar.gz": b"other"}, behind=imgpkg()), ACCEPTED),
    "an index twice": (lambda: tar_of({"index.json": b"{}"}, behind=layout()), InvalidManifest),
    "zeros": (lambda: bytes(10_240), InvalidManifest),
    "text": (lambda: b"no archive at all\n" * 100, InvalidManifest),
    "gzip": (lambda: b"\x1f\x8b\x08" + bytes(1000), InvalidManifest),
    "a tar of something else": (lambda: tar_of({"readme": b"x"}), InvalidManifest),
    "a description that is a link": (_links, InvalidManifest),
    "a description of nothing": (lambda: described(b""), InvalidManifest),
    "a description that is null": (lambda: described(b"null"), InvalidManifest),
    "a description that is an object": (lambda: described(b"{}"), InvalidManifest),
    "a description of numbers": (lambda: described(b"[1,2]"), InvalidManifest),
    "a description of 100,000 levels": (lambda: described(b"[" * 100_000), InvalidManifest),
    "a description that is cut": (lambda: described(b'[{"Image":'), InvalidManifest),
    "no images": (lambda: described(b"[]"), ACCEPTED),
    "an element of neither kind": (lambda: described(b'[{"Image":null,"ImageIndex":null}]'), InvalidManifest),
    "an element of both kinds": (lambda: written(element() | {"ImageIndex": {}}), InvalidManifest),
    "cut in a layer": (lambda: imgpkg()[: imgpkg().index(LAYER.data) + 100], InvalidManifest),
    "a layer that is missing": (lambda: described(json.dumps([element()]).encode()), IntegrityError),
    "a name that is no digest": (lambda: tar_of({"manifest.json": json.dumps([element()]).encode(), "../../x.tar.gz": b"x"}), IntegrityError),
    "honest": (imgpkg, ACCEPTED),
    "an honest layout": (layout, ACCEPTED),
    "a layout without its mark": (lambda: layout(without="oci-layout"), InvalidManifest),
    "a layout without an index": (lambda: layout(without="index.json"), InvalidManifest),
    "a layout of a future version": (lambda: layout(replaced={"oci-layout": b'{"imageLayoutVersion":"9.0.0"}'}), ACCEPTED),
    "an index that is a list": (lambda: layout(replaced={"index.json": b"[]"}), InvalidManifest),
    "an index of 100,000 levels": (lambda: layout(replaced={"index.json": b'{"a":' * 100_000}), InvalidManifest),
    "a manifest that is missing": (lambda: layout(without=IMAGE.hex), NotFound),
    "a manifest with other bytes": (lambda: layout(replaced={MANIFEST: IMAGE.raw.replace(b"schema", b"Schema")}), IntegrityError),
    "a manifest of another length": (lambda: layout(replaced={MANIFEST: IMAGE.raw + b" "}), IntegrityError),
    "an index entry of a wrong digest": (lambda: layout(digest=OUT), InvalidManifest),
    "an index entry of a wrong size": (lambda: layout(size=1), ACCEPTED),
    "an index entry of size -1": (lambda: layout(size=-1), InvalidManifest),
    "an index entry of 2^62 bytes": (lambda: layout(size=1 << 62), InvalidManifest),
    "an index entry with a name that leads out": (lambda: layout(annotations={"org.opencontainers.image.ref.name": OUT}), InvalidManifest),
    "annotations that are a list": (lambda: layout(annotations=[1]), InvalidManifest),
}  # fmt: skip


def cases() -> Iterator[Case[bytes]]:
    for key, value in CHANGES:
        shown = repr(value)[:30]
        yield Case(f"{key} is {shown}", partial(imgpkg, key, value), InvalidManifest)
    for key, value in UNUSED:
        yield Case(f"{key} is {value!r}", partial(imgpkg, key, value), ACCEPTED)
    for name, (make, expected) in WHOLE.items():
        yield Case(name, make, expected)
    for note in (
        b"[1]",
        b"{}",
        b'{"version":99}',
        b'{"version":1,"volumes":1000000000000,"volume":1,"whole":"x"}',
        b"{" * 100_000,
        b"\xff",
    ):
        yield Case(f"a note {note[:30]!r}", partial(_with_note, note), InvalidManifest)


def _with_note(note: bytes) -> bytes:
    return tar_of({"transship.json": note}, behind=imgpkg())
